# The part of Engine that messages go through: who gets one, what is kept of it, who has to wait with it.
#
#   publish ──▶ retained, subscribers of the route      handle ──▶ topic handlers, who may name the recipients
#   refusal: why it must not be taken now               pause_publisher ──▶ held_publishers ──▶ release_publishers

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mqttcore.engine.authorizer cimport Authorizer
from mqttcore.engine.message cimport msg_t, pub_t
from mqttcore.engine.queue cimport queue_t
from mqttcore.engine.session cimport Session
from mqttcore.engine.topics cimport ShareGroup, recipients_t, route_t, target_t


# What a session left that held too much to let go at once.
cdef class Remains:
    cdef queue_t queue


cdef class Dispatcher(Authorizer):
    cdef dict clients                     # client_id -> Session
    cdef dict handlers                    # Handler -> filter
    cdef list graveyard                   # subscribers that left while a delivery was under way: routes borrow them
    cdef list held_publishers             # (Connection, Session or Tap, due_ms, acked then): read again when there is room
    cdef list ranking                     # heap of (since_ms, number, Session): whose oldest message is the oldest; None: not needed yet
    cdef uint64_t ranked                  # numbers given out there: no two sessions compare equal
    cdef list remains                     # Remains: queues of ended sessions that are still being emptied
    cdef bint is_retained_full            # the last retained message was refused for a limit
    cdef int delivering                   # depth of publish()

    # Empties queues of ended sessions: at most *budget* entries.
    cdef int empty_remains(self, int budget) except -1
    cdef bint journal_fails(self) noexcept
    cdef uint8_t refusal_of(self, pub_t* pub, target_t* targets, uint32_t count) noexcept
    cdef bint is_refused_by(self, Session session, pub_t* pub) noexcept
    cdef int raise_refusal(self, uint8_t reason_code) except -1
    cdef void bury(self, object subscriber) noexcept
    cdef uint8_t deliver_to(self, pub_t* pub, recipients_t* recipients) except? 0xFF
    cdef msg_t* own_message(self, bytes topic, bytes payload, int qos, bint retain, dict properties) except NULL
    cdef int check_filter(self, bytes topic_filter) except -1
    # Tells who watches the publisher or the topic, and marks the message.
    cdef int trace_publish(self, pub_t* pub, route_t* route) except -1
    cdef bint keep_retained(self, pub_t* pub) except -1
    # A member of a shared group does not hear the message (outcome: UNHEARD or AWAY): the next one that does gets it. HEARD:
    # there was one; UNHEARD: none, and some may not hear it; AWAY: none. leaving: somebody else who is not asked; NULL:
    # nobody. Asks every member at worst.
    cdef int pass_on(self, pub_t* pub, ShareGroup group, PyObject* picked, PyObject* leaving, int outcome) except -1
    cdef int release_publishers(self) except -1
