"""What a store kept, back into an engine; restore.pxd says in which order."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, PyObject
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, malloc, realloc

from mqttcore.engine.core cimport NEVER_S
from mqttcore.engine.journal cimport engine_time, message_of
from mqttcore.engine.message cimport msg_bytes, msg_ref, msg_unref, stored_ref, stored_unref
from mqttcore.engine.queue cimport entry_t, queue_at, queue_push, queue_push_stored
from mqttcore.engine.share cimport ShareGroup
from mqttcore.engine.subscriber cimport subids_of, subids_unref, subids_t
from mqttcore.engine.window cimport (
    AWAIT_OLD_PUBREL,
    AWAIT_PUBCOMP,
    slot_t,
    window_add,
    window_find,
    window_hold,
)
from mqttcore.store.framing cimport (
    FRAME_HEADER,
    KIND_ENTRY,
    KIND_MESSAGE,
    KIND_RECEIVED,
    KIND_RETAINED,
    KIND_SESSION,
    KIND_SUBSCRIPTION,
    frame_size,
    load_u32,
    load_u64,
)

import array
import logging

from mqttcore.errors import QuotaExceeded, StoreError

log = logging.getLogger("mqttcore.engine")

cdef enum:
    FIRST_ROWS = 1024
    SUPPLIED_AT_ONCE = 500    # messages asked for at a time


cdef int need(const uint8_t* p, const uint8_t* end, Py_ssize_t size) except -1:
    if end - p < size:
        raise StoreError("corrupt", "a record is shorter than it says")
    return 0


cdef inline uint16_t load_u16(const uint8_t* p) noexcept:
    return p[0] | p[1] << 8


cdef bytes take_text(const uint8_t** p, const uint8_t* end):
    cdef Py_ssize_t size
    cdef bytes text
    need(p[0], end, 2)
    size = load_u16(p[0])
    need(p[0] + 2, end, size)
    text = p[0][2:2 + size]
    p[0] += 2 + size
    return text


@cython.final
cdef class Restorer:
    """Fills an engine that nobody uses yet: `feed` all chunks, `supply` until nothing is missing, `finish`.

    last_key: the store's. Raises StoreError (corrupt) for what is no record; the engine is not to be used then.
    """

    def __init__(self, keeper: Keeper, *, last_key: int) -> None:
        self.keeper = keeper
        self.engine = keeper.engine
        keeper.journal.start(last_key)
        self.sessions = {}
        self.shares = {}
        self.missing = {}
        self.connected = []
        self.publishers = {}
        self.counts = dict.fromkeys(("sessions", "subscriptions", "messages", "entries", "retained", "orphans"), 0)

    def __dealloc__(self):
        self.let_go()
        free(self.rows)

    cdef void let_go(self) noexcept:
        # Its own references, once.
        while self.count:
            self.count -= 1
            if self.rows[self.count].message != NULL:
                msg_unref(self.rows[self.count].message)
            stored_unref(self.rows[self.count].stored)
        self.settled = 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk of `SessionStore.load`."""
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(chunk)
        cdef Py_ssize_t at = 0, used, size = PyBytes_GET_SIZE(chunk)
        cdef uint64_t key
        cdef uint8_t kind
        cdef const uint8_t* p
        cdef const uint8_t* end
        while at < size:
            used = frame_size(data, at, size)
            if used == 0:
                raise StoreError("corrupt", f"no record at byte {at} of a chunk")
            key = load_u64(data + at + 4)
            kind = data[at + 12]
            if key <= self.last_key or key >= self.keeper.journal.next_key:
                raise StoreError("corrupt", f"key {key} behind {self.last_key}, the last is {self.keeper.journal.next_key - 1}")
            self.last_key = key
            p = data + at + FRAME_HEADER
            end = data + at + used
            if kind == KIND_MESSAGE:
                self.take_message(key, data + at, used)
            elif kind == KIND_ENTRY:
                self.take_entry(key, p, end)
            elif kind == KIND_SUBSCRIPTION:
                self.take_subscription(key, p, end)
            elif kind == KIND_SESSION:
                self.take_session(key, p, end)
            elif kind == KIND_RECEIVED:
                self.take_received(key, p, end)
            elif kind == KIND_RETAINED:
                self.take_retained(key, p, end)
            else:
                raise StoreError("corrupt", f"record {key} has kind {kind}")
            at += used
        self.settle()

    cdef row_t* find(self, uint64_t key) noexcept:
        # The newest ones are asked for most.
        cdef Py_ssize_t low = 0, high = self.count, middle
        if self.count and self.rows[self.count - 1].stored.key == key:
            return &self.rows[self.count - 1]
        while low < high:
            middle = (low + high) // 2
            if self.rows[middle].stored.key < key:
                low = middle + 1
            else:
                high = middle
        return &self.rows[low] if low < self.count and self.rows[low].stored.key == key else NULL

    cdef int settle(self) except -1:
        # A payload that somebody has in memory needs no reference of ours; one that all its entries do without, goes. One
        # that nothing refers to yet may be wanted by what comes.
        cdef row_t* row
        while self.settled < self.count:
            row = &self.rows[self.settled]
            if row.message != NULL and row.stored.refs > 1:
                msg_unref(row.message)
                row.message = NULL
            self.settled += 1
        return 0

    cdef Session session_of(self, uint64_t number):
        cdef Session session = <Session>self.sessions.get(number)
        if session is None:
            session = self.engine.make_session("")
            session.number = number
            self.sessions[number] = session
        return session

    cdef int take_message(self, uint64_t key, const uint8_t* record, Py_ssize_t size) except -1:
        cdef row_t* grown
        cdef Py_ssize_t wanted
        cdef stored_t* stored
        cdef msg_t* m
        if self.count == self.capacity:
            wanted = max(self.capacity * 2, <Py_ssize_t>FIRST_ROWS)
            grown = <row_t*>realloc(self.rows, wanted * sizeof(row_t))
            if grown == NULL:
                raise MemoryError
            self.rows = grown
            self.capacity = wanted
        m = message_of(record, size, self.keeper.journal.wall_offset_ms, self.publishers)
        stored = <stored_t*>malloc(sizeof(stored_t))
        if stored == NULL:
            msg_unref(m)
            raise MemoryError
        stored.key = key
        stored.retained_key = 0
        stored.message = m
        stored.expires_ms = m.expires_ms
        stored.bytes = msg_bytes(m)
        stored.refs = 1
        m.stored = stored
        self.rows[self.count].stored = stored
        self.rows[self.count].message = m
        self.count += 1
        self.counts["messages"] += 1
        return 0

    cdef int take_session(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1:
        cdef Session session
        cdef Session other
        cdef row_t* row
        cdef uint64_t will
        need(p, end, 41)
        session = self.session_of(load_u64(p))
        if session.key:
            raise StoreError("corrupt", f"session {session.number} is there twice")
        session.key = key
        session.session_expiry_s = load_u32(p + 8)
        session.is_clean = session.session_expiry_s == 0
        session.expires_ms = engine_time(load_u64(p + 13), self.keeper.journal.wall_offset_ms)
        will = load_u64(p + 21)
        session.will_delay_s = load_u32(p + 29)
        session.will_due_ms = engine_time(load_u64(p + 33), self.keeper.journal.wall_offset_ms)
        if p[12]:
            # It was connected when the broker went: its connection ends now.
            self.connected.append(session)
            session.expires_ms = 0
            if session.session_expiry_s != NEVER_S:
                session.expires_ms = self.engine.now_ms + <int64_t>session.session_expiry_s * 1000
            if will:
                session.will_due_ms = self.engine.now_ms + <int64_t>min(
                    session.will_delay_s, session.session_expiry_s
                ) * 1000
        p += 41
        session.client_id = take_text(&p, end).decode()
        session.user_name = take_text(&p, end).decode() or None
        session.owner = take_text(&p, end).decode() or None
        session.set_mount(take_text(&p, end) or None)
        other = <Session>self.engine.clients.get(session.client_id)
        if other is not None:
            raise StoreError("corrupt", f"client {session.client_id} has sessions {other.number} and {session.number}")
        self.engine.clients[session.client_id] = session
        self.counts["sessions"] += 1
        row = self.find(will) if will else NULL
        if row == NULL:
            session.will_due_ms = 0
            return 0
        stored_ref(row.stored)
        if row.stored.message != NULL:
            session.will = msg_ref(row.stored.message)
        else:
            self.missing.setdefault(will, []).append((session, 0))
        return 0

    cdef int take_subscription(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1:
        cdef Session session
        cdef uint8_t options
        cdef uint32_t subid
        cdef bytes topic_filter
        need(p, end, 13)
        session = self.session_of(load_u64(p))
        options = p[8]
        subid = load_u32(p + 9)
        p += 13
        topic_filter = take_text(&p, end)
        try:
            self.engine.topics.subscribe(
                <const uint8_t*>PyBytes_AS_STRING(topic_filter), PyBytes_GET_SIZE(topic_filter), session, options, subid
            )
        except QuotaExceeded as error:
            log.error("a subscription to %r is dropped: %s", topic_filter, error)
            self.keeper.journal.delete(key)
            return 0
        if session.subscriptions is None:
            session.subscriptions = {}
            session.subscription_keys = {}
        session.subscriptions[topic_filter] = options | <uint64_t>subid << 8
        session.subscription_keys[topic_filter] = key
        self.engine.counters.subscriptions += 1
        self.counts["subscriptions"] += 1
        return 0

    cdef int take_entry(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1:
        cdef Session session
        cdef row_t* row = NULL
        cdef uint64_t message
        cdef uint16_t packet_id
        cdef uint8_t state
        cdef uint32_t ids_size
        cdef subids_t* ids
        cdef entry_t* entry
        cdef slot_t* slot
        cdef const uint8_t* fixed = p
        cdef bytes share
        cdef int64_t since_ms
        need(p, end, 33)
        message = load_u64(p + 8)
        packet_id = load_u16(p + 24)
        state = p[26]
        ids_size = load_u32(p + 29)
        need(p + 33, end, ids_size)
        p += 33 + ids_size
        share = take_text(&p, end)
        session = self.session_of(load_u64(fixed))
        if message:
            row = self.find(message)
        if state > AWAIT_PUBCOMP or (state == 0) != (packet_id == 0) or (state == AWAIT_PUBCOMP) != (message == 0):
            raise StoreError("corrupt", f"entry {key} has state {state} and packet id {packet_id}")
        if fixed[27] > 2:
            raise StoreError("corrupt", f"entry {key} has QoS {fixed[27]}")
        if message and row == NULL or packet_id and window_find(&session.sent, packet_id) != NULL:
            self.counts["orphans"] += 1
            self.keeper.journal.delete(key)
            return 0
        ids = subids_of(fixed + 33, ids_size)
        try:
            if state == 0:
                since_ms = <int64_t>load_u64(fixed + 16) - self.keeper.journal.wall_offset_ms
                if (
                    row.stored.message != NULL and session.queue.resident == session.queue.count
                    and session.queue.count < self.engine.limits.queued_resident_messages
                    and session.queue.resident_bytes < self.engine.limits.queued_resident_bytes
                ):
                    entry = queue_push(
                        &session.queue, row.stored.message, ids, NULL, fixed[27], fixed[28], since_ms
                    )
                    entry.stored = stored_ref(row.stored)
                else:
                    entry = queue_push_stored(&session.queue, row.stored)
                    entry.subids = ids
                    ids = NULL
                    entry.since_ms = since_ms
                    entry.qos = fixed[27]
                    entry.retain = fixed[28]
                entry.key = key
                self.engine.counters.queued += 1
                self.engine.counters.queued_bytes += row.stored.bytes
            else:
                slot = window_add(&session.sent, packet_id)
                slot.state = state
                slot.key = key
                slot.retain = fixed[28]
                slot.subids = ids
                ids = NULL
                session.sent.last_id = packet_id
                self.engine.counters.in_flight += 1
                if row != NULL:
                    slot.stored = stored_ref(row.stored)
                    if row.stored.message != NULL:
                        window_hold(&session.sent, slot, row.stored.message)
                    else:
                        self.missing.setdefault(message, []).append((session, packet_id))
        finally:
            subids_unref(ids)
        if share:
            self.shares.setdefault(session.number, {})[key] = share
        self.counts["entries"] += 1
        return 0

    cdef int take_received(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1:
        cdef Session session
        cdef slot_t* slot
        need(p, end, 10)
        session = self.session_of(load_u64(p))
        if load_u16(p + 8) == 0 or window_find(&session.received, load_u16(p + 8)) != NULL:
            self.counts["orphans"] += 1
            self.keeper.journal.delete(key)
            return 0
        slot = window_add(&session.received, load_u16(p + 8))
        slot.state = AWAIT_OLD_PUBREL
        slot.key = key
        self.engine.counters.awaiting_release += 1
        return 0

    cdef int take_retained(self, uint64_t key, const uint8_t* p, const uint8_t* end) except -1:
        cdef row_t* row
        need(p, end, 8)
        row = self.find(load_u64(p))
        if row == NULL or row.stored.retained_key:
            self.counts["orphans"] += 1
            self.keeper.journal.delete(key)
            return 0
        row.stored.retained_key = key
        stored_ref(row.stored)
        if row.stored.message != NULL:
            return self.retain(row)
        self.missing.setdefault(row.stored.key, []).append((None, 0))
        return 0

    cdef int retain(self, row_t* row) except -1:
        try:
            self.engine.retained.put(row.stored.message)
            self.counts["retained"] += 1
        except QuotaExceeded as error:
            log.error("a retained message is dropped: %s", error)
            self.keeper.journal.drop_retained(row.stored)
        return 0

    # --- the end ------------------------------------------------------------------------------------------------------

    def wanted(self) -> bytes:
        """Return keys of messages for `supply`, as `SessionStore.read` takes them; b"": nothing is missing."""
        keys = sorted(self.missing)[:SUPPLIED_AT_ONCE]
        return array.array("Q", keys).tobytes()

    def supply(self, keys: bytes, chunk: bytes) -> None:
        """Take what the store has of the keys that `wanted` gave."""
        cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(chunk)
        cdef Py_ssize_t at = 0, used, size = PyBytes_GET_SIZE(chunk)
        cdef uint64_t key
        cdef row_t* row
        cdef msg_t* m
        cdef Session session
        cdef slot_t* slot
        while at < size:
            used = frame_size(data, at, size)
            key = load_u64(data + at + 4) if used else 0
            row = self.find(key) if key else NULL
            if row == NULL or data[at + 12] != KIND_MESSAGE:
                raise StoreError("corrupt", f"no message record at byte {at} of what was read")
            m = row.stored.message
            if m == NULL:
                m = message_of(data + at, used, self.keeper.journal.wall_offset_ms, self.publishers)
                m.stored = row.stored
                row.stored.message = m
            else:
                msg_ref(m)
            for owner, what in self.missing.pop(key, ()):
                if owner is None:
                    self.retain(row)
                    continue
                session = <Session>owner
                slot = window_find(&session.sent, what) if what else NULL
                if slot != NULL:
                    window_hold(&session.sent, slot, m)
                elif what == 0:
                    session.will = msg_ref(m)
            msg_unref(m)
            at += used
        for key in memoryview(keys).cast("Q"):
            self.missing.pop(key, None)       # the store has lost it: what needs it goes without

    def finish(self) -> dict:
        """Let the engine begin: clocks of sessions and wills run, what nothing refers to is deleted; how much there was."""
        cdef Session session
        cdef Py_ssize_t i
        for session in self.sessions.values():
            if session.key == 0:
                self.drop_orphan(session)
            else:
                self.finish_session(session)
        for i in range(self.count):
            if self.rows[i].stored.refs == 1:
                self.keeper.journal.delete(self.rows[i].stored.key)
                self.counts["orphans"] += 1
        self.let_go()
        for session in self.connected:
            if not session.has_ended:
                session.keep(False)           # or its expiry would begin anew at each start
        self.sessions = {}
        self.connected = []
        return self.counts

    cdef int drop_orphan(self, Session session) except -1:
        # A session that ended; what it held was still being cleaned up.
        self.counts["orphans"] += 1
        return self.engine.end_session(session)

    cdef int finish_session(self, Session session) except -1:
        cdef dict shares = self.shares.get(session.number)
        cdef ShareGroup group
        cdef entry_t* entry
        cdef slot_t* slot
        cdef uint32_t i
        cdef bytes share
        if shares is not None:
            for i in range(session.queue.count):
                entry = queue_at(&session.queue, i)
                share = shares.get(entry.key)
                if share is not None:
                    group = self.engine.topics.find_group(<const uint8_t*>PyBytes_AS_STRING(share), PyBytes_GET_SIZE(share))
                    if group is not None:
                        Py_INCREF(group)
                        entry.group = <PyObject*>group
            if session.sent.count:
                for i in range(session.sent.mask + 1):
                    slot = &session.sent.slots[i]
                    share = shares.get(slot.key) if slot.packet_id else None
                    if share is not None:
                        group = self.engine.topics.find_group(<const uint8_t*>PyBytes_AS_STRING(share), PyBytes_GET_SIZE(share))
                        if group is not None:
                            Py_INCREF(group)
                            slot.group = <PyObject*>group
        if session.session_expiry_s == 0:
            return self.engine.end_session(session)
        return self.engine.arm_session(session)
