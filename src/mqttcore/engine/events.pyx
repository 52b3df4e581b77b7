"""What happened in the engine, gathered until the driver takes it; events.pxd has the kinds."""

import logging

from mqttcore.constants import ReasonCode
from mqttcore.events import (
    ClientAuthenticated,
    ClientConnected,
    ClientDisconnected,
    ConnectionClosed,
    ConnectRefused,
    Event,
    MessageDropped,
    SessionEnded,
    Subscribed,
    Unsubscribed,
)

log = logging.getLogger("mqttcore.engine")

BITS = {
    ClientConnected: EVENT_CLIENT_CONNECTED,
    ClientAuthenticated: EVENT_CLIENT_AUTHENTICATED,
    ConnectRefused: EVENT_CONNECT_REFUSED,
    ClientDisconnected: EVENT_CLIENT_DISCONNECTED,
    ConnectionClosed: EVENT_CONNECTION_CLOSED,
    SessionEnded: EVENT_SESSION_ENDED,
    Subscribed: EVENT_SUBSCRIBED,
    Unsubscribed: EVENT_UNSUBSCRIBED,
    MessageDropped: EVENT_MESSAGE_DROPPED,
}

# In the order of core.DROP_*; the metrics `messages_dropped_…` and `MessageDropped.reason` have these names.
DROP_NAMES = (
    "queue_full", "slow_reader", "expired", "too_large", "not_authorized", "session_ended", "total_full", "quota",
    "tap_full", "lost",
)


# What a reason code is called in events.
REASONS = {code.value: code.name.lower().replace("_", " ") for code in ReasonCode}


cdef tuple drop_names():
    return DROP_NAMES


cdef object identity_name(object identity):
    return None if identity is None else identity.name


cdef class EventLog:
    """Events of one engine that wait to be taken, once per turn of the driver."""

    def __cinit__(self):
        self.waiting = []
        self.drops = {}
        self.waiting_maximum = 0

    def observe(self, kinds: object, on_waiting: object, waiting_maximum: int) -> None:
        """Record events of these kinds and of their subclasses from now on.

        kinds: classes of `Event`. on_waiting: called without arguments when the first event waits; it has `take` called
        soon. waiting_maximum: of what waits; beyond it events are dropped and counted. Without kinds, nothing is recorded.
        """
        self.mask = 0
        for kind in kinds:
            for known, bit in BITS.items():
                if issubclass(known, kind):
                    self.mask |= <uint32_t>bit
        self.on_waiting = on_waiting
        self.waiting_maximum = waiting_maximum

    def take(self, time_ms: int) -> list:
        """Return what waits, in order; dropped messages come last, one event per client and reason.

        time_ms: for those, in milliseconds since 1970 (UTC).
        """
        cdef list taken = self.waiting
        cdef dict drops = self.drops
        self.waiting = []
        if drops:
            self.drops = {}
            for (client_id, reason), count in drops.items():
                taken.append(
                    MessageDropped(time_ms=time_ms, client_id=client_id, reason=DROP_NAMES[reason], count=count)
                )
        return taken

    def put(self, event: Event) -> None:
        """Add an event from outside the engine, in its place among the others, if anybody observes."""
        if self.on_waiting is not None:
            self.add(event)

    cdef int add(self, object event) except -1:
        if len(self.waiting) >= self.waiting_maximum:
            self.dropped += 1
            return 0
        self.waiting.append(event)
        if len(self.waiting) == 1 and not self.drops:
            self.wake()
        return 0

    cdef int count_drop(self, str client_id, int reason, int64_t count=1) except -1:
        cdef tuple key = (client_id, reason)
        cdef object before = self.drops.get(key)
        if before is None:
            if len(self.drops) >= self.waiting_maximum:
                self.dropped += 1
                return 0
            self.drops[key] = count
            if len(self.drops) == 1 and not self.waiting:
                self.wake()
        else:
            self.drops[key] = before + count
        return 0

    cdef int connected(self, int64_t time_ms, object client, object session, bint session_present,
                       int keep_alive_s) except -1:
        return self.add(ClientConnected(
            time_ms=time_ms,
            client_id=client.client_id,
            connection_id=client.connection_id,
            address=client.address,
            identity_name=identity_name(session.identity),
            user_name=session.user_name,
            listener=client.listener or "",
            protocol_version=client.protocol_version,
            clean_start=client.clean_start,
            session_present=session_present,
            session_expiry_s=session.session_expiry_s,
            keep_alive_s=keep_alive_s,
        ))

    cdef int authenticated(self, int64_t time_ms, object client, object identity) except -1:
        return self.add(ClientAuthenticated(
            time_ms=time_ms,
            client_id=client.client_id,
            connection_id=client.connection_id,
            address=client.address,
            identity_name=identity_name(identity),
        ))

    cdef int refused(self, int64_t time_ms, object client, uint8_t reason_code, str reason) except -1:
        return self.add(ConnectRefused(
            time_ms=time_ms,
            client_id=client.client_id,
            connection_id=client.connection_id,
            address=client.address,
            reason_code=reason_code,
            reason=reason,
            user_name=client.user_name,
            listener=client.listener or "",
        ))

    cdef int disconnected(self, int64_t time_ms, object client, uint8_t reason_code) except -1:
        return self.add(ClientDisconnected(
            time_ms=time_ms,
            client_id=client.client_id,
            connection_id=client.connection_id,
            address=client.address,
            reason_code=reason_code,
        ))

    cdef int closed(self, int64_t time_ms, object client, int reason_code, str reason, str detail) except -1:
        if reason_code >= 0:
            reason = REASONS.get(reason_code, "unspecified error")
        return self.add(ConnectionClosed(
            time_ms=time_ms,
            client_id=client.client_id,
            connection_id=client.connection_id,
            address=client.address,
            reason_code=reason_code if reason_code >= 0 else None,
            reason=reason,
            detail=detail,
        ))

    cdef int session_ended(self, int64_t time_ms, str client_id) except -1:
        return self.add(SessionEnded(time_ms=time_ms, client_id=client_id))

    cdef int subscribed(self, int64_t time_ms, str client_id, bytes topic_filter, uint8_t options,
                        uint32_t subid) except -1:
        return self.add(Subscribed(
            time_ms=time_ms, client_id=client_id, topic_filter=topic_filter.decode(), options=options,
            subscription_id=subid,
        ))

    cdef int unsubscribed(self, int64_t time_ms, str client_id, bytes topic_filter) except -1:
        return self.add(Unsubscribed(time_ms=time_ms, client_id=client_id, topic_filter=topic_filter.decode()))

    cdef int wake(self) except -1:
        try:
            self.on_waiting()
        except Exception:
            log.exception("observing events")
        return 0
