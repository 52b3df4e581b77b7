# Clients that a handler named as the recipients of a message, found in the client table once and kept.
#
# Whether what was found still holds is a sum: each client id belongs to one of CLIENT_SLOTS counters, which rise when a
# session of such an id is made or ends. They only rise, so the sum over all clients named tells whether any did. So
# nothing has to be told to forget, and a session that ended is never looked at, though targets borrow it. Ids that share a
# counter cost each other a question to the handler, no more.

from libc.stdint cimport uint8_t, uint64_t

from mqttcore.engine.subscriber cimport recipients_t


cdef enum:
    CLIENT_SLOTS = 8192
    STORES_AS_SENDER = 2              # of recipients_t.stores_offline: when the publisher's own session outlives its connection


cdef class ClientChanges:
    cdef uint64_t counts[CLIENT_SLOTS]

    # A session of this client id was made, or ended.
    cdef int changed(self, str client_id) except -1


cdef inline bint recipients_stand(recipients_t* recipients, ClientChanges changes) noexcept:
    cdef uint64_t sum = 0
    cdef Py_ssize_t i
    for i in range(recipients.named):
        sum += changes.counts[recipients.slots[i]]
    return sum == recipients.stamp


# The one reference belongs to the caller. answer: handlers.Recipients; clients: client id -> Session, who is not there is
# passed over. TypeError and ValueError for an answer that is none.
cdef recipients_t* recipients_find(object answer, dict clients, ClientChanges changes) except NULL
