# What happened, for who observes: recorded only while a bit of the mask says that somebody wants it.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef enum event_bit:
    EVENT_CLIENT_CONNECTED = 1
    EVENT_CLIENT_AUTHENTICATED = 2
    EVENT_CONNECT_REFUSED = 4
    EVENT_CLIENT_DISCONNECTED = 8
    EVENT_CONNECTION_CLOSED = 16
    EVENT_SESSION_ENDED = 32
    EVENT_SUBSCRIBED = 64
    EVENT_UNSUBSCRIBED = 128
    EVENT_MESSAGE_DROPPED = 256


# Of the reasons DROP_*, in their order.
cdef tuple drop_names()


cdef class EventLog:
    cdef uint32_t mask
    cdef Py_ssize_t waiting_maximum
    cdef list waiting                 # events since the last take(), in order
    cdef dict drops                   # (client id, reason) -> messages dropped since the last take()
    cdef object on_waiting            # called when something begins to wait; None: nobody observes
    cdef readonly uint64_t dropped    # events for which there was no room

    # Whoever calls these has looked at the mask.
    cdef int add(self, object event) except -1
    cdef int count_drop(self, str client_id, int reason, int64_t count=*) except -1
    # client: a ClientView; session: a Session.
    cdef int connected(self, int64_t time_ms, object client, object session, bint session_present,
                       int keep_alive_s) except -1
    cdef int authenticated(self, int64_t time_ms, object client, object identity) except -1
    cdef int refused(self, int64_t time_ms, object client, uint8_t reason_code, str reason) except -1
    cdef int disconnected(self, int64_t time_ms, object client, uint8_t reason_code) except -1
    # reason: our words, where reason_code is -1.
    cdef int closed(self, int64_t time_ms, object client, int reason_code, str reason, str detail) except -1
    cdef int session_ended(self, int64_t time_ms, str client_id) except -1
    cdef int subscribed(self, int64_t time_ms, str client_id, bytes topic_filter, uint8_t options,
                        uint32_t subid) except -1
    cdef int unsubscribed(self, int64_t time_ms, str client_id, bytes topic_filter) except -1
    cdef int wake(self) except -1
