# Packet ids in use, one table per direction: what was sent and not yet completed, or QoS 2 ids received and not released.
#
# Open addressing by packet id; ids are given out in order, so probing is rare. seq keeps the order of sending for resends:
# of PUBLISH at first, of PUBREL from PUBREC on.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.message cimport msg_t, stored_t
from mqttcore.engine.subscriber cimport subids_t


cdef enum:
    AWAIT_PUBACK = 1          # sent QoS 1
    AWAIT_PUBREC = 2          # sent QoS 2
    AWAIT_PUBCOMP = 3         # sent PUBREL; the message is no longer held
    AWAIT_PUBREL = 4          # received QoS 2
    AWAIT_OLD_PUBREL = 5      # received QoS 2, on an earlier connection


cdef struct slot_t:
    msg_t* message            # owned reference; NULL in states that need none
    stored_t* stored          # owned reference; NULL: not in the store, or in states that need none
    uint64_t key              # of its record in the store; 0: none
    subids_t* subids          # owned reference; NULL: none
    PyObject* group           # owned reference on the ShareGroup it was picked from; NULL: not shared
    uint32_t seq              # order of sending what was sent last
    uint16_t packet_id        # 0: free
    uint8_t state
    uint8_t retain            # queue.IS_RETAINED and IS_DIRECT, as sent


cdef struct window_t:
    slot_t* slots
    uint32_t mask             # capacity - 1, when slots
    uint32_t count
    uint32_t displaced        # slots that are not at their id's first place
    uint32_t seq
    uint16_t last_id
    int64_t bytes             # held by the messages


cdef slot_t* window_find(window_t* w, uint16_t packet_id) noexcept
# A fresh slot for *packet_id*, which must not be in use.
cdef slot_t* window_add(window_t* w, uint16_t packet_id) except NULL
# The next free packet id; the caller made sure that fewer than 65,535 are in use [MQTT-2.2.1-3].
cdef uint16_t window_next_id(window_t* w) noexcept
# Has a fresh slot hold *message*: adds a reference.
cdef void window_hold(window_t* w, slot_t* slot, msg_t* message) noexcept
# Gives the slot's message back, but not the slot.
cdef void window_let_go(window_t* w, slot_t* slot) noexcept
# Removes *slot* with what it holds. Other slot pointers become stale.
cdef void window_remove(window_t* w, slot_t* slot) noexcept
cdef void window_clear(window_t* w) noexcept
# Gives every slot in use this state.
cdef void window_set_state(window_t* w, uint8_t state) noexcept
# Packet ids in order of sending, malloc'ed for the caller to free; NULL when empty or out of memory (then an exception).
cdef uint16_t* window_in_order(window_t* w) except? NULL
