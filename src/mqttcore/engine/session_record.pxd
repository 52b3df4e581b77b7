# What the store knows of a session beside its messages: the session itself, its subscriptions, its will.
#
# All of it is here for a session that is not durable, too; only the records are missing.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mqttcore.engine.addressee cimport Addressee
from mqttcore.engine.message cimport msg_t, stored_t


cdef class SessionRecord(Addressee):
    cdef readonly uint64_t number     # under which the store knows it; 0: it is not durable
    cdef uint64_t key                 # of its record; 0: none
    cdef readonly str owner           # name of the identity it belongs to; None: of nobody
    cdef dict subscriptions           # bytes filter -> int: options | subscription id << 8; None: no subscription
    cdef dict subscription_keys       # bytes filter -> key of its record; None: not durable, or no subscription
    cdef msg_t* will                  # owned; NULL: none
    cdef int64_t will_due_ms          # 0: none
    cdef int64_t expires_ms           # 0: not running
    cdef readonly uint32_t session_expiry_s       # 0xFFFFFFFF: never
    cdef readonly uint32_t will_delay_s
    cdef uint8_t is_clean             # ends with its connection

    # Makes it durable, or puts its record anew because something changed.
    cdef int keep(self, bint is_connected) except -1
    # Puts the record of a subscription, in the place of the one before.
    cdef int keep_subscription(self, bytes topic_filter, uint8_t options, uint32_t subid) except -1
    # Removes records from the store, if there is one. key 0, stored NULL: none.
    cdef int forget(self, uint64_t key, stored_t* stored) except -1
    # Takes the reference over.
    cdef int set_will(self, msg_t* will, uint32_t delay_s) except -1
    # Gives a will back that was taken out of the session.
    cdef int release_will(self, msg_t* will) except -1
