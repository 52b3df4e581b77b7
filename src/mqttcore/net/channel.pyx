"""TLS of one connection without a socket; channel.pxd says how the BIOs are shared."""

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

import ssl


cdef object WantRead = ssl.SSLWantReadError
cdef object Failed = ssl.SSLError


cdef class TlsPipes:
    """The two memory BIOs that all channels of one broker share, and the buffer of plaintext behind them."""

    def __cinit__(self):
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.plain = <uint8_t*>malloc(PLAIN_SIZE)
        self.gathered = <uint8_t*>malloc(SEAL_SIZE)
        if self.plain == NULL or self.gathered == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.plain)
        free(self.gathered)

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies between two connections; always, between two calls."""
        return not self.incoming.pending and not self.outgoing.pending

    cdef int clear(self) except -1:
        # What one connection left behind must never reach another.
        self.incoming.read()
        self.outgoing.read()
        return 0


cdef class TlsChannel:
    """The server's end of one TLS connection. context: an ssl.SSLContext."""

    def __init__(self, pipes: TlsPipes, context: object) -> None:
        self.pipes = pipes
        self.wrapper = context.wrap_bio(pipes.incoming, pipes.outgoing, server_side=True)
        # The wrapper is a Python object with a dict, and each of its methods calls the one below.
        self.session = getattr(self.wrapper, "_sslobj", self.wrapper)

    cdef Py_ssize_t receive(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef Py_ssize_t got = 0
        if self.is_ended or size <= 0:
            return 0
        if size > CIPHER_SIZE:
            raise ValueError("too much ciphertext at once")
        try:
            self.pipes.incoming.write(PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ))
            if not self.is_open:
                try:
                    self.session.do_handshake()
                except WantRead:
                    pass
                else:
                    self.is_open = True
                    self.server_name = getattr(self.wrapper, "requested_name", None)
                    self.wrapper = None
            if self.is_open and self.pipes.incoming.pending:
                got = self.read_records()
        except Failed as error:
            self.fail(getattr(error, "verify_message", None) or error.reason or str(error))
        except BaseException:
            self.fail("internal error")
            self.pipes.clear()
            raise
        if self.pipes.incoming.pending:
            self.pipes.incoming.read()            # behind the peer's last record
        if self.pipes.outgoing.pending:
            self.answer = self.pipes.outgoing.read() if self.answer is None else self.answer + self.pipes.outgoing.read()
        return got

    cdef Py_ssize_t read_records(self) except -1:
        # All of it before any is handled: what handles it may use another channel.
        cdef Py_ssize_t got = 0
        cdef Py_ssize_t n
        while got < PLAIN_SIZE:
            try:
                n = self.session.read(
                    PLAIN_SIZE - got, PyMemoryView_FromMemory(<char*>self.pipes.plain + got, PLAIN_SIZE - got, PyBUF_WRITE)
                )
            except WantRead:
                return got                        # a torn record: its beginning is in the session
            except ssl.SSLZeroReturnError:
                n = 0
            except Failed as error:
                self.fail(error.reason or str(error))
                return got                        # what came before it was good
            if n == 0:
                self.is_ended = True
                return got
            got += n
            if not self.pipes.incoming.pending and not self.session.pending():
                return got
        return got

    cdef bytes seal(self, const uint8_t* data, Py_ssize_t size):
        cdef Py_ssize_t at = 0
        try:
            while at < size:                      # one record a turn
                at += self.session.write(PyMemoryView_FromMemory(<char*>data + at, size - at, PyBUF_READ))
        except BaseException:
            self.fail("cannot be written to")
            self.pipes.clear()
            raise
        return self.pipes.outgoing.read()

    cdef bytes farewell(self):
        cdef bytes said
        if self.is_open and self.fault is None:
            try:
                (getattr(self.session, "shutdown", None) or self.session.unwrap)()
            except Failed:
                pass                              # it also wants to hear the peer's, which we do not wait for
            except BaseException:
                self.pipes.clear()
                raise
        said = self.pipes.outgoing.read()
        self.is_ended = True
        return said

    cdef int fail(self, str text) except -1:
        self.is_ended = True
        self.fault = text.replace("_", " ").lower()
        return 0
