# WebSocket frames of a client (RFC 6455 §5), as far as a load generator needs them.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove


cdef enum:
    HEAD_ROOM = 14                  # the longest head: what is kept free in front of a payload


cdef struct incoming_t:             # of one client
    uint64_t left                   # bytes of the frame under way that are to come
    uint8_t head[10]
    uint8_t head_size


cdef inline uint32_t put_head(uint8_t* payload, uint32_t size, const uint8_t* mask) noexcept nogil:
    # Masks *size* bytes and writes the head that ends where they begin; returns the head's size.
    cdef uint32_t narrow, i
    cdef uint64_t wide, word
    cdef uint8_t* head
    cdef uint32_t head_size = 6 if size < 126 else 8 if size < 0x10000 else 14
    memcpy(&narrow, mask, 4)
    wide = <uint64_t>narrow | <uint64_t>narrow << 32
    i = 0
    while size - i >= 8:
        memcpy(&word, payload + i, 8)
        word ^= wide
        memcpy(payload + i, &word, 8)
        i += 8
    while i < size:
        payload[i] ^= mask[i & 3]
        i += 1
    head = payload - head_size
    head[0] = 0x82                  # a whole binary message
    if head_size == 6:
        head[1] = <uint8_t>(0x80 | size)
    elif head_size == 8:
        head[1] = 0x80 | 126
        head[2] = <uint8_t>(size >> 8)
        head[3] = <uint8_t>size
    else:
        head[1] = 0x80 | 127
        for i in range(8):
            head[2 + i] = <uint8_t>(<uint64_t>size >> (56 - 8 * i))
    memcpy(payload - 4, mask, 4)
    return head_size


cdef inline Py_ssize_t unframe(incoming_t* ws, uint8_t* data, Py_ssize_t size, int* kind) noexcept nogil:
    # Takes the heads out of *data*, in place; returns the bytes of payload. -1: *kind* is a frame that brings none.
    cdef uint8_t* at = data
    cdef uint8_t* to = data
    cdef uint8_t* end = data + size
    cdef Py_ssize_t take
    cdef uint8_t need
    cdef int i
    while at < end:
        if ws.left:
            take = end - at if <uint64_t>(end - at) < ws.left else <Py_ssize_t>ws.left
            if to != at:
                memmove(to, at, take)
            to += take
            at += take
            ws.left -= take
            continue
        ws.head[ws.head_size] = at[0]
        ws.head_size += 1
        at += 1
        if ws.head_size < 2:
            continue
        need = 4 if ws.head[1] == 126 else 10 if ws.head[1] == 127 else 2
        if ws.head_size < need:
            continue
        kind[0] = ws.head[0]
        if kind[0] & 0x7F > 2 or ws.head[1] & 0x80:
            return -1
        ws.left = ws.head[1]
        if need > 2:
            ws.left = 0
            for i in range(2, need):
                ws.left = ws.left << 8 | ws.head[i]
        ws.head_size = 0
    return to - data
