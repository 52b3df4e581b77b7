# What sessions and connections share and may ask for: limits, counters, clock, the trie, and the Engine's services.
#
# Core is the part of Engine that the layers below it may know. It breaks the circle session -> engine -> session.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.events cimport EventLog
from mqttcore.engine.hooks cimport HookTable
from mqttcore.engine.journal cimport Journal
from mqttcore.engine.message cimport birth_t, msg_t, pub_t
from mqttcore.engine.permissions cimport Rulebook
from mqttcore.engine.retained cimport RetainedTree
from mqttcore.engine.recipients cimport ClientChanges
from mqttcore.engine.timers cimport wheel_t
from mqttcore.engine.topics cimport TopicTree, route_t
from mqttcore.engine.tracer cimport Tracer


# Copied once from config.Limits, whose docstrings explain each.
cdef struct limits_t:
    int64_t connect_timeout_ms
    uint32_t maximum_packet_size_bytes
    uint32_t session_expiry_maximum_s
    uint32_t in_flight_maximum
    int64_t in_flight_bytes_maximum
    uint32_t queued_messages_maximum
    int64_t queued_bytes_maximum
    int64_t queued_age_maximum_ms     # 0: none
    int64_t queued_total_bytes_maximum
    uint32_t queued_resident_messages
    int64_t queued_resident_bytes
    uint32_t output_high_water_bytes
    uint32_t topic_levels_maximum
    uint32_t topic_bytes_maximum
    uint32_t client_id_bytes_maximum
    uint32_t subscriptions_per_session_maximum
    uint32_t connections_maximum
    uint32_t sessions_maximum
    uint32_t publisher_pause_ms
    uint32_t connect_packet_bytes_maximum
    int64_t rate_excess_maximum_ms    # 0: none
    double messages_per_s             # 0: no bound
    double bytes_per_s
    uint16_t receive_maximum
    uint16_t topic_alias_maximum
    uint16_t topic_alias_maximum_out
    uint16_t keep_alive_maximum_s
    uint8_t maximum_qos
    bint enforce_receive_maximum
    bint retain_available
    bint wildcard_subscription_available
    bint subscription_identifier_available
    bint shared_subscription_available
    bint queue_drop_newest
    bint queue_refuse                 # a message for a full queue is refused to its publisher
    bint queue_qos0_offline
    # config.Authorization
    bint refused_publish_disconnects
    bint refused_subscribe_disconnects
    bint checks_at_delivery
    uint8_t session_owner             # OWNER_*


cdef enum:
    NEVER_S = 0xFFFFFFFF      # Session Expiry Interval: does not expire (MQTT 5 §3.1.2.11.2)


cdef enum:
    OWNER_REFUSE = 0
    OWNER_REPLACE = 1
    OWNER_IGNORE = 2


cdef enum:
    DROP_QUEUE_FULL = 0       # a session's queue was at its limit
    DROP_SLOW_READER = 1      # QoS 0 to a connection that does not read
    DROP_EXPIRED = 2          # Message Expiry Interval or queued_age_maximum_s passed
    DROP_TOO_LARGE = 3        # over the receiver's Maximum Packet Size
    DROP_NOT_AUTHORIZED = 4   # publishing refused, or receiving
    DROP_SESSION_ENDED = 5    # still queued or in flight when the session ended
    DROP_TOTAL_FULL = 6       # the broker's total for queued messages was reached
    DROP_QUOTA = 7            # a retained message over the retained limits, a payload over the publisher's quota
    DROP_TAP_FULL = 8         # a tap's queue was at its limit
    DROP_LOST = 9             # the store did not have it any more
    DROP_REASONS = 10
    GIVEN_AWAY = 10           # no drop: another member of the shared group has it


cdef struct counters_t:
    uint64_t packets_in[16]           # by packet type
    uint64_t packets_out[16]
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t messages_in[3]           # PUBLISH by QoS, without those that a QoS 2 resend repeated
    uint64_t messages_out[3]
    uint64_t message_bytes_in         # payloads
    uint64_t message_bytes_out
    uint64_t dropped[DROP_REASONS]
    uint64_t unmatched                # messages that no subscription matched
    uint64_t handled                  # messages that a topic handler consumed or gave to recipients
    uint64_t handler_calls
    uint64_t handler_failures         # of them
    uint64_t connects
    uint64_t connects_refused
    uint64_t connects_shed            # of those, because of overload
    uint64_t protocol_errors
    uint64_t takeovers
    uint64_t publishers_paused
    uint64_t paged_out                # queued messages given up to the store
    uint64_t paged_in
    uint64_t rate_limited             # times a client was not read for being over its rate
    uint64_t subscriptions_refused    # for want of permission
    uint64_t subscriptions_ignored    # granted, but over a quota that lets them have no effect
    int64_t connections               # open, any state
    int64_t connections_peak
    int64_t online                    # sessions with a connection
    int64_t subscriptions
    int64_t in_flight                 # sent and not completed, all sessions
    int64_t awaiting_release          # QoS 2 received and not released, all sessions
    int64_t queued                    # waiting in session queues
    int64_t queued_bytes
    int64_t kept_back                 # of queued: until a service lets them go


cdef class Core:
    cdef limits_t limits
    cdef counters_t counters
    cdef wheel_t wheel
    cdef birth_t birth                # ids and times of messages
    cdef int64_t now_ms               # monotonic; set by the driver at each turn
    cdef readonly TopicTree topics
    cdef readonly RetainedTree retained
    cdef readonly HookTable hooks
    cdef readonly Rulebook rulebook
    cdef uint32_t hook_mask           # of hooks
    cdef readonly EventLog events
    cdef Tracer tracer
    cdef ClientChanges client_changes
    cdef uint8_t* scratch_data
    cdef Py_ssize_t scratch_size
    cdef Journal journal              # None: nothing is durable
    cdef bint is_refusing             # refusal() has to be asked before a message is published
    cdef readonly bint is_memory_full     # nothing may grow, see Engine.set_memory()
    cdef PyObject* dirty              # chain of Outlets with output or work, each holding one reference
    cdef str id_prefix                # 16 hexadecimal digits: the first half of every connection id
    cdef uint64_t ids_given
    cdef PyObject* congested          # Session or Tap whose queue just ran full, borrowed; the publisher is paused for it

    # Milliseconds since 1970 (UTC).
    cdef int64_t wall_ms(self) noexcept
    # Delivers to a route and keeps a retained message; the number of targets.
    cdef Py_ssize_t publish(self, pub_t* pub, route_t* route) except -1
    # Asks the handlers first to last - 1 of the message's route. 1: one took it, with the reason code for its publisher,
    # 0x80 and above refuse it; 0: go on, with the topic's route asked for anew, as a handler may have changed it.
    # client: a Connection, or the Session of one that is gone. When Python ran, *pub* points into its kept form.
    cdef bint handle(self, object client, pub_t* pub, route_t* route, uint32_t first, uint32_t last,
                     uint8_t* reason_code) except -1
    # A CONNECT that passed the standard's checks: authenticate, then connected() or refused().
    cdef int admit(self, object connection, object packet) except -1
    # An AUTH packet of a connection that is authenticating or re-authenticating.
    cdef int continue_authentication(self, object connection, object packet) except -1
    # Finds or makes the session of an authenticated connection and answers CONNACK.
    cdef int open_session(self, object connection, object packet) except -1
    # The connection is gone; clean: by DISCONNECT without will.
    cdef int connection_ended(self, object connection, object session, bint publish_will) except -1
    # Asks the hook: 0, or the reason code to refuse with. The client may be gone afterwards, and routes with it.
    cdef int authorize_publish(self, object connection, pub_t* pub) except -1
    # Asks the hook, and gives *pub* what it wants different: 0, or the reason code to refuse with.
    cdef int transform_publish(self, object connection, pub_t* pub) except -1
    # Asks the hook whether a message may go to a session that is connected.
    cdef bint authorize_deliver(self, object session, pub_t* pub, bint is_shared=*) except -1
    # Tells who asked for it in the identity that the client is being refused, before it is told itself. It may be gone
    # afterwards. action: of identity.Action; topic: a Topic Name or a filter without `$share`.
    cdef int tell_refused(self, object connection, uint8_t action, str topic) except -1
    # Begins to decide a SUBSCRIBE: it is answered now, or by answer_subscribe().
    cdef int begin_subscribe(self, object connection, object packet) except -1
    # 32 hexadecimal digits: eight random bytes of this engine, and a count.
    cdef str new_connection_id(self)
    # The ClientView of a connection, or of the client whose Session it is, its connection being gone.
    cdef object view_of(self, object client)
    # The connection that has a ClientView is closed.
    cdef int client_gone(self, object connection) except -1
    # Ends a session for good: subscriptions, queues, will, client table.
    cdef int end_session(self, object session) except -1
    # Gives a message that a member of a shared subscription did not complete, or may not have any more, to another
    # member; leaving: the one, of the group still or not, or None. True: that is done with, False: it goes to nobody.
    cdef bint redistribute(self, msg_t* m, object group, object leaving) except -1
    # Why a message must not be taken now, as a reason code of PUBACK; 0: it may. For the store, or a full queue.
    cdef uint8_t refusal(self, pub_t* pub, route_t* route) noexcept
    # Drops the oldest message that waits in any queue, to make room; False: none waits.
    cdef bint drop_oldest(self) except -1
    # A session's queues were empty, and are not now.
    cdef int queue_began(self, object session) except -1
    # Goes on emptying this queue of an ended session, in slices; takes over what it points to.
    cdef int bury_queue(self, void* queue) except -1
    # Publishes a will or a broker message by its topic.
    cdef int publish_message(self, msg_t* m, void* origin) except -1
    # Subscribes a session to one filter; the SUBACK reason code. options: the SUBSCRIBE options byte, subid 0: none.
    cdef int subscribe(self, object session, bytes topic_filter, uint8_t options, uint32_t subid) except -1
    # Ends one subscription; the UNSUBACK reason code.
    cdef int unsubscribe(self, object session, bytes topic_filter) except -1
    # Reading from *connection* stops until the congested session has room again, or publisher_pause_ms passed.
    cdef int pause_publisher(self, object connection) except -1
    # Room of at least *size* bytes for a property block that has to be rewritten; valid until the next call.
    cdef uint8_t* scratch(self, Py_ssize_t size) except NULL
