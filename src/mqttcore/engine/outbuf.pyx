"""Output buffers of connections and the pool their blocks come from; outbuf.pxd shows the layout."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from mqttcore.engine.message cimport msg_payload, msg_ref, msg_unref


# Blocks of 4, 16, 64 and 256 KiB; each size keeps at most 8 MiB of free ones.
cdef enum:
    SIZES = 4

cdef struct free_block_t:
    free_block_t* next

cdef free_block_t* pool[SIZES]
cdef uint32_t pool_count[SIZES]


cdef inline int size_class(Py_ssize_t size) noexcept:
    if size <= 4096:
        return 0
    if size <= 16384:
        return 1
    if size <= 65536:
        return 2
    if size <= 262144:
        return 3
    return -1


cdef uint8_t* take_block(Py_ssize_t need, uint32_t* cap) except NULL:
    cdef int k = size_class(need)
    cdef free_block_t* block
    cdef uint8_t* made
    cdef Py_ssize_t size
    if k >= 0:
        size = <Py_ssize_t>4096 << (2 * k)
        block = pool[k]
        if block != NULL:
            pool[k] = block.next
            pool_count[k] -= 1
            cap[0] = <uint32_t>size
            return <uint8_t*>block
    else:
        size = (need + 65535) & ~<Py_ssize_t>65535
        if size > <Py_ssize_t>0xFFFF0000:
            raise MemoryError("output of one connection over 4 GiB")
    made = <uint8_t*>malloc(size)
    if made == NULL:
        raise MemoryError
    cap[0] = <uint32_t>size
    return made


cdef void give_block(uint8_t* data, uint32_t cap) noexcept:
    cdef int k = size_class(cap)
    cdef free_block_t* block
    if k < 0 or cap != <uint32_t>4096 << (2 * k) or pool_count[k] >= <uint32_t>2048 >> (2 * k):
        free(data)
        return
    block = <free_block_t*>data
    block.next = pool[k]
    pool[k] = block
    pool_count[k] += 1


cdef int out_grow(outbuf_t* out, Py_ssize_t need) except -1:
    cdef uint32_t used = out.end - out.start
    cdef uint32_t cap = 0
    cdef uint8_t* data
    cdef uint32_t i
    if out.data == NULL:
        out.data = take_block(need, &out.cap)
        out.start = out.end = 0
        return 0
    if out.start and out.cap - used >= need and used <= out.start:
        memcpy(out.data, out.data + out.start, used)
        data = out.data
    else:
        # Doubling keeps appends cheap; the high-water mark bounds how far this goes.
        data = take_block(max(<Py_ssize_t>used + need, <Py_ssize_t>used * 2), &cap)
        memcpy(data, out.data + out.start, used)
        give_block(out.data, out.cap)
        out.cap = cap
    for i in range(out.ref_start, out.ref_count):
        out.refs[i].at -= out.start
    out.data = data
    out.start = 0
    out.end = used
    return 0


cdef int out_add_payload(outbuf_t* out, msg_t* m, uint32_t header) except -1:
    cdef payload_ref_t* refs
    cdef uint32_t cap
    if out.ref_count == out.ref_cap:
        if out.ref_start:
            memmove(out.refs, out.refs + out.ref_start, sizeof(payload_ref_t) * (out.ref_count - out.ref_start))
            out.ref_count -= out.ref_start
            out.ref_start = 0
        else:
            cap = out.ref_cap * 2 if out.ref_cap else 4
            refs = <payload_ref_t*>realloc(out.refs, sizeof(payload_ref_t) * cap)
            if refs == NULL:
                raise MemoryError
            out.refs = refs
            out.ref_cap = cap
    out.refs[out.ref_count].message = msg_ref(m)
    out.refs[out.ref_count].at = out.end + header
    out.refs[out.ref_count].done = 0
    out.ref_count += 1
    out.pending += m.payload_size
    return 0


cdef int out_gather(outbuf_t* out, iov_t* iov, int limit) noexcept:
    cdef int n = 0
    cdef uint32_t at = out.start
    cdef uint32_t i
    cdef payload_ref_t* ref
    for i in range(out.ref_start, out.ref_count):
        ref = &out.refs[i]
        if n + 2 > limit:
            return n
        if ref.at > at:
            iov[n].base = out.data + at
            iov[n].size = ref.at - at
            n += 1
            at = ref.at
        iov[n].base = <void*>(msg_payload(ref.message) + ref.done)
        iov[n].size = ref.message.payload_size - ref.done
        n += 1
    if out.end > at and n < limit:
        iov[n].base = out.data + at
        iov[n].size = out.end - at
        n += 1
    return n


cdef void out_consume(outbuf_t* out, size_t n) noexcept:
    cdef payload_ref_t* ref
    cdef size_t part
    out.pending -= <uint32_t>n
    if out.pending == 0:
        out_clear(out)
        return
    while out.ref_start < out.ref_count:
        ref = &out.refs[out.ref_start]
        part = ref.at - out.start
        if n < part:
            out.start += <uint32_t>n
            return
        out.start = ref.at
        n -= part
        part = ref.message.payload_size - ref.done
        if n < part:
            ref.done += <uint32_t>n
            return
        n -= part
        msg_unref(ref.message)
        out.ref_start += 1
    out.start += <uint32_t>n


cdef void out_clear(outbuf_t* out) noexcept:
    cdef uint32_t i
    for i in range(out.ref_start, out.ref_count):
        msg_unref(out.refs[i].message)
    if out.refs != NULL:
        free(out.refs)
        out.refs = NULL
    out.ref_start = out.ref_count = out.ref_cap = 0
    if out.data != NULL:
        give_block(out.data, out.cap)
        out.data = NULL
    out.start = out.end = out.cap = out.pending = 0


cdef bytes out_take(outbuf_t* out):
    cdef bytes taken = PyBytes_FromStringAndSize(NULL, out.pending)
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(taken)
    cdef iov_t iov[MAX_IOV]
    cdef int n, i
    cdef size_t size
    while out.pending:
        n = out_gather(out, iov, MAX_IOV)
        size = 0
        for i in range(n):
            memcpy(p, iov[i].base, iov[i].size)
            p += iov[i].size
            size += iov[i].size
        out_consume(out, size)
    return taken
