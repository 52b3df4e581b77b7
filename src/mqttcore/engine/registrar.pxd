# The part of Engine that knows who subscribes to what, and what is retained.

from libc.stdint cimport uint8_t, uint32_t

from mqttcore.engine.dispatcher cimport Dispatcher
from mqttcore.engine.session cimport Session


cdef class Registrar(Dispatcher):
    cdef dict taps                        # id(subscriber) -> (filter, subscriber): subscribers that are no sessions

    # Sets its bit, and that of its connection, where somebody watches it.
    cdef int watch_session(self, Session session) except -1
    cdef int replay_retained(self, Session session, bytes topic_filter, uint8_t options, uint8_t qos,
                             uint32_t subid) except -1
