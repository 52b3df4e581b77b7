# The subscription trie: everything that wants messages hangs here (DESIGN §1).
#
# A route is what a topic matched: one entry per subscriber, merged (highest QoS, all Subscription Identifiers), plus the
# shared groups to pick from. Routes are cached by topic bytes. A subscription to a filter without wildcards evicts just
# that topic's route; one with wildcards raises a generation, kept per first level where that is literal, and a route
# whose generations are old is matched anew when it is next asked for.
#
# Parts: levels (hash), tree (nodes and walks), subscriber (targets and routes), share (groups), routes (cache).
#
# Matching carries a frontier of nodes from level to level. A node is met by the one path that leads to it, so a match
# visits no node twice: at most all nodes of the trie, and not more than 2**levels, whatever filters and topic are made of.
# Topic levels below the deepest filter are never looked at.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.engine.message cimport pub_t
from mqttcore.engine.routes cimport cache_t
from mqttcore.engine.share cimport ShareGroup, entry_t
from mqttcore.engine.subscriber cimport (
    OPT_NO_LOCAL, OPT_QOS, OPT_RETAIN_AS_PUBLISHED, Subscriber, recipients_t, route_ref, route_t, route_unref, subids_t,
    target_t,
)
from mqttcore.engine.tree cimport node_t, table_t, tree_t, walk_t


cdef enum:
    LEVEL_SLOTS = 1024              # first levels share these counters of changes by hash
    ANY_LEVEL = LEVEL_SLOTS         # the counter of filters whose first level is a wildcard


cdef struct nodes_t:                # scratch
    node_t** items
    Py_ssize_t count
    Py_ssize_t capacity


cdef class TopicTree:
    cdef readonly Py_ssize_t count              # subscriptions, members of shared groups included
    cdef readonly Py_ssize_t share_groups
    cdef readonly Py_ssize_t handlers           # topic handlers; not among count
    cdef readonly uint64_t generation           # raised by every change
    cdef readonly uint64_t cache_hits
    cdef readonly uint64_t cache_misses         # routes matched in the trie
    cdef readonly uint64_t steps                # nodes visited by all matches so far
    cdef readonly Py_ssize_t levels_maximum     # of a filter
    cdef readonly Py_ssize_t nodes_maximum      # of all filters together
    cdef uint8_t share_strategy                 # SHARE_*
    cdef tree_t tree                            # a node's value: its newest entry_t
    cdef table_t entries
    cdef cache_t cache
    cdef uint64_t changes[LEVEL_SLOTS + 1]      # each only rises, so a sum of two tells whether either did
    cdef nodes_t front, back, matched
    cdef target_t* targets                      # scratch
    cdef Py_ssize_t targets_capacity
    cdef route_t* loose                         # the last route that the cache did not take
    cdef PyObject* cursors                      # open SubscriptionCursors, borrowed

    # The route of a topic, cached. The topic must have passed check_topic_name(), unless known() says so.
    # Borrowed until the next call into this tree; take route_ref() to iterate while delivering.
    cdef route_t* route(self, const uint8_t* topic, Py_ssize_t size) except NULL
    # The cached, still valid route or NULL; accepts any bytes: only checked topics were ever cached.
    cdef route_t* known(self, const uint8_t* topic, Py_ssize_t size) noexcept
    # topic_filter has passed check_topic_filter(); $share/name/filter is understood. options: OPT_*; subid 0: none.
    # The tree keeps a reference to the subscriber for each subscription.
    # 1: new, 0: replaced an existing subscription of this subscriber, -1 with an exception set (QuotaExceeded: too many
    # levels or nodes).
    cdef int subscribe(self, const uint8_t* topic_filter, Py_ssize_t size, Subscriber subscriber, uint8_t options,
                       uint32_t subid) except -1
    # 1: removed, 0: there was none.
    cdef int unsubscribe(self, const uint8_t* topic_filter, Py_ssize_t size, Subscriber subscriber) except -1

    # The group of a `$share/name/filter`; None: nobody is in it.
    cdef ShareGroup find_group(self, const uint8_t* topic_filter, Py_ssize_t size)
    # Keeps a reference to what the handler at this index named for the topic of *route*; without effect when the cache has
    # another route for it by now, or no room. Forgets it with NULL.
    cdef int remember(self, route_t* route, recipients_t* recipients, uint32_t at) except -1

    cdef route_t* _match(self, const uint8_t* topic, Py_ssize_t size, uint64_t hash) except NULL
    cdef int _collect(self, const uint8_t* topic, Py_ssize_t size) except -1
    cdef route_t* _build(self, const uint8_t* topic, Py_ssize_t size, uint64_t hash) except NULL
    cdef int _grow_targets(self) except -1
    cdef void _trim(self) noexcept
    cdef void _changed(self, const uint8_t* topic_filter, Py_ssize_t size) noexcept
    cdef int _add(self, node_t* node, Subscriber subscriber, uint8_t options, uint32_t subid) except -1
    cdef int _join(self, node_t* node, const uint8_t* name, Py_ssize_t size, Subscriber subscriber, uint8_t options,
                   uint32_t subid) except -1
    cdef entry_t* _find_entry(self, uint8_t kind, void* owner, PyObject* subscriber) noexcept
    cdef entry_t* _find_group(self, node_t* node, const uint8_t* name, Py_ssize_t size) noexcept
    cdef entry_t* _new_entry(self, uint8_t kind, void* owner, object subscriber) except NULL
    cdef void _link(self, entry_t* entry, node_t* node) noexcept
    cdef void _unlink(self, entry_t* entry) noexcept
    cdef bint _detach(self, entry_t* entry) noexcept
    cdef route_t* _route_of(self, str topic) except NULL


cdef class SubscriptionCursor:
    cdef TopicTree tree
    cdef walk_t walk
    cdef entry_t* entry             # the next one at walk.node
    cdef entry_t* member            # the next one of a group at walk.node
    cdef PyObject* next_cursor      # in TopicTree.cursors
    cdef PyObject* prev_cursor
    cdef tuple _row(self, entry_t* entry)
