"""Tables of packet ids in use; window.pxd describes them."""

from cpython.ref cimport Py_XDECREF
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

from mqttcore.engine.message cimport msg_bytes, msg_ref, msg_unref, stored_unref
from mqttcore.engine.subscriber cimport subids_unref

cdef enum:
    FIRST_CAPACITY = 8
    KEPT_CAPACITY = 64        # an empty table larger than this gives its memory back


cdef slot_t* window_find(window_t* w, uint16_t packet_id) noexcept:
    cdef uint32_t i
    if w.slots == NULL or packet_id == 0:
        return NULL
    i = packet_id & w.mask
    while w.slots[i].packet_id:
        if w.slots[i].packet_id == packet_id:
            return &w.slots[i]
        i = (i + 1) & w.mask
    return NULL


cdef int grow(window_t* w) except -1:
    cdef uint32_t cap = (w.mask + 1) * 2 if w.slots != NULL else FIRST_CAPACITY
    cdef slot_t* slots = <slot_t*>calloc(cap, sizeof(slot_t))
    cdef uint32_t i, j
    if slots == NULL:
        raise MemoryError
    w.displaced = 0
    if w.slots != NULL:
        for i in range(w.mask + 1):
            if w.slots[i].packet_id:
                j = w.slots[i].packet_id & (cap - 1)
                while slots[j].packet_id:
                    j = (j + 1) & (cap - 1)
                slots[j] = w.slots[i]
                w.displaced += j != (slots[j].packet_id & (cap - 1))
        free(w.slots)
    w.slots = slots
    w.mask = cap - 1
    return 0


cdef slot_t* window_add(window_t* w, uint16_t packet_id) except NULL:
    cdef uint32_t i
    if w.slots == NULL or (w.count + 1) * 2 > w.mask + 1:
        grow(w)
    i = packet_id & w.mask
    while w.slots[i].packet_id:
        i = (i + 1) & w.mask
    w.count += 1
    w.displaced += i != (packet_id & w.mask)
    w.seq += 1
    w.slots[i].packet_id = packet_id
    w.slots[i].seq = w.seq
    return &w.slots[i]


cdef uint16_t window_next_id(window_t* w) noexcept:
    while True:
        w.last_id += 1
        if w.last_id != 0 and window_find(w, w.last_id) == NULL:
            return w.last_id


cdef void window_hold(window_t* w, slot_t* slot, msg_t* message) noexcept:
    slot.message = msg_ref(message)
    w.bytes += msg_bytes(message)


cdef void window_let_go(window_t* w, slot_t* slot) noexcept:
    if slot.message != NULL:
        w.bytes -= msg_bytes(slot.message)
        msg_unref(slot.message)
        slot.message = NULL
    if slot.stored != NULL:
        stored_unref(slot.stored)
        slot.stored = NULL


cdef void slot_release(window_t* w, slot_t* slot) noexcept:
    window_let_go(w, slot)
    if slot.subids != NULL:
        subids_unref(slot.subids)
        slot.subids = NULL
    if slot.group != NULL:
        Py_XDECREF(slot.group)
        slot.group = NULL


cdef void window_remove(window_t* w, slot_t* slot) noexcept:
    cdef uint32_t hole = <uint32_t>(slot - w.slots)
    cdef uint32_t i = hole
    cdef uint32_t home
    slot_release(w, slot)
    w.count -= 1
    w.displaced -= hole != (slot.packet_id & w.mask)
    if w.count == 0 and w.mask + 1 > KEPT_CAPACITY:
        free(w.slots)
        w.slots = NULL
        return
    # Backward shift: an entry may fill the hole when its home does not lie behind it. Ids in a row have no one displaced,
    # and walking past all of them for each acknowledgement would cost as much as there is in flight.
    while w.displaced:
        i = (i + 1) & w.mask
        if not w.slots[i].packet_id:
            break
        home = w.slots[i].packet_id & w.mask
        if ((i - home) & w.mask) >= ((i - hole) & w.mask):
            w.slots[hole] = w.slots[i]
            w.displaced -= hole == home
            hole = i
    memset(&w.slots[hole], 0, sizeof(slot_t))


cdef void window_clear(window_t* w) noexcept:
    cdef uint32_t i
    if w.slots != NULL:
        for i in range(w.mask + 1):
            if w.slots[i].packet_id:
                slot_release(w, &w.slots[i])
        free(w.slots)
    memset(w, 0, sizeof(window_t))


cdef void window_set_state(window_t* w, uint8_t state) noexcept:
    cdef uint32_t i
    if w.count:
        for i in range(w.mask + 1):
            if w.slots[i].packet_id:
                w.slots[i].state = state


cdef struct order_t:
    uint32_t seq
    uint16_t packet_id


cdef int by_seq(const void* a, const void* b) noexcept nogil:
    # Differences, not values, are compared: seq wraps.
    cdef uint32_t d = (<const order_t*>a).seq - (<const order_t*>b).seq
    return 0 if d == 0 else (-1 if d > 0x7FFFFFFF else 1)


cdef uint16_t* window_in_order(window_t* w) except? NULL:
    cdef order_t* order
    cdef uint16_t* ids
    cdef uint32_t i, n = 0
    if w.count == 0:
        return NULL
    order = <order_t*>malloc(sizeof(order_t) * w.count)
    ids = <uint16_t*>malloc(sizeof(uint16_t) * w.count)
    if order == NULL or ids == NULL:
        free(order)
        free(ids)
        raise MemoryError
    for i in range(w.mask + 1):
        if w.slots[i].packet_id:
            order[n].seq = w.slots[i].seq
            order[n].packet_id = w.slots[i].packet_id
            n += 1
    qsort(order, n, sizeof(order_t), by_seq)
    for i in range(n):
        ids[i] = order[i].packet_id
    free(order)
    return ids
