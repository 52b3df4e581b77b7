"""Taps: Python consumers on the trie, fed in batches."""

from cpython.ref cimport PyObject

from mqttcore.engine.core cimport DROP_TAP_FULL, Core
from mqttcore.engine.message cimport Message, msg_bytes, msg_t, pub_settle, pub_t
from mqttcore.engine.subscriber cimport KIND_TAP
from mqttcore.engine.topics cimport Subscriber, target_t

import logging

log = logging.getLogger("mqttcore.engine")


cdef class Tap(Subscriber):
    """A bounded queue of messages that match a filter; the newest is dropped (and counted) when it is full.

    on_message: called without arguments when the first message comes into an empty queue. The queue holds at most
    *messages_maximum* messages and *bytes_maximum* bytes.
    pauses: what clients publish at QoS 1 and 2 is not dropped; they are not read for as long as the queue is nearly full.
    It exceeds its bounds by one message of each client at most. QoS 0 and the broker's own messages are dropped as ever.
    """

    def __init__(
        self, core: Core, on_message: object, *, messages_maximum: int, bytes_maximum: int, pauses: bool = False
    ) -> None:
        self.core = core
        self.kind = KIND_TAP
        self.on_message = on_message
        self.messages_maximum = messages_maximum
        self.bytes_maximum = bytes_maximum
        self.pauses = pauses
        self.waiting = []
        self.is_online = True

    cdef int deliver(self, pub_t* pub, target_t* target) except -1:
        cdef msg_t* m = pub_settle(pub)       # on_message may end the publisher's connection
        cdef Py_ssize_t size = msg_bytes(m)
        cdef Py_ssize_t count = len(self.waiting)
        cdef bint can_wait = self.pauses and pub.qos != 0 and pub.origin != NULL
        if (count >= self.messages_maximum or self.bytes_held + size > self.bytes_maximum) and not can_wait:
            self.dropped += 1
            self.core.counters.dropped[DROP_TAP_FULL] += 1
            return 0
        self.bytes_held += size
        self.taken += 1
        self.waiting.append(Message.new(m))
        if can_wait and self.is_congested(4):
            self.core.congested = <PyObject*>self
        if count == 0:
            try:
                self.on_message()
            except Exception:
                log.exception("a tap's on_message")       # its fault; publisher and other subscribers go on
        return 0

    cdef bint is_congested(self, uint32_t n) noexcept:
        return not self.is_closed and (
            <int64_t>len(self.waiting) * n > <int64_t>self.messages_maximum * (n - 1)
            or self.bytes_held * n > self.bytes_maximum * (n - 1)
        )

    @property
    def queued(self) -> int:
        """Messages that wait to be taken."""
        return len(self.waiting)

    def close(self) -> None:
        """Forget what waits and hold nobody any more; to be taken off the trie as well (`Engine.remove_tap`)."""
        self.is_closed = True
        self.waiting = []
        self.bytes_held = 0

    def take(self, limit: int = 0) -> list:
        """Return what waits, oldest first, at most *limit* messages (0: all)."""
        cdef list taken = self.waiting
        cdef Message message
        if limit == 0 or len(taken) <= limit:
            self.waiting = []
            self.bytes_held = 0
            return taken
        self.waiting = taken[limit:]
        del taken[limit:]
        for message in taken:
            self.bytes_held -= msg_bytes(message.ref)
        return taken
