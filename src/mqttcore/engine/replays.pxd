# Retained messages on their way to a new subscription (MQTT 5 §3.3.1.3): a SUBSCRIBE may bring more of them than the
# connection takes at once, so each goes on where it stopped, in slices.

from libc.stdint cimport uint8_t, uint32_t

from mqttcore.engine.exchanges cimport Exchanges
from mqttcore.engine.retained cimport RetainedCursor
from mqttcore.engine.subscriber cimport subids_t


# Of one subscription.
cdef class Replay:
    cdef bytes topic_filter
    cdef uint32_t repeats             # times the filter was subscribed to again since: each wants all messages once more
    cdef RetainedCursor cursor
    cdef subids_t* subids
    cdef str unwanted                 # client id whose messages No Local keeps away; None: none
    cdef uint8_t qos


# Of one session: one per filter, so there are no more than subscriptions.
cdef class Replays:
    cdef dict running                 # bytes filter -> Replay; the first one is being sent

    # Only while there is one.
    cdef Replay first(self)
    # unwanted: client id whose messages do not come; None: all do.
    cdef int start(self, bytes topic_filter, RetainedCursor cursor, uint8_t qos, str unwanted, subids_t* ids) except -1
    cdef int stop(self, bytes topic_filter) except -1
    # Sends what the window, the buffer and the budget of retained nodes allow.
    cdef int pump(self, Exchanges session) except -1
