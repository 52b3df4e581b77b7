"""Taps: Python consumers on the trie, fed in batches."""

from mqttcore.engine.core cimport DROP_TAP_FULL, Core
from mqttcore.engine.message cimport Message, msg_bytes, msg_t, pub_keep, pub_t
from mqttcore.engine.topics cimport Subscriber, target_t

import logging
from collections import deque

log = logging.getLogger("mqttcore.engine")


cdef class Tap(Subscriber):
    """A bounded queue of messages that match a filter; the newest is dropped (and counted) when it is full.

    on_message: called without arguments when the first message comes into an empty queue. The queue holds at most
    *messages_maximum* messages and *bytes_maximum* bytes.
    """

    def __init__(self, core: Core, on_message: object, *, messages_maximum: int, bytes_maximum: int) -> None:
        self.core = core
        self.on_message = on_message
        self.messages_maximum = messages_maximum
        self.bytes_maximum = bytes_maximum
        self.waiting = deque()
        self.is_online = True

    cdef int deliver(self, pub_t* pub, target_t* target) except -1:
        cdef msg_t* m = pub_keep(pub)
        cdef bint was_empty = not self.waiting
        if len(self.waiting) >= self.messages_maximum or self.bytes_held + msg_bytes(m) > self.bytes_maximum:
            self.dropped += 1
            self.core.counters.dropped[DROP_TAP_FULL] += 1
            return 0
        self.bytes_held += msg_bytes(m)
        self.waiting.append(Message.new(m))
        if was_empty:
            try:
                self.on_message()
            except Exception:
                log.exception("a tap's on_message")       # its fault; publisher and other subscribers go on
        return 0

    def take(self, limit: int = 0) -> list:
        """Return what waits, oldest first, at most *limit* messages (0: all)."""
        cdef list taken = []
        cdef Message message
        while self.waiting and (limit == 0 or len(taken) < limit):
            message = self.waiting.popleft()
            self.bytes_held -= msg_bytes(message.ref)
            taken.append(message)
        return taken
