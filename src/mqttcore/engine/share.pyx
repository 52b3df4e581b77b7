"""Shared subscriptions: who of a group gets the next message."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcmp

from mqttcore.engine.subscriber cimport Subscriber, target_clear, target_init
from mqttcore.engine.tree cimport node_t, path_size, path_write


@cython.final
cdef class ShareGroup:
    """The members of one share name on one filter."""

    def __init__(self):
        raise TypeError("ShareGroup is made by the trie")

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            target_clear(&self.members[i].target)
        PyMem_Free(self.members)

    @property
    def name(self) -> str:
        """ShareName."""
        return self.share_name.decode()

    cdef target_t* pick(self, uint64_t topic_hash) noexcept:
        cdef Py_ssize_t start, index, _
        if self.count == 0:
            return NULL
        start = self.turn
        if self.strategy == SHARE_HASH:
            start = <Py_ssize_t>((topic_hash >> 32) * <uint64_t>self.count >> 32)
        index = start
        for _ in range(self.count):
            if (<Subscriber>self.members[index].target.subscriber).is_online:
                break
            index += 1
            if index == self.count:
                index = 0
        else:
            index = start           # all offline: a durable session queues it
        self.picked = index
        self.took(index)
        return &self.members[index].target

    cdef void took(self, Py_ssize_t index) noexcept:
        if self.strategy == SHARE_ROUND_ROBIN:
            self.turn = index + 1 if index + 1 < self.count else 0
        elif self.strategy == SHARE_STICKY:
            self.turn = index

    cdef bytes whole_filter(self):
        cdef node_t* node
        cdef Py_ssize_t size
        cdef bytes path
        if self.text is None:
            node = <node_t*>self.entry.owner
            size = path_size(node)
            path = PyBytes_FromStringAndSize(NULL, size)
            path_write(node, <uint8_t*>PyBytes_AS_STRING(path))
            self.text = b"$share/" + self.share_name + b"/" + path
        return self.text

    cdef bint is_named(self, const uint8_t* name, Py_ssize_t size) noexcept:
        return (PyBytes_GET_SIZE(self.share_name) == size
                and memcmp(PyBytes_AS_STRING(self.share_name), name, size) == 0)

    cdef int join(self, entry_t* entry) except -1:
        cdef Py_ssize_t capacity
        cdef member_t* members
        if self.count == self.capacity:
            capacity = max(2 * self.capacity, <Py_ssize_t>4)
            members = <member_t*>PyMem_Realloc(self.members, capacity * sizeof(member_t))
            if members == NULL:
                raise MemoryError
            self.members = members
            self.capacity = capacity
        self._fill(&self.members[self.count], entry)
        entry.index = <uint32_t>self.count
        self.count += 1
        entry.prev = NULL
        entry.next = self.first
        if self.first != NULL:
            self.first.prev = entry
        self.first = entry
        return 0

    cdef int update(self, entry_t* entry) except -1:
        cdef member_t member
        self._fill(&member, entry)
        target_clear(&self.members[entry.index].target)
        self.members[entry.index] = member
        return 0

    cdef int _fill(self, member_t* member, entry_t* entry) except -1:
        target_init(&member.target, entry.subscriber, entry.link.options, entry.subid)
        member.target.group = <PyObject*>self
        member.entry = entry
        return 0

    cdef void leave(self, entry_t* entry) noexcept:
        cdef Py_ssize_t index = entry.index
        if entry.prev == NULL:
            self.first = entry.next
        else:
            entry.prev.next = entry.next
        if entry.next != NULL:
            entry.next.prev = entry.prev
        target_clear(&self.members[index].target)
        self.count -= 1
        if index != self.count:     # the last one moves into the gap, and a turn that was its own moves with it
            self.members[index] = self.members[self.count]
            self.members[index].entry.index = <uint32_t>index
            if self.turn == self.count:
                self.turn = index
        if self.turn >= self.count:
            self.turn = 0


cdef ShareGroup new_group(bytes share_name, uint8_t strategy):
    cdef ShareGroup group = ShareGroup.__new__(ShareGroup)
    group.share_name = share_name
    group.strategy = strategy
    return group
