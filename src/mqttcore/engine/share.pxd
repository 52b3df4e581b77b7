# Shared subscriptions: who of a group gets the next message (MQTT 5 §4.8.2).

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mqttcore.engine.subscriber cimport target_t
from mqttcore.engine.tree cimport link_t


cdef enum:
    SHARE_ROUND_ROBIN = 0
    SHARE_STICKY = 1                # one member until it leaves or goes offline
    SHARE_HASH = 2                  # by topic: one topic, one member, while the membership stands


cdef enum:
    ENTRY_ORDINARY = 0              # owner: node_t, subscriber: Subscriber
    ENTRY_GROUP = 1                 # owner: node_t, subscriber: ShareGroup
    ENTRY_MEMBER = 2                # owner: ShareGroup, subscriber: Subscriber
    ENTRY_HANDLER = 3               # owner: node_t, subscriber: Handler
    ENTRY_WATCH = 4                 # owner: node_t, subscriber: Watch


# One subscription, or one group with its members. Stands in the trie's table of entries under (owner, subscriber), a
# group under (owner, share name), and in the list of its owner, newest first.
cdef struct entry_t:
    link_t link                     # flags: ENTRY_*; options: the SUBSCRIBE options byte as it came
    void* owner
    entry_t* next
    entry_t* prev
    PyObject* subscriber            # a reference
    uint32_t subid                  # 0: none
    uint32_t index                  # of a member in its group


cdef struct member_t:
    target_t target
    entry_t* entry


cdef class ShareGroup:
    cdef bytes share_name
    cdef bytes text                 # whole_filter(), once it was asked for
    cdef readonly Py_ssize_t count  # members
    cdef uint8_t strategy           # SHARE_*
    cdef Py_ssize_t turn            # round robin: the next index; sticky: the present one
    cdef Py_ssize_t picked          # index of the member that pick() gave last
    cdef Py_ssize_t capacity
    cdef member_t* members
    cdef entry_t* first             # the members' entries
    cdef entry_t* entry             # its own, at its node

    # Members of one (share name, filter). The member for this message: by strategy, online ones first; NULL when empty.
    # Looks at every member only when none is online. Borrowed until the group's membership next changes.
    cdef target_t* pick(self, uint64_t topic_hash) noexcept
    # The next turn follows this member: it took what the one picked may not have.
    cdef void took(self, Py_ssize_t index) noexcept
    cdef int join(self, entry_t* entry) except -1
    # Takes over changed options of a member.
    cdef int update(self, entry_t* entry) except -1
    cdef void leave(self, entry_t* entry) noexcept
    # The `$share/name/filter` that its members subscribed to.
    cdef bytes whole_filter(self)
    cdef bint is_named(self, const uint8_t* name, Py_ssize_t size) noexcept
    cdef int _fill(self, member_t* member, entry_t* entry) except -1


cdef ShareGroup new_group(bytes share_name, uint8_t strategy)
