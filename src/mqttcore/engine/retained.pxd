# Retained messages: a tree by topic level, looked up by filter, walked in slices.

from libc.stdint cimport int64_t, uint8_t

from mqttcore.engine.journal cimport Journal
from mqttcore.engine.message cimport msg_t
from mqttcore.engine.tree cimport node_t, tree_t, walk_t


cdef class RetainedCursor:
    cdef RetainedTree tree
    cdef walk_t walk
    # Walks what a filter matches, in slices: holds its place in the tree, so puts and removals between two next() are
    # fine; a message that was there all the time is given exactly once.
    # Borrowed until the tree is next changed; NULL at the end. Visits at most *budget* nodes; 0 in *budget* afterwards
    # with NULL means "not at the end, call again". Gives expired messages too: the caller knows the time.
    cdef msg_t* next(self, int* budget) noexcept
    cdef void close(self) noexcept


cdef class RetainedTree:
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t bytes_held         # of the messages; node_bytes is beside it
    cdef readonly Py_ssize_t count_maximum
    cdef readonly Py_ssize_t bytes_maximum      # of messages and nodes together
    cdef readonly Py_ssize_t levels_maximum
    cdef Journal journal                        # where removed messages are forgotten that are in the store; None: no store
    cdef tree_t tree                            # a node's value: its msg_t, with a reference
    cdef walk_t sweep                           # where expire() goes on
    # Takes a reference of its own; replaces. -1 with QuotaExceeded set when a limit is reached.
    cdef int put(self, msg_t* message) except -1
    # Whether put() would make the tree hold more.
    cdef bint would_grow(self, msg_t* message) noexcept
    cdef int remove(self, const uint8_t* topic, Py_ssize_t size) noexcept      # 1: removed, 0: there was none
    cdef msg_t* find(self, const uint8_t* topic, Py_ssize_t size) noexcept     # borrowed; NULL: none
    # topic_filter: checked, without $share. A leading wildcard does not match $-topics [MQTT-4.7.2-1].
    cdef RetainedCursor match(self, const uint8_t* topic_filter, Py_ssize_t size)
    # Removes what expired before now_ms among at most *budget* nodes from where the last call stopped; how many went.
    # Stops at the end of the tree; the next call begins anew.
    cdef Py_ssize_t expire(self, int64_t now_ms, int budget) noexcept

    cdef void _drop(self, node_t* node) noexcept
    # Gives a message back that is not retained any more.
    cdef void _let_go(self, msg_t* message) noexcept
