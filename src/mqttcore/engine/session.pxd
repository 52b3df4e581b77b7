# An MQTT session: what the broker keeps for one client id, connected or not (MQTT 5 §4.1).
#
#   deliver() -> window (packet ids, up to the client's Receive Maximum) -> Outlet -> network
#            \-> queue (no connection, window full, or the connection does not read) -> pump() when there is room
#
#   Subscriber ◀─ Addressee ◀─ SessionRecord ◀─ Backlog ◀─ Exchanges ◀─ Session: one object; each says what it adds.
#
# A durable session (number not 0) has each of these facts in the store as well: the session itself, its subscriptions,
# each entry of `queue`, each slot of `sent` and `received`. journal.pxd says what waits for them to be safe.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.engine.core cimport Core
from mqttcore.engine.exchanges cimport Exchanges
from mqttcore.engine.message cimport pub_t
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.queue cimport queue_t
from mqttcore.engine.replays cimport Replays
from mqttcore.engine.retained cimport RetainedCursor
from mqttcore.engine.subscriber cimport subids_t, target_t
from mqttcore.engine.timers cimport timer_t


cdef class Session(Exchanges):
    cdef Replays replays              # None: none
    cdef timer_t timer                # will delay or session expiry, whichever comes first, while there is no connection
    cdef readonly int64_t connected_ms
    cdef readonly uint64_t epoch      # counts takeovers: (client id, epoch) names an owner (DESIGN §7)

    @staticmethod
    cdef Session new(Core core, str client_id)

    # Sends what the window and the buffer allow: resends, then queued, then retained messages.
    cdef int pump(self) except -1
    # True while pump() would have something to do if there were room.
    cdef bint has_backlog(self) noexcept
    # After a pump() that sent nothing: it stopped for its budget of retained nodes, not for want of room.
    cdef bint has_paused(self) noexcept
    cdef int pump_queue(self, queue_t* queue) except -1
    cdef int pump_replays(self) except -1
    # The same ways for a session whose messages the hook is asked about.
    cdef int deliver_asked(self, pub_t* pub, target_t* target) except -1
    cdef int pump_asked(self, queue_t* queue) except -1
    cdef int start_replay(self, bytes topic_filter, RetainedCursor cursor, uint8_t qos, bint no_local,
                          subids_t* ids) except -1
    cdef int stop_replay(self, bytes topic_filter) except -1
    # A connection takes the session up; resends are prepared [MQTT-4.4.0-1].
    cdef int attach(self, Outlet link, uint32_t receive_maximum) except -1
    cdef int detach(self) except -1
    # Everything it holds: queues, windows, will. Subscriptions are the engine's to remove.
    cdef int clear(self) except -1
