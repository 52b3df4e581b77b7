# Mount points at the wire: a client says and hears topics without the prefix that they have everywhere else.
#
#   client ── "t" ──▶ mounted() ──▶ "mount/t" ── trie, permissions, handlers, store ──▶ is_within() ──▶ Outlet ── "t" ──▶ client
#
# `$` topics do not exist for it: what it says of them is refused, and what would look like one is not sent to it.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcmp


cdef enum:
    TOPIC_BYTES_MAXIMUM = 65535       # of a whole topic or filter [MQTT-4.7.3-3]


# Whether a client mounted there knows a Topic Name, or a filter without `$share`: below its mount point, and what is left
# of it is neither empty nor begins with `$` [MQTT-4.7.2-1] [MQTT-4.7.3-1].
cdef inline bint is_within(bytes mount, const uint8_t* topic, Py_ssize_t size) noexcept:
    cdef Py_ssize_t prefix = PyBytes_GET_SIZE(mount)
    return size > prefix and memcmp(topic, PyBytes_AS_STRING(mount), prefix) == 0 and topic[prefix] != c"$"


# The whole of a Topic Name that was said; it may be longer than a topic can be.
cdef bytes mounted(bytes mount, const uint8_t* topic, Py_ssize_t size)
# The whole of a Topic Filter that was said, shared or not. What is none stays as it is, to be refused as it is.
cdef bytes mounted_filter(bytes mount, bytes topic_filter)
# A SUBSCRIBE with the whole of its filters.
cdef object mounted_subscribe(bytes mount, object packet)
# Of a Topic Name as UTF-8; mount None: as it was said.
cdef bytes whole_topic(bytes mount, str topic)
# 0, or the reason code that refuses a whole topic for what its client said: 0x87 for `$`, 0x90 for one that is too long.
cdef uint8_t refusal_of_topic(bytes mount, const uint8_t* topic, Py_ssize_t size, Py_ssize_t said_maximum) noexcept
# The same of a filter, shared or not, which has passed check_topic_filter(): 0x87, 0x8F. mount None: none.
cdef uint8_t refusal_of_filter(bytes mount, const uint8_t* topic_filter, Py_ssize_t size, Py_ssize_t said_maximum) noexcept
# The mount point of a client that is being accepted; None: none. listener: of its connection. Raises ProtocolError with
# the reason code to refuse with.
cdef bytes find_mount(object identity, object listener, str client_id, str user_name)
# Raises ProtocolError for an identity that would give a session another mount point than it has.
cdef int check_mount(bytes mount, object identity, str client_id, str user_name) except -1
