"""Messages made of Python values; compose.pxd describes them."""

from cpython.ref cimport Py_XINCREF
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from mqttcore.codec.codes cimport (
    PROP_MESSAGE_EXPIRY_INTERVAL,
    PROP_PAYLOAD_FORMAT_INDICATOR,
    PROP_WILL_DELAY_INTERVAL,
)
from mqttcore.codec.properties cimport encode_properties_block
from mqttcore.codec.wire cimport get_u32
from mqttcore.engine.message cimport Message, birth_t, msg_payload, msg_props, msg_topic, msg_unref, pub_keep, pub_t

cdef enum:
    TOPIC_BYTES_MAXIMUM = 65535       # [MQTT-4.7.3-3]
    REMAINING_MAXIMUM = 268435455     # Remaining Length (MQTT 5 §2.1.4)


cdef msg_t* make_message(bytes topic, bytes payload, uint8_t qos, bint retain, dict properties,
                         birth_t* birth) except NULL:
    # The expiry goes first in the block, so its place is known.
    cdef bytes block = b""
    cdef dict ordered = {}
    cdef pub_t pub
    cdef object expiry = None
    if properties:
        expiry = properties.get(PROP_MESSAGE_EXPIRY_INTERVAL)
        if expiry is not None:
            ordered[PROP_MESSAGE_EXPIRY_INTERVAL] = expiry
        ordered.update(properties)
        ordered.pop(PROP_WILL_DELAY_INTERVAL, None)
        block = encode_properties_block(ordered)
    memset(&pub, 0, sizeof(pub_t))
    pub.topic = topic
    pub.topic_size = <uint32_t>len(topic)
    pub.payload = payload
    pub.payload_size = <uint32_t>len(payload)
    pub.props = block
    pub.props_size = <uint32_t>len(block)
    pub.expiry_at = 2 if expiry is not None else 0
    pub.birth = birth
    pub.qos = qos
    pub.retain = retain
    pub.is_utf8 = properties.get(PROP_PAYLOAD_FORMAT_INDICATOR, 0) if properties else 0
    return pub_keep(&pub)


cdef msg_t* change_message(msg_t* m, object change, int64_t now_ms) except NULL:
    cdef bytes topic = msg_topic(m)[:m.topic_size] if change.topic is None else change.topic.encode()
    cdef bytes payload = msg_payload(m)[:m.payload_size] if change.payload is None else bytes(change.payload)
    cdef bytes block
    cdef int qos = m.qos if change.qos is None else change.qos
    cdef bint retain = m.retain if change.retain is None else bool(change.retain)
    cdef pub_t pub
    cdef msg_t* made
    if not 0 <= qos <= 2:
        raise ValueError(f"qos {qos} is not 0, 1 or 2")
    if len(topic) > TOPIC_BYTES_MAXIMUM or len(payload) > REMAINING_MAXIMUM:
        raise ValueError(f"topic of {len(topic)} bytes, payload of {len(payload)} bytes: too long for a packet")
    if change.properties is not None:
        made = make_message(topic, payload, <uint8_t>qos, retain, dict(change.properties), NULL)
        if made.expiry_at:
            made.expires_ms = now_ms + <int64_t>get_u32(msg_props(made) + made.expiry_at - 1) * 1000
        return born_as(made, m)
    block = msg_props(m)[:m.props_size]
    memset(&pub, 0, sizeof(pub_t))
    pub.topic = topic
    pub.topic_size = <uint32_t>len(topic)
    pub.payload = payload
    pub.payload_size = <uint32_t>len(payload)
    pub.props = block
    pub.props_size = m.props_size
    pub.expiry_at = m.expiry_at
    pub.expires_ms = m.expires_ms
    pub.qos = <uint8_t>qos
    pub.retain = retain
    pub.is_utf8 = m.is_utf8
    return born_as(pub_keep(&pub), m)


cdef msg_t* born_as(msg_t* made, msg_t* m) noexcept:
    made.node_epoch = m.node_epoch
    made.number = m.number
    made.received_ms = m.received_ms
    Py_XINCREF(m.publisher)
    made.publisher = m.publisher
    return made


def changed_message(message: Message, change: object) -> Message:
    """Return a message as another one, but for what a `PublishChange` makes different; for plugins asked one after another.

    TypeError, ValueError for values that cannot be.
    """
    cdef msg_t* m = change_message(message.ref, change, 0)
    try:
        return Message.new(m)
    finally:
        msg_unref(m)
