# The subscription trie: everything that wants messages hangs here (DESIGN §1).
#
# A route is what a topic matched: one entry per subscriber, merged (highest QoS, all Subscription Identifiers), plus the
# shared groups to pick from. Routes are cached by topic bytes. A subscription to a filter without wildcards evicts just
# that topic's route; one with wildcards raises a generation, kept per first level where that is literal, and a route
# whose generations are old is matched anew when it is next asked for.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.message cimport pub_t


cdef enum:
    OPT_QOS = 0x03                  # bits of the SUBSCRIBE options byte (MQTT 5 §3.8.3.1), kept as they came
    OPT_NO_LOCAL = 0x04
    OPT_RETAIN_AS_PUBLISHED = 0x08


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


cdef struct route_t:
    Py_ssize_t refs                 # the cache holds one; whoever iterates holds another
    uint64_t hash                   # of the topic, for share groups by hash
    uint32_t count                  # of targets
    uint32_t group_count
    PyObject** groups               # ShareGroup, borrowed; in the same allocation
    target_t targets[1]


cdef class Subscriber:
    cdef readonly bint is_online    # shared groups prefer members that are
    cdef readonly uint8_t kind      # 0: another class; 1: Session (so the engine may skip the virtual call)
    # Takes one message. Never blocks, never raises for reasons of the peer; a raised error is the broker's own fault.
    cdef int deliver(self, pub_t* pub, target_t* target) except -1


cdef class ShareGroup:
    # Members of one (share name, filter). The member for this message: by strategy, online ones first; NULL when empty.
    cdef target_t* pick(self, uint64_t topic_hash) noexcept


cdef class TopicTree:
    # The route of a topic, cached. The topic must have passed check_topic_name(), unless known() says so.
    # Borrowed until the next call into this tree; take route_ref() to iterate while delivering.
    cdef route_t* route(self, const uint8_t* topic, Py_ssize_t size) except NULL
    # The cached, still valid route or NULL; accepts any bytes: only checked topics were ever cached.
    cdef route_t* known(self, const uint8_t* topic, Py_ssize_t size) noexcept
    # topic_filter has passed check_topic_filter(); $share/name/filter is understood. options: OPT_*; subid 0: none.
    # 1: new, 0: replaced an existing subscription of this subscriber, -1 with an exception set (QuotaExceeded: too many
    # levels or nodes).
    cdef int subscribe(self, const uint8_t* topic_filter, Py_ssize_t size, Subscriber subscriber, uint8_t options,
                       uint32_t subid) except -1
    # 1: removed, 0: there was none.
    cdef int unsubscribe(self, const uint8_t* topic_filter, Py_ssize_t size, Subscriber subscriber) except -1


cdef inline route_t* route_ref(route_t* route) noexcept nogil:
    route.refs += 1
    return route

cdef void route_unref(route_t* route) noexcept
