"""Retained messages: a tree by topic level, looked up by filter, walked in slices."""

cimport cython
from libc.stdint cimport uint32_t
from libc.string cimport memset

from mqttcore.engine.levels cimport TOPIC_MAXIMUM
from mqttcore.engine.message cimport (
    Message, msg_bytes, msg_ref, msg_topic, msg_unref, pub_done, pub_keep, pub_t,
)
from mqttcore.engine.tree cimport (
    tree_find, tree_free, tree_init, tree_make, tree_prune, walk_close, walk_hold, walk_init, walk_matches, walk_step,
)

from mqttcore.constants import ReasonCode
from mqttcore.errors import QuotaExceeded


cdef enum:
    NODES_MAXIMUM = 0x7FFFFFFF      # bytes_maximum is reached long before
    PAYLOAD_MAXIMUM = 268_435_455   # bytes: what the fixed header can say
    SLICE_NODES = 1000


@cython.final
@cython.no_gc
cdef class RetainedCursor:
    """Walks the retained messages that a filter matches, in slices."""

    def __init__(self):
        raise TypeError("RetainedCursor is made by RetainedTree")

    def __dealloc__(self):
        self.close()

    cdef msg_t* next(self, int* budget) noexcept:
        cdef node_t* held = self.walk.node
        cdef msg_t* message = NULL
        if held == NULL:
            return NULL
        while budget[0] > 0 and message == NULL:
            walk_step(&self.walk)
            if self.walk.node == NULL:
                break
            budget[0] -= 1
            if walk_matches(&self.walk):
                message = <msg_t*>self.walk.node.value
        walk_hold(&self.walk, held)
        return message

    cdef void close(self) noexcept:
        walk_close(&self.walk)

    def take(self, int budget) -> tuple:
        """Return (messages, is_at_end) of the next slice that visits at most *budget* nodes."""
        cdef list messages = []
        cdef msg_t* message
        while True:
            message = self.next(&budget)
            if message == NULL:
                return messages, budget > 0 or self.walk.node == NULL
            messages.append(Message.new(message))


@cython.final
cdef class RetainedTree:
    """The retained messages of a broker.

    count_maximum, bytes_maximum (of messages and nodes together), levels_maximum: beyond them put() raises QuotaExceeded.
    """

    def __cinit__(self, *, Py_ssize_t count_maximum=1_000_000, Py_ssize_t bytes_maximum=1 << 30,
                  Py_ssize_t levels_maximum=128):
        if not (count_maximum >= 0 and bytes_maximum >= 0 and 1 <= levels_maximum < 1 << 16):
            raise ValueError("count_maximum and bytes_maximum are not negative, levels_maximum is 1 to 65535")
        self.count_maximum = count_maximum
        self.bytes_maximum = bytes_maximum
        self.levels_maximum = levels_maximum
        tree_init(&self.tree)
        walk_init(&self.sweep, &self.tree, b"#", 1, levels_maximum)
        self.sweep.hides_dollar = False

    def __dealloc__(self):
        # No cursor is open: each holds a reference to the tree.
        if self.tree.root != NULL:
            if self.sweep.patterns != NULL:
                self.clear()
            walk_close(&self.sweep)
            tree_free(&self.tree)

    cdef int put(self, msg_t* message) except -1:
        cdef node_t* node = tree_make(&self.tree, msg_topic(message), message.topic_size, self.levels_maximum,
                                      NODES_MAXIMUM)
        cdef msg_t* before = <msg_t*>node.value
        cdef Py_ssize_t held = self.bytes_held + msg_bytes(message)
        cdef bint has_room = before != NULL or self.count < self.count_maximum
        if before != NULL:
            held -= msg_bytes(before)
        if not has_room or held + self.tree.node_bytes > self.bytes_maximum:
            tree_prune(&self.tree, node)
            raise QuotaExceeded(ReasonCode.QUOTA_EXCEEDED, "§3.3.1.3", "too many retained messages" if not has_room
                                else "retained messages take too many bytes")
        node.value = msg_ref(message)
        self.bytes_held = held
        if before != NULL:
            self._let_go(before)
        else:
            self.count += 1
        return 0

    cdef bint would_grow(self, msg_t* message) noexcept:
        cdef msg_t* before = self.find(msg_topic(message), message.topic_size)
        return before == NULL or msg_bytes(before) < msg_bytes(message)

    cdef int remove(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef node_t* node = tree_find(&self.tree, topic, size)
        if node == NULL or node.value == NULL:
            return 0
        self._drop(node)
        return 1

    cdef msg_t* find(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef node_t* node = tree_find(&self.tree, topic, size)
        return NULL if node == NULL else <msg_t*>node.value

    cdef RetainedCursor match(self, const uint8_t* topic_filter, Py_ssize_t size):
        cdef RetainedCursor cursor = RetainedCursor.__new__(RetainedCursor)
        cursor.tree = self
        walk_init(&cursor.walk, &self.tree, topic_filter, size, self.levels_maximum)
        return cursor

    cdef Py_ssize_t expire(self, int64_t now_ms, int budget) noexcept:
        cdef node_t* held = self.sweep.node
        cdef node_t* node
        cdef msg_t* message
        cdef Py_ssize_t count = 0
        while self.sweep.node != NULL and budget > 0:
            budget -= 1
            node = self.sweep.node
            walk_step(&self.sweep)          # first: dropping the node may free it and those above
            message = <msg_t*>node.value
            if message != NULL and message.expires_ms and message.expires_ms <= now_ms:
                self._drop(node)
                count += 1
        if self.sweep.node == NULL:
            self.sweep.node = self.tree.root
            self.sweep.depth = 0
        walk_hold(&self.sweep, held)
        return count

    cdef void _drop(self, node_t* node) noexcept:
        cdef msg_t* message = <msg_t*>node.value
        node.value = NULL
        self.count -= 1
        self.bytes_held -= msg_bytes(message)
        self._let_go(message)
        tree_prune(&self.tree, node)

    cdef void _let_go(self, msg_t* message) noexcept:
        if self.journal is not None and message.stored != NULL and message.stored.retained_key:
            self.journal.drop_retained(message.stored)
        msg_unref(message)

    def clear(self) -> None:
        """Remove all retained messages."""
        cdef walk_t walk
        cdef node_t* node
        walk_init(&walk, &self.tree, b"#", 1, self.levels_maximum)
        walk.hides_dollar = False
        self.tree.root.pins -= 1            # nothing holds this walk's place: it sees each change itself
        while walk.node != NULL:
            node = walk.node
            walk_step(&walk)
            if node.value != NULL:
                self._drop(node)
        walk_close(&walk)

    # The Python face

    def set(self, str topic not None, bytes payload not None, uint8_t qos=0, int64_t expires_ms=0) -> None:
        """Keep a message for its topic, in the place of the one before.

        topic: checked. expires_ms: on the engine's clock, 0 is never. Raises QuotaExceeded at a limit.
        """
        cdef bytes text = topic.encode()
        cdef pub_t pub
        if len(text) > TOPIC_MAXIMUM:
            raise ValueError("a topic has at most 65535 bytes [MQTT-4.7.3-3]")
        if len(payload) > PAYLOAD_MAXIMUM:
            raise ValueError("a payload has at most 268435455 bytes")
        memset(&pub, 0, sizeof(pub_t))
        pub.topic = <const uint8_t*><const char*>text
        pub.topic_size = <uint32_t>len(text)
        pub.payload_size = <uint32_t>len(payload)
        pub.payload = <const uint8_t*><const char*>payload
        pub.qos = qos
        pub.retain = True
        pub.expires_ms = expires_ms
        try:
            self.put(pub_keep(&pub))
        finally:
            pub_done(&pub)

    def get(self, str topic not None) -> Message | None:
        """Return the message of a topic; None without one."""
        cdef bytes text = topic.encode()
        cdef msg_t* message = self.find(<const uint8_t*><const char*>text, len(text))
        return None if message == NULL else Message.new(message)

    def discard(self, str topic not None) -> bool:
        """Remove the message of a topic; return whether there was one."""
        cdef bytes text = topic.encode()
        return self.remove(<const uint8_t*><const char*>text, len(text)) == 1

    def cursor(self, str topic_filter not None) -> RetainedCursor:
        """Return a cursor over the messages that a checked filter without `$share` matches."""
        cdef bytes text = topic_filter.encode()
        return self.match(<const uint8_t*><const char*>text, len(text))

    def matching(self, str topic_filter not None) -> list:
        """Return all messages that a checked filter without `$share` matches."""
        cdef list messages = []
        cdef list found
        cdef bint is_at_end = False
        cdef RetainedCursor cursor = self.cursor(topic_filter)
        while not is_at_end:
            found, is_at_end = cursor.take(SLICE_NODES)
            messages += found
        return messages

    def sweep_expired(self, int64_t now_ms, int budget) -> int:
        """Remove what expired before now_ms among the next *budget* nodes; return how many went."""
        return self.expire(now_ms, budget)

    @property
    def node_count(self) -> int:
        """Nodes of the tree: the levels that all topics together have."""
        return self.tree.nodes.count

    @property
    def node_bytes(self) -> int:
        """Bytes that the nodes take."""
        return self.tree.node_bytes
