# How much a client may send: token buckets for its PUBLISH packets, each holding one second's worth.
#
# A client that has used them up is not read until they have refilled. TCP slows most clients down so; one that presses on
# at once, time after time for rate_excess_maximum_ms, is disconnected.

from libc.stdint cimport int64_t

from mqttcore.engine.timers cimport timer_t


cdef struct bucket_t:
    double per_ms             # 0: no bound
    double capacity
    double tokens             # below 0: in debt


cdef struct rates_t:
    bucket_t messages
    bucket_t bytes
    int64_t filled_ms         # when tokens were last added
    int64_t over_since_ms     # when the client began to press; 0: it does not
    int64_t paused_until_ms   # end of its last pause
    timer_t timer             # rings at the end of a pause


# Rates with full buckets, for the caller to free. A bound of 0 is none.
cdef rates_t* rates_new(double messages_per_s, double bytes_per_s, int64_t now_ms) except NULL
# New bounds, and full buckets.
cdef void rates_set(rates_t* rates, double messages_per_s, double bytes_per_s, int64_t now_ms) noexcept
# Takes one message of *size* bytes: how many ms the client must pause for it, 0: none.
cdef int64_t rates_take(rates_t* rates, Py_ssize_t size, int64_t now_ms) noexcept
# How long the client has been pressing, now that it must pause for *wait_ms*.
cdef int64_t rates_pressed(rates_t* rates, int64_t wait_ms, int64_t now_ms) noexcept
# The stricter of two bounds, where 0 is none.
cdef inline double stricter(double one, double other) noexcept nogil:
    if one == 0 or other != 0 and other < one:
        return other
    return one
