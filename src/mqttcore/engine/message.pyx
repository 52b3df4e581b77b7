"""Messages on their way through the engine; message.pxd explains the three shapes."""

cimport cython
from cpython.ref cimport Py_XINCREF
from libc.stdlib cimport malloc
from libc.string cimport memcpy

from mqttcore.codec import decode_properties


cdef msg_t* pub_keep(pub_t* pub) except NULL:
    cdef msg_t* m
    if pub.kept != NULL:
        return pub.kept
    m = <msg_t*>malloc(sizeof(msg_t) + <Py_ssize_t>pub.topic_size + pub.props_size + pub.payload_size)
    if m == NULL:
        raise MemoryError
    m.refs = 1
    m.stored = NULL
    m.expires_ms = pub.expires_ms
    Py_XINCREF(pub.publisher)
    m.publisher = pub.publisher
    if pub.birth != NULL:
        pub.birth.number += 1
        m.node_epoch = pub.birth.node_epoch
        m.number = pub.birth.number
        m.received_ms = pub.birth.now_ms[0] + pub.birth.wall_offset_ms
    else:
        m.node_epoch = m.number = 0
        m.received_ms = 0
    m.topic_size = pub.topic_size
    m.props_size = pub.props_size
    m.payload_size = pub.payload_size
    m.expiry_at = pub.expiry_at
    m.qos = pub.qos
    m.retain = pub.retain
    m.is_utf8 = pub.is_utf8
    m.traced = pub.traced & TRACED_TOPIC
    memcpy(m.data, pub.topic, pub.topic_size)
    if pub.props_size:
        memcpy(m.data + pub.topic_size, pub.props, pub.props_size)
    if pub.payload_size:
        memcpy(m.data + pub.topic_size + pub.props_size, pub.payload, pub.payload_size)
    pub.kept = m
    return m


@cython.final
cdef class Publisher:
    """The client that published a message."""

    def __init__(self):
        raise TypeError("Publisher is made by the broker")

    @staticmethod
    cdef Publisher new(str client_id, str identity_name, str ordering_key):
        cdef Publisher self = Publisher.__new__(Publisher)
        self.client_id = client_id
        self.identity_name = identity_name
        self.ordering_key = ordering_key
        return self


@cython.final
@cython.freelist(256)
cdef class Message:
    """A published message, read-only, as taps and embedders see it.

    Holds the broker's own copy by reference; the properties below make Python objects on each access.
    """

    def __init__(self):
        raise TypeError("Message is made by the broker")

    @staticmethod
    cdef Message new(msg_t* m):
        cdef Message self = Message.__new__(Message)
        self.ref = msg_ref(m)
        return self

    def __dealloc__(self):
        if self.ref != NULL:
            msg_unref(self.ref)

    @property
    def topic(self) -> str:
        """Topic Name."""
        return self.ref.data[:self.ref.topic_size].decode()

    @property
    def payload(self) -> bytes:
        """Application Message."""
        return msg_payload(self.ref)[:self.ref.payload_size]

    @property
    def payload_size_bytes(self) -> int:
        """Size of the payload, without making it an object."""
        return self.ref.payload_size

    @property
    def qos(self) -> int:
        """QoS it was published at."""
        return self.ref.qos

    @property
    def retain(self) -> bool:
        """Whether it was published with RETAIN 1."""
        return self.ref.retain != 0

    @property
    def client_id(self) -> str | None:
        """Client id of the publisher; None: the broker itself."""
        return None if self.ref.publisher == NULL else (<Publisher>self.ref.publisher).client_id

    @property
    def identity_name(self) -> str | None:
        """Name of the publisher's identity when it published; None: anonymous, or the broker itself."""
        return None if self.ref.publisher == NULL else (<Publisher>self.ref.publisher).identity_name

    @property
    def ordering_key(self) -> str | None:
        """Key whose messages are to stay in order on their way through sinks (`Broker.set_ordering_key`), or None."""
        return None if self.ref.publisher == NULL else (<Publisher>self.ref.publisher).ordering_key

    @property
    def received_ms(self) -> int:
        """When it was published, in milliseconds since 1970 (UTC)."""
        return self.ref.received_ms

    @property
    def message_id(self) -> str:
        """32 hexadecimal digits that no other message has: node, epoch (the broker's start) and a counter."""
        return f"{self.ref.node_epoch:016x}{self.ref.number:016x}"

    @property
    def properties(self) -> dict:
        """MQTT 5 properties, `PropertyId` -> value, decoded anew on each access; a Message Expiry Interval as published."""
        return decode_properties(self.properties_block)

    @property
    def properties_block(self) -> bytes:
        """MQTT 5 properties as encoded bytes, without the block's length; `codec.decode_properties` reads them."""
        return msg_props(self.ref)[:self.ref.props_size]

    def __repr__(self) -> str:
        return f"Message(topic={self.topic!r}, qos={self.qos}, retain={self.retain}, payload={self.ref.payload_size} bytes)"
