# A subscriber that hands messages to Python in batches, through a bounded queue.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from mqttcore.engine.core cimport Core
from mqttcore.engine.topics cimport Subscriber


cdef class Tap(Subscriber):
    cdef Core core
    cdef list waiting                 # Message, oldest first
    cdef object on_message            # called when the queue stops being empty
    cdef Py_ssize_t messages_maximum
    cdef int64_t bytes_maximum
    cdef readonly int64_t bytes_held
    cdef readonly uint64_t taken      # messages that came into the queue
    cdef readonly uint64_t dropped
    cdef readonly bint pauses         # a client that publishes at QoS 1 or 2 is held while there is no room; none of it dropped
    cdef readonly bint is_closed

    # True when the queue holds more than 1 - 1/n of what it may.
    cdef bint is_congested(self, uint32_t n) noexcept
