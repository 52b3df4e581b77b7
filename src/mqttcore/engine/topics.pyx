"""The subscription trie; topics.pxd explains routes, generations and bounds."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uintptr_t
from libc.string cimport memcmp, memcpy, memset

from mqttcore.engine.levels cimport TOPIC_MAXIMUM, fold64, hash_bytes, hash_key_t, is_level, level_end
from mqttcore.engine.routes cimport cache_add, cache_clear, cache_drop, cache_find, cache_free, cache_init, cache_resize
from mqttcore.engine.share cimport (
    ENTRY_GROUP, ENTRY_HANDLER, ENTRY_MEMBER, ENTRY_ORDINARY, ENTRY_WATCH, SHARE_HASH, SHARE_ROUND_ROBIN, SHARE_STICKY,
    new_group,
)
from mqttcore.engine.handler cimport Handler
from mqttcore.engine.message cimport TRACED_TOPIC
from mqttcore.engine.subscriber cimport (
    KIND_HANDLER, KIND_WATCH, recipients_ref, recipients_unref, subids_values, target_clear, target_init,
    target_merge,
)
from mqttcore.engine.tree cimport (
    HAS_PLUS, HAS_REST, path_size, path_write, table_add, table_bucket, table_chain, table_free, table_init,
    table_remove, tree_child, tree_find, tree_free, tree_init, tree_make, tree_prune, tree_warm, walk_close, walk_hold, walk_init,
    walk_step,
)

from mqttcore.constants import ReasonCode
from mqttcore.errors import ProtocolError


cdef enum:
    SCRATCH_KEPT = 4096             # items of scratch that stay allocated between matches
    SHARE_PREFIX = 7                # bytes of `$share/`
    ROUTED_OPTIONS = OPT_QOS | OPT_NO_LOCAL | OPT_RETAIN_AS_PUBLISHED
    IS_NEW = 1
    ROUTES_CHANGED = 2

STRATEGIES = {"round_robin": SHARE_ROUND_ROBIN, "sticky": SHARE_STICKY, "hash": SHARE_HASH}


cdef int push(nodes_t* nodes, node_t* node) except -1:
    """Append a node to a scratch list."""
    cdef Py_ssize_t capacity
    cdef node_t** items
    if nodes.count == nodes.capacity:
        capacity = max(2 * nodes.capacity, <Py_ssize_t>64)
        items = <node_t**>PyMem_Realloc(nodes.items, capacity * sizeof(node_t*))
        if items == NULL:
            raise MemoryError
        nodes.items = items
        nodes.capacity = capacity
    nodes.items[nodes.count] = node
    nodes.count += 1
    return 0


cdef void trim(nodes_t* nodes) noexcept:
    """Empty a scratch list; one that a hostile match blew up goes."""
    nodes.count = 0
    if nodes.capacity > SCRATCH_KEPT:
        PyMem_Free(nodes.items)
        nodes.items = NULL
        nodes.capacity = 0


cdef inline uint32_t entry_hash(const hash_key_t* key, void* owner, void* subscriber) noexcept nogil:
    return <uint32_t>fold64(<uintptr_t>owner ^ key.left, <uintptr_t>subscriber ^ key.seed)


cdef inline uint32_t group_hash(const hash_key_t* key, void* owner, const uint8_t* name, Py_ssize_t size) noexcept nogil:
    return <uint32_t>fold64(<uintptr_t>owner ^ key.left, hash_bytes(name, size, key) ^ key.seed)


cdef Py_ssize_t share_name_size(const uint8_t* topic_filter, Py_ssize_t size) except -1:
    """Return the size of the ShareName behind `$share/`, 0 for a filter that is not shared."""
    cdef const uint8_t* name = topic_filter + SHARE_PREFIX
    cdef const uint8_t* slash
    if size < SHARE_PREFIX or memcmp(topic_filter, b"$share/", SHARE_PREFIX) != 0:
        return 0
    slash = level_end(name, topic_filter + size)
    if slash == name or slash == topic_filter + size:
        raise ProtocolError(ReasonCode.TOPIC_FILTER_INVALID, "MQTT-4.8.2-1", "$share without a share name and a filter")
    return slash - name


cdef inline uint8_t entry_kind(Subscriber subscriber) noexcept:
    if subscriber.kind == KIND_HANDLER:
        return ENTRY_HANDLER
    return ENTRY_WATCH if subscriber.kind == KIND_WATCH else ENTRY_ORDINARY


cdef void add_handler(route_t* route, PyObject* handler) noexcept:
    """Insert into the handlers of a route, in the order in which they are asked."""
    cdef uint32_t at = route.handler_count
    while at and (<Handler>handler).precedes(<Handler>route.handlers[at - 1]):
        route.handlers[at] = route.handlers[at - 1]
        at -= 1
    route.handlers[at] = handler
    route.handler_count += 1
    route.early_count += (<Handler>handler).is_authorized_by_itself


@cython.final
cdef class TopicTree:
    """All subscriptions of a broker, and the routes of the topics that were published lately.

    routes_maximum, routes_bytes_maximum: bounds of the cache of routes; 0 switches it off.
    levels_maximum, nodes_maximum: bounds of the filters; beyond them subscribing raises QuotaExceeded.
    share_strategy: `round_robin`, `sticky` or `hash`: who of a shared group gets the next message.

    Filters and topics come in checked; other ones are stored and matched by their bytes and do no harm.
    The tree keeps a reference to each subscriber and takes no part in garbage collection: call clear() when it is done.
    """

    def __cinit__(self, *, Py_ssize_t routes_maximum=65536, Py_ssize_t routes_bytes_maximum=64 << 20,
                  Py_ssize_t levels_maximum=128, Py_ssize_t nodes_maximum=10_000_000, str share_strategy="round_robin"):
        if share_strategy not in STRATEGIES:
            raise ValueError(f"share_strategy is one of {', '.join(STRATEGIES)}, not {share_strategy!r}")
        if not (0 <= routes_maximum < 1 << 30 and routes_bytes_maximum >= 0):
            raise ValueError("routes_maximum is 0 to 2**30 - 1, routes_bytes_maximum not negative")
        if not (1 <= levels_maximum < 1 << 16 and 1 <= nodes_maximum < 1 << 31):
            raise ValueError("levels_maximum is 1 to 65535, nodes_maximum 1 to 2**31 - 1")
        self.levels_maximum = levels_maximum
        self.nodes_maximum = nodes_maximum
        self.share_strategy = STRATEGIES[share_strategy]
        tree_init(&self.tree)
        table_init(&self.entries)
        cache_init(&self.cache, routes_maximum, routes_bytes_maximum)

    def __dealloc__(self):
        if self.entries.segments[0] != NULL:
            self.clear()
        if self.tree.root != NULL:
            tree_free(&self.tree)
        table_free(&self.entries)
        cache_free(&self.cache)
        PyMem_Free(self.front.items)
        PyMem_Free(self.back.items)
        PyMem_Free(self.matched.items)
        PyMem_Free(self.targets)

    # Routes

    cdef route_t* known(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef route_t* route = cache_find(&self.cache, hash_bytes(topic, size, &self.tree.key), topic, size)
        if route == NULL or route.stamp != self.changes[ANY_LEVEL] + self.changes[route.slot]:
            return NULL
        route.is_recent = True
        self.cache_hits += 1
        return route

    cdef route_t* route(self, const uint8_t* topic, Py_ssize_t size) except NULL:
        cdef uint64_t hash = hash_bytes(topic, size, &self.tree.key)
        cdef route_t* route = cache_find(&self.cache, hash, topic, size)
        if route != NULL:
            if route.stamp == self.changes[ANY_LEVEL] + self.changes[route.slot]:
                route.is_recent = True
                self.cache_hits += 1
                return route
            cache_drop(&self.cache, route)
        return self._match(topic, size, hash)

    cdef route_t* _match(self, const uint8_t* topic, Py_ssize_t size, uint64_t hash) except NULL:
        cdef route_t* route
        if self.loose != NULL:
            route_unref(self.loose)
            self.loose = NULL
        self.cache_misses += 1
        try:
            self._collect(topic, size)
            route = self._build(topic, size, hash)
        finally:
            self._trim()
        if not cache_add(&self.cache, route):
            self.loose = route
        return route

    cdef int _collect(self, const uint8_t* topic, Py_ssize_t size) except -1:
        """Put into `matched` the nodes with subscriptions whose filter matches."""
        cdef const uint8_t* end = topic + size
        cdef const uint8_t* stop = topic
        cdef nodes_t* front = &self.front
        cdef nodes_t* back = &self.back
        cdef node_t* node
        cdef node_t* child
        cdef uint64_t level_hash = 0
        cdef Py_ssize_t i
        cdef uint8_t flags
        cdef bint sees_wildcards = size == 0 or topic[0] != c"$"        # [MQTT-4.7.2-1], for the first level only
        cdef bint is_whole = False                                      # all levels of the topic are behind us
        tree_warm(&self.tree, topic, size)
        push(front, self.tree.root)
        while front.count:
            if not is_whole:
                stop = level_end(topic, end)
                level_hash = hash_bytes(topic, stop - topic, &self.tree.key)
            self.steps += front.count
            for i in range(front.count):
                node = front.items[i]
                child = node.first_child
                flags = node.link.flags
                if flags & HAS_REST:            # also matches the level above it (MQTT 5 §4.7.1.2)
                    if sees_wildcards and child.value != NULL:
                        push(&self.matched, child)
                    child = child.next_sibling
                if is_whole:
                    if node.value != NULL:
                        push(&self.matched, node)
                    continue
                if flags & HAS_PLUS:
                    if sees_wildcards:
                        push(back, child)
                    child = child.next_sibling
                if child != NULL:               # there are literal children
                    child = tree_child(&self.tree, node, topic, stop - topic, level_hash)
                    if child != NULL:
                        push(back, child)
            front.count = 0
            front, back = back, front
            sees_wildcards = True
            if stop == end:
                if is_whole:
                    break
                is_whole = True
            else:
                topic = stop + 1
        return 0

    cdef route_t* _build(self, const uint8_t* topic, Py_ssize_t size, uint64_t hash) except NULL:
        """Make the route of what is in `matched`, one target per subscriber."""
        cdef route_t* route = NULL
        cdef entry_t* entry
        cdef target_t* target
        cdef uint32_t count = 0, group_count = 0, handler_count = 0, traced = 0, place
        cdef Py_ssize_t i, held
        try:
            for i in range(self.matched.count):
                entry = <entry_t*>self.matched.items[i].value
                while entry != NULL:
                    if entry.link.flags != ENTRY_ORDINARY:
                        if entry.link.flags == ENTRY_GROUP:
                            group_count += 1
                        elif entry.link.flags == ENTRY_HANDLER:
                            handler_count += 1
                        else:
                            traced = TRACED_TOPIC
                        entry = entry.next
                        continue
                    # Two filters are needed for an overlap. `place` may be a leftover of any other match: it counts
                    # only if the target there says so.
                    if self.matched.count > 1:
                        place = (<Subscriber>entry.subscriber).place
                        if place < count and self.targets[place].subscriber == entry.subscriber:
                            target_merge(&self.targets[place], entry.link.options, entry.subid)
                            entry = entry.next
                            continue
                        (<Subscriber>entry.subscriber).place = count
                    if count == self.targets_capacity:
                        self._grow_targets()
                    target_init(&self.targets[count], entry.subscriber, entry.link.options, entry.subid)
                    count += 1
                    entry = entry.next
            held = (sizeof(route_t) - sizeof(target_t) + count * sizeof(target_t)
                    + (group_count + handler_count) * sizeof(PyObject*) + size)
            route = <route_t*>PyMem_Malloc(held)
            if route == NULL:
                raise MemoryError
        except BaseException:
            for i in range(count):
                target_clear(&self.targets[i])
            raise
        memset(route, 0, sizeof(route_t) - sizeof(target_t))
        route.refs = 1
        route.hash = hash
        route.count = count
        route.traced = traced
        if count:
            memcpy(route.targets, self.targets, count * sizeof(target_t))
        for i in range(count):
            target = &route.targets[i]
            if target.subids != NULL:
                held += target.subids.size + sizeof(subids_t)
                if target.own_subids != NULL and target.own_subids != target.subids:
                    held += target.own_subids.size + sizeof(subids_t)
        route.groups = <PyObject**>&route.targets[count]
        route.handlers = route.groups + group_count
        if group_count or handler_count:
            for i in range(self.matched.count):
                entry = <entry_t*>self.matched.items[i].value
                while entry != NULL:
                    if entry.link.flags == ENTRY_GROUP:
                        Py_INCREF(<object>entry.subscriber)
                        route.groups[route.group_count] = entry.subscriber
                        route.group_count += 1
                    elif entry.link.flags == ENTRY_HANDLER:
                        Py_INCREF(<object>entry.subscriber)
                        add_handler(route, entry.subscriber)
                    entry = entry.next
        route.topic = <uint8_t*>(route.handlers + handler_count)
        route.size = <uint16_t>size
        memcpy(route.topic, topic, size)
        route.slot = hash_bytes(topic, level_end(topic, topic + size) - topic, &self.tree.key) & (LEVEL_SLOTS - 1)
        route.stamp = self.changes[ANY_LEVEL] + self.changes[route.slot]
        route.bytes_held = held
        return route

    cdef int _grow_targets(self) except -1:
        cdef Py_ssize_t capacity = max(2 * self.targets_capacity, <Py_ssize_t>64)
        cdef target_t* targets = <target_t*>PyMem_Realloc(self.targets, capacity * sizeof(target_t))
        if targets == NULL:
            raise MemoryError
        self.targets = targets
        self.targets_capacity = capacity
        return 0

    cdef void _trim(self) noexcept:
        trim(&self.front)
        trim(&self.back)
        trim(&self.matched)
        if self.targets_capacity > SCRATCH_KEPT:
            PyMem_Free(self.targets)
            self.targets = NULL
            self.targets_capacity = 0

    cdef void _changed(self, const uint8_t* topic_filter, Py_ssize_t size) noexcept:
        """Outdate the routes that a change at this filter, without its share name, may concern."""
        cdef const uint8_t* end = topic_filter + size
        cdef const uint8_t* first_end = level_end(topic_filter, end)
        cdef const uint8_t* p = topic_filter
        cdef const uint8_t* stop = first_end
        cdef route_t* route
        self.generation += 1
        while not (is_level(p, stop - p, c"+") or is_level(p, stop - p, c"#")):
            if stop == end:         # no wildcard: one topic
                route = cache_find(&self.cache, hash_bytes(topic_filter, size, &self.tree.key), topic_filter, size)
                if route != NULL:
                    cache_drop(&self.cache, route)
                return
            p = stop + 1
            stop = level_end(p, end)
        if p == topic_filter:
            self.changes[ANY_LEVEL] += 1
        else:
            self.changes[hash_bytes(topic_filter, first_end - topic_filter, &self.tree.key) & (LEVEL_SLOTS - 1)] += 1

    cdef int remember(self, route_t* route, recipients_t* recipients, uint32_t at) except -1:
        cdef bint is_cached = cache_find(&self.cache, route.hash, route.topic, route.size) == route
        if not is_cached and route != self.loose:
            return 0
        if route.recipients != NULL:
            if is_cached:
                cache_resize(&self.cache, route, -route.recipients.bytes_held)
            recipients_unref(route.recipients)
            route.recipients = NULL
        if recipients != NULL and (not is_cached or cache_resize(&self.cache, route, recipients.bytes_held)):
            route.recipients = recipients_ref(recipients)
            route.recipients_at = at
        return 0

    # Subscriptions

    cdef int subscribe(self, const uint8_t* topic_filter, Py_ssize_t size, Subscriber subscriber, uint8_t options,
                       uint32_t subid) except -1:
        cdef Py_ssize_t name_size = share_name_size(topic_filter, size)
        cdef const uint8_t* name = topic_filter + SHARE_PREFIX
        cdef Py_ssize_t skipped = SHARE_PREFIX + name_size + 1 if name_size else 0
        cdef node_t* node
        cdef int outcome
        topic_filter += skipped
        size -= skipped
        node = tree_make(&self.tree, topic_filter, size, self.levels_maximum, self.nodes_maximum)
        try:
            if name_size:
                outcome = self._join(node, name, name_size, subscriber, options, subid)
            else:
                outcome = self._add(node, subscriber, options, subid)
        except BaseException:
            tree_prune(&self.tree, node)
            raise
        if outcome & ROUTES_CHANGED:
            self._changed(topic_filter, size)
        return outcome & IS_NEW

    cdef int unsubscribe(self, const uint8_t* topic_filter, Py_ssize_t size, Subscriber subscriber) except -1:
        cdef Py_ssize_t name_size = share_name_size(topic_filter, size)
        cdef const uint8_t* name = topic_filter + SHARE_PREFIX
        cdef Py_ssize_t skipped = SHARE_PREFIX + name_size + 1 if name_size else 0
        cdef node_t* node
        cdef entry_t* entry
        topic_filter += skipped
        size -= skipped
        node = tree_find(&self.tree, topic_filter, size)
        if node == NULL:
            return 0
        if name_size:
            entry = self._find_group(node, name, name_size)
            if entry == NULL:
                return 0
            entry = self._find_entry(ENTRY_MEMBER, entry.subscriber, <PyObject*>subscriber)
        else:
            entry = self._find_entry(entry_kind(subscriber), node, <PyObject*>subscriber)
        if entry == NULL:
            return 0
        if self._detach(entry):
            self._changed(topic_filter, size)
        return 1

    cdef int _add(self, node_t* node, Subscriber subscriber, uint8_t options, uint32_t subid) except -1:
        """Subscribe without a group; return IS_NEW and ROUTES_CHANGED as they hold."""
        cdef uint8_t kind = entry_kind(subscriber)
        cdef entry_t* entry = self._find_entry(kind, node, <PyObject*>subscriber)
        cdef bint is_same
        if entry != NULL:
            is_same = entry.subid == subid and (entry.link.options ^ options) & ROUTED_OPTIONS == 0
            entry.link.options = options
            entry.subid = subid
            return 0 if is_same else ROUTES_CHANGED
        entry = self._new_entry(kind, node, subscriber)
        entry.link.hash = entry_hash(&self.tree.key, node, <void*>subscriber)
        entry.link.options = options
        entry.subid = subid
        self._link(entry, node)
        if kind == ENTRY_HANDLER:
            self.handlers += 1
        elif kind == ENTRY_ORDINARY:
            self.count += 1
        return IS_NEW | ROUTES_CHANGED

    cdef int _join(self, node_t* node, const uint8_t* name, Py_ssize_t size, Subscriber subscriber, uint8_t options,
                   uint32_t subid) except -1:
        """Subscribe as a member of a group; return IS_NEW and ROUTES_CHANGED (only by a new group) as they hold."""
        cdef entry_t* group_entry = self._find_group(node, name, size)
        cdef entry_t* entry = NULL
        cdef entry_t before
        cdef ShareGroup group
        if group_entry != NULL:
            group = <ShareGroup>group_entry.subscriber
            entry = self._find_entry(ENTRY_MEMBER, <void*>group, <PyObject*>subscriber)
        else:
            group = new_group(name[:size], self.share_strategy)
        if entry != NULL:
            before = entry[0]
            entry.link.options = options
            entry.subid = subid
            try:
                group.update(entry)
            except BaseException:
                entry.link.options = before.link.options
                entry.subid = before.subid
                raise
            return 0
        entry = self._new_entry(ENTRY_MEMBER, <void*>group, subscriber)
        entry.link.hash = entry_hash(&self.tree.key, <void*>group, <void*>subscriber)
        entry.link.options = options
        entry.subid = subid
        try:
            group.join(entry)
            if group_entry == NULL:
                group.entry = self._new_entry(ENTRY_GROUP, node, group)
                group.whole_filter()        # while it hangs in the tree: who asks later may find it gone
        except BaseException:
            Py_DECREF(subscriber)
            PyMem_Free(entry)
            raise
        table_add(&self.entries, &entry.link)
        self.count += 1
        if group_entry != NULL:
            return IS_NEW
        group.entry.link.hash = group_hash(&self.tree.key, node, name, size)
        self._link(group.entry, node)
        self.share_groups += 1
        return IS_NEW | ROUTES_CHANGED

    cdef ShareGroup find_group(self, const uint8_t* topic_filter, Py_ssize_t size):
        cdef Py_ssize_t name_size = share_name_size(topic_filter, size)
        cdef const uint8_t* name = topic_filter + SHARE_PREFIX
        cdef Py_ssize_t skipped = SHARE_PREFIX + name_size + 1
        cdef node_t* node = tree_find(&self.tree, topic_filter + skipped, size - skipped) if name_size else NULL
        cdef entry_t* entry = self._find_group(node, name, name_size) if node != NULL else NULL
        return <ShareGroup>entry.subscriber if entry != NULL else None

    cdef entry_t* _find_entry(self, uint8_t kind, void* owner, PyObject* subscriber) noexcept:
        cdef uint32_t hash = entry_hash(&self.tree.key, owner, subscriber)
        cdef entry_t* entry = <entry_t*>table_chain(&self.entries, hash)[0]
        while entry != NULL:
            if (entry.link.hash == hash and entry.owner == owner and entry.subscriber == subscriber
                    and entry.link.flags == kind):
                break
            entry = <entry_t*>entry.link.chain
        return entry

    cdef entry_t* _find_group(self, node_t* node, const uint8_t* name, Py_ssize_t size) noexcept:
        cdef uint32_t hash = group_hash(&self.tree.key, node, name, size)
        cdef entry_t* entry = <entry_t*>table_chain(&self.entries, hash)[0]
        while entry != NULL:
            if (entry.link.hash == hash and entry.owner == node and entry.link.flags == ENTRY_GROUP
                    and (<ShareGroup>entry.subscriber).is_named(name, size)):
                break
            entry = <entry_t*>entry.link.chain
        return entry

    cdef entry_t* _new_entry(self, uint8_t kind, void* owner, object subscriber) except NULL:
        cdef entry_t* entry = <entry_t*>PyMem_Malloc(sizeof(entry_t))
        if entry == NULL:
            raise MemoryError
        memset(entry, 0, sizeof(entry_t))
        entry.link.flags = kind
        entry.owner = owner
        entry.subscriber = <PyObject*>subscriber
        Py_INCREF(subscriber)
        return entry

    cdef void _link(self, entry_t* entry, node_t* node) noexcept:
        """Put an entry into the table and before the others of its node."""
        table_add(&self.entries, &entry.link)
        entry.next = <entry_t*>node.value
        if entry.next != NULL:
            entry.next.prev = entry
        node.value = entry

    cdef void _unlink(self, entry_t* entry) noexcept:
        """Take an entry out of everything but a group's membership, and free it."""
        cdef SubscriptionCursor cursor
        cdef PyObject* open_cursor = self.cursors
        cdef node_t* node
        while open_cursor != NULL:
            cursor = <SubscriptionCursor>open_cursor
            if cursor.entry == entry:
                cursor.entry = entry.next
            if cursor.member == entry:
                cursor.member = entry.next
            open_cursor = cursor.next_cursor
        table_remove(&self.entries, &entry.link)
        if entry.link.flags == ENTRY_MEMBER:
            (<ShareGroup>entry.owner).leave(entry)
        else:
            if entry.next != NULL:
                entry.next.prev = entry.prev
            if entry.prev != NULL:
                entry.prev.next = entry.next
            else:
                node = <node_t*>entry.owner
                node.value = entry.next
        Py_DECREF(<object>entry.subscriber)
        PyMem_Free(entry)

    cdef bint _detach(self, entry_t* entry) noexcept:
        """Remove a subscription, then its group and its nodes when they are empty; return whether routes change.

        The caller holds a reference to the subscriber, so nothing is finalized while the trie changes.
        """
        cdef ShareGroup group
        cdef node_t* node
        if entry.link.flags == ENTRY_HANDLER:
            self.handlers -= 1
        elif entry.link.flags != ENTRY_WATCH:
            self.count -= 1
        if entry.link.flags == ENTRY_MEMBER:
            group = <ShareGroup>entry.owner
            self._unlink(entry)
            if group.count:
                return False
            entry = group.entry
            self.share_groups -= 1
        node = <node_t*>entry.owner
        self._unlink(entry)
        tree_prune(&self.tree, node)
        return True

    def subscribers(self, bytes topic_filter not None) -> list:
        """Return who subscribed to exactly this filter, members of a shared group with `$share/name/filter`."""
        cdef const uint8_t* text = <const uint8_t*><const char*>topic_filter
        cdef Py_ssize_t size = len(topic_filter)
        cdef Py_ssize_t name_size = share_name_size(text, size)
        cdef Py_ssize_t skipped = SHARE_PREFIX + name_size + 1 if name_size else 0
        cdef node_t* node = tree_find(&self.tree, text + skipped, size - skipped)
        cdef entry_t* entry = NULL
        cdef uint8_t kind = ENTRY_ORDINARY
        cdef list found = []
        if node != NULL and name_size:
            entry = self._find_group(node, text + SHARE_PREFIX, name_size)
            if entry != NULL:
                entry = (<ShareGroup>entry.subscriber).first
                kind = ENTRY_MEMBER
        elif node != NULL:
            entry = <entry_t*>node.value
        while entry != NULL:
            if entry.link.flags == kind:
                found.append(<object>entry.subscriber)
            entry = entry.next
        return found

    def clear(self) -> None:
        """Remove all subscriptions and cached routes."""
        cdef int64_t index = <int64_t>self.entries.buckets - 1
        cdef entry_t* entry
        cdef object subscriber
        # Removals close buckets at the end, whose entries move to lower ones: what is above index stays empty.
        while index >= 0:
            entry = <entry_t*>table_bucket(&self.entries, <uint32_t>index)[0]
            if entry == NULL:
                index -= 1
                continue
            if entry.link.flags == ENTRY_GROUP:
                entry = (<ShareGroup>entry.subscriber).first
            subscriber = <object>entry.subscriber
            self.changes[ANY_LEVEL] += 1
            self.generation += 1
            self._detach(entry)
            index = min(index, <int64_t>self.entries.buckets - 1)
        subscriber = None
        cache_clear(&self.cache)
        if self.loose != NULL:
            route_unref(self.loose)
            self.loose = NULL

    # The Python face

    def add(self, str topic_filter not None, Subscriber subscriber not None, uint8_t options=0, uint32_t subid=0) -> bool:
        """Subscribe; return whether it is new rather than a replacement.

        topic_filter: checked, `$share/name/filter` is understood. options: the byte of SUBSCRIBE. subid: 0 is none.
        Raises QuotaExceeded for too many levels or nodes, ProtocolError for `$share` without name or filter.
        """
        cdef bytes text = topic_filter.encode()
        return self.subscribe(<const uint8_t*><const char*>text, len(text), subscriber, options, subid) == 1

    def discard(self, str topic_filter not None, Subscriber subscriber not None) -> bool:
        """Unsubscribe; return whether there was a subscription."""
        cdef bytes text = topic_filter.encode()
        return self.unsubscribe(<const uint8_t*><const char*>text, len(text), subscriber) == 1

    def is_cached(self, str topic not None) -> bool:
        """Return whether the topic's route is cached and valid."""
        cdef bytes text = topic.encode()
        return self.known(<const uint8_t*><const char*>text, len(text)) != NULL

    def match(self, str topic not None) -> list:
        """Return what a message to *topic* goes to, shared groups not counted, through the cache of routes.

        One tuple per subscriber: (subscriber, qos, subids, own_qos, own_subids, retain_as_published). The own_* values
        are for a message that the subscriber itself published: without its No Local subscriptions, None if all are.
        Raises ValueError for more than 65535 bytes.
        """
        cdef route_t* route = self._route_of(topic)
        cdef target_t* target
        cdef list found = []
        cdef uint32_t i
        try:
            for i in range(route.count):
                target = &route.targets[i]
                found.append((
                    <object>target.subscriber, target.qos, subids_values(target.subids),
                    None if target.own_qos == 0xFF else target.own_qos, subids_values(target.own_subids),
                    target.retain_as_published != 0,
                ))
        finally:
            route_unref(route)
        return found

    def pick_shared(self, str topic not None) -> list:
        """Return whom each shared group that *topic* matches would give its next message to, like match().

        One tuple per group: (share name, subscriber, qos, subids). Round robin goes on by one.
        """
        cdef route_t* route = self._route_of(topic)
        cdef ShareGroup group
        cdef target_t* target
        cdef list found = []
        cdef uint32_t i
        try:
            for i in range(route.group_count):
                group = <ShareGroup>route.groups[i]
                target = group.pick(route.hash)
                if target != NULL:
                    found.append((group.name, <object>target.subscriber, target.qos, subids_values(target.subids)))
        finally:
            route_unref(route)
        return found

    cdef route_t* _route_of(self, str topic) except NULL:
        """Return a new reference to the route of a topic that came from Python."""
        cdef bytes text = topic.encode()
        if len(text) > TOPIC_MAXIMUM:
            raise ValueError("a topic has at most 65535 bytes [MQTT-4.7.3-3]")
        return route_ref(self.route(<const uint8_t*><const char*>text, len(text)))

    def subscriptions(self) -> SubscriptionCursor:
        """Return a cursor over all subscriptions, for management."""
        return SubscriptionCursor(self)

    @property
    def node_count(self) -> int:
        """Nodes of the trie: the levels that all filters together have."""
        return self.tree.nodes.count

    @property
    def node_bytes(self) -> int:
        """Bytes that the nodes take."""
        return self.tree.node_bytes

    @property
    def cache_size(self) -> int:
        """Routes in the cache, outdated ones included."""
        return self.cache.count

    @property
    def cache_bytes(self) -> int:
        """Bytes that the routes in the cache take."""
        return self.cache.bytes_held

    @property
    def cache_evictions(self) -> int:
        """Routes that left the cache for want of room."""
        return self.cache.evictions


@cython.final
@cython.no_gc
cdef class SubscriptionCursor:
    """Walks all subscriptions in slices; the trie may change between them.

    What is there all the time is given exactly once; what comes or goes meanwhile, at most once.
    """

    def __cinit__(self, TopicTree tree not None):
        self.tree = tree
        walk_init(&self.walk, &tree.tree, b"#", 1, tree.levels_maximum)
        self.walk.hides_dollar = False
        self.next_cursor = tree.cursors
        if tree.cursors != NULL:
            (<SubscriptionCursor>tree.cursors).prev_cursor = <PyObject*>self
        tree.cursors = <PyObject*>self

    def __dealloc__(self):
        self.close()

    def close(self) -> None:
        """Give up the place in the trie; a closed cursor is at its end."""
        if self.walk.patterns == NULL:
            return
        walk_close(&self.walk)
        self.entry = self.member = NULL
        if self.prev_cursor == NULL:
            self.tree.cursors = self.next_cursor
        else:
            (<SubscriptionCursor>self.prev_cursor).next_cursor = self.next_cursor
        if self.next_cursor != NULL:
            (<SubscriptionCursor>self.next_cursor).prev_cursor = self.prev_cursor
        self.next_cursor = self.prev_cursor = NULL

    def take(self, Py_ssize_t maximum) -> list:
        """Return the next subscriptions, at most *maximum*, as (filter, subscriber, options, subid); empty at the end."""
        cdef list rows = []
        cdef entry_t* entry
        cdef node_t* held
        while len(rows) < maximum:
            # Both places move on before a row is made: making it may run a finalizer that unsubscribes.
            if self.member != NULL:
                entry = self.member
                self.member = entry.next
                rows.append(self._row(entry))
            elif self.entry != NULL:
                entry = self.entry
                self.entry = entry.next
                if entry.link.flags == ENTRY_GROUP:
                    self.member = (<ShareGroup>entry.subscriber).first
                elif entry.link.flags == ENTRY_ORDINARY:      # handlers and watches are none
                    rows.append(self._row(entry))
            elif self.walk.node != NULL:
                held = self.walk.node
                walk_step(&self.walk)
                walk_hold(&self.walk, held)
                if self.walk.node != NULL:
                    self.entry = <entry_t*>self.walk.node.value
            else:
                break
        return rows

    cdef tuple _row(self, entry_t* entry):
        cdef object subscriber = <object>entry.subscriber
        cdef uint8_t options = entry.link.options
        cdef uint32_t subid = entry.subid
        cdef bytes share_name = None
        cdef bytes path
        cdef Py_ssize_t size = path_size(self.walk.node)
        if entry.link.flags == ENTRY_MEMBER:
            share_name = (<ShareGroup>entry.owner).share_name
        path = PyBytes_FromStringAndSize(NULL, size)        # the walk's pin keeps the node
        path_write(self.walk.node, <uint8_t*>PyBytes_AS_STRING(path))
        if share_name is not None:
            path = b"$share/" + share_name + b"/" + path
        return path.decode(), subscriber, options, subid
