# Whom messages are for: one client id, its identity and rights, and the count of what was dropped on the way to it.
#
#   Subscriber ◀─ Addressee ◀─ SessionRecord ◀─ Backlog ◀─ Exchanges ◀─ Session: one object; each says what it adds.

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t

from mqttcore.engine.core cimport Core
from mqttcore.engine.message cimport Publisher, msg_t, pub_t
from mqttcore.engine.outlet cimport Outlet
from mqttcore.engine.permissions cimport Rights
from mqttcore.engine.subscriber cimport Subscriber


cdef enum:
    GUARD_RULES = 1           # its rights are asked on delivery
    GUARD_HOOK = 2            # authorize_deliver is asked before a message is sent
    GUARD_MOUNT = 4           # it has a mount point


cdef class Addressee(Subscriber):
    cdef Core core
    cdef Outlet link                  # the connection, or None
    cdef readonly str client_id
    cdef readonly object identity     # what authentication gave, or None; who replaces it forgets publisher
    cdef readonly str user_name       # of the CONNECT, or None
    cdef Rights rights                # of the identity; None: everything is allowed
    cdef bytes mount                  # prefix of its topics (mount.pxd); None: none. The same for its whole life
    cdef Publisher publisher          # of this connection's messages; None until the first one, and when it is outdated
    cdef readonly str ordering_key    # of this connection's messages (`Broker.set_ordering_key`), or None
    cdef readonly uint64_t dropped    # messages dropped for this session
    cdef uint8_t has_ended
    cdef uint8_t traced               # TRACED_PUBLISHER: who watches it, or its connection, is told (tracer.pxd); 0: nobody
    cdef uint8_t guards               # GUARD_*: what stands between it and its messages

    # What its messages name as their publisher; borrowed from the session.
    cdef PyObject* as_publisher(self) except NULL
    # Whether its client knows a topic, by its mount point.
    cdef bint knows(self, const uint8_t* topic, Py_ssize_t size) noexcept
    # Before it has anything else.
    cdef int set_mount(self, bytes mount) except -1
    # The highest QoS at which the rights let a message of this topic come in; -1: not at all.
    cdef int readable_qos(self, const uint8_t* topic, Py_ssize_t size) noexcept
    # It may not have the message. Another of its shared group may: then that is no drop, yet.
    cdef int refuse(self, pub_t* pub, bint is_shared) except -1
    # It subscribed to the message, which is not for it all the same: `no_local`, `away`, `mount_point`, `not_authorized`.
    cdef int pass_by(self, pub_t* pub, str reason) except -1
    # pub: the message, where it is one and known.
    cdef void count_drop(self, int reason, int64_t count=*, pub_t* pub=*) noexcept
    cdef void count_drop_of(self, int reason, msg_t* message) noexcept
