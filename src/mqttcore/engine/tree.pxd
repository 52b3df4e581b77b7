# A tree of topic levels, the ground of the subscription trie and of the retained tree.
#
# All children of all nodes stand in one hash table, keyed by (parent, level); so a node has no table of its own, costs
# about 80 bytes, and a lookup is one bucket whatever the number of siblings. The table grows and shrinks by one bucket
# at a time (linear hashing), so no insertion ever waits for a rehash. Siblings are also linked: `#` first, then `+`,
# then the literal levels, newest first. That order never changes under a walk, which is what makes cursors exact: what
# stays is met once, and what comes back stands behind the walker.
#
#        root ──first_child──▶ [#] ⇄ [+] ⇄ [b] ⇄ [a]          parent pointers lead back up
#                                     │
#                                first_child ──▶ ...
#
# A node lives while it has a value, a child or a pin. Memory is PyMem's: hold the GIL.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from mqttcore.engine.levels cimport fold64, hash_bytes, hash_key_t


# First member of everything that stands in a table_t. The small fields belong to the owner; here they fill the padding.
cdef struct link_t:
    link_t* chain
    uint32_t hash
    uint16_t size
    uint8_t flags
    uint8_t options


cdef enum:
    FIRST_BUCKETS = 16
    SEGMENTS = 28                   # 2**31 buckets


# Intrusive hash table. Segment 0 holds the first 16 buckets, segment s the buckets from 16 << (s - 1) to 16 << s.
cdef struct table_t:
    link_t** segments[SEGMENTS]
    uint32_t buckets                # in use
    uint32_t mask                   # smallest 2**n - 1 that reaches them all
    Py_ssize_t count


cdef enum:
    HAS_REST = 1                    # node flags: the first child is `#`
    HAS_PLUS = 2                    # `+` is the first child, or the second behind `#`
    IS_REST = 4
    IS_PLUS = 8


cdef struct node_t:
    link_t link                     # size: bytes of the level
    node_t* parent                  # NULL: the root
    node_t* first_child
    node_t* next_sibling
    node_t* prev_sibling
    void* value                     # the owner's
    uint32_t pins                   # cursors that stand here between two slices
    uint8_t level[4]                # the level's bytes; the allocation goes on


cdef struct tree_t:
    hash_key_t key
    table_t nodes                   # all but the root
    node_t* root
    Py_ssize_t node_bytes           # of all nodes, with their share of the table


cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    static inline unsigned mqttcore_top_bit(uint32_t value) {
        unsigned long place;
        _BitScanReverse(&place, value);
        return place;
    }
    static inline void mqttcore_prefetch(const void* p) { (void)p; }
    #else
    static inline void mqttcore_prefetch(const void* p) { __builtin_prefetch(p); }
    static inline unsigned mqttcore_top_bit(uint32_t value) { return 31u - (unsigned)__builtin_clz(value); }
    #endif
    """
    void prefetch "mqttcore_prefetch"(const void* p) noexcept nogil
    unsigned int top_bit "mqttcore_top_bit"(uint32_t value) noexcept nogil     # value > 0


cdef inline link_t** table_bucket(table_t* table, uint32_t index) noexcept nogil:
    cdef unsigned int top
    if index < FIRST_BUCKETS:
        return &table.segments[0][index]
    top = top_bit(index)
    return &table.segments[top - 3][index - (<uint32_t>1 << top)]


# Where the chain of *hash* begins.
cdef inline link_t** table_chain(table_t* table, uint32_t hash) noexcept nogil:
    cdef uint32_t index = hash & table.mask
    if index >= table.buckets:
        index &= table.mask >> 1
    return table_bucket(table, index)


cdef int table_init(table_t* table) except -1
# Frees the table, not what stands in it.
cdef void table_free(table_t* table) noexcept
# Cannot fail: without memory for another bucket the chains get longer.
cdef void table_add(table_t* table, link_t* link) noexcept
cdef void table_remove(table_t* table, link_t* link) noexcept


# Of a level below the node with parent_hash: a hash of the whole path, so that it is known before the nodes are. Paths
# whose hashes are equal by chance share a chain, no more: what counts is the parent's address.
cdef inline uint32_t edge_hash(tree_t* tree, uint32_t parent_hash, uint64_t level_hash) noexcept nogil:
    return <uint32_t>fold64(level_hash ^ parent_hash, tree.key.right)


# The child of *parent* for a level, or NULL. level_hash: hash_bytes() of the level.
cdef inline node_t* tree_child(tree_t* tree, node_t* parent, const uint8_t* level, Py_ssize_t size,
                               uint64_t level_hash) noexcept nogil:
    cdef uint32_t hash
    cdef link_t* link
    cdef node_t* node
    if parent.first_child == NULL:
        return NULL
    hash = edge_hash(tree, parent.link.hash, level_hash)
    link = table_chain(&tree.nodes, hash)[0]
    while link != NULL:
        if link.hash == hash and link.size == size:
            node = <node_t*>link
            if node.parent == parent and memcmp(node.level, level, size) == 0:
                return node
        link = link.chain
    return NULL


cdef int tree_init(tree_t* tree) except -1
# Frees all nodes, whatever their pins; values must have been given back.
cdef void tree_free(tree_t* tree) noexcept
# Asks the memory for the first levels of a path at once, where the following calls would wait for one after another.
cdef void tree_warm(tree_t* tree, const uint8_t* path, Py_ssize_t size) noexcept
# The node of a whole path, or NULL. Visits at most as many nodes as the tree is deep.
cdef node_t* tree_find(tree_t* tree, const uint8_t* path, Py_ssize_t size) noexcept
# The node of a whole path, made where it is missing; give it a value or prune it. nodes_maximum: with it already there,
# a new node raises QuotaExceeded, as do more than levels_maximum levels.
cdef node_t* tree_make(tree_t* tree, const uint8_t* path, Py_ssize_t size, Py_ssize_t levels_maximum,
                       Py_ssize_t nodes_maximum) except NULL
# Removes the node and those above it that have no value, no child and no pin.
cdef void tree_prune(tree_t* tree, node_t* node) noexcept
# Levels above and including *node*, the root not counted; bytes of its path.
cdef Py_ssize_t path_size(node_t* node) noexcept nogil
# Writes the path_size() bytes of the node's path.
cdef void path_write(node_t* node, uint8_t* to) noexcept nogil


cdef struct pattern_t:              # one level of a walk's filter
    const uint8_t* level            # into walk_t.filter
    uint64_t hash
    Py_ssize_t size
    bint is_plus


# A walk over the nodes whose path a filter matches, in the order of the tree, held by a pin between slices.
cdef struct walk_t:
    tree_t* tree
    node_t* node                    # where the walk stands; NULL: at the end
    Py_ssize_t depth                # of node
    pattern_t* patterns             # with filter in one allocation
    uint8_t* filter
    Py_ssize_t count                # patterns before `#`
    bint is_open                    # the filter ends in `#`
    bint hides_dollar               # the first level is a wildcard [MQTT-4.7.2-1]


# Starts at the root, pinned. The filter's bytes are copied. levels_maximum: of the tree; a filter that is too deep to
# match any of it is at its end at once.
cdef int walk_init(walk_t* walk, tree_t* tree, const uint8_t* topic_filter, Py_ssize_t size,
                   Py_ssize_t levels_maximum) except -1
# Goes on to the next node on the filter's way; node is NULL at the end. Takes no pins.
cdef void walk_step(walk_t* walk) noexcept
# Whether the filter matches the node's own path.
cdef bint walk_matches(walk_t* walk) noexcept
# After a slice: moves the pin from *held*, where the slice began, to where the walk stands now.
cdef void walk_hold(walk_t* walk, node_t* held) noexcept
# Gives up the pin and the filter; may be called twice.
cdef void walk_close(walk_t* walk) noexcept
