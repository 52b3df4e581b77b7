# The watches of one engine, the connections they are about, and the handing over of entries.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from mqttcore.engine.message cimport birth_t
from mqttcore.engine.watch cimport Watch


# host:port of an address, a path, or None.
cdef object text_of(object address)


# A connection that is watched.
cdef class Traced:
    cdef uint64_t number
    cdef list watches                 # replaced, never changed: it may be iterated


cdef class Watchers:
    cdef const birth_t* birth         # of the engine that this belongs to: its clocks
    cdef uint8_t subjects             # WATCH_* of all watches
    cdef list watches                 # all, replaced when they change
    cdef dict clients                 # client id -> list of Watch
    cdef dict connections             # Connection -> Traced
    cdef uint64_t numbered            # connections so far

    cdef int begin(self, const birth_t* birth) except -1
    cdef int add(self, Watch watch) except -1
    # Connections go on having it until they are asked about by is_free().
    cdef int remove(self, Watch watch) except -1
    # Whether nobody watches a connection any more.
    cdef bint is_free(self, object connection) except -1
    # Looks whether a connection, or its client, is watched, and tells who did not know of it that it is open. client_id:
    # None before its CONNECT.
    cdef bint look_at(self, object connection, str client_id) except -1
    # Whether anybody has to be told about a message with this topic that is not going its usual way.
    cdef bint wants_topics(self) noexcept
    # TRACED_TOPIC where a watch matches a topic, else 0.
    cdef uint8_t trace_of(self, const uint8_t* topic, Py_ssize_t size) noexcept

    cdef int64_t now_ms(self) noexcept
    cdef int64_t wall_ms(self) noexcept
    # client: a Connection or a Session; None: nobody.
    cdef list watches_of(self, object client)
    # Those given, and those that match the topic.
    cdef list with_topic(self, list watches, const uint8_t* topic, Py_ssize_t size)
    cdef object number_of(self, object client)
    # Those that have room for an entry; None: nobody.
    cdef list having_room(self, list watches, bint is_packet)
    # Makes one entry for all of them. kind: its class; fields: without those of all entries.
    cdef int tell(self, list watches, object client, object kind, dict fields) except -1
    cdef int break_off(self, list watches, object error) except -1
