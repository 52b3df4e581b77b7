# What a client may do: the permissions and quotas of an Identity, compiled.
#
#   Identity --Rulebook.compile--> Rights (shared by clients whose rules and quotas are equal)
#
# Rules stand in the order of the identity; the first that is about the action and matches decides, none denies. What a
# Rights said of a topic is remembered in one table for the whole engine, so a PUBLISH costs one look into a slot.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    MAY_PUBLISH = 1           # as identity.Action
    MAY_SUBSCRIBE = 2


cdef enum:
    VERDICT_ALLOWED = 0x80    # 0: denied
    VERDICT_RETAIN = 0x40     # RETAIN may be set
    VERDICT_QOS = 0x03        # the highest


cdef enum:
    VERDICT_TOPIC_MAXIMUM = 108       # bytes; verdicts on longer topics are not remembered


cdef struct rule_t:
    const uint8_t* topic_filter       # in the allocation of the rules
    uint16_t size
    uint8_t actions
    uint8_t verdict


cdef struct verdict_t:
    uint64_t hash                     # of the topic
    uint64_t number                   # of the Rights; 0: empty
    uint16_t size                     # of the topic
    uint8_t action
    uint8_t verdict
    uint8_t topic[VERDICT_TOPIC_MAXIMUM]


cdef class Rulebook:
    cdef verdict_t* slots             # pairs: the newer of two first; NULL until the first use
    cdef uint64_t mask                # of pairs
    cdef readonly Py_ssize_t verdicts_maximum
    cdef object shared                # Rights.key -> Rights, for as long as somebody holds it
    cdef uint64_t numbers
    cdef readonly uint64_t hits
    cdef readonly uint64_t misses

    # The rights of an identity; None: everything is allowed and nothing bounded. Raises ProtocolError (0x87) when the
    # client's id or name may not be put into a rule, ValueError or TypeError for what is no permission or quota.
    # previous: rights the client had, given back when they are still the same. mount: its mount point, or None.
    cdef Rights compile(self, object identity, str client_id, str user_name, Rights previous, bytes mount)


cdef class Rights:
    cdef object __weakref__
    cdef Rulebook book
    # (permissions, quotas, mount), of Rulebook.shared, and client id and user name behind it where rules contain them.
    cdef tuple key
    cdef uint64_t number              # unlike that of all other Rights
    cdef rule_t* rules
    cdef uint32_t count
    cdef readonly bint has_rules      # without, everything is allowed
    cdef readonly bint ignores_extra_subscriptions
    cdef readonly uint32_t subscriptions_maximum  # quotas; 0xFFFFFFFF: none
    cdef readonly uint32_t queued_messages_maximum
    cdef readonly uint32_t payload_bytes_maximum  # of what it publishes
    cdef readonly uint32_t topic_bytes_maximum    # longer topics and filters are denied; only with has_rules
    cdef bytes mount                              # not counted in the quotas on topics; None: none, or there are no such
    cdef bint has_topic_characters                # only with has_rules: topics to publish to have no others
    cdef uint64_t topic_characters[2]             # a bit for each of ASCII
    cdef readonly int64_t queued_bytes_maximum    # 2**63 - 1: none
    cdef readonly double messages_per_s           # 0: no bound
    cdef readonly double bytes_per_s

    # The verdict on one topic, remembered. hash: of the topic, always by the same function. Only with has_rules.
    cdef uint8_t verdict(self, uint8_t action, const uint8_t* topic, Py_ssize_t size, uint64_t hash) noexcept
    # The same from the rules.
    cdef uint8_t judge(self, uint8_t action, const uint8_t* topic, Py_ssize_t size) noexcept
    # The verdict on a filter without `$share`: allowed when one rule covers it and no rule before denies part of it; the
    # QoS is the least that any rule up to there names.
    cdef uint8_t judge_filter(self, const uint8_t* topic_filter, Py_ssize_t size) noexcept
    # Whether some topic of the filter may be had.
    cdef bint allows_part(self, const uint8_t* topic_filter, Py_ssize_t size) noexcept
    # Whether the levels of a Topic Name are of topic_characters, and only the last is empty.
    cdef bint has_good_levels(self, const uint8_t* topic, Py_ssize_t size) noexcept
    # Bytes of a topic that its publisher did not say.
    cdef Py_ssize_t unsaid(self, const uint8_t* topic, Py_ssize_t size) noexcept
    cdef int add_rules(self, list rules) except -1


cdef inline bint verdict_permits(uint8_t verdict, uint8_t qos, bint retain) noexcept nogil:
    return verdict & VERDICT_ALLOWED and qos <= verdict & VERDICT_QOS and (not retain or verdict & VERDICT_RETAIN)
