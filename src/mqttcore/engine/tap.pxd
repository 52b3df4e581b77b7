# A subscriber that hands messages to Python in batches, through a bounded queue.

from libc.stdint cimport int64_t, uint64_t

from mqttcore.engine.core cimport Core
from mqttcore.engine.topics cimport Subscriber


cdef class Tap(Subscriber):
    cdef Core core
    cdef object waiting               # collections.deque of Message
    cdef object on_message            # called when the queue stops being empty; None: nobody waits
    cdef Py_ssize_t messages_maximum
    cdef int64_t bytes_maximum
    cdef readonly int64_t bytes_held
    cdef readonly uint64_t dropped
