# Messages on their way through the engine.
#
# pub_t   a PUBLISH being routed: borrowed pointers into a read buffer or a msg_t. Lives on the stack of one publish.
# msg_t   the same, kept: one malloc, counted references, never changed after birth. Made only when something has to
#         outlive the publish (a queue, an in-flight window, the retained tree, a tap); pub_keep() makes it at most once.
# stored_t what the engine remembers of a message in the store, whether it is in memory or not.
# Message the read-only Python face of a msg_t, for taps, handlers and embedders.
#
#   queue entry, slot, retained node, will  ── a reference each ──▶ stored_t ── borrowed ──▶ msg_t, while it is in memory
#
# A stored_t's refs are the records that refer to its message record; with the last one that goes, too: Journal.forget()
# sees to the disk, stored_unref() to the memory.
#
# All references are counted under the GIL.

from cpython.ref cimport PyObject, Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free


# Who published: made with the first message of a connection that is kept, shared by all that follow, never changed.
# The broker's own messages have none.
cdef class Publisher:
    cdef readonly str client_id
    cdef readonly str identity_name   # of its Identity when it published, or None
    cdef readonly str ordering_key    # messages with the same key are to stay in order on their way through sinks; or None

    @staticmethod
    cdef Publisher new(str client_id, str identity_name, str ordering_key)


# Where messages get their id and time from; one per engine.
cdef struct birth_t:
    uint64_t node_epoch       # node << 32 | epoch: who numbers (a broker process, and its start)
    uint64_t number           # the last one given
    int64_t wall_offset_ms    # of the wall clock (milliseconds since 1970, UTC) before the engine's
    const int64_t* now_ms     # the engine's clock


cdef enum:
    TRACED_TOPIC = 1          # a watch matches its topic (tracer.pxd)
    TRACED_PUBLISHER = 2      # its publisher is watched


cdef struct stored_t


cdef struct msg_t:
    Py_ssize_t refs
    stored_t* stored          # borrowed; NULL: not in the store
    int64_t expires_ms        # engine clock; 0: never
    PyObject* publisher       # Publisher, a reference; NULL: the broker itself
    uint64_t node_epoch       # with number the message id (CLUSTER: node, epoch, counter); kept by stores and peers
    uint64_t number           # 0: it has no id, as it was never published
    int64_t received_ms       # wall clock, when it was published
    uint32_t topic_size
    uint32_t props_size
    uint32_t payload_size
    uint32_t expiry_at        # 1 + offset in props of Message Expiry Interval's four value bytes; 0: absent
    uint8_t qos               # as published
    uint8_t retain            # as published
    uint8_t is_utf8           # Payload Format Indicator
    uint8_t traced            # TRACED_TOPIC or 0; may be set later: by the publish that it was kept for, or by paging in
    uint8_t data[1]           # topic, props, payload: one behind the other


cdef struct stored_t:
    uint64_t key              # of the message record
    uint64_t retained_key     # of the record that retains it; 0: none
    msg_t* message            # borrowed; NULL: not in memory
    int64_t expires_ms        # as in msg_t
    int64_t bytes             # msg_bytes() of the message
    uint32_t refs


cdef struct pub_t:
    const uint8_t* topic
    const uint8_t* props      # MQTT 5 block as it is forwarded: no Topic Alias, no Subscription Identifier; NULL if empty
    const uint8_t* payload
    uint32_t topic_size
    uint32_t props_size
    uint32_t payload_size
    uint32_t expiry_at        # as in msg_t
    int64_t expires_ms        # as in msg_t
    void* origin              # Subscriber* of the publishing session, borrowed; NULL: the broker itself
    PyObject* publisher       # as in msg_t, borrowed
    birth_t* birth            # of the engine; not asked any more once kept is made
    msg_t* kept               # made by pub_keep(), owned by this view until pub_done(); NULL so far
    uint8_t qos
    uint8_t retain
    uint8_t is_utf8
    uint8_t is_replay         # a retained message answering a SUBSCRIBE: goes out with RETAIN 1 [MQTT-3.3.1-8]
    uint8_t traced            # TRACED_*


cdef inline const uint8_t* msg_topic(msg_t* m) noexcept nogil:
    return m.data


cdef inline const uint8_t* msg_props(msg_t* m) noexcept nogil:
    return m.data + m.topic_size


cdef inline const uint8_t* msg_payload(msg_t* m) noexcept nogil:
    return m.data + m.topic_size + m.props_size


cdef inline Py_ssize_t msg_bytes(msg_t* m) noexcept nogil:
    # Bytes a message holds, for limits and metrics.
    return sizeof(msg_t) + m.topic_size + m.props_size + m.payload_size


cdef inline msg_t* msg_ref(msg_t* m) noexcept nogil:
    m.refs += 1
    return m


cdef inline void msg_unref(msg_t* m) noexcept:
    m.refs -= 1
    if m.refs == 0:
        if m.stored != NULL:
            m.stored.message = NULL
        Py_XDECREF(m.publisher)
        free(m)


cdef inline stored_t* stored_ref(stored_t* stored) noexcept nogil:
    if stored != NULL:
        stored.refs += 1
    return stored


cdef inline void stored_unref(stored_t* stored) noexcept:
    if stored != NULL:
        stored.refs -= 1
        if stored.refs == 0:
            if stored.message != NULL:
                stored.message.stored = NULL
            free(stored)


# The message of *pub* on the heap, made on the first call; borrowed: take msg_ref() to keep it. NULL with MemoryError set.
cdef msg_t* pub_keep(pub_t* pub) except NULL

# Gives back what pub_keep() made.
cdef inline void pub_done(pub_t* pub) noexcept:
    if pub.kept != NULL:
        msg_unref(pub.kept)
        pub.kept = NULL


# Lets *pub* point into its kept form, so that what it pointed into may go; makes that when there is none.
cdef inline msg_t* pub_settle(pub_t* pub) except NULL:
    cdef msg_t* m = pub_keep(pub)
    pub.topic = m.data
    pub.props = m.data + m.topic_size if m.props_size else NULL
    pub.payload = m.data + m.topic_size + m.props_size
    return m


# A view of *m*: kept is m itself without a reference of its own, so no pub_done() for it.
cdef inline void msg_view(msg_t* m, pub_t* pub) noexcept nogil:
    pub.topic = m.data
    pub.topic_size = m.topic_size
    pub.props = m.data + m.topic_size if m.props_size else NULL
    pub.props_size = m.props_size
    pub.payload = m.data + m.topic_size + m.props_size
    pub.payload_size = m.payload_size
    pub.expiry_at = m.expiry_at
    pub.expires_ms = m.expires_ms
    pub.origin = NULL
    pub.publisher = m.publisher
    pub.birth = NULL
    pub.kept = m
    pub.qos = m.qos
    pub.retain = m.retain
    pub.is_utf8 = m.is_utf8
    pub.is_replay = 0
    pub.traced = m.traced


cdef class Message:
    cdef msg_t* ref

    @staticmethod
    cdef Message new(msg_t* m)
