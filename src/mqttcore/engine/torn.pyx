"""The list of large packets that have not come whole; torn.pxd describes it."""

from libc.stdint cimport int64_t, uint32_t


cdef void torn_count(torn_list_t* torn_list, torn_t* torn, uint32_t size) noexcept:
    if torn.bytes == 0:
        torn.next = NULL
        torn.prev = torn_list.last
        if torn_list.last == NULL:
            torn_list.first = torn
        else:
            torn_list.last.next = torn
        torn_list.last = torn
    torn_list.bytes += <int64_t>size - torn.bytes
    torn.bytes = size


cdef void torn_drop(torn_list_t* torn_list, torn_t* torn) noexcept:
    if torn.bytes == 0:
        return
    if torn.prev == NULL:
        torn_list.first = torn.next
    else:
        torn.prev.next = torn.next
    if torn.next == NULL:
        torn_list.last = torn.prev
    else:
        torn.next.prev = torn.prev
    torn_list.bytes -= torn.bytes
    torn.bytes = 0
