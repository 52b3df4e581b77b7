# What is kept back of a session's queue: what had been queued when the client came back, where a service lets it go in
# its own time. It stands beside the queue, so newer messages pass it by; what is let go moves into the queue.

from libc.stdint cimport int64_t

from mqttcore.engine.backlog cimport Backlog


# Keeps back what is queued, until it is let go or the connection ends.
cdef int keep_back(Backlog session) except -1
# Lets up to *count* messages go into the queue, for pump(); how many, without those that are dropped: what waited for
# age_maximum_ms (0: any time), what the rights do not allow any more.
cdef int64_t let_go(Backlog session, int64_t count, bint newest_first, int64_t age_maximum_ms) except -1
# Ends keeping back: one queue again, in the order in which they came.
cdef int take_back(Backlog session) except -1
