# What one trace watches: a client, addresses or topics. A watch on topics hangs on the trie, so a route knows whether any
# matches its topic; it takes no part in delivery.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.engine.subscriber cimport Subscriber


cdef enum:
    WATCH_CLIENT = 1
    WATCH_ADDRESS = 2
    WATCH_TOPIC = 4


cdef class Watch(Subscriber):
    cdef readonly uint8_t subject     # WATCH_*
    cdef readonly str value           # client id, address or network, Topic Filter
    cdef bytes topic_filter           # of WATCH_TOPIC
    cdef object covers                # of WATCH_ADDRESS: whether an address is watched
    cdef object put                   # takes each entry
    cdef object on_failure            # takes what went wrong: the watch is over then
    cdef readonly uint32_t payload_bytes          # of a payload that go into an entry
    cdef readonly bint is_over        # takes nothing any more
    cdef readonly uint64_t skipped    # entries over the rate
    cdef uint32_t rate                # entries a second; 0: any
    cdef uint32_t left                # of this second
    cdef int64_t second_ends_ms       # engine clock

    # Whether one more entry may be made now. is_packet: such leave some of each second's room to rarer things.
    cdef bint has_room(self, int64_t now_ms, bint is_packet) noexcept
    # Hands an entry over. What that raises ends the watch, and nothing else.
    cdef int give(self, object entry) except -1
    cdef int fail(self, object error) except -1
    cdef bint matches(self, const uint8_t* topic, Py_ssize_t size) noexcept
