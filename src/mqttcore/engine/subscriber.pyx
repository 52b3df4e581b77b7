"""What a topic leads to: subscribers, targets and routes."""

from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport Py_DECREF
from libc.string cimport memcpy


cdef enum:
    SUBID_PROPERTY = 0x0B           # Subscription Identifier (MQTT 5 §3.3.2.3.8)
    SUBID_BYTES = 5                 # of one property at most


cdef class Subscriber:
    """Something that wants messages; its compiled subclasses deliver them.

    An instance of this base class takes messages and forgets them.
    is_online: whether shared groups should prefer it.
    """

    def __init__(self, *, bint is_online=False):
        self.is_online = is_online

    cdef int deliver(self, pub_t* pub, target_t* target) except -1:
        return 0


cdef Py_ssize_t subids_capacity(uint32_t size) noexcept:
    """Bytes of data that a block of this size was given: the next power of two."""
    cdef Py_ssize_t capacity = 8
    while capacity < size:
        capacity *= 2
    return capacity


cdef int subids_add(subids_t** subids, uint32_t subid) except -1:
    cdef subids_t* block = subids[0]
    cdef uint32_t size = 0 if block == NULL else block.size
    cdef Py_ssize_t capacity = subids_capacity(size + SUBID_BYTES)
    if block == NULL or capacity > subids_capacity(size):
        block = <subids_t*>PyMem_Realloc(block, sizeof(subids_t) + capacity)
        if block == NULL:
            raise MemoryError
        if size == 0:
            block.refs = 1
        subids[0] = block
    block.data[size] = SUBID_PROPERTY
    size += 1
    while subid >= 0x80:
        block.data[size] = <uint8_t>(subid | 0x80)
        size += 1
        subid >>= 7
    block.data[size] = <uint8_t>subid
    block.size = size + 1
    return 0


cdef void subids_unref(subids_t* subids) noexcept:
    if subids != NULL:
        subids.refs -= 1
        if subids.refs == 0:
            PyMem_Free(subids)


cdef subids_t* subids_copy(subids_t* subids) except? NULL:
    """Return a block of its own with the same identifiers; NULL for NULL."""
    cdef subids_t* block
    if subids == NULL:
        return NULL
    block = <subids_t*>PyMem_Malloc(sizeof(subids_t) + subids_capacity(subids.size))
    if block == NULL:
        raise MemoryError
    memcpy(block, subids, sizeof(subids_t) + subids.size)
    block.refs = 1
    return block


cdef subids_t* subids_of(const uint8_t* data, uint32_t size) except? NULL:
    cdef subids_t* block
    if size == 0:
        return NULL
    block = <subids_t*>PyMem_Malloc(sizeof(subids_t) + subids_capacity(size))
    if block == NULL:
        raise MemoryError
    memcpy(block.data, data, size)
    block.size = size
    block.refs = 1
    return block


cdef tuple subids_values(subids_t* subids):
    cdef list values = []
    cdef uint32_t i = 0, subid
    cdef int shift
    while subids != NULL and i < subids.size:
        i += 1                          # the property's id
        subid = shift = 0
        while subids.data[i] & 0x80:
            subid |= <uint32_t>(subids.data[i] & 0x7F) << shift
            shift += 7
            i += 1
        subid |= <uint32_t>subids.data[i] << shift
        i += 1
        values.append(subid)
    return tuple(values)


cdef int target_init(target_t* target, PyObject* subscriber, uint8_t options, uint32_t subid) except -1:
    target.subscriber = subscriber
    target.subids = target.own_subids = NULL
    target.group = NULL
    target.is_direct = False
    target.qos = options & OPT_QOS
    target.own_qos = 0xFF if options & OPT_NO_LOCAL else target.qos
    target.retain_as_published = (options & OPT_RETAIN_AS_PUBLISHED) != 0
    if subid:
        subids_add(&target.subids, subid)
        if not options & OPT_NO_LOCAL:
            target.own_subids = subids_ref(target.subids)
    return 0


cdef int target_merge(target_t* target, uint8_t options, uint32_t subid) except -1:
    cdef uint8_t qos = options & OPT_QOS
    cdef bint is_local = not options & OPT_NO_LOCAL
    target.qos = max(target.qos, qos)
    if is_local and (target.own_qos == 0xFF or target.own_qos < qos):
        target.own_qos = qos
    if options & OPT_RETAIN_AS_PUBLISHED:
        target.retain_as_published = True
    if not subid:
        return 0
    # The two blocks are one for as long as No Local makes no difference.
    if target.subids == target.own_subids:
        if is_local:
            subids_add(&target.subids, subid)       # both references move with it
            if target.own_subids == NULL:
                subids_ref(target.subids)
            target.own_subids = target.subids
            return 0
        if target.subids != NULL:
            target.own_subids = NULL
            target.subids.refs -= 1
            target.own_subids = subids_copy(target.subids)
        subids_add(&target.subids, subid)
        return 0
    subids_add(&target.subids, subid)
    if is_local:
        subids_add(&target.own_subids, subid)
    return 0


cdef void route_unref(route_t* route) noexcept:
    cdef uint32_t i
    route.refs -= 1
    if route.refs:
        return
    for i in range(route.count):
        target_clear(&route.targets[i])
    for i in range(route.group_count):
        Py_DECREF(<object>route.groups[i])
    for i in range(route.handler_count):
        Py_DECREF(<object>route.handlers[i])
    if route.recipients != NULL:
        recipients_unref(route.recipients)
    PyMem_Free(route)


cdef void recipients_unref(recipients_t* recipients) noexcept:
    recipients.refs -= 1
    if recipients.refs == 0:
        PyMem_Free(recipients)
