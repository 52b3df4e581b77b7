"""The filters of the subscription trie and how many sessions subscribe to each, a slice at a time.

Nothing is kept in the trie between two slices: a slice ends at a place in the order of the nodes' hashes, bits reversed.
A bucket of the table of nodes holds the hashes that end in its index, which is a stretch of that order, however many
buckets there are by then (linear hashing only halves stretches or joins them). So a filter that stays is met exactly
once, one that comes or goes meanwhile at most once.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from mqttcore.engine.levels cimport TOPIC_MAXIMUM
from mqttcore.engine.share cimport ENTRY_GROUP, ENTRY_ORDINARY, ShareGroup, entry_t
from mqttcore.engine.subscriber cimport KIND_SESSION, Subscriber
from mqttcore.engine.topics cimport TopicTree
from mqttcore.engine.tree cimport link_t, node_t, path_size, path_write, table_bucket, table_t, top_bit


cdef enum:
    SHARE_NAMES_SHOWN = 16          # of one filter

cdef uint64_t END = <uint64_t>1 << 32


cdef inline uint32_t reversed_bits(uint32_t v) noexcept nogil:
    v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1
    v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2
    v = (v >> 4 & 0x0F0F0F0F) | (v & 0x0F0F0F0F) << 4
    v = (v >> 8 & 0x00FF00FF) | (v & 0x00FF00FF) << 8
    return v >> 16 | v << 16


cdef link_t* bucket_at(table_t* table, uint64_t place, uint64_t* end) noexcept nogil:
    """Return the chain of the bucket that holds *place*, and where its stretch of the order ends."""
    cdef uint32_t index = reversed_bits(<uint32_t>place) & table.mask
    cdef uint32_t half = (table.mask >> 1) + 1
    cdef unsigned int bits = top_bit(half) + 1
    if index >= table.buckets:
        index -= half
    if index < half and index + half >= table.buckets:
        bits -= 1                   # not split yet
    end[0] = (place >> (32 - bits)) + 1 << (32 - bits)
    return table_bucket(table, index)[0]


# One filter, counted.
cdef struct count_t:
    Py_ssize_t sessions
    Py_ssize_t groups
    Py_ssize_t members
    bint is_whole


cdef int count_entries(node_t* node, count_t* found, list names, int64_t* budget) except -1:
    """Count the subscriptions of a node, and put some share names into *names*. Makes nothing that is garbage-collected."""
    cdef entry_t* entry = <entry_t*>node.value
    cdef ShareGroup group
    found.sessions = found.groups = found.members = 0
    while entry != NULL and budget[0] > 0:
        budget[0] -= 1
        if entry.link.flags == ENTRY_ORDINARY:
            found.sessions += (<Subscriber>entry.subscriber).kind == KIND_SESSION
        elif entry.link.flags == ENTRY_GROUP:
            group = <ShareGroup>entry.subscriber
            found.groups += 1
            found.members += group.count
            if found.groups <= SHARE_NAMES_SHOWN:
                names.append(group.share_name)
        entry = entry.next
    found.is_whole = entry == NULL
    return 0


def filters_from(
    TopicTree topics not None, uint64_t place, Py_ssize_t limit, bytes prefix not None, int64_t nodes_budget,
    int64_t entries_budget,
) -> tuple:
    """Return (rows, place of the next slice); that place is 2**32 at the end.

    A row is (filter, sessions that subscribe to it, shared groups of it, their members, up to 16 of their share names,
    False when there are more than were counted). At most *limit* rows, of filters that begin with *prefix*, without
    the `$share/name/` in front. A slice also ends after about nodes_budget nodes or entries_budget subscriptions; a
    filter that has more of these than that is counted so far. Raises nothing for a place of another trie.
    """
    cdef list rows = []
    cdef list names = []
    cdef table_t* table = &topics.tree.nodes
    cdef link_t* chain
    cdef link_t* link
    cdef uint64_t end, best, at
    cdef node_t* node
    cdef Py_ssize_t size, prefix_size = len(prefix)
    cdef int64_t left = entries_budget
    cdef int twins = 0              # nodes with the same hash that are done
    cdef int skipped
    cdef count_t found
    cdef bytes text
    cdef uint8_t* path = <uint8_t*>PyMem_Malloc(TOPIC_MAXIMUM)
    if path == NULL:
        raise MemoryError
    try:
        # No pointer into the trie outlives the making of a row: that may run a finalizer that unsubscribes.
        while place < END and (nodes_budget > 0 or twins):
            nodes_budget -= 1
            chain = bucket_at(table, place, &end)
            best = end              # the next hash of this bucket; chains are short
            link = chain
            while link != NULL:
                at = reversed_bits(link.hash)
                if place <= at < best:
                    best = at
                link = link.chain
            if best == end:
                place = end
                continue
            if twins == 0 and (len(rows) >= limit or left <= 0):
                return rows, best
            node = NULL
            skipped = 0
            link = chain
            while link != NULL and node == NULL:
                if reversed_bits(link.hash) == best:
                    if skipped == twins:
                        node = <node_t*>link
                    skipped += 1
                link = link.chain
            if node == NULL:
                place = best + 1
                twins = 0
                continue
            place = best
            twins += 1
            size = path_size(node) if node.value != NULL else -1
            if not prefix_size <= size <= TOPIC_MAXIMUM:
                continue
            path_write(node, path)
            if memcmp(path, <const char*>prefix, prefix_size) != 0:
                continue
            left = max(left, <int64_t>1)
            count_entries(node, &found, names, &left)
            if not found.is_whole and rows and twins == 1:
                return rows, best                # the next slice has room for more of it
            if found.sessions or found.groups or not found.is_whole:      # else handlers and taps only
                text = path[:size]
                shown = tuple([name.decode() for name in names])
                rows.append((text.decode(), found.sessions, found.groups, found.members, shown, found.is_whole))
            if names:
                names = []
        return rows, place
    finally:
        PyMem_Free(path)
