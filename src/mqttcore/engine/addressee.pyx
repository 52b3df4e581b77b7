"""Whom messages are for: the identity and rights they are judged by, and the count of those dropped."""

from cpython.ref cimport PyObject

from mqttcore.engine.core cimport DROP_NOT_AUTHORIZED, GIVEN_AWAY
from mqttcore.engine.events cimport EVENT_MESSAGE_DROPPED
from mqttcore.engine.levels cimport hash_bytes
from mqttcore.engine.message cimport TRACED_TOPIC, Publisher, msg_view
from mqttcore.engine.mount cimport is_within
from mqttcore.engine.permissions cimport MAY_SUBSCRIBE, VERDICT_QOS


cdef class Addressee(Subscriber):
    """Base of Session: one client id and what it may have."""

    @property
    def has_ended(self) -> bool:
        """Whether it is over: no client table knows it."""
        return self.has_ended != 0

    @property
    def mount_point(self) -> str:
        """Prefix of its topics, which its client neither says nor hears; "": none."""
        return "" if self.mount is None else self.mount.decode()

    @property
    def is_connected(self) -> bool:
        """Whether a network connection is attached."""
        return self.link is not None

    @property
    def connection(self):
        """The network connection, or None."""
        return self.link

    cdef PyObject* as_publisher(self) except NULL:
        if self.publisher is None:
            name = getattr(self.identity, "name", None)
            self.publisher = Publisher.new(self.client_id, name if isinstance(name, str) else None, self.ordering_key)
        return <PyObject*>self.publisher

    cdef bint knows(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        return self.mount is None or is_within(self.mount, topic, size)

    cdef int set_mount(self, bytes mount) except -1:
        self.mount = mount
        if mount is not None:
            self.guards |= GUARD_MOUNT
        return 0

    cdef int readable_qos(self, const uint8_t* topic, Py_ssize_t size) noexcept:
        cdef uint8_t verdict
        if self.rights is None:
            return 2
        verdict = self.rights.verdict(MAY_SUBSCRIBE, topic, size, hash_bytes(topic, size, &self.core.topics.tree.key))
        return verdict & VERDICT_QOS if verdict else -1

    # --- what does not come to it ---------------------------------------------------------------------------------

    cdef int pass_by(self, pub_t* pub, str reason) except -1:
        if self.traced | (pub.traced & TRACED_TOPIC):
            self.core.tracer.passed_by(self, pub, reason)
        return 0

    cdef int refuse(self, pub_t* pub, bint is_shared) except -1:
        if is_shared:
            return self.pass_by(pub, "not_authorized")
        self.count_drop(DROP_NOT_AUTHORIZED, 1, pub)
        return 0

    cdef void count_drop_of(self, int reason, msg_t* message) noexcept:
        cdef pub_t pub
        if reason == GIVEN_AWAY:
            return
        if message == NULL:           # in the store alone
            self.count_drop(reason)
        else:
            msg_view(message, &pub)
            self.count_drop(reason, 1, &pub)

    cdef void count_drop(self, int reason, int64_t count=1, pub_t* pub=NULL) noexcept:
        self.dropped += count
        self.core.counters.dropped[reason] += count
        if self.core.events.mask & EVENT_MESSAGE_DROPPED:
            try:
                self.core.events.count_drop(self.client_id, reason, count)
            except MemoryError:
                self.core.events.dropped += 1
        if self.traced or (pub != NULL and pub.traced & TRACED_TOPIC):
            try:
                if pub == NULL:
                    self.core.tracer.dropped(self, reason, count, NULL, 0)
                else:
                    self.core.tracer.dropped(self, reason, count, pub.topic, pub.topic_size)
            except MemoryError:
                self.core.events.dropped += 1
