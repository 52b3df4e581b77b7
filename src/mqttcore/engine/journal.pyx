"""Batches for the store; journal.pxd says what goes into them and what waits for them."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from mqttcore.engine.message cimport Publisher, msg_bytes, msg_payload, msg_props, pub_keep, pub_t, stored_unref
from mqttcore.store.framing cimport (
    FRAME_HEADER,
    KIND_ENTRY,
    KIND_MESSAGE,
    KIND_RECEIVED,
    KIND_RETAINED,
    KIND_SESSION,
    KIND_SUBSCRIPTION,
    load_u32,
    load_u64,
    store_u32,
    store_u64,
)

from collections import deque

from mqttcore.errors import StoreError
from mqttcore.store.contract import StoreBatch

cdef enum:
    FIRST_BYTES = 4096
    FIRST_PLACES = 256
    KEPT_BYTES = 1 << 20      # a buffer that grew beyond this is given back with its batch

    MESSAGE_FIXED = 4 * 8 + 4 + 3 + 4 * 2 + 4     # bytes of a message record's body without its texts and payload

cdef Py_ssize_t STRUCK = -1


cdef int by_value(const void* a, const void* b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t*>a)[0], y = (<const uint64_t*>b)[0]
    return (x > y) - (x < y)


cdef inline uint8_t* put_u16(uint8_t* p, uint32_t value) noexcept nogil:
    p[0] = <uint8_t>value
    p[1] = <uint8_t>(value >> 8)
    return p + 2


cdef inline uint8_t* put_u32(uint8_t* p, uint32_t value) noexcept nogil:
    store_u32(p, value)
    return p + 4


cdef inline uint8_t* put_u64(uint8_t* p, uint64_t value) noexcept nogil:
    store_u64(p, value)
    return p + 8


cdef inline uint8_t* put_text(uint8_t* p, bytes text):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    p = put_u16(p, <uint32_t>size)
    memcpy(p, PyBytes_AS_STRING(text), size)
    return p + size


cdef struct name_t:
    const char* text          # UTF-8, borrowed from its str
    Py_ssize_t size


cdef Py_ssize_t name_of(str text, name_t* name) except -1:
    # Its size in bytes; 0 for None. A record has room for 65,535: client ids have no more.
    if text is None:
        return 0
    name.text = PyUnicode_AsUTF8AndSize(text, &name.size)
    if name.size > 0xFFFF:
        name.size = 0
    return name.size


@cython.final
cdef class Journal:
    """The batch that gathers for an engine's store. Python sees its figures only."""

    def __init__(
        self, *, wall_offset_ms: int = 0, bytes_maximum: int = 16 << 20, keeps_retained: bool = True
    ) -> None:
        self.number = 1
        self.first_key = self.next_key = 1
        self.wall_offset_ms = wall_offset_ms
        self.bytes_maximum = bytes_maximum
        self.keeps_retained = keeps_retained
        self.under_way = deque()
        self.paging = []
        self.starved = []
        self.waiting = []
        self.paused = []

    def __dealloc__(self):
        free(self.data)
        free(self.places)
        free(self.deleted)

    @property
    def pending_bytes(self) -> int:
        """Bytes that are not yet safe: gathering, and under way."""
        return self.size + self.bytes_under_way

    cdef int start(self, uint64_t last) except -1:
        if last >= self.next_key:
            self.first_key = self.next_key = last + 1
        self.safe_key = last
        return 0

    cdef int64_t wall(self, int64_t engine_ms) noexcept:
        return engine_ms + self.wall_offset_ms if engine_ms else 0

    cdef uint64_t new_number(self) noexcept:
        # The next record will be the session's own, so no other session gets it.
        return self.next_key

    cdef bint is_unsafe(self, uint64_t key) noexcept:
        return key > self.safe_key

    cdef bint is_full(self) noexcept:
        return self.size + self.bytes_under_way > self.bytes_maximum

    cdef bint is_empty(self) noexcept:
        return self.size == self.struck_bytes and self.deleted_count == 0

    cdef bint has_work(self):
        return not self.is_empty() or len(self.paging) != 0 or (len(self.waiting) != 0 and not self.under_way)

    # --- putting ------------------------------------------------------------------------------------------------------

    cdef uint8_t* begin(self, Py_ssize_t body, uint8_t kind) except NULL:
        # Room for a record; its header is written. The caller writes all of the body.
        cdef Py_ssize_t total = FRAME_HEADER + body
        cdef Py_ssize_t index = <Py_ssize_t>(self.next_key - self.first_key)
        cdef Py_ssize_t wanted
        cdef void* grown
        cdef uint8_t* p
        if self.capacity - self.size < total:
            wanted = max(self.capacity * 2, self.size + total, <Py_ssize_t>FIRST_BYTES)
            grown = realloc(self.data, wanted)
            if grown == NULL:
                raise MemoryError
            self.data = <uint8_t*>grown
            self.capacity = wanted
        if index >= self.places_capacity:
            wanted = max(self.places_capacity * 2, <Py_ssize_t>FIRST_PLACES)
            grown = realloc(self.places, wanted * sizeof(Py_ssize_t))
            if grown == NULL:
                raise MemoryError
            self.places = <Py_ssize_t*>grown
            self.places_capacity = wanted
        self.places[index] = self.size
        p = self.data + self.size
        self.size += total
        store_u32(p, <uint32_t>total)
        store_u64(p + 4, self.next_key)
        p[12] = kind
        self.next_key += 1
        self.writes += 1
        return p + FRAME_HEADER

    cdef stored_t* store(self, msg_t* m) except NULL:
        cdef stored_t* stored = m.stored
        cdef Publisher publisher
        cdef name_t names[3]
        cdef Py_ssize_t names_size = 0
        cdef int i
        cdef uint8_t* p
        if stored != NULL:
            return stored
        stored = <stored_t*>malloc(sizeof(stored_t))
        if stored == NULL:
            raise MemoryError
        memset(names, 0, sizeof(names))
        try:
            if m.publisher != NULL:
                publisher = <Publisher>m.publisher
                names_size += name_of(publisher.client_id, &names[0])
                names_size += name_of(publisher.identity_name, &names[1])
                names_size += name_of(publisher.ordering_key, &names[2])
            p = self.begin(
                MESSAGE_FIXED + <Py_ssize_t>m.topic_size + names_size + m.props_size + m.payload_size, KIND_MESSAGE
            )
        except BaseException:
            free(stored)
            raise
        stored.key = self.next_key - 1
        stored.retained_key = 0
        stored.message = m
        stored.expires_ms = m.expires_ms
        stored.bytes = msg_bytes(m)
        stored.refs = 0
        m.stored = stored
        p = put_u64(p, self.wall(m.expires_ms))
        p = put_u64(p, m.received_ms)
        p = put_u64(p, m.node_epoch)
        p = put_u64(p, m.number)
        p = put_u32(p, m.expiry_at)
        p[0] = m.qos
        p[1] = m.retain
        p[2] = m.is_utf8
        p = put_u16(p + 3, m.topic_size)
        memcpy(p, m.data, m.topic_size)
        p += m.topic_size
        for i in range(3):
            p = put_u16(p, <uint32_t>names[i].size)
            if names[i].size:
                memcpy(p, names[i].text, names[i].size)
                p += names[i].size
        p = put_u32(p, m.props_size)
        memcpy(p, msg_props(m), m.props_size)
        memcpy(p + m.props_size, msg_payload(m), m.payload_size)
        return stored

    cdef uint64_t put_session(self, uint64_t number, uint32_t expiry_s, bint is_connected, int64_t expires_ms,
                              uint64_t will, uint32_t will_delay_s, int64_t will_due_ms, bytes client_id,
                              bytes user_name, bytes identity_name, bytes mount) except 0:
        cdef uint8_t* p = self.begin(
            8 + 4 + 1 + 8 + 8 + 4 + 8 + 8 + PyBytes_GET_SIZE(client_id) + PyBytes_GET_SIZE(user_name)
            + PyBytes_GET_SIZE(identity_name) + PyBytes_GET_SIZE(mount), KIND_SESSION
        )
        p = put_u64(p, number)
        p = put_u32(p, expiry_s)
        p[0] = is_connected
        p = put_u64(p + 1, self.wall(expires_ms))
        p = put_u64(p, will)
        p = put_u32(p, will_delay_s)
        p = put_u64(p, self.wall(will_due_ms))
        p = put_text(p, client_id)
        p = put_text(p, user_name)
        p = put_text(p, identity_name)
        put_text(p, mount)
        return self.next_key - 1

    cdef uint64_t put_subscription(self, uint64_t session, uint8_t options, uint32_t subid,
                                   bytes topic_filter) except 0:
        cdef uint8_t* p = self.begin(8 + 1 + 4 + 2 + PyBytes_GET_SIZE(topic_filter), KIND_SUBSCRIPTION)
        p = put_u64(p, session)
        p[0] = options
        p = put_u32(p + 1, subid)
        put_text(p, topic_filter)
        return self.next_key - 1

    cdef uint64_t put_entry(self, uint64_t session, uint64_t message, int64_t since_ms, uint16_t packet_id,
                            uint8_t state, uint8_t qos, uint8_t retain, subids_t* ids, bytes share) except 0:
        cdef uint32_t ids_size = 0 if ids == NULL else ids.size
        cdef uint8_t* p = self.begin(
            24 + 2 + 3 + 4 + ids_size + 2 + (0 if share is None else PyBytes_GET_SIZE(share)), KIND_ENTRY
        )
        p = put_u64(p, session)
        p = put_u64(p, message)
        p = put_u64(p, self.wall(since_ms))
        p = put_u16(p, packet_id)
        p[0] = state
        p[1] = qos
        p[2] = retain
        p = put_u32(p + 3, ids_size)
        if ids_size:
            memcpy(p, ids.data, ids_size)
        if share is None:
            put_u16(p + ids_size, 0)
        else:
            put_text(p + ids_size, share)
        return self.next_key - 1

    cdef uint64_t put_received(self, uint64_t session, uint16_t packet_id) except 0:
        cdef uint8_t* p = self.begin(8 + 2, KIND_RECEIVED)
        put_u16(put_u64(p, session), packet_id)
        return self.next_key - 1

    cdef int put_retained(self, stored_t* stored) except -1:
        put_u64(self.begin(8, KIND_RETAINED), stored.key)
        stored.retained_key = self.next_key - 1
        return 0

    cdef int drop_retained(self, stored_t* stored) except -1:
        cdef uint64_t key = stored.retained_key
        stored.retained_key = 0
        self.forget(key, stored)
        stored_unref(stored)
        return 0

    # --- deleting -----------------------------------------------------------------------------------------------------

    cdef int forget(self, uint64_t key, stored_t* stored) except -1:
        if key:
            self.delete(key)
        if stored != NULL and stored.refs <= 1:
            self.delete(stored.key)
        return 0

    cdef int delete(self, uint64_t key) except -1:
        cdef Py_ssize_t index, wanted
        cdef void* grown
        self.writes += 1
        if key >= self.first_key:
            index = <Py_ssize_t>(key - self.first_key)
            if self.places[index] != STRUCK:
                self.struck_bytes += load_u32(self.data + self.places[index])
                self.struck_count += 1
                self.struck += 1
                self.places[index] = STRUCK
            return 0
        if self.deleted_count == self.deleted_capacity:
            wanted = max(self.deleted_capacity * 2, <Py_ssize_t>FIRST_PLACES)
            grown = realloc(self.deleted, wanted * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError
            self.deleted = <uint64_t*>grown
            self.deleted_capacity = wanted
        self.deleted[self.deleted_count] = key
        self.deleted_count += 1
        return 0

    # --- handing over -------------------------------------------------------------------------------------------------

    cdef object take(self, tuple values):
        cdef Py_ssize_t put = <Py_ssize_t>(self.next_key - self.first_key)
        cdef Py_ssize_t alive = put - self.struck_count
        cdef Py_ssize_t i
        cdef uint64_t first = 0, last = 0
        cdef bytes records, deleted
        cdef uint8_t* to
        cdef uint32_t size
        if self.is_empty() and not values:
            batch = None
        else:
            records = PyBytes_FromStringAndSize(NULL, self.size - self.struck_bytes)
            to = <uint8_t*>PyBytes_AS_STRING(records)
            if self.struck_count == 0:
                memcpy(to, self.data, self.size)
                first, last = self.first_key, self.next_key - 1
            else:
                for i in range(put):
                    if self.places[i] != STRUCK:
                        size = load_u32(self.data + self.places[i])
                        memcpy(to, self.data + self.places[i], size)
                        to += size
                        last = self.first_key + i
                        if first == 0:
                            first = last
            qsort(self.deleted, self.deleted_count, sizeof(uint64_t), by_value)
            deleted = (<char*>self.deleted)[:self.deleted_count * <Py_ssize_t>sizeof(uint64_t)] if self.deleted_count else b""
            batch = StoreBatch(self.number, records, alive, first, last, deleted, values)
            self.bytes_under_way += len(records) + len(deleted)
        self.under_way.append((self.number, self.next_key - 1, 0 if batch is None else len(records) + len(deleted)))
        self.number += 1
        self.first_key = self.next_key
        self.size = self.struck_bytes = self.struck_count = self.deleted_count = 0
        if self.capacity > KEPT_BYTES:
            free(self.data)
            self.data = NULL
            self.capacity = 0
        return batch

    cdef int made_safe(self, uint64_t number) except -1:
        while self.under_way and self.under_way[0][0] <= number:
            self.safe, self.safe_key, size = self.under_way.popleft()
            self.bytes_under_way -= size
        self.failure = 0
        return 0


cdef int64_t engine_time(uint64_t wall_ms, int64_t wall_offset_ms) noexcept:
    return max(<int64_t>wall_ms - wall_offset_ms, <int64_t>1) if wall_ms else 0


cdef Publisher publisher_of(const uint8_t** p, dict publishers):
    # Reads three texts; None: the broker itself.
    cdef const uint8_t* begin = p[0]
    cdef list names = []
    cdef Py_ssize_t size
    cdef Publisher publisher
    cdef bytes text
    for _ in range(3):
        size = p[0][0] | p[0][1] << 8
        p[0] += 2 + size
    if p[0] - begin == 6:
        return None
    text = begin[:p[0] - begin]
    publisher = <Publisher>publishers.get(text)
    if publisher is None:
        for _ in range(3):
            size = begin[0] | begin[1] << 8
            names.append(begin[2:2 + size].decode() or None)
            begin += 2 + size
        publisher = publishers[text] = Publisher.new(names[0], names[1], names[2])
    return publisher


cdef msg_t* message_of(const uint8_t* record, Py_ssize_t size, int64_t wall_offset_ms, dict publishers) except NULL:
    cdef const uint8_t* p = record + FRAME_HEADER
    cdef const uint8_t* end = record + size
    cdef const uint8_t* text
    cdef Publisher publisher
    cdef msg_t* m
    cdef pub_t pub
    cdef int i
    memset(&pub, 0, sizeof(pub_t))
    if end - p >= MESSAGE_FIXED:
        text = p + 39
        for i in range(4):
            # The fixed part behind the texts is always there, so each size can be read before it is believed.
            if end - text < 2 * (4 - i) + 4 or end - text - 2 * (4 - i) - 4 < (text[0] | text[1] << 8):
                break
            text += 2 + (text[0] | text[1] << 8)
        else:
            pub.props_size = load_u32(text)
            pub.expiry_at = load_u32(p + 32)
            if p[36] <= 2 and end - text - 4 >= pub.props_size and (
                pub.expiry_at == 0 or pub.expiry_at + <int64_t>3 <= pub.props_size
            ):
                pub.expires_ms = engine_time(load_u64(p), wall_offset_ms)
                pub.qos = p[36]
                pub.retain = p[37]
                pub.is_utf8 = p[38]
                pub.topic_size = p[39] | p[40] << 8
                pub.topic = p + 41
                pub.props = text + 4
                pub.payload = pub.props + pub.props_size
                pub.payload_size = <uint32_t>(end - pub.payload)
                text = pub.topic + pub.topic_size
                publisher = publisher_of(&text, publishers)
                pub.publisher = <PyObject*>publisher if publisher is not None else NULL
                m = pub_keep(&pub)
                m.received_ms = load_u64(p + 8)
                m.node_epoch = load_u64(p + 16)
                m.number = load_u64(p + 24)
                return m
    raise StoreError("corrupt", f"message record {load_u64(record + 4)} is torn")
