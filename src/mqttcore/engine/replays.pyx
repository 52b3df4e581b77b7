"""Retained messages on their way to a new subscription."""

from mqttcore.engine.addressee cimport GUARD_HOOK, GUARD_MOUNT, GUARD_RULES
from mqttcore.engine.core cimport DROP_NOT_AUTHORIZED, DROP_TOO_LARGE
from mqttcore.engine.message cimport Publisher, msg_ref, msg_t, msg_unref, msg_view, pub_t
from mqttcore.engine.mount cimport is_within
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.subscriber cimport subids_ref, subids_unref

cdef enum:
    REPLAY_BUDGET = 512       # nodes of the retained tree visited per pump


cdef class Replay:
    """Retained messages that answer one subscription."""

    def __dealloc__(self):
        subids_unref(self.subids)


cdef class Replays:
    """Those of one session, one after the other."""

    def __cinit__(self):
        self.running = {}

    cdef Replay first(self):
        return <Replay>next(iter(self.running.values()))

    cdef int start(self, bytes topic_filter, RetainedCursor cursor, uint8_t qos, str unwanted, subids_t* ids) except -1:
        # A filter that is subscribed to again while its messages are on their way gets them once more behind them: counted,
        # so that repeating costs no memory [MQTT-3.8.4-3].
        cdef Replay replay = <Replay>self.running.get(topic_filter)
        if replay is None:
            replay = Replay.__new__(Replay)
            replay.topic_filter = topic_filter
            replay.cursor = cursor
            self.running[topic_filter] = replay
        else:
            cursor.close()
            replay.repeats += 1
        replay.qos = qos
        replay.unwanted = unwanted
        subids_unref(replay.subids)
        replay.subids = subids_ref(ids)
        return 0

    cdef int stop(self, bytes topic_filter) except -1:
        cdef Replay replay = <Replay>self.running.pop(topic_filter, None)
        if replay is not None:
            replay.cursor.close()
        return 0

    cdef int pump(self, Exchanges session) except -1:
        cdef Replay replay
        cdef msg_t* m
        cdef pub_t pub
        cdef int budget = REPLAY_BUDGET
        cdef int readable
        cdef uint8_t qos
        cdef Outlet link = session.link
        cdef bint is_allowed
        while self.running:
            replay = self.first()
            while (
                budget > 0
                and session.link.out.pending < session.core.limits.output_high_water_bytes
                and (replay.qos == 0 or session.has_window())
            ):
                m = replay.cursor.next(&budget)
                if m == NULL:
                    break
                if m.expires_ms and m.expires_ms <= session.core.now_ms:
                    continue
                if replay.unwanted is not None and m.publisher != NULL and (
                    (<Publisher>m.publisher).client_id == replay.unwanted
                ):
                    continue          # [MQTT-3.8.3-3]
                if session.guards & GUARD_MOUNT and not is_within(session.mount, m.data, m.topic_size):
                    continue
                msg_view(m, &pub)
                if session.core.tracer.subjects:
                    pub.traced |= session.core.tracer.trace_of(pub.topic, pub.topic_size)
                qos = m.qos if m.qos < replay.qos else replay.qos
                if session.guards & GUARD_RULES:
                    readable = session.readable_qos(pub.topic, pub.topic_size)
                    if readable < 0:
                        session.count_drop(DROP_NOT_AUTHORIZED, 1, &pub)
                        continue
                    if readable < qos:
                        qos = readable
                if session.guards & GUARD_HOOK:
                    msg_ref(m)
                    try:
                        is_allowed = session.core.authorize_deliver(session, &pub)
                        if session.link is not link or not self.running or self.first() is not replay:
                            return 0
                        if is_allowed and qos:
                            session.send_new(&pub, qos, 1, replay.subids, NULL, session.core.now_ms)
                        elif is_allowed and not link.send_publish(&pub, 0x31, 0, replay.subids):
                            session.count_drop(DROP_TOO_LARGE, 1, &pub)
                    finally:
                        msg_unref(m)
                elif qos:
                    session.send_new(&pub, qos, 1, replay.subids, NULL, session.core.now_ms)
                elif not session.link.send_publish(&pub, 0x31, 0, replay.subids):
                    session.count_drop(DROP_TOO_LARGE, 1, &pub)
            else:
                break                 # no room or no budget: go on at the next pump
            if budget <= 0:
                break
            if replay.repeats:
                replay.repeats -= 1
                replay.cursor.close()
                replay.cursor = session.core.retained.match(
                    <const uint8_t*><char*>replay.topic_filter, len(replay.topic_filter)
                )
            else:
                self.stop(replay.topic_filter)
        return 0
