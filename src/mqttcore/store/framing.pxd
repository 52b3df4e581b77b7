# How a record stands in a chunk of records: the one place that knows the frame. Bodies: records.py.
#
#   offset 0   u32   bytes of the whole record, this header included
#          4   u64   key: never used twice, ascending within a chunk and from chunk to chunk
#         12   u8    kind
#         13   body
#
# All numbers are little-endian.

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef enum:
    FORMAT_VERSION = 1
    FRAME_HEADER = 13


cdef enum:
    KIND_SESSION = 1
    KIND_SUBSCRIPTION = 2
    KIND_MESSAGE = 3
    KIND_ENTRY = 4
    KIND_RECEIVED = 5
    KIND_RETAINED = 6


cdef inline uint32_t load_u32(const uint8_t* p) noexcept nogil:
    return p[0] | <uint32_t>p[1] << 8 | <uint32_t>p[2] << 16 | <uint32_t>p[3] << 24


cdef inline uint64_t load_u64(const uint8_t* p) noexcept nogil:
    return load_u32(p) | <uint64_t>load_u32(p + 4) << 32


cdef inline void store_u32(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>value
    p[1] = <uint8_t>(value >> 8)
    p[2] = <uint8_t>(value >> 16)
    p[3] = <uint8_t>(value >> 24)


cdef inline void store_u64(uint8_t* p, uint64_t value) noexcept nogil:
    store_u32(p, <uint32_t>value)
    store_u32(p + 4, <uint32_t>(value >> 32))


# Bytes of the record at *at*, or 0 when the chunk ends before it does.
cdef inline Py_ssize_t frame_size(const uint8_t* data, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t found
    if size - at < FRAME_HEADER:
        return 0
    found = load_u32(data + at)
    return found if FRAME_HEADER <= found <= size - at else 0
