# The part of Engine that lets clients in.
#
#   admit ──▶ hooks ──▶ accept (accept_session: takeover, session, backlog, CONNACK)
#               ├─────▶ challenge ──▶ continue_authentication ──▶ …
#               └─────▶ refuse

from libc.stdint cimport uint8_t, uint64_t

from mqttcore.engine.connection cimport Connection
from mqttcore.engine.registrar cimport Registrar
from mqttcore.engine.session cimport Session


cdef class Acceptor(Registrar):
    cdef readonly object limits_source    # the config.Limits it was made from
    cdef readonly bint is_overloaded      # new clients are refused, see Engine.set_overloaded()
    cdef readonly bint is_memory_short    # no new sessions, see Engine.set_memory()
    cdef uint64_t epochs
    cdef uint64_t assigned
    cdef dict connack_properties          # of every MQTT 5 CONNACK
    cdef bytes connack_new                # whole packets, when nothing else is to be said
    cdef bytes connack_resumed
    cdef object on_backlog                # asked when a session is resumed that has something queued, or None

    # Whether a session that was made or found is still this connection's to open; if not, what was begun is undone.
    cdef bint goes_on_opening(self, Connection conn, Session session, bint present) except -1
    # Asks on_backlog what goes at once of what is kept back, and lets it go.
    cdef int offer_backlog(self, Connection conn, Session session, int keep_alive_s) except -1
    cdef int accept_session(self, object connection, object packet, object identity) except -1
    # CONNACK with Success; assigned: the Assigned Client Identifier, expiry_s: when other than asked for, else None.
    cdef bytes success_connack(self, object connection, object packet, bint present, str assigned, object expiry_s,
                               int keep_alive_s)
    cdef dict standing_properties(self, object limits)
    cdef int refuse_unsupported(self, Connection conn, uint8_t reason_code) except -1
    cdef int take_answer(self, Connection conn, object answer) except -1
    cdef int accept_anonymous(self, Connection conn) except -1
    cdef int take_reauthentication(self, Connection conn, object answer) except -1
    cdef int reauthenticated(self, Connection conn, object identity) except -1
    # Engine's.
    cdef Session make_session(self, str client_id)
