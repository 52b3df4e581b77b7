"""Permissions and quotas of an Identity, compiled; permissions.pxd describes it."""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from mqttcore.codec.codes cimport RC_NOT_AUTHORIZED
from mqttcore.codec.names cimport check_topic_filter, is_shared_filter
from mqttcore.codec.status cimport status_error
from mqttcore.engine.filters cimport filter_covers, filter_matches, filters_meet
from mqttcore.engine.mount cimport is_within

import math
import re
import weakref

from mqttcore.errors import ProtocolError
from mqttcore.identity import Permission, Quotas
from mqttcore.placeholders import Unfit, fill

cdef enum:
    RULES_MAXIMUM = 10_000            # of one identity: they are gone through one after another
    FILTER_MAXIMUM = 65535            # bytes [MQTT-4.7.3-3]

NO_COUNT = 2**32 - 1
NO_BYTES = 2**63 - 1
NO_QUOTAS = Quotas()
PLACES = re.compile("(%[cu])")


cdef str substituted(str topic_filter, str client_id, str user_name):
    """Return the filter with `%c` and `%u` replaced; a value that would change the rule's shape refuses the client."""
    try:
        return fill(topic_filter, PLACES, {"%c": client_id, "%u": user_name})
    except Unfit as error:
        raise ProtocolError(RC_NOT_AUTHORIZED, "§5.4.2", f"permission: {error}") from error


cdef uint32_t count_quota(object value, str name) except? 0:
    if value is None:
        return NO_COUNT
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"quota {name} is {value!r}, neither None nor a number from 0")
    return <uint32_t>min(value, NO_COUNT)


cdef double rate_quota(object value, str name) except? -1:
    if value is None:
        return 0
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"quota {name} is {value!r}, neither None nor a number above 0")
    return value


@cython.final
cdef class Rulebook:
    """All rights of one engine, and what they said lately.

    verdicts_maximum: topics and rights whose verdict is remembered, rounded up to a power of two; 0: none.
    """

    def __cinit__(self, Py_ssize_t verdicts_maximum=65536):
        cdef uint64_t pairs = 1
        while <Py_ssize_t>pairs * 2 < verdicts_maximum:
            pairs *= 2
        self.mask = pairs - 1
        self.verdicts_maximum = <Py_ssize_t>pairs * 2 if verdicts_maximum > 0 else 0
        self.shared = weakref.WeakValueDictionary()

    def __dealloc__(self):
        free(self.slots)

    @property
    def shared_count(self) -> int:
        """Rights that several clients may hold together."""
        return len(self.shared)

    def rights(self, identity: object, client_id: str = "", user_name: str | None = None) -> Rights | None:
        """Return what an identity gives a client; None: everything. Raises as compile() in permissions.pxd says."""
        return self.compile(identity, client_id, user_name, None, None)

    cdef Rights compile(self, object identity, str client_id, str user_name, Rights previous, bytes mount):
        cdef tuple permissions, key
        cdef object permission
        cdef list rules
        cdef Rights rights
        cdef bint is_shared = True
        if identity is None or (identity.permissions is None and identity.quotas == NO_QUOTAS):
            return None
        permissions = None if identity.permissions is None else tuple(identity.permissions)
        if permissions is not None:
            if len(permissions) > RULES_MAXIMUM:
                raise ValueError(f"{len(permissions)} permissions, {RULES_MAXIMUM} at most")
            for permission in permissions:
                if not isinstance(permission, Permission):
                    raise TypeError(f"{permission!r} is no Permission")
                if PLACES.search(permission.topic_filter) is not None:
                    is_shared = False
        if identity.quotas.topic_bytes_maximum is None and identity.quotas.topic_characters is None:
            mount = None              # then it makes no difference
        key = (permissions, identity.quotas, mount)
        if not is_shared:
            key += (client_id, user_name)
        if previous is not None and previous.book is self and previous.key == key:
            return previous
        rights = self.shared.get(key) if is_shared else None
        if rights is not None:
            return rights
        rights = Rights.__new__(Rights)
        rights.book = self
        rights.key = key
        rights.mount = mount
        self.numbers += 1
        rights.number = self.numbers
        read_quotas(rights, identity.quotas)
        if permissions is not None:
            rights.has_rules = True
            rules = []
            for permission in permissions:
                rules.append((substituted(permission.topic_filter, client_id, user_name).encode(), permission))
            rights.add_rules(rules)
        if self.slots == NULL and self.verdicts_maximum:
            self.slots = <verdict_t*>calloc(self.verdicts_maximum, sizeof(verdict_t))
            if self.slots == NULL:
                raise MemoryError
        if is_shared:
            self.shared[key] = rights
        return rights


cdef int read_characters(Rights rights, object value) except -1:
    cdef int character
    if value is None:
        return 0
    if not isinstance(value, str) or not value.isascii() or any(one in "+#/\0" for one in value):
        raise ValueError(f"quota topic_characters is {value!r}, neither None nor ASCII without +, #, / and NUL")
    rights.has_topic_characters = True
    for character in value.encode():
        rights.topic_characters[character >> 6] |= <uint64_t>1 << (character & 63)
    return 0


cdef int read_quotas(Rights rights, object quotas) except -1:
    cdef object held = quotas.queued_bytes_maximum
    rights.messages_per_s = rate_quota(quotas.messages_per_s, "messages_per_s")
    rights.bytes_per_s = rate_quota(quotas.bytes_per_s, "bytes_per_s")
    rights.subscriptions_maximum = count_quota(quotas.subscriptions_maximum, "subscriptions_maximum")
    rights.queued_messages_maximum = count_quota(quotas.queued_messages_maximum, "queued_messages_maximum")
    rights.ignores_extra_subscriptions = quotas.ignores_extra_subscriptions
    rights.payload_bytes_maximum = count_quota(quotas.payload_bytes_maximum, "payload_bytes_maximum")
    rights.topic_bytes_maximum = count_quota(quotas.topic_bytes_maximum, "topic_bytes_maximum")
    read_characters(rights, quotas.topic_characters)
    count_quota(held, "queued_bytes_maximum")
    rights.queued_bytes_maximum = NO_BYTES if held is None else min(held, NO_BYTES)
    return 0


@cython.final
cdef class Rights:
    """What an identity gives; made by a Rulebook."""

    def __init__(self):
        raise TypeError("Rights are made by a Rulebook")

    def __dealloc__(self):
        free(self.rules)

    cdef int add_rules(self, list rules) except -1:
        # One allocation: the rules, then their filters. An error leaves none, and none denies.
        cdef Py_ssize_t total = 0, i = 0
        cdef bytes topic_filter
        cdef object permission
        cdef rule_t* rule
        cdef uint8_t* text
        cdef int status
        for topic_filter, permission in rules:
            status = check_topic_filter(topic_filter, len(topic_filter))
            if status:
                raise ValueError(f"permission for {permission.topic_filter!r}: {status_error(status)}")
            if len(topic_filter) > FILTER_MAXIMUM or is_shared_filter(topic_filter, len(topic_filter)):
                raise ValueError(
                    f"permission for {permission.topic_filter!r}: a filter without $share, {FILTER_MAXIMUM} bytes at most"
                )
            if not 0 <= permission.qos_maximum <= 2:
                raise ValueError(f"permission for {permission.topic_filter!r}: qos_maximum {permission.qos_maximum!r}")
            total += len(topic_filter)
        if not rules:
            return 0
        self.rules = <rule_t*>malloc(len(rules) * sizeof(rule_t) + total)
        if self.rules == NULL:
            raise MemoryError
        text = <uint8_t*>(self.rules + len(rules))
        for topic_filter, permission in rules:
            rule = &self.rules[i]
            rule.topic_filter = text
            rule.size = <uint16_t>len(topic_filter)
            rule.actions = permission.action.value
            rule.verdict = 0
            if permission.is_allowed:
                rule.verdict = (
                    VERDICT_ALLOWED | (VERDICT_RETAIN if permission.retain else 0) | <uint8_t>permission.qos_maximum
                )
            memcpy(text, <const uint8_t*><char*>topic_filter, len(topic_filter))
            text += len(topic_filter)
            i += 1
        self.count = <uint32_t>len(rules)
        return 0

    cdef uint8_t verdict(self, uint8_t action, const uint8_t* topic, Py_ssize_t size, uint64_t hash) noexcept:
        cdef Rulebook book = self.book
        cdef verdict_t* slot
        cdef int i
        if size > VERDICT_TOPIC_MAXIMUM or book.slots == NULL:
            return self.judge(action, topic, size)
        slot = &book.slots[2 * ((hash ^ self.number * <uint64_t>0x9E3779B97F4A7C15) & book.mask)]
        for i in range(2):
            if (
                slot[i].hash == hash and slot[i].number == self.number and slot[i].action == action
                and slot[i].size == size and memcmp(slot[i].topic, topic, size) == 0
            ):
                book.hits += 1
                return slot[i].verdict
        book.misses += 1
        slot[1] = slot[0]
        slot.hash = hash
        slot.number = self.number
        slot.action = action
        slot.size = <uint16_t>size
        memcpy(slot.topic, topic, size)
        slot.verdict = self.judge(action, topic, size)
        return slot.verdict

    cdef bint has_good_levels(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef Py_ssize_t i
        cdef uint8_t character
        cdef bint is_level_empty = True
        if not self.has_topic_characters:
            return True
        for i in range(size):
            character = topic[i]
            if character == c"/":
                if is_level_empty:
                    return False
                is_level_empty = True
                continue
            is_level_empty = False
            if character >= 128 or not self.topic_characters[character >> 6] >> (character & 63) & 1:
                return False
        return True

    cdef Py_ssize_t unsaid(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        return PyBytes_GET_SIZE(self.mount) if self.mount is not None and is_within(self.mount, topic, size) else 0

    cdef uint8_t judge(self, uint8_t action, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef rule_t* rule
        cdef uint32_t i
        cdef Py_ssize_t unsaid
        if not self.has_rules:
            return VERDICT_ALLOWED | VERDICT_RETAIN | 2
        unsaid = self.unsaid(topic, size)
        if size - unsaid > self.topic_bytes_maximum:
            return 0
        if action == MAY_PUBLISH and not self.has_good_levels(topic + unsaid, size - unsaid):
            return 0
        for i in range(self.count):
            rule = &self.rules[i]
            if rule.actions & action and filter_matches(rule.topic_filter, rule.size, topic, size):
                return rule.verdict
        return 0

    cdef uint8_t judge_filter(self, const uint8_t* topic_filter, Py_ssize_t size) noexcept:
        cdef rule_t* rule
        cdef uint32_t i
        cdef uint8_t qos = 2
        if not self.has_rules:
            return VERDICT_ALLOWED | VERDICT_RETAIN | 2
        if size - self.unsaid(topic_filter, size) > self.topic_bytes_maximum:
            return 0
        for i in range(self.count):
            rule = &self.rules[i]
            if not rule.actions & MAY_SUBSCRIBE or not filters_meet(rule.topic_filter, rule.size, topic_filter, size):
                continue
            if rule.verdict == 0:
                return 0
            if rule.verdict & VERDICT_QOS < qos:
                qos = rule.verdict & VERDICT_QOS
            if filter_covers(rule.topic_filter, rule.size, topic_filter, size):
                return VERDICT_ALLOWED | VERDICT_RETAIN | qos
        return 0

    cdef bint allows_part(self, const uint8_t* topic_filter, Py_ssize_t size) noexcept:
        cdef rule_t* rule
        cdef uint32_t i
        if not self.has_rules:
            return True
        if size > self.topic_bytes_maximum:
            return False
        for i in range(self.count):
            rule = &self.rules[i]
            if not rule.actions & MAY_SUBSCRIBE:
                continue
            if rule.verdict:
                if filters_meet(rule.topic_filter, rule.size, topic_filter, size):
                    return True
            elif filter_covers(rule.topic_filter, rule.size, topic_filter, size):
                return False
        return False

    def may_publish(self, topic: str, qos: int = 0, retain: bool = False) -> bool:
        """Say whether a message may be published. topic: a Topic Name."""
        cdef bytes text = topic.encode()
        return verdict_permits(self.judge(MAY_PUBLISH, text, len(text)), qos, retain)

    def may_receive(self, topic: str) -> bool:
        """Say whether messages of a topic may be received. topic: a Topic Name."""
        cdef bytes text = topic.encode()
        return self.judge(MAY_SUBSCRIBE, text, len(text)) != 0

    def subscribe_qos(self, topic_filter: str) -> int | None:
        """Return the highest QoS that a subscription may have; None: it may not be. topic_filter: without `$share`."""
        cdef bytes text = topic_filter.encode()
        cdef uint8_t verdict = self.judge_filter(text, len(text))
        return verdict & VERDICT_QOS if verdict else None

    def allows_part_of(self, topic_filter: str) -> bool:
        """Say whether some topic of a filter may be received."""
        cdef bytes text = topic_filter.encode()
        return self.allows_part(text, len(text))
