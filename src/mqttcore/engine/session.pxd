# An MQTT session: what the broker keeps for one client id, connected or not (MQTT 5 §4.1).
#
#   deliver() -> window (packet ids, up to the client's Receive Maximum) -> Outlet -> network
#            \-> queue (no connection, window full, or the connection does not read) -> pump() when there is room
#
# QoS 0 has a queue of its own: it waits only for the connection's buffer, never for the window.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.core cimport Core
from mqttcore.engine.message cimport Publisher, msg_t, pub_t
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.queue cimport entry_t, queue_t
from mqttcore.engine.retained cimport RetainedCursor
from mqttcore.engine.timers cimport timer_t
from mqttcore.engine.topics cimport Subscriber, subids_t, target_t
from mqttcore.engine.window cimport slot_t, window_t


# A SUBSCRIBE's retained messages on their way (MQTT 5 §3.3.1.3).
cdef class Replay:
    cdef bytes topic_filter
    cdef uint32_t repeats             # times the filter was subscribed to again since: each wants all messages once more
    cdef RetainedCursor cursor
    cdef subids_t* subids
    cdef str unwanted                 # client id whose messages No Local keeps away; None: none
    cdef uint8_t qos


cdef class Session(Subscriber):
    cdef Core core
    cdef Outlet link                  # the connection, or None
    cdef readonly str client_id
    cdef readonly object identity     # what authentication gave, or None; who replaces it forgets publisher
    cdef readonly str user_name       # of the CONNECT, or None
    cdef Publisher publisher          # of this connection's messages; None until the first one, and when it is outdated
    cdef readonly str ordering_key    # of this connection's messages (`Broker.set_ordering_key`), or None
    cdef dict subscriptions           # bytes filter -> int: options | subscription id << 8; None: no subscription
    cdef dict replays                 # bytes filter -> Replay, first one running; None: none
    cdef window_t sent                # QoS 1 and 2 on their way to the client
    cdef window_t received            # QoS 2 received, PUBREL awaited
    cdef uint32_t received_before     # those of them that came on an earlier connection
    cdef queue_t queue                # QoS 1 and 2 that wait for the window
    cdef queue_t queue_qos0           # QoS 0 that waits for the connection's buffer
    cdef uint16_t* resend             # packet ids to send again, in order; NULL: none
    cdef uint32_t resend_count
    cdef uint32_t resend_at
    cdef uint32_t window_size         # the client's Receive Maximum, capped by in_flight_maximum
    cdef readonly uint32_t session_expiry_s       # 0xFFFFFFFF: never
    cdef readonly uint32_t will_delay_s
    cdef msg_t* will                  # owned; NULL: none
    cdef timer_t timer                # will delay or session expiry, whichever comes first, while there is no connection
    cdef int64_t will_due_ms          # 0: none
    cdef int64_t expires_ms           # 0: not running
    cdef readonly int64_t connected_ms
    cdef readonly uint64_t epoch      # counts takeovers: (client id, epoch) names an owner (DESIGN §7)
    cdef readonly uint64_t dropped    # messages dropped for this session
    cdef uint64_t acked               # packet ids that became free
    cdef readonly bint is_clean       # ends with its connection
    cdef readonly bint has_ended
    cdef bint has_acked               # a packet id became free since the last pump()
    cdef bint is_stalled              # publishers waited for it in vain: no more until it acknowledges something

    @staticmethod
    cdef Session new(Core core, str client_id)

    # What its messages name as their publisher; borrowed from the session.
    cdef PyObject* as_publisher(self) except NULL
    # Sends what the window and the buffer allow: resends, then queued, then retained messages.
    cdef int pump(self) except -1
    # True while pump() would have something to do if there were room.
    cdef bint has_backlog(self) noexcept
    # After a pump() that sent nothing: it stopped for its budget of retained nodes, not for want of room.
    cdef bint has_paused(self) noexcept
    # A connection takes the session up; resends are prepared [MQTT-4.4.0-1].
    cdef int attach(self, Outlet link, uint32_t receive_maximum) except -1
    cdef void detach(self) noexcept
    # The four acknowledgements from the client. 1: known packet id, 0: not.
    cdef bint on_puback(self, uint16_t packet_id) except -1
    cdef bint on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1
    cdef bint on_pubcomp(self, uint16_t packet_id) except -1
    # QoS 2 in: 1: new, 0: a repetition, not to be delivered again [MQTT-4.3.3-10].
    cdef bint begin_receive(self, uint16_t packet_id) except -1
    cdef bint on_pubrel(self, uint16_t packet_id) except -1
    # Everything it holds: queues, windows, will. Subscriptions are the engine's to remove.
    cdef int clear(self) except -1
    cdef void set_will(self, msg_t* will, uint32_t delay_s) noexcept
    # True when the queue holds more than 1 - 1/n of what it may.
    cdef bint is_congested(self, uint32_t n) noexcept
    # True while a message may get a packet id.
    cdef bint has_window(self) noexcept
    # One per filter, so there are no more than subscriptions.
    cdef int start_replay(self, bytes topic_filter, RetainedCursor cursor, uint8_t qos, bint no_local,
                          subids_t* ids) except -1
    cdef int stop_replay(self, bytes topic_filter) except -1
    cdef Replay first_replay(self)
    cdef int enqueue(self, pub_t* pub, uint8_t qos, uint8_t retain, target_t* target, subids_t* ids) except -1
    cdef int send_new(self, pub_t* pub, uint8_t qos, uint8_t retain, subids_t* ids, void* group) except -1
    cdef int send_again(self, slot_t* slot) except -1
    cdef int pump_resends(self) except -1
    cdef int pump_queue(self, queue_t* queue) except -1
    cdef int pump_replays(self) except -1
    cdef bint is_too_old(self, entry_t* entry) noexcept
    cdef void count_drop(self, int reason) noexcept
    cdef void queue_bytes(self, int64_t before_bytes, int64_t before_count) noexcept
