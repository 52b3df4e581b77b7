# Exchanges of QoS 1 and 2 with a client, in both directions: packet ids, acknowledgements, resends.
#
# In a durable session each slot of `sent` and `received` is in the store as well.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.backlog cimport Backlog
from mqttcore.engine.message cimport pub_t
from mqttcore.engine.subscriber cimport subids_t
from mqttcore.engine.window cimport slot_t, window_t


cdef class Exchanges(Backlog):
    cdef window_t sent                # QoS 1 and 2 on their way to the client
    cdef window_t received            # QoS 2 received, PUBREL awaited
    cdef uint16_t* resend             # packet ids to send again, in order; NULL: none
    cdef uint64_t acked               # packet ids that became free
    cdef uint32_t received_before     # of received: those that came on an earlier connection
    cdef uint32_t resend_count
    cdef uint32_t resend_at
    cdef uint32_t window_size         # the client's Receive Maximum, capped by in_flight_maximum
    cdef uint8_t has_acked            # a packet id became free since the last pump()

    # True while a message may get a packet id.
    cdef bint has_window(self) noexcept
    # A message gets a packet id now; 0: it was dropped. The window has room. since_ms: when it was queued or came.
    cdef int send_new(self, pub_t* pub, uint8_t qos, uint8_t retain, subids_t* ids, void* group,
                      int64_t since_ms) except -1
    cdef int keep_slot(self, slot_t* slot, int64_t since_ms) except -1
    # Sends the PUBLISH of a slot that waited for the store.
    cdef int send_held(self, uint16_t packet_id) except -1
    cdef int finish_slot(self, slot_t* slot) except -1
    # Three of the acknowledgements from the client; on_pubrel is the fourth. 1: known packet id, 0: not.
    cdef bint on_puback(self, uint16_t packet_id) except -1
    cdef bint on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1
    cdef bint on_pubcomp(self, uint16_t packet_id) except -1
    cdef int pump_resends(self) except -1
    cdef int send_again(self, slot_t* slot) except -1
    cdef slot_t* ask_again(self, slot_t* slot) except? NULL
    # QoS 2 in: 1: new, 0: a repetition, not to be delivered again [MQTT-4.3.3-10].
    cdef bint begin_receive(self, uint16_t packet_id) except -1
    # A packet id received that is not yet safe.
    cdef bint is_received_unsafe(self, uint16_t packet_id) noexcept
    cdef bint on_pubrel(self, uint16_t packet_id) except -1
