# TLS of one connection without a socket: ciphertext in, plaintext out, and back.
#
# OpenSSL is reached through the `ssl` module's memory BIOs, so building needs no header of it and running no symbol.
# All channels of one broker share one pair of BIOs. Nothing lies in them between two calls: each call puts in what it has,
# lets OpenSSL take all of it (a torn record's beginning moves into the session's own buffer), and takes all out again. So a
# connection holds no BIO, a big read leaves no big buffer behind, and what cannot be emptied is cleared.

from libc.stdint cimport uint8_t


cdef enum:
    CIPHER_SIZE = 131072
    PLAIN_SIZE = 163840               # plaintext of CIPHER_SIZE bytes and of a record begun before
    SEAL_SIZE = 65536                 # plaintext sealed at once


cdef class TlsPipes:
    cdef object incoming              # ssl.MemoryBIO: ciphertext to OpenSSL
    cdef object outgoing              # ssl.MemoryBIO: ciphertext from OpenSSL
    cdef uint8_t* plain               # PLAIN_SIZE bytes, valid until the next call of any channel
    cdef uint8_t* gathered            # SEAL_SIZE bytes: plaintext put together to be sealed

    cdef int clear(self) except -1


cdef class TlsChannel:
    cdef TlsPipes pipes
    cdef object session               # what `ssl` works with: reads, writes, tells of the peer
    cdef object wrapper               # ssl.SSLObject until the handshake is done: the SNI callback wants it
    cdef readonly bint is_open        # the handshake is done
    cdef readonly bint is_ended       # the peer said that nothing follows, or it failed
    cdef readonly str server_name     # that the client asked for (SNI), or None
    cdef readonly str fault           # why it failed, or None

    cdef bytes answer                 # ciphertext to be sent besides what seal() gives: handshake, alert; None: nothing

    # Takes at most CIPHER_SIZE bytes of ciphertext; returns the bytes of plaintext now at pipes.plain. May set answer, and
    # at the end is_ended and fault: what a peer does wrong does not raise.
    cdef Py_ssize_t receive(self, const uint8_t* data, Py_ssize_t size) except -1
    # Returns the ciphertext of *size* bytes. Raises ssl.SSLError when the session is broken.
    cdef bytes seal(self, const uint8_t* data, Py_ssize_t size)
    # Returns what tells the peer that nothing follows; empty when there is nothing to be said.
    cdef bytes farewell(self)
    cdef Py_ssize_t read_records(self) except -1
    cdef int fail(self, str text) except -1
