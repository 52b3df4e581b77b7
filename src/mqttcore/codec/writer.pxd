# A growing output buffer for packets made from Python objects. The packet path of the engine has its own.
#
# The first HEADER_ROOM bytes stay free for the fixed header, which is written last, when the size is known.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcpy

from mqttcore.codec.wire cimport MAX_VARINT, put_u16, put_u32, put_varint, varint_size

cdef enum:
    HEADER_ROOM = 5
    FIRST_CAPACITY = 256
    MAX_FIELD_SIZE = 65535          # of a string or Binary Data


# Owned by whoever called writer_open(), until writer_close().
cdef struct writer_t:
    uint8_t* data
    Py_ssize_t size                 # bytes written, HEADER_ROOM included
    Py_ssize_t capacity


cdef inline int writer_open(writer_t* out) except -1:
    out.data = <uint8_t*>malloc(FIRST_CAPACITY)
    if out.data == NULL:
        raise MemoryError
    out.size = HEADER_ROOM
    out.capacity = FIRST_CAPACITY
    return 0


cdef inline void writer_close(writer_t* out) noexcept:
    free(out.data)
    out.data = NULL


# Room for *size* more bytes; returns where they go and counts them as written.
cdef inline uint8_t* writer_take(writer_t* out, Py_ssize_t size) except NULL:
    cdef Py_ssize_t capacity = out.capacity
    cdef uint8_t* data
    if out.size + size > capacity:
        while capacity < out.size + size:
            capacity *= 2
        data = <uint8_t*>realloc(out.data, capacity)
        if data == NULL:
            raise MemoryError
        out.data = data
        out.capacity = capacity
    data = out.data + out.size
    out.size += size
    return data


cdef inline int write_u8(writer_t* out, uint8_t value) except -1:
    writer_take(out, 1)[0] = value
    return 0


cdef inline int write_u16(writer_t* out, uint16_t value) except -1:
    put_u16(writer_take(out, 2), value)
    return 0


cdef inline int write_u32(writer_t* out, uint32_t value) except -1:
    put_u32(writer_take(out, 4), value)
    return 0


cdef inline int write_varint(writer_t* out, uint32_t value) except -1:
    put_varint(writer_take(out, varint_size(value)), value)
    return 0


cdef inline int write_bytes(writer_t* out, const uint8_t* data, Py_ssize_t size) except -1:
    cdef uint8_t* at
    if size:
        at = writer_take(out, size)
        memcpy(at, data, size)
    return 0


# Binary Data with its length; ValueError when longer than 65,535 bytes.
cdef inline int write_binary(writer_t* out, bytes data, str what) except -1:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    if size > MAX_FIELD_SIZE:
        raise ValueError(f"{what} is longer than 65,535 bytes")
    write_u16(out, <uint16_t>size)
    return write_bytes(out, <const uint8_t*>PyBytes_AS_STRING(data), size)


# UTF-8 Encoded String with its length; ValueError when too long, with U+0000 or with a surrogate.
cdef inline int write_text(writer_t* out, str text, str what) except -1:
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    if size > MAX_FIELD_SIZE:
        raise ValueError(f"{what} is longer than 65,535 bytes in UTF-8")
    if memchr(data, 0, size) != NULL:
        raise ValueError(f"{what} holds U+0000")
    write_u16(out, <uint16_t>size)
    return write_bytes(out, <const uint8_t*>data, size)


# The whole packet: fixed header before what was written. ValueError when it cannot be expressed.
cdef inline bytes writer_packet(writer_t* out, uint8_t first):
    cdef Py_ssize_t body = out.size - HEADER_ROOM
    cdef Py_ssize_t start
    if body > MAX_VARINT:
        raise ValueError("packet is longer than 268,435,455 bytes")
    start = HEADER_ROOM - 1 - varint_size(<uint32_t>body)
    out.data[start] = first
    put_varint(out.data + start + 1, <uint32_t>body)
    return PyBytes_FromStringAndSize(<char*>out.data + start, out.size - start)
