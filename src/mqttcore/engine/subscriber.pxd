# What a topic leads to: subscribers, the targets and routes that name them. topics.pxd passes these names on.

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.message cimport pub_t


cdef enum:
    OPT_QOS = 0x03                  # bits of the SUBSCRIBE options byte (MQTT 5 §3.8.3.1), kept as they came
    OPT_NO_LOCAL = 0x04
    OPT_RETAIN_AS_PUBLISHED = 0x08


cdef enum:
    KIND_OTHER = 0
    KIND_SESSION = 1                # so the engine may know it for one without asking Python
    KIND_HANDLER = 2                # takes no part in delivery; routes list it apart
    KIND_TAP = 3
    KIND_WATCH = 4                  # takes no part in delivery; routes only know that there is one


cdef enum:                          # what deliver() answers
    HEARD = 0                       # it was for this subscriber, who has it, or had no room for it
    UNHEARD = 1                     # it may not have it: mount point or permissions. Of a shared group, another may
    AWAY = 2                        # QoS 0 is not kept for it; a member with a higher QoS would have it kept


# Encoded Subscription Identifier properties (0x0B varint …), counted references.
cdef struct subids_t:
    Py_ssize_t refs
    uint32_t size
    uint8_t data[1]


cdef struct target_t:
    PyObject* subscriber            # Subscriber, borrowed: a subscriber leaves the trie before it dies
    subids_t* subids                # NULL: none
    subids_t* own_subids            # as subids, but without No Local subscriptions; for the subscriber's own messages
    PyObject* group                 # ShareGroup this target was picked from, borrowed; NULL: not shared
    uint8_t qos                     # highest of the merged subscriptions
    uint8_t own_qos                 # the same without No Local subscriptions; 0xFF: all are No Local
    uint8_t retain_as_published     # any of them asks for it
    uint8_t is_direct               # the receiver was named, not found by its subscriptions: they do not have to allow it


# Recipients that a handler named for a message; recipients.pxd says how long they hold.
cdef struct recipients_t:
    Py_ssize_t refs
    uint64_t stamp                  # sum of the counters of all slots
    uint16_t* slots                 # of the clients named, in the same allocation
    uint8_t* topic                  # under which they get it, in the same allocation
    Py_ssize_t bytes_held
    uint32_t topic_size             # 0: the message's own
    uint32_t named                  # clients
    uint32_t count                  # of those that have a session: targets
    uint8_t stores_offline          # for those without a connection: 0 no, 1 yes, or STORES_AS_SENDER
    target_t targets[1]             # without subids and groups


# Whoever iterates while delivering holds route_ref(): then the route, its subids and its groups stay. Its subscribers
# are borrowed all the same: one that unsubscribes meanwhile must be kept alive by its owner until the delivery ends.
cdef struct route_t:
    Py_ssize_t refs                 # the cache holds one; whoever iterates holds another
    uint64_t hash                   # of the topic, for share groups by hash
    uint32_t count                  # of targets
    uint32_t group_count
    uint32_t handler_count
    uint32_t early_count            # of those that authorise by themselves; they come first
    uint32_t recipients_at          # index of the handler that named recipients
    uint32_t traced                 # TRACED_TOPIC: a watch matches the topic; 0: none does
    PyObject** groups               # ShareGroup, a reference each; in the same allocation
    PyObject** handlers             # Handler, a reference each, in the order they are asked; in the same allocation
    recipients_t* recipients        # a reference; NULL: none remembered
    route_t* chain                  # from here to targets: the cache's own
    uint64_t stamp                  # changes of global and first-level wildcards when it was matched
    uint8_t* topic                  # in the same allocation
    Py_ssize_t bytes_held
    uint32_t place                  # in the cache's ring
    uint16_t size                   # of topic
    uint16_t slot                   # of the topic's first level among the changes
    bint is_recent                  # asked for since the clock hand passed
    target_t targets[1]


cdef class Subscriber:
    cdef readonly bint is_online    # shared groups prefer members that are
    cdef readonly uint8_t kind      # KIND_*
    cdef uint32_t place             # where a match in progress put its target; verified there, so never stale
    # Takes one message; HEARD, UNHEARD or AWAY. Never blocks, never raises for reasons of the peer; a raised error is the
    # broker's own fault. Of a shared message (target.group) that is UNHEARD, nothing is counted yet.
    cdef int deliver(self, pub_t* pub, target_t* target) except -1


cdef inline route_t* route_ref(route_t* route) noexcept nogil:
    route.refs += 1
    return route

cdef void route_unref(route_t* route) noexcept

cdef inline recipients_t* recipients_ref(recipients_t* recipients) noexcept nogil:
    recipients.refs += 1
    return recipients

cdef void recipients_unref(recipients_t* recipients) noexcept

cdef inline subids_t* subids_ref(subids_t* subids) noexcept nogil:
    if subids != NULL:
        subids.refs += 1
    return subids

cdef void subids_unref(subids_t* subids) noexcept

# Adds one identifier's property to what *subids* points to (NULL at first). The block must have no other reference than
# those the caller knows of: it may move.
cdef int subids_add(subids_t** subids, uint32_t subid) except -1
# A block of encoded properties, with one reference for the caller; NULL for none.
cdef subids_t* subids_of(const uint8_t* data, uint32_t size) except? NULL
# The identifiers of a block, in order.
cdef tuple subids_values(subids_t* subids)

# Merges one more subscription into a target whose first it is not.
cdef int target_merge(target_t* target, uint8_t options, uint32_t subid) except -1
# Fills a target from its first subscription. On an exception it holds nothing.
cdef int target_init(target_t* target, PyObject* subscriber, uint8_t options, uint32_t subid) except -1

cdef inline void target_clear(target_t* target) noexcept:
    subids_unref(target.subids)
    subids_unref(target.own_subids)
    target.subids = target.own_subids = NULL
