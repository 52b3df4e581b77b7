"""The sending half of a connection: packets into an output buffer."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from mqttcore.codec.codes cimport PT_PUBLISH
from mqttcore.codec.wire cimport put_u16, put_u32, put_varint, varint_size
from mqttcore.engine.holds cimport holds_clear, holds_push
from mqttcore.engine.message cimport TRACED_TOPIC, msg_t, pub_keep
from mqttcore.engine.mount cimport is_within
from mqttcore.engine.outbuf cimport PAYLOAD_BY_REFERENCE, out_add_payload, out_clear, out_reserve, out_wrote


cdef class Outlet:
    """Base of Connection."""

    def __dealloc__(self):
        out_clear(&self.out)
        holds_clear(&self.holds)
        self.drop_aliases()

    cdef void drop_aliases(self) noexcept:
        cdef uint16_t i
        if self.aliases != NULL:
            for i in range(self.alias_maximum):
                free(self.aliases[i].topic)
            free(self.aliases)
            self.aliases = NULL

    cdef void mark_dirty(self) noexcept:
        if not self.is_dirty:
            self.is_dirty = True
            Py_INCREF(self)
            self.next_dirty = self.core.dirty
            self.core.dirty = <PyObject*>self

    cdef int flush(self) except -1:
        return 0

    cdef int send_bytes(self, bytes packet) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(packet)
        cdef uint8_t* p
        if size > self.maximum_packet_size:
            return 0                  # [MQTT-3.1.2-24]
        p = out_reserve(&self.out, size)
        memcpy(p, PyBytes_AS_STRING(packet), size)
        out_wrote(&self.out, size)
        self.core.counters.packets_out[p[0] >> 4] += 1
        self.mark_dirty()
        if self.traced:
            self.core.tracer.packet_out(self, <const uint8_t*>PyBytes_AS_STRING(packet), size)
        return 0

    cdef int send_ack(self, uint8_t first, uint16_t packet_id, uint8_t reason_code) except -1:
        cdef uint8_t* p = out_reserve(&self.out, 5)
        p[0] = first
        p[2] = <uint8_t>(packet_id >> 8)
        p[3] = <uint8_t>packet_id
        # The reason code may be left out when it is Success (MQTT 5 §3.4.2.1); 3.1.1 has none.
        if reason_code and self.version == 5:
            p[1] = 3
            p[4] = reason_code
            out_wrote(&self.out, 5)
        else:
            p[1] = 2
            out_wrote(&self.out, 4)
        self.core.counters.packets_out[first >> 4] += 1
        self.mark_dirty()
        if self.traced:
            self.core.tracer.packet_out(self, p, p[1] + 2)
        return 0

    cdef int give_up(self) except -1:
        return 0

    cdef int hold(self, uint8_t first, uint16_t packet_id, uint8_t reason_code, bytes packet) except -1:
        holds_push(&self.holds, self.core.journal.number, packet, first, packet_id, reason_code)
        return self.wait_for_store()

    cdef int cork_output(self) except -1:
        self.cork = self.core.journal.number
        return self.wait_for_store()

    cdef int wait_for_store(self) except -1:
        if not self.is_waiting:
            self.is_waiting = True
            self.core.journal.waiting.append(self)
        return 0

    cdef int send_publish(self, pub_t* pub, uint8_t first, uint16_t packet_id, subids_t* ids) except -1:
        cdef const uint8_t* topic = pub.topic
        cdef uint32_t topic_size = pub.topic_size
        cdef uint32_t block = 0               # property block without its length
        cdef uint32_t remaining
        cdef Py_ssize_t total
        cdef uint32_t copied
        cdef int64_t left
        cdef uint16_t alias = 0
        cdef uint16_t known
        cdef bint by_reference = pub.payload_size >= PAYLOAD_BY_REFERENCE
        cdef msg_t* kept
        cdef uint8_t* p
        cdef uint8_t* begin
        if self.mount is not None:
            if not is_within(self.mount, topic, topic_size):
                return 0              # sessions see to it; only a store that somebody changed brings such a message
            topic += PyBytes_GET_SIZE(self.mount)
            topic_size -= <uint32_t>PyBytes_GET_SIZE(self.mount)
        remaining = 2 + topic_size + pub.payload_size + (2 if packet_id else 0)
        if self.version == 5:
            block = pub.props_size
            if ids != NULL:
                block += ids.size
            if self.alias_maximum:
                alias = self.find_alias(topic, topic_size)
                if alias:
                    block += 3
                    if alias & 0x8000:        # known to the client: the topic is left out
                        alias &= 0x7FFF
                        remaining -= topic_size
                        topic_size = 0
            remaining += varint_size(block) + block
        total = 1 + varint_size(remaining) + <Py_ssize_t>remaining
        if total > self.maximum_packet_size:
            if alias and topic_size:          # the client never learns this alias; without it the packet may fit
                self.aliases[alias - 1].size = 0
                known = self.alias_maximum
                self.alias_maximum = 0
                try:
                    return self.send_publish(pub, first, packet_id, ids)
                finally:
                    self.alias_maximum = known
            return 0
        copied = <uint32_t>(total - (pub.payload_size if by_reference else 0))
        if by_reference:
            kept = pub_keep(pub)
        begin = p = out_reserve(&self.out, copied)
        p[0] = first
        p += 1
        p += put_varint(p, remaining)
        put_u16(p, <uint16_t>topic_size)
        p += 2
        memcpy(p, topic, topic_size)
        p += topic_size
        if packet_id:
            put_u16(p, packet_id)
            p += 2
        if self.version == 5:
            p += put_varint(p, block)
            if pub.props_size:
                memcpy(p, pub.props, pub.props_size)
                if pub.expiry_at:
                    # What is left of the interval [MQTT-3.3.2-6]; at least the second that has begun.
                    left = (pub.expires_ms - self.core.now_ms + 999) // 1000
                    put_u32(p + pub.expiry_at - 1, <uint32_t>left if left > 0 else 0)
                p += pub.props_size
            if alias:
                p[0] = 0x23
                put_u16(p + 1, alias)
                p += 3
            if ids != NULL:
                memcpy(p, ids.data, ids.size)
                p += ids.size
        if by_reference:
            out_add_payload(&self.out, kept, copied)
            out_wrote(&self.out, copied)
        else:
            memcpy(p, pub.payload, pub.payload_size)
            out_wrote(&self.out, copied)
        self.core.counters.packets_out[PT_PUBLISH] += 1
        self.core.counters.messages_out[(first >> 1) & 3] += 1
        self.core.counters.message_bytes_out += pub.payload_size
        if not self.is_dirty:
            self.mark_dirty()
        if self.traced | (pub.traced & TRACED_TOPIC):
            self.core.tracer.publish_out(self, pub, first, packet_id, total, topic - pub.topic)
        return 1

    cdef int find_alias(self, const uint8_t* topic, uint32_t size) except -1:
        # The alias for a topic: with bit 15 when the client knows it, without when this packet has to teach it, 0 for none.
        # Each topic has one place, so two topics that share it take turns only when the holder was idle.
        cdef uint32_t h = 2166136261
        cdef uint32_t i
        cdef alias_t* place
        cdef uint8_t* copy
        if size < 4:
            return 0          # an alias costs three bytes
        if self.aliases == NULL:
            self.aliases = <alias_t*>calloc(self.alias_maximum, sizeof(alias_t))
            if self.aliases == NULL:
                raise MemoryError
        for i in range(size):
            h = (h ^ topic[i]) * <uint32_t>16777619
        i = (h ^ (h >> 15)) % self.alias_maximum
        place = &self.aliases[i]
        if place.size == size and memcmp(place.topic, topic, size) == 0:
            place.was_used = 1
            return 0x8000 | (i + 1)
        if place.size and place.was_used:
            place.was_used = 0
            return 0
        copy = <uint8_t*>malloc(size)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, topic, size)
        free(place.topic)
        place.topic = copy
        place.size = size
        place.was_used = 0
        return i + 1
