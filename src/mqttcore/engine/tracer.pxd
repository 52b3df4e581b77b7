# Traces: what happens to watched clients, addresses and topics, told to those who watch.
#
# Who is not watched pays one test of a bit. Connection, Session and route_t have it; pub_t takes it over from them, msg_t
# from pub_t. Whoever comes by with a packet tests the bit of what it has in hands anyway, and calls here when it is set.
# Here everything may be slow, within each watch's rate, and nothing may be dangerous: what goes wrong ends the watches
# concerned, never the connection.
#
# Connections and sessions come as objects: they know the tracer, not the other way round. Watchers has what is common.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint64_t

from mqttcore.engine.message cimport birth_t, pub_t
from mqttcore.engine.watch cimport Watch
from mqttcore.engine.watchers cimport Watchers


cdef class Tracer(Watchers):
    @staticmethod
    cdef Tracer new(const birth_t* birth)

    # A CONNECT was decoded: look_at() with its client id, then the packet.
    cdef bint identified(self, object connection, object packet, Py_ssize_t size) except -1

    # Of connections and sessions whose bit is set.
    cdef int packet_in(self, object connection, uint8_t first, const uint8_t* body, Py_ssize_t size) except -1
    cdef object malformed(self, object connection, uint8_t first, Py_ssize_t total)
    cdef int packet_out(self, object connection, const uint8_t* packet, Py_ssize_t size) except -1
    cdef int failed(self, object connection, str reason) except -1
    # Of what is none of the engine's, by its address: kind is the class of the entry, fields are those besides address.
    cdef int outside(self, object address, object kind, dict fields) except -1
    # Nobody is accepted for a while, so nobody's address is known: tells all who watch addresses. listener None: all of them.
    cdef int accepting_paused(self, str listener, str reason) except -1
    cdef int decided(self, object client, str hook, str plugin, str answer) except -1
    cdef int session_opened(self, object connection, object session, bint session_present) except -1
    cdef int connect_refused(self, object connection, uint8_t reason_code, str reason) except -1
    cdef int protocol_broken(self, object connection, object error) except -1
    cdef int subscribed(self, object session, bytes topic_filter, uint8_t options, uint64_t subid) except -1
    cdef int unsubscribed(self, object session, bytes topic_filter) except -1
    # reason: PAUSE_*; 0: it is read again.
    cdef int paused(self, object connection, uint8_t reason) except -1
    cdef int closed(self, object connection, int reason_code, str reason, str detail) except -1
    cdef int session_ended(self, object session) except -1

    # Of messages whose bits are set, or that belong to such a connection or session. unsaid: bytes of the topic that are
    # the mount point, and not in the packet.
    cdef int publish_out(self, object connection, pub_t* pub, uint8_t first, uint16_t packet_id, Py_ssize_t size,
                         Py_ssize_t unsaid) except -1
    # True: a watch on topics has taken it, and will its deliveries.
    cdef bint published(self, pub_t* pub, Py_ssize_t recipients) except -1
    cdef int queued(self, object session, pub_t* pub, uint8_t qos) except -1
    # client: the connection or session it came from. reason_code 0x80 and above: it was refused.
    cdef int diverted(self, object client, const uint8_t* topic, Py_ssize_t size, uint8_t qos, Py_ssize_t payload_bytes,
                      uint8_t reason_code) except -1
    # A message does not go to a session that subscribed to it: `no_local` or `away`.
    cdef int passed_by(self, object session, pub_t* pub, str reason) except -1
    # topic: NULL when there are several. reason: DROP_*.
    cdef int dropped(self, object session, int reason, int64_t count, const uint8_t* topic, Py_ssize_t size) except -1
