# Records of a store back into an engine, in the order of their keys.
#
# Messages come before what refers to them, sessions maybe after; so messages stand in a table by key until everything
# was read, sessions are made at the first record that names them, and what refers to a shared subscription finds it at
# the end. Payloads that no one keeps in memory, because their entries are far back in a queue, go at the end of a chunk.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from mqttcore.engine.engine cimport Engine
from mqttcore.engine.keeper cimport Keeper
from mqttcore.engine.message cimport msg_t, stored_t
from mqttcore.engine.session cimport Session


cdef struct row_t:
    stored_t* stored          # a reference
    msg_t* message            # a reference while the payload is kept for what may come; NULL: not any more


cdef class Restorer:
    cdef readonly Keeper keeper
    cdef Engine engine
    cdef row_t* rows          # messages, keys ascending
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity
    cdef Py_ssize_t settled   # rows whose payload is kept by those who want it alone
    cdef uint64_t last_key
    cdef dict sessions        # number -> Session
    cdef dict shares          # number -> dict: key of an entry record -> $share filter; to be found at the end
    # Key of a message -> who has to have it in memory: (Session, packet id), (Session, 0) for the will, (None, 0) for the
    # retained tree.
    cdef dict missing
    cdef dict publishers      # of messages, shared
    cdef list connected       # Sessions that had a connection
    cdef readonly dict counts

    cdef row_t* find(self, uint64_t key) noexcept
    cdef Session session_of(self, uint64_t number)
    cdef int take_session(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1
    cdef int take_subscription(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1
    cdef int take_message(self, uint64_t key, const uint8_t* record, Py_ssize_t size) except -1
    cdef int take_entry(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1
    cdef int take_received(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1
    cdef int take_retained(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1
    cdef int retain(self, row_t* row) except -1
    cdef int settle(self) except -1
    cdef void let_go(self) noexcept
    cdef int finish_session(self, Session session) except -1
    cdef int drop_orphan(self, Session session) except -1
