"""TLS for the load generator: `ssl` over memory BIOs that all clients share, empty between two calls."""

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t

from mqttcore.bench cimport linux

import os
import ssl

cdef enum:
    CIPHER_SIZE = 65536

cdef uint8_t[CIPHER_SIZE] cipher


cdef class TlsClient:
    """One client on the connected descriptor *fd*; bios: a pair of ssl.MemoryBIO."""

    def __init__(self, context: object, bios: tuple, fd: int) -> None:
        self.incoming, self.outgoing = bios
        session = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.session = getattr(session, "_sslobj", session)
        self.fd = fd
        self.shake()

    def shake(self) -> None:
        """Go on with the handshake."""
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            self.is_open = True
        self.take_sealed()
        self.send()

    def take_sealed(self) -> None:
        """Append what OpenSSL wants to be sent."""
        if self.outgoing.pending:
            self.unsent = self.outgoing.read() if self.unsent is None else self.unsent + self.outgoing.read()

    cdef Py_ssize_t receive(self, uint8_t* target, Py_ssize_t room) except? -3:
        cdef Py_ssize_t n = linux.recv(self.fd, cipher, min(<Py_ssize_t>CIPHER_SIZE, room - 16384), 0)
        cdef Py_ssize_t got = 0
        if n == 0:
            return RECORDS_CLOSED
        if n < 0:
            if errno == EAGAIN or errno == EINTR:
                return RECORDS_NONE
            raise OSError(errno, os.strerror(errno))
        self.incoming.write(PyMemoryView_FromMemory(<char*>cipher, n, PyBUF_READ))
        if not self.is_open:
            self.shake()
        if not self.is_open:
            return RECORDS_NONE
        try:
            while self.incoming.pending or self.session.pending():
                n = self.session.read(room - got, PyMemoryView_FromMemory(<char*>target + got, room - got, PyBUF_WRITE))
                if n == 0:
                    return got or RECORDS_CLOSED
                got += n
        except ssl.SSLWantReadError:
            pass
        return got or RECORDS_NONE

    cdef bint write(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t at = 0
        while at < size:
            at += self.session.write(PyMemoryView_FromMemory(<char*>data + at, size - at, PyBUF_READ))
        self.take_sealed()
        return self.send()

    cdef bint send(self) except -1:
        cdef Py_ssize_t n
        if self.unsent is None:
            return True
        n = linux.send(
            self.fd, PyBytes_AS_STRING(self.unsent) + self.unsent_at, PyBytes_GET_SIZE(self.unsent) - self.unsent_at,
            linux.MSG_NOSIGNAL,
        )
        if n < 0:
            if errno != EAGAIN and errno != EINTR:
                raise OSError(errno, os.strerror(errno))
            n = 0
        self.unsent_at += n
        if self.unsent_at < PyBytes_GET_SIZE(self.unsent):
            return False
        self.unsent = None
        self.unsent_at = 0
        return True
