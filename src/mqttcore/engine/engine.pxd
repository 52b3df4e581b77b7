# The broker's state: client table, publish path, wills, expiry. Sans-io: a driver sets the clock and flushes.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.engine.authorizer cimport Authorizer
from mqttcore.engine.connection cimport Connection
from mqttcore.engine.hooks cimport HookTable
from mqttcore.engine.message cimport msg_t, pub_t
from mqttcore.engine.queue cimport queue_t
from mqttcore.engine.session cimport Session
from mqttcore.engine.topics cimport Subscriber, recipients_t, route_t, target_t


# What a session left that held too much to let go at once.
cdef class Remains:
    cdef queue_t queue


cdef class Engine(Authorizer):
    cdef readonly object limits_source    # the config.Limits it was made from
    cdef dict clients                     # client_id -> Session
    cdef dict taps                        # id(subscriber) -> (filter, subscriber): subscribers that are no sessions
    cdef dict handlers                    # Handler -> filter
    cdef list graveyard                   # subscribers that left while a delivery was under way: routes borrow them
    cdef list held_publishers             # (Connection, Session or Tap, due_ms, acked then): read again when there is room
    cdef readonly bint is_overloaded      # new clients are refused, see set_overloaded()
    cdef readonly bint is_closed          # close() was called
    cdef bint is_retained_full            # the last retained message was refused for a limit
    cdef int delivering                   # depth of publish()
    cdef uint64_t epochs
    cdef uint64_t assigned
    cdef dict connack_properties          # of every MQTT 5 CONNACK
    cdef bytes connack_new                # whole packets, when nothing else is to be said
    cdef bytes connack_resumed
    cdef object on_wake                   # called when output appears outside a driver's turn, or None
    cdef object on_backlog                # asked when a session is resumed that has something queued, or None
    cdef object on_journal                # called when there is something to do for the store, or None
    cdef list ranking                     # heap of (since_ms, number, Session): whose oldest message is the oldest; None: not needed yet
    cdef uint64_t ranked                  # numbers given out there: no two sessions compare equal
    cdef int expired                      # sessions since the clock last turned
    cdef list remains                     # Remains: queues of ended sessions that are still being emptied

    cdef int flush_dirty(self) except -1
    cdef int turn(self, int64_t now_ms) except -1
    # Empties queues of ended sessions: at most *budget* entries.
    cdef int empty_remains(self, int budget) except -1
    cdef bint journal_fails(self) noexcept
    cdef uint8_t refusal_of(self, pub_t* pub, target_t* targets, uint32_t count) noexcept
    cdef bint is_refused_by(self, Session session, pub_t* pub) noexcept
    cdef int raise_refusal(self, uint8_t reason_code) except -1
    cdef void bury(self, object subscriber) noexcept
    cdef int publish_will(self, Session session) except -1
    cdef uint8_t deliver_to(self, pub_t* pub, recipients_t* recipients) except? 0xFF
    cdef msg_t* own_message(self, bytes topic, bytes payload, int qos, bint retain, dict properties) except NULL
    cdef int check_filter(self, bytes topic_filter) except -1
    cdef Session make_session(self, str client_id)
    # Asks on_backlog what goes at once of what is kept back, and lets it go.
    cdef int offer_backlog(self, Connection conn, Session session, int keep_alive_s) except -1
    cdef int accept_session(self, object connection, object packet, object identity) except -1
    # CONNACK with Success; assigned: the Assigned Client Identifier, expiry_s: when other than asked for, else None.
    cdef bytes success_connack(self, object connection, object packet, bint present, str assigned, object expiry_s,
                               int keep_alive_s)
    cdef int read_limits(self, object limits) except -1
    cdef dict standing_properties(self, object limits)
    cdef bint keep_retained(self, pub_t* pub) except -1
    cdef int release_publishers(self) except -1
    cdef int refuse_unsupported(self, Connection conn, uint8_t reason_code) except -1
    cdef int take_answer(self, Connection conn, object answer) except -1
    cdef int accept_anonymous(self, Connection conn) except -1
    cdef int take_reauthentication(self, Connection conn, object answer) except -1
    cdef int reauthenticated(self, Connection conn, object identity) except -1
    cdef int arm_session(self, Session session) except -1
    cdef int session_due(self, Session session, int64_t now_ms) except -1
    cdef int replay_retained(self, Session session, bytes topic_filter, uint8_t options, uint8_t qos,
                             uint32_t subid) except -1
