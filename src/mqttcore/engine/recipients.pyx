"""Recipients that a handler named; recipients.pxd explains how long they hold."""

cimport cython
from cpython.mem cimport PyMem_Malloc
from cpython.ref cimport PyObject
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy, memset

from mqttcore.codec.names cimport check_topic_name
from mqttcore.codec.status cimport status_error
from mqttcore.engine.subscriber cimport target_init, target_t

cdef enum:
    TOPIC_MAXIMUM = 65535


@cython.final
cdef class ClientChanges:
    """Counts the comings and goings of sessions, by client id."""

    cdef int changed(self, str client_id) except -1:
        self.counts[hash(client_id) & (CLIENT_SLOTS - 1)] += 1
        return 0


cdef recipients_t* recipients_find(object answer, dict clients, ClientChanges changes) except NULL:
    cdef object client_ids = answer.client_ids
    cdef int qos_maximum = answer.qos_maximum
    cdef uint8_t stores_offline = STORES_AS_SENDER if answer.stores_offline is None else bool(answer.stores_offline)
    cdef bytes topic = b""
    cdef recipients_t* recipients
    cdef list sessions = []
    cdef object session
    cdef Py_ssize_t named, held, i
    cdef int status
    if isinstance(client_ids, str):
        raise TypeError("client_ids is one text, not a sequence of client ids")
    client_ids = tuple(dict.fromkeys(client_ids))         # nobody twice
    named = len(client_ids)
    for client_id in client_ids:
        if not isinstance(client_id, str):
            raise TypeError(f"client id {client_id!r} is not a str")
        session = clients.get(client_id)
        if session is not None:
            sessions.append(session)
    if not 0 <= qos_maximum <= 2:
        raise ValueError(f"qos_maximum {qos_maximum} is not 0, 1 or 2")
    if answer.topic is not None:
        topic = answer.topic.encode()
        status = check_topic_name(topic, len(topic))
        if status or len(topic) > TOPIC_MAXIMUM:
            raise ValueError(f"{answer.topic!r} is no Topic Name: {status_error(status) if status else 'too long'}")
    held = (sizeof(recipients_t) - sizeof(target_t) + len(sessions) * sizeof(target_t) + named * sizeof(uint16_t)
            + len(topic))
    recipients = <recipients_t*>PyMem_Malloc(held)
    if recipients == NULL:
        raise MemoryError
    memset(recipients, 0, sizeof(recipients_t) - sizeof(target_t))
    recipients.refs = 1
    recipients.bytes_held = held
    recipients.stores_offline = stores_offline
    recipients.count = <uint32_t>len(sessions)
    recipients.named = <uint32_t>named
    for i in range(recipients.count):
        target_init(&recipients.targets[i], <PyObject*>sessions[i], <uint8_t>qos_maximum, 0)
        recipients.targets[i].is_direct = True
    recipients.slots = <uint16_t*>&recipients.targets[recipients.count]
    for i in range(named):
        recipients.slots[i] = hash(client_ids[i]) & (CLIENT_SLOTS - 1)
        recipients.stamp += changes.counts[recipients.slots[i]]
    recipients.topic = <uint8_t*>(recipients.slots + named)
    recipients.topic_size = <uint32_t>len(topic)
    memcpy(recipients.topic, <const char*>topic, len(topic))
    return recipients
