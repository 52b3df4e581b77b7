# Large packets that have not come whole: how many bytes connections keep of them, in the order in which they got large.

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef enum:
    TORN_COUNTED = 1024       # bytes, from which on a connection's are counted: a fraction of what it costs anyway


cdef struct torn_t:
    torn_t* next
    torn_t* prev
    void* owner               # borrowed: the connection leaves the list before it dies
    uint32_t bytes            # counted; 0: not in the list


cdef struct torn_list_t:
    torn_t* first             # the one that got large first
    torn_t* last
    int64_t bytes
    uint64_t cut              # connections that were closed to make room


# Says how many bytes the owner keeps now; its place stays.
cdef void torn_count(torn_list_t* torn_list, torn_t* torn, uint32_t size) noexcept
# Takes it out, if it is in.
cdef void torn_drop(torn_list_t* torn_list, torn_t* torn) noexcept
