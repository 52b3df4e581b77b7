"""What one trace watches; watch.pxd describes it."""

cimport cython

from mqttcore.engine.filters cimport filter_matches
from mqttcore.engine.subscriber cimport KIND_WATCH

import logging

log = logging.getLogger("mqttcore.engine")

cdef dict SUBJECTS = {"client_id": WATCH_CLIENT, "address": WATCH_ADDRESS, "topic_filter": WATCH_TOPIC}

cdef enum:
    RESERVE = 10              # one entry in so many is kept for what is no packet


@cython.final
cdef class Watch(Subscriber):
    """One trace's eye in the engine.

    subject: `client_id`, `address` or `topic_filter`. put(entry): takes each entry. on_failure(error): called once when
    making an entry or *put* raised; nothing more comes then. covers(address): for addresses, whether one is watched.
    entries_per_s: entries beyond are not made, but counted in `skipped`; 0: no bound.
    """

    def __init__(
        self, subject: str, value: str, put: object, on_failure: object, *, covers: object = None, payload_bytes: int = 0,
        entries_per_s: int = 0,
    ) -> None:
        self.kind = KIND_WATCH
        self.subject = SUBJECTS[subject]
        self.value = value
        self.topic_filter = value.encode()
        self.put = put
        self.on_failure = on_failure
        self.covers = covers
        self.payload_bytes = payload_bytes
        self.rate = self.left = entries_per_s

    cdef bint has_room(self, int64_t now_ms, bint is_packet) noexcept:
        if self.is_over:
            return False
        if self.rate == 0:
            return True
        if now_ms >= self.second_ends_ms:
            self.second_ends_ms = now_ms + 1000
            self.left = self.rate
        if self.left <= (self.rate // RESERVE if is_packet else 0):
            self.skipped += 1
            return False
        self.left -= 1
        return True

    cdef int give(self, object entry) except -1:
        if self.is_over:
            return 0
        try:
            self.put(entry)
        except Exception as error:
            self.fail(error)
        return 0

    cdef int fail(self, object error) except -1:
        if self.is_over:
            return 0
        self.is_over = True
        try:
            self.on_failure(error)
        except Exception:
            log.exception("the trace of %s failed", self.value)
        return 0

    cdef bint matches(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        return filter_matches(<const uint8_t*><char*>self.topic_filter, len(self.topic_filter), topic, size)
