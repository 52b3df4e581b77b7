# The part of Engine that decides what a client may do: rights, hooks, rates and expiry of identities.
#
#   accept ──▶ admit_identity (rights, owner, will) ──▶ session ──▶ take_identity (rights, rates, expiry, what it may not
#   have any more)                                       set_identity and re-authentication come in at the last

from libc.stdint cimport int64_t, uint8_t

from mqttcore.engine.connection cimport Connection
from mqttcore.engine.core cimport Core
from mqttcore.engine.message cimport msg_t, pub_t
from mqttcore.engine.permissions cimport Rights
from mqttcore.engine.queue cimport queue_t
from mqttcore.engine.session cimport Session


# A SUBSCRIBE that is being decided, filter by filter.
cdef class Subscribing:
    cdef object packet
    cdef list decisions               # 0 to 2: at most that QoS; from 0x80: the reason code of the refusal
    cdef bint is_asking               # the hook runs: its answer may come from within


cdef class Authorizer(Core):
    cdef readonly bint sys_for_anonymous

    cdef int read_authorization(self, object authorization) except -1
    # What an identity gives a client that is being accepted, before its session is looked at. Raises ProtocolError with
    # the reason code to refuse with.
    cdef Rights compile_identity(self, str client_id, str user_name, object identity, Rights previous,
                                 bytes mount)
    cdef Rights admit_identity(self, Connection conn, object identity, object packet, str user_name,
                               Rights previous)
    # Whether a session may be had by an identity of that name (None: anonymous).
    cdef bint owns(self, Session session, object identity) except -1
    # Gives a session an identity and its rights; what they do not allow any more goes.
    cdef int take_identity(self, Session session, object identity, Rights rights) except -1
    # Engine clock at which an identity expires, 0: never. ValueError for what is no time.
    cdef int64_t identity_expires_ms(self, object identity) except -1
    # Rates and expiry of the connection that a session has.
    cdef int bind_identity(self, Session session) except -1
    # Asks rules and hook about a will: 0 or the reason code to refuse with. client: the Connection whose CONNECT brings it,
    # or the Session that publishes it.
    cdef int authorize_will(self, object client, Rights rights, const uint8_t* topic, Py_ssize_t size, uint8_t qos,
                            bint retain) except -1
    # Whether a handler that authorises by itself is asked about messages of a topic.
    cdef bint is_left_to_handlers(self, const uint8_t* topic, Py_ssize_t size) except -1
    # What the rights say of a filter: 0 to 2: at most that QoS, else the reason code of SUBACK.
    cdef int authorize_filter(self, Session session, bytes topic_filter) except -1
    cdef int go_on_subscribing(self, Connection conn) except -1
    cdef int decide(self, Connection conn, Subscribing subscribing, object answer) except -1
    # Engine's.
    cdef Session session_of(self, str client_id)
    cdef int wake(self) except -1
    # After a change of rights: subscriptions, then messages, that are not allowed any more.
    cdef int withdraw_subscriptions(self, Session session) except -1
    cdef int withdraw_messages(self, Session session) except -1
    cdef int withdraw_queued(self, Session session, queue_t* queue) except -1
    cdef int withdraw(self, Session session, msg_t* m, object group) except -1
