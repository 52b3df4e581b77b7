"""A tree of topic levels in C; tree.pxd explains it."""

from os import urandom

from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.string cimport memcpy, memset

from mqttcore.engine.levels cimport TOPIC_MAXIMUM, count_levels, is_level, level_end

from mqttcore.constants import ReasonCode
from mqttcore.errors import QuotaExceeded


cdef enum:
    WARM_LEVELS = 8
    WARM_NODES = 4096               # fewer stay in the processor's cache by themselves


cdef int table_init(table_t* table) except -1:
    memset(table, 0, sizeof(table_t))
    table.segments[0] = <link_t**>PyMem_Calloc(FIRST_BUCKETS, sizeof(link_t*))
    if table.segments[0] == NULL:
        raise MemoryError
    table.buckets = FIRST_BUCKETS
    table.mask = FIRST_BUCKETS - 1
    return 0


cdef void table_free(table_t* table) noexcept:
    cdef int segment
    for segment in range(SEGMENTS):
        PyMem_Free(table.segments[segment])
    memset(table, 0, sizeof(table_t))


cdef void table_add(table_t* table, link_t* link) noexcept:
    cdef link_t** bucket
    if table.count >= table.buckets:
        split_bucket(table)
    bucket = table_chain(table, link.hash)
    link.chain = bucket[0]
    bucket[0] = link
    table.count += 1


cdef void table_remove(table_t* table, link_t* link) noexcept:
    cdef link_t** place = table_chain(table, link.hash)
    while place[0] != link:
        place = &place[0].chain
    place[0] = link.chain
    table.count -= 1
    # Half empty before a bucket goes, so that adding and removing one at the edge does not split and merge each time.
    if table.buckets > FIRST_BUCKETS and table.count < table.buckets >> 1:
        merge_bucket(table)


cdef void split_bucket(table_t* table) noexcept:
    """Open one more bucket and move to it what hashes there."""
    cdef uint32_t index = table.buckets
    cdef unsigned int segment
    cdef link_t** old
    cdef link_t** new
    cdef link_t* link
    if index > table.mask:
        segment = top_bit(index) - 3
        if segment >= SEGMENTS:
            return
        # Zeroed pages of a large block come from the system when first touched: no stall here.
        table.segments[segment] = <link_t**>PyMem_Calloc(index, sizeof(link_t*))
        if table.segments[segment] == NULL:
            return
        table.mask = table.mask * 2 + 1
    table.buckets += 1
    old = table_bucket(table, index & table.mask >> 1)
    new = table_bucket(table, index)
    while old[0] != NULL:
        link = old[0]
        if link.hash & table.mask == index:
            old[0] = link.chain
            link.chain = new[0]
            new[0] = link
        else:
            old = &link.chain


cdef void merge_bucket(table_t* table) noexcept:
    """Close the last bucket and move what it held back to where it was split from."""
    cdef uint32_t index = table.buckets - 1
    cdef link_t** last = table_bucket(table, index)
    cdef link_t** home = table_bucket(table, index & table.mask >> 1)
    cdef unsigned int segment
    while home[0] != NULL:
        home = &home[0].chain
    home[0] = last[0]
    last[0] = NULL
    table.buckets = index
    if index == (table.mask >> 1) + 1:
        segment = top_bit(index) - 3
        PyMem_Free(table.segments[segment])
        table.segments[segment] = NULL
        table.mask >>= 1


cdef Py_ssize_t node_size(Py_ssize_t level_size) noexcept:
    """Bytes to allocate for a node."""
    cdef node_t* node = NULL
    return sizeof(node_t) - sizeof(node.level) + max(level_size, <Py_ssize_t>sizeof(node.level))


cdef int tree_init(tree_t* tree) except -1:
    cdef bytes words = urandom(sizeof(hash_key_t))
    memset(tree, 0, sizeof(tree_t))
    memcpy(&tree.key, <const char*>words, sizeof(hash_key_t))
    tree.key.right |= 1         # a zero factor would make all hashes equal
    table_init(&tree.nodes)
    tree.root = <node_t*>PyMem_Calloc(1, sizeof(node_t))
    if tree.root == NULL:
        raise MemoryError
    return 0


cdef void tree_free(tree_t* tree) noexcept:
    cdef uint32_t index
    cdef link_t* link
    cdef link_t* chain
    for index in range(tree.nodes.buckets):
        link = table_bucket(&tree.nodes, index)[0]
        while link != NULL:
            chain = link.chain
            PyMem_Free(link)
            link = chain
    table_free(&tree.nodes)
    PyMem_Free(tree.root)
    tree.root = NULL
    tree.node_bytes = 0


cdef void tree_warm(tree_t* tree, const uint8_t* path, Py_ssize_t size) noexcept:
    cdef const uint8_t* end = path + size
    cdef const uint8_t* stop
    cdef link_t** buckets[WARM_LEVELS]
    cdef uint32_t hash = 0
    cdef int i, levels = 0
    if tree.nodes.count < WARM_NODES:
        return
    while levels < WARM_LEVELS:
        stop = level_end(path, end)
        hash = edge_hash(tree, hash, hash_bytes(path, stop - path, &tree.key))
        buckets[levels] = table_chain(&tree.nodes, hash)
        prefetch(buckets[levels])
        levels += 1
        if stop == end:
            break
        path = stop + 1
    for i in range(levels):
        prefetch(buckets[i][0])


cdef node_t* tree_find(tree_t* tree, const uint8_t* path, Py_ssize_t size) noexcept:
    cdef const uint8_t* end = path + size
    cdef const uint8_t* stop
    cdef node_t* node = tree.root
    tree_warm(tree, path, size)
    while True:
        if node.first_child == NULL:        # before hashing a level that cannot be there
            return NULL
        stop = level_end(path, end)
        node = tree_child(tree, node, path, stop - path, hash_bytes(path, stop - path, &tree.key))
        if node == NULL or stop == end:
            return node
        path = stop + 1


cdef node_t* tree_make(tree_t* tree, const uint8_t* path, Py_ssize_t size, Py_ssize_t levels_maximum,
                       Py_ssize_t nodes_maximum) except NULL:
    cdef const uint8_t* end = path + size
    cdef const uint8_t* stop
    cdef node_t* node = tree.root
    cdef node_t* child
    cdef uint64_t level_hash
    if size > TOPIC_MAXIMUM:
        raise QuotaExceeded(ReasonCode.QUOTA_EXCEEDED, "MQTT-4.7.3-3", "a topic has at most 65535 bytes")
    if count_levels(path, size, levels_maximum + 1) > levels_maximum:
        raise QuotaExceeded(ReasonCode.QUOTA_EXCEEDED, "§4.7.1", f"more than {levels_maximum} topic levels")
    tree_warm(tree, path, size)
    while True:
        stop = level_end(path, end)
        level_hash = hash_bytes(path, stop - path, &tree.key)
        child = tree_child(tree, node, path, stop - path, level_hash)
        if child == NULL:
            if tree.nodes.count >= nodes_maximum:
                tree_prune(tree, node)
                raise QuotaExceeded(ReasonCode.QUOTA_EXCEEDED, "§4.7.1", f"more than {nodes_maximum} nodes of topics")
            child = new_child(tree, node, path, stop - path, level_hash)
            if child == NULL:
                tree_prune(tree, node)
                raise MemoryError
        node = child
        if stop == end:
            return node
        path = stop + 1


cdef node_t* new_child(tree_t* tree, node_t* parent, const uint8_t* level, Py_ssize_t size,
                       uint64_t level_hash) noexcept:
    """Make a child that is not there yet; NULL without memory."""
    cdef node_t* before = NULL              # the sibling it stands behind
    cdef node_t* after
    cdef node_t* node = <node_t*>PyMem_Malloc(node_size(size))
    if node == NULL:
        return NULL
    memset(node, 0, sizeof(node_t))
    node.link.hash = edge_hash(tree, parent.link.hash, level_hash)
    node.link.size = <uint16_t>size
    node.parent = parent
    memcpy(node.level, level, size)
    if is_level(level, size, c"#"):
        node.link.flags = IS_REST
        parent.link.flags |= HAS_REST
    else:
        if parent.link.flags & HAS_REST:
            before = parent.first_child
        if is_level(level, size, c"+"):
            node.link.flags = IS_PLUS
            parent.link.flags |= HAS_PLUS
        elif parent.link.flags & HAS_PLUS:
            before = parent.first_child if before == NULL else before.next_sibling
    after = parent.first_child if before == NULL else before.next_sibling
    node.prev_sibling = before
    node.next_sibling = after
    if before == NULL:
        parent.first_child = node
    else:
        before.next_sibling = node
    if after != NULL:
        after.prev_sibling = node
    table_add(&tree.nodes, &node.link)
    tree.node_bytes += node_size(size) + <Py_ssize_t>sizeof(link_t*)
    return node


cdef void tree_prune(tree_t* tree, node_t* node) noexcept:
    cdef node_t* parent
    while node.parent != NULL and node.value == NULL and node.first_child == NULL and node.pins == 0:
        parent = node.parent
        if node.prev_sibling == NULL:
            parent.first_child = node.next_sibling
        else:
            node.prev_sibling.next_sibling = node.next_sibling
        if node.next_sibling != NULL:
            node.next_sibling.prev_sibling = node.prev_sibling
        if node.link.flags & IS_REST:
            parent.link.flags &= ~HAS_REST
        elif node.link.flags & IS_PLUS:
            parent.link.flags &= ~HAS_PLUS
        table_remove(&tree.nodes, &node.link)
        tree.node_bytes -= node_size(node.link.size) + <Py_ssize_t>sizeof(link_t*)
        PyMem_Free(node)
        node = parent


cdef Py_ssize_t path_size(node_t* node) noexcept nogil:
    cdef Py_ssize_t size = -1
    while node.parent != NULL:
        size += 1 + node.link.size
        node = node.parent
    return size


cdef void path_write(node_t* node, uint8_t* to) noexcept nogil:
    to += path_size(node)
    while True:
        to -= node.link.size
        memcpy(to, node.level, node.link.size)
        node = node.parent
        if node.parent == NULL:
            return
        to -= 1
        to[0] = c"/"


cdef int walk_init(walk_t* walk, tree_t* tree, const uint8_t* topic_filter, Py_ssize_t size,
                   Py_ssize_t levels_maximum) except -1:
    cdef Py_ssize_t levels = count_levels(topic_filter, size, levels_maximum + 2)
    cdef const uint8_t* p
    cdef const uint8_t* end
    cdef const uint8_t* stop
    cdef pattern_t* pattern
    memset(walk, 0, sizeof(walk_t))
    if levels > levels_maximum + 1:     # deeper than the tree, even if the last one is `#`: nothing to walk, nothing to hold
        return 0
    walk.patterns = <pattern_t*>PyMem_Malloc(levels * sizeof(pattern_t) + size)
    if walk.patterns == NULL:
        raise MemoryError
    walk.filter = <uint8_t*>(walk.patterns + levels)
    memcpy(walk.filter, topic_filter, size)
    p = walk.filter
    end = p + size
    walk.hides_dollar = size > 0 and (p[0] == c"#" or p[0] == c"+")
    while True:
        stop = level_end(p, end)
        if is_level(p, stop - p, c"#"):
            walk.is_open = True
            break
        pattern = &walk.patterns[walk.count]
        pattern.level = p
        pattern.size = stop - p
        pattern.is_plus = is_level(p, stop - p, c"+")
        pattern.hash = hash_bytes(p, stop - p, &tree.key)
        walk.count += 1
        if stop == end:
            break
        p = stop + 1
    walk.tree = tree
    walk.node = tree.root
    walk.node.pins += 1
    return 0


cdef void walk_step(walk_t* walk) noexcept:
    cdef node_t* node = walk.node
    cdef node_t* to = NULL
    cdef pattern_t* pattern
    if not is_hidden(walk):
        if walk.depth < walk.count:
            pattern = &walk.patterns[walk.depth]
            if pattern.is_plus:
                to = node.first_child
            else:
                to = tree_child(walk.tree, node, pattern.level, pattern.size, pattern.hash)
        elif walk.is_open:
            to = node.first_child
        if to != NULL:
            walk.depth += 1
    while to == NULL:
        if node.parent == NULL:
            break
        # A literal level of the filter has one node below one parent; the other levels go through all siblings.
        if walk.depth > walk.count or walk.patterns[walk.depth - 1].is_plus:
            to = node.next_sibling
        if to == NULL:
            node = node.parent
            walk.depth -= 1
    walk.node = to


cdef inline bint is_hidden(walk_t* walk) noexcept:
    """Whether the walk stands on a first level that the filter's leading wildcard must not see [MQTT-4.7.2-1]."""
    return walk.hides_dollar and walk.depth == 1 and walk.node.link.size > 0 and walk.node.level[0] == c"$"


cdef bint walk_matches(walk_t* walk) noexcept:
    return (walk.depth == walk.count or (walk.is_open and walk.depth > walk.count)) and not is_hidden(walk)


cdef void walk_hold(walk_t* walk, node_t* held) noexcept:
    if walk.node != NULL:
        walk.node.pins += 1
    held.pins -= 1
    tree_prune(walk.tree, held)


cdef void walk_close(walk_t* walk) noexcept:
    cdef node_t* node = walk.node
    walk.node = NULL
    if node != NULL:
        node.pins -= 1
        tree_prune(walk.tree, node)
    PyMem_Free(walk.patterns)
    walk.patterns = NULL
