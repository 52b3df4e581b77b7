# The client's end of one TLS connection of the load generator, over its own descriptor.

from libc.stdint cimport uint8_t


cdef enum:
    RECORDS_NONE = -1         # no plaintext yet
    RECORDS_CLOSED = -2


cdef class TlsClient:
    cdef object incoming
    cdef object outgoing
    cdef object session
    cdef bytes unsent
    cdef Py_ssize_t unsent_at
    cdef int fd
    cdef readonly bint is_open        # the handshake is done

    # Reads from the descriptor; bytes of plaintext put at *target*, or RECORDS_*. Raises OSError, ssl.SSLError.
    cdef Py_ssize_t receive(self, uint8_t* target, Py_ssize_t room) except? -3
    # Seals *size* bytes and writes; False: the rest waits for EPOLLOUT, then call send().
    cdef bint write(self, const uint8_t* data, Py_ssize_t size) except -1
    cdef bint send(self) except -1
