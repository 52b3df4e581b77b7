# The broker's state as its drivers know it: clock, flushing, wills, expiry. Sans-io: a driver sets the clock and flushes.
#
#   Core ◀─ Authorizer ◀─ Dispatcher ◀─ Registrar ◀─ Acceptor ◀─ Engine: one object; each says what it adds.

from libc.stdint cimport int64_t

from mqttcore.engine.acceptor cimport Acceptor
from mqttcore.engine.session cimport Session


cdef class Engine(Acceptor):
    cdef readonly bint is_closed          # close() was called
    cdef object on_wake                   # called when output appears outside a driver's turn, or None
    cdef object on_journal                # called when there is something to do for the store, or None
    cdef int64_t queued_bytes_when_full   # of counters, when is_memory_full was set
    cdef int expired                      # sessions since the clock last turned

    cdef int flush_dirty(self) except -1
    cdef int turn(self, int64_t now_ms) except -1
    cdef int publish_will(self, Session session) except -1
    cdef int read_limits(self, object limits) except -1
    # Cuts limits to what lets nothing grow.
    cdef void tighten_limits(self) noexcept
    cdef int arm_session(self, Session session) except -1
    cdef int session_due(self, Session session, int64_t now_ms) except -1
