# Output of one connection: bytes in C memory, plus big payloads by reference.
#
#   data   [ written | start ... bytes ... end | free ... cap ]
#   refs   payloads that belong between two bytes of data; each holds a reference on its message
#
# Blocks come from a pool and go back when everything is written, so an idle connection holds none.

from libc.stdint cimport uint8_t, uint32_t

from mqttcore.engine.message cimport msg_t


cdef struct payload_ref_t:
    msg_t* message
    uint32_t at               # offset in data before which the payload goes
    uint32_t done             # bytes of the payload written already


cdef struct outbuf_t:
    uint8_t* data
    payload_ref_t* refs
    uint32_t start
    uint32_t end
    uint32_t cap
    uint32_t ref_start        # first ref that is not wholly written
    uint32_t ref_count
    uint32_t ref_cap
    uint32_t pending          # bytes not yet written, payloads included


cdef enum:
    PAYLOAD_BY_REFERENCE = 8192      # bytes from which on a payload is referenced instead of copied
    MAX_IOV = 64


cdef struct iov_t:            # laid out as POSIX struct iovec
    void* base
    size_t size


cdef int out_grow(outbuf_t* out, Py_ssize_t need) except -1
# Has a payload go behind the next *header* bytes, which are reserved and counted as written afterwards: on an exception
# there is neither.
cdef int out_add_payload(outbuf_t* out, msg_t* m, uint32_t header) except -1
# Fills *iov* with what is to be written next; returns the number of entries.
cdef int out_gather(outbuf_t* out, iov_t* iov, int limit) noexcept
# Takes *n* written bytes off; gives memory back when nothing is left.
cdef void out_consume(outbuf_t* out, size_t n) noexcept
cdef void out_clear(outbuf_t* out) noexcept
# Everything pending as one bytes object, and cleared; for tests and asyncio transports.
cdef bytes out_take(outbuf_t* out)


cdef inline uint8_t* out_reserve(outbuf_t* out, Py_ssize_t need) except NULL:
    # Room for *need* bytes at the end; the caller then adds what it wrote to end and pending.
    if out.cap - out.end < need:
        out_grow(out, need)
    return out.data + out.end


cdef inline void out_wrote(outbuf_t* out, Py_ssize_t n) noexcept:
    out.end += <uint32_t>n
    out.pending += <uint32_t>n
