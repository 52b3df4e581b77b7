"""What the store knows of a session beside its messages: the session itself, its subscriptions, its will."""

from mqttcore.engine.journal cimport Journal
from mqttcore.engine.message cimport msg_unref, stored_ref, stored_unref


cdef class SessionRecord(Addressee):
    """Base of Session: its records in the store, if there is one."""

    def __dealloc__(self):
        if self.will != NULL:
            if self.number:
                stored_unref(self.will.stored)
            msg_unref(self.will)

    @property
    def is_clean(self) -> bool:
        """Whether it ends with its connection."""
        return self.is_clean != 0

    @property
    def topic_filters(self) -> tuple:
        """Subscribed Topic Filters, `$share` ones as they were given."""
        return tuple([f.decode() for f in self.subscriptions]) if self.subscriptions is not None else ()

    cdef int keep(self, bint is_connected) except -1:
        cdef Journal journal = self.core.journal
        cdef uint64_t key, will = 0
        if journal is None:
            return 0
        if self.number == 0:
            self.number = journal.new_number()
            if self.will != NULL:
                stored_ref(journal.store(self.will))
        if self.will != NULL:
            will = self.will.stored.key
        key = journal.put_session(
            self.number, self.session_expiry_s, is_connected, 0 if is_connected else self.expires_ms, will, self.will_delay_s,
            self.will_due_ms, self.client_id.encode(), (self.user_name or "").encode(),
            (self.owner or "").encode(), b"" if self.mount is None else self.mount,
        )
        if self.key:
            journal.delete(self.key)
        self.key = key
        return 0

    cdef int keep_subscription(self, bytes topic_filter, uint8_t options, uint32_t subid) except -1:
        cdef Journal journal = self.core.journal
        if journal is None or self.number == 0:
            return 0
        if self.subscription_keys is None:
            self.subscription_keys = {}
        key = self.subscription_keys.get(topic_filter)
        if key is not None:
            journal.delete(key)
        self.subscription_keys[topic_filter] = journal.put_subscription(self.number, options, subid, topic_filter)
        return 0

    cdef int forget(self, uint64_t key, stored_t* stored) except -1:
        if (key or stored != NULL) and self.core.journal is not None:
            self.core.journal.forget(key, stored)
        return 0

    # --- its will -------------------------------------------------------------------------------------------------

    cdef int set_will(self, msg_t* will, uint32_t delay_s) except -1:
        cdef msg_t* before = self.will
        self.will = will
        self.will_delay_s = delay_s
        if will != NULL and self.number and self.core.journal is not None:
            stored_ref(self.core.journal.store(will))
        if before != NULL:
            self.release_will(before)
        return 0

    cdef int release_will(self, msg_t* will) except -1:
        if self.number and will.stored != NULL:
            self.forget(0, will.stored)
            stored_unref(will.stored)
        msg_unref(will)
        return 0
