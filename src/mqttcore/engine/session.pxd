# An MQTT session: what the broker keeps for one client id, connected or not (MQTT 5 §4.1).
#
#   deliver() -> window (packet ids, up to the client's Receive Maximum) -> Outlet -> network
#            \-> queue (no connection, window full, or the connection does not read) -> pump() when there is room
#
# QoS 0 has a queue of its own: it waits only for the connection's buffer, never for the window.
#
# kept_back: what had been queued when the client came back, where a service lets it go in its own time. It stands beside
# the queue, so newer messages pass it by; what is let go moves into the queue.
#
# A durable session (number not 0) has each of these facts in the store as well: the session itself, its subscriptions,
# each entry of `queue`, each slot of `sent` and `received`. journal.pxd says what waits for them to be safe. Of a long
# queue only the first messages are in memory; the others are paged in as those go.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.core cimport Core
from mqttcore.engine.message cimport Publisher, msg_t, pub_t, stored_t
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.permissions cimport Rights
from mqttcore.engine.queue cimport entry_t, queue_t
from mqttcore.engine.retained cimport RetainedCursor
from mqttcore.engine.timers cimport timer_t
from mqttcore.engine.topics cimport Subscriber, subids_t, target_t
from mqttcore.engine.window cimport slot_t, window_t


cdef enum:
    GUARD_RULES = 1           # its rights are asked on delivery
    GUARD_HOOK = 2            # authorize_deliver is asked before a message is sent
    GUARD_MOUNT = 4           # it has a mount point


cdef enum:
    IS_RETAINED = 0x01        # bits of what entries and slots have in retain: RETAIN of the delivery
    IS_DIRECT = 0x80          # the client was named as its receiver: no subscription has to allow it


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
    cdef readonly uint64_t number     # under which the store knows it; 0: it is not durable
    cdef uint64_t key                 # of its record; 0: none
    cdef dict subscription_keys       # bytes filter -> key of its record; None: not durable, or no subscription
    cdef Rights rights                # of the identity; None: everything is allowed
    cdef readonly str owner           # name of the identity it belongs to; None: of nobody
    cdef bytes mount                  # prefix of its topics (mount.pxd); None: none. The same for its whole life
    cdef Publisher publisher          # of this connection's messages; None until the first one, and when it is outdated
    cdef readonly str ordering_key    # of this connection's messages (`Broker.set_ordering_key`), or None
    cdef dict subscriptions           # bytes filter -> int: options | subscription id << 8; None: no subscription
    cdef dict replays                 # bytes filter -> Replay, first one running; None: none
    cdef window_t sent                # QoS 1 and 2 on their way to the client
    cdef window_t received            # QoS 2 received, PUBREL awaited
    cdef queue_t queue                # QoS 1 and 2 that wait for the window
    cdef queue_t queue_qos0           # QoS 0 that waits for the connection's buffer
    cdef queue_t* kept_back           # QoS 1 and 2 that wait to be let go; NULL: none, so it is without a connection
    cdef uint16_t* resend             # packet ids to send again, in order; NULL: none
    cdef uint32_t received_before     # of received: those that came on an earlier connection
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
    cdef uint8_t is_clean             # ends with its connection
    cdef uint8_t has_ended
    cdef uint8_t traced               # TRACED_PUBLISHER: who watches it, or its connection, is told (tracer.pxd); 0: nobody
    cdef uint8_t is_paging            # asked for messages of its queue
    cdef uint8_t is_ranked            # stands in Engine.ranking
    cdef uint8_t has_acked            # a packet id became free since the last pump()
    cdef uint8_t is_stalled           # publishers waited for it in vain: no more until it acknowledges something
    cdef uint8_t guards               # GUARD_*: what stands between it and its messages

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
    cdef int detach(self) except -1
    # The four acknowledgements from the client. 1: known packet id, 0: not.
    cdef bint on_puback(self, uint16_t packet_id) except -1
    cdef bint on_pubrec(self, uint16_t packet_id, uint8_t reason_code) except -1
    cdef bint on_pubcomp(self, uint16_t packet_id) except -1
    # QoS 2 in: 1: new, 0: a repetition, not to be delivered again [MQTT-4.3.3-10].
    cdef bint begin_receive(self, uint16_t packet_id) except -1
    cdef bint on_pubrel(self, uint16_t packet_id) except -1
    # Keeps back what is queued, until it is let go or the connection ends.
    cdef int keep_back(self) except -1
    # Lets up to *count* messages go into the queue, for pump(); how many, without those that are dropped: what waited for
    # age_maximum_ms (0: any time), what the rights do not allow any more.
    cdef int64_t let_go(self, int64_t count, bint newest_first, int64_t age_maximum_ms) except -1
    cdef int64_t kept_back_count(self) noexcept
    # Ends keeping back: one queue again, in the order in which they came.
    cdef int take_back(self) except -1
    # True while anything waits to be sent, kept back or not.
    cdef bint has_queued(self) noexcept
    # Everything it holds: queues, windows, will. Subscriptions are the engine's to remove.
    cdef int clear(self) except -1
    # Takes the reference over.
    cdef int set_will(self, msg_t* will, uint32_t delay_s) except -1
    # Whether its client knows a topic, by its mount point.
    cdef bint knows(self, const uint8_t* topic, Py_ssize_t size) noexcept
    # Before it has anything else.
    cdef int set_mount(self, bytes mount) except -1
    # Gives a will back that was taken out of the session.
    cdef int release_will(self, msg_t* will) except -1
    # Makes it durable, or puts its record anew because something changed.
    cdef int keep(self, bint is_connected) except -1
    # Sends the PUBLISH of a slot that waited for the store.
    cdef int send_held(self, uint16_t packet_id) except -1
    # A packet id received that is not yet safe.
    cdef bint is_received_unsafe(self, uint16_t packet_id) noexcept
    # Drops the oldest message of the queues.
    cdef int drop_head(self, int reason) except -1
    cdef int drop_head_of(self, queue_t* queue, int reason) except -1
    # Takes the head off one of its queues and out of the store, as counted; it is not told of as dropped.
    cdef int pop_head(self, queue_t* queue) except -1
    cdef int64_t oldest_ms(self) noexcept
    # Of the queues for QoS 1 and 2, the one whose head came first; NULL: both are empty.
    cdef queue_t* oldest_queue(self) noexcept
    # Packed keys of messages that are to be paged in next, b"" for none; page_in() ends it.
    cdef bytes page_keys(self)
    # messages: key -> Message of what the store had. False: the rest is not yet safe, ask again when it is.
    cdef bint page_in(self, dict messages) except -1
    # True when the queue holds more than 1 - 1/n of what it may.
    cdef bint is_congested(self, uint32_t n) noexcept
    # True while a message may get a packet id.
    cdef bint has_window(self) noexcept
    # One per filter, so there are no more than subscriptions.
    cdef int start_replay(self, bytes topic_filter, RetainedCursor cursor, uint8_t qos, bint no_local,
                          subids_t* ids) except -1
    cdef int stop_replay(self, bytes topic_filter) except -1
    cdef Replay first_replay(self)
    # Bounds of the queue: the broker's, or the identity's where that is less.
    cdef uint32_t queued_messages_maximum(self) noexcept
    cdef int64_t queued_bytes_maximum(self) noexcept
    # The highest QoS at which the rights let a message of this topic come in; -1: not at all.
    cdef int readable_qos(self, const uint8_t* topic, Py_ssize_t size) noexcept
    cdef int enqueue(self, pub_t* pub, uint8_t qos, uint8_t retain, target_t* target, subids_t* ids) except -1
    # A message gets a packet id now; 0: it was dropped. The window has room. since_ms: when it was queued or came.
    cdef int send_new(self, pub_t* pub, uint8_t qos, uint8_t retain, subids_t* ids, void* group,
                      int64_t since_ms) except -1
    # Puts the record of a subscription, in the place of the one before.
    cdef int keep_subscription(self, bytes topic_filter, uint8_t options, uint32_t subid) except -1
    cdef int keep_slot(self, slot_t* slot, int64_t since_ms) except -1
    cdef int keep_entry(self, entry_t* entry) except -1
    # Removes records from the store, if there is one. key 0, stored NULL: none.
    cdef int forget(self, uint64_t key, stored_t* stored) except -1
    cdef int finish_slot(self, slot_t* slot) except -1
    cdef int page_ahead(self, queue_t* queue) except -1
    cdef bint is_over_limit(self, int64_t size) noexcept
    cdef void doom_newest(self, entry_t* entry, int reason) noexcept
    cdef int send_again(self, slot_t* slot) except -1
    cdef int pump_resends(self) except -1
    cdef int pump_queue(self, queue_t* queue) except -1
    cdef int pump_replays(self) except -1
    # The same ways for a session whose messages the hook is asked about.
    cdef int deliver_asked(self, pub_t* pub, target_t* target) except -1
    cdef int pump_asked(self, queue_t* queue) except -1
    cdef slot_t* ask_again(self, slot_t* slot) except? NULL
    cdef bint is_too_old(self, entry_t* entry) noexcept
    # pub: the message, where it is one and known.
    cdef void count_drop(self, int reason, int64_t count=*, pub_t* pub=*) noexcept
    cdef void count_drop_of(self, int reason, msg_t* message) noexcept
    # It subscribed to the message, which is not for it all the same: `no_local` or `away`.
    cdef int pass_by(self, pub_t* pub, str reason) except -1
    cdef void queue_bytes(self, int64_t before_bytes, int64_t before_count) noexcept
