"""The table of properties, and what reads and writes blocks of them."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from mqttcore.codec.codes cimport *
from mqttcore.codec.names cimport check_topic_name
from mqttcore.codec.status cimport (
    ST_MAXIMUM_PACKET_SIZE_ZERO,
    ST_OK,
    ST_PROPERTY_NOT_BOOLEAN,
    ST_PROPERTY_PLACE,
    ST_PROPERTY_REPEATED,
    ST_PROPERTY_UNKNOWN,
    ST_RECEIVE_MAXIMUM_ZERO,
    ST_RESPONSE_TOPIC,
    ST_SUBSCRIPTION_ID_ZERO,
    ST_TOPIC_ALIAS_ZERO,
    ST_TRUNCATED,
    status_error,
)
from mqttcore.codec.wire cimport (
    MAX_VARINT,
    bytes_left,
    cursor_t,
    take_binary,
    take_text,
    take_u8,
    take_u16,
    take_u32,
    take_varint,
)
from mqttcore.codec.writer cimport (
    HEADER_ROOM,
    write_binary,
    write_bytes,
    write_text,
    write_u8,
    write_u16,
    write_u32,
    write_varint,
    writer_close,
    writer_open,
    writer_t,
)

from mqttcore.constants import PropertyId

cdef enum:
    WIRE_NONE = 0                   # no such property
    WIRE_BYTE
    WIRE_TWO_BYTE
    WIRE_FOUR_BYTE
    WIRE_VARINT
    WIRE_TEXT
    WIRE_BINARY
    WIRE_PAIR

cdef enum:
    VALUE_ANY = 0
    VALUE_NOT_ZERO
    VALUE_BOOLEAN
    VALUE_TOPIC_NAME

cdef enum:
    PROPERTY_LIMIT = 0x2B           # one more than the highest identifier


# Where a property may stand, as bits 1 << place.
cdef enum:
    IN_WILL = 1 << PLACE_WILL
    IN_CONNECT = 1 << PT_CONNECT
    IN_CONNACK = 1 << PT_CONNACK
    IN_PUBLISH = 1 << PT_PUBLISH
    IN_SUBSCRIBE = 1 << PT_SUBSCRIBE
    IN_DISCONNECT = 1 << PT_DISCONNECT
    IN_AUTH = 1 << PT_AUTH
    IN_MESSAGE = IN_PUBLISH | IN_WILL
    IN_ACKS = ((1 << PT_PUBACK) | (1 << PT_PUBREC) | (1 << PT_PUBREL) | (1 << PT_PUBCOMP) | (1 << PT_SUBACK)
               | (1 << PT_UNSUBACK))
    IN_ALL = (IN_WILL | IN_CONNECT | IN_CONNACK | IN_PUBLISH | IN_ACKS | IN_SUBSCRIBE | (1 << PT_UNSUBSCRIBE)
              | IN_DISCONNECT | IN_AUTH)
    IN_NONE = 0


cdef struct rule_t:
    uint8_t wire
    uint8_t value
    uint8_t fault                   # status of a value that breaks the value rule
    uint32_t places
    uint32_t repeats_in             # places where it may stand more than once


# identifier, wire type, places, places where it may repeat, value rule, status of a bad value (§2.2.2.2, table 2-4)
cdef list TABLE = [
    (PROP_PAYLOAD_FORMAT_INDICATOR, WIRE_BYTE, IN_MESSAGE, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
    (PROP_MESSAGE_EXPIRY_INTERVAL, WIRE_FOUR_BYTE, IN_MESSAGE, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_CONTENT_TYPE, WIRE_TEXT, IN_MESSAGE, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_RESPONSE_TOPIC, WIRE_TEXT, IN_MESSAGE, IN_NONE, VALUE_TOPIC_NAME, ST_RESPONSE_TOPIC),
    (PROP_CORRELATION_DATA, WIRE_BINARY, IN_MESSAGE, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_SUBSCRIPTION_IDENTIFIER, WIRE_VARINT, IN_PUBLISH | IN_SUBSCRIBE, IN_PUBLISH, VALUE_NOT_ZERO,
     ST_SUBSCRIPTION_ID_ZERO),
    (PROP_SESSION_EXPIRY_INTERVAL, WIRE_FOUR_BYTE, IN_CONNECT | IN_CONNACK | IN_DISCONNECT, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_ASSIGNED_CLIENT_IDENTIFIER, WIRE_TEXT, IN_CONNACK, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_SERVER_KEEP_ALIVE, WIRE_TWO_BYTE, IN_CONNACK, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_AUTHENTICATION_METHOD, WIRE_TEXT, IN_CONNECT | IN_CONNACK | IN_AUTH, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_AUTHENTICATION_DATA, WIRE_BINARY, IN_CONNECT | IN_CONNACK | IN_AUTH, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_REQUEST_PROBLEM_INFORMATION, WIRE_BYTE, IN_CONNECT, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
    (PROP_WILL_DELAY_INTERVAL, WIRE_FOUR_BYTE, IN_WILL, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_REQUEST_RESPONSE_INFORMATION, WIRE_BYTE, IN_CONNECT, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
    (PROP_RESPONSE_INFORMATION, WIRE_TEXT, IN_CONNACK, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_SERVER_REFERENCE, WIRE_TEXT, IN_CONNACK | IN_DISCONNECT, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_REASON_STRING, WIRE_TEXT, IN_CONNACK | IN_ACKS | IN_DISCONNECT | IN_AUTH, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_RECEIVE_MAXIMUM, WIRE_TWO_BYTE, IN_CONNECT | IN_CONNACK, IN_NONE, VALUE_NOT_ZERO, ST_RECEIVE_MAXIMUM_ZERO),
    (PROP_TOPIC_ALIAS_MAXIMUM, WIRE_TWO_BYTE, IN_CONNECT | IN_CONNACK, IN_NONE, VALUE_ANY, ST_OK),
    (PROP_TOPIC_ALIAS, WIRE_TWO_BYTE, IN_PUBLISH, IN_NONE, VALUE_NOT_ZERO, ST_TOPIC_ALIAS_ZERO),
    (PROP_MAXIMUM_QOS, WIRE_BYTE, IN_CONNACK, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
    (PROP_RETAIN_AVAILABLE, WIRE_BYTE, IN_CONNACK, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
    (PROP_USER_PROPERTY, WIRE_PAIR, IN_ALL, IN_ALL, VALUE_ANY, ST_OK),
    (PROP_MAXIMUM_PACKET_SIZE, WIRE_FOUR_BYTE, IN_CONNECT | IN_CONNACK, IN_NONE, VALUE_NOT_ZERO,
     ST_MAXIMUM_PACKET_SIZE_ZERO),
    (PROP_WILDCARD_SUBSCRIPTION_AVAILABLE, WIRE_BYTE, IN_CONNACK, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
    (PROP_SUBSCRIPTION_IDENTIFIER_AVAILABLE, WIRE_BYTE, IN_CONNACK, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
    (PROP_SHARED_SUBSCRIPTION_AVAILABLE, WIRE_BYTE, IN_CONNACK, IN_NONE, VALUE_BOOLEAN, ST_PROPERTY_NOT_BOOLEAN),
]

cdef rule_t RULES[PROPERTY_LIMIT]
# PropertyId by number: the keys of decoded dicts; None where there is no such property
cdef list KEYS = [None] * PROPERTY_LIMIT
cdef list NAMES = [None] * PROPERTY_LIMIT      # their names, for messages


cdef int fill_rules() except -1:
    cdef rule_t* rule
    for identifier, wire, places, repeats_in, value, fault in TABLE:
        rule = &RULES[<int>identifier]
        rule.wire = wire
        rule.value = value
        rule.fault = fault
        # PLACE_ANY is a decoder that does not know the packet: all may stand, and repeat as they do anywhere
        rule.places = <uint32_t>places | (1 << PLACE_ANY)
        rule.repeats_in = <uint32_t>repeats_in | ((1 << PLACE_ANY) if repeats_in else 0)
        KEYS[identifier] = PropertyId(identifier)
        NAMES[identifier] = KEYS[identifier].name
    return 0


fill_rules()


# --- reading ----------------------------------------------------------------------------------------------------------

cdef int read_property(cursor_t* cursor, int place, property_t* found) noexcept nogil:
    cdef uint32_t identifier = 0
    cdef uint8_t byte = 0
    cdef uint16_t two = 0
    cdef rule_t* rule
    cdef uint64_t bit
    cdef int status = take_varint(cursor, &identifier)
    if status != ST_OK:
        return status
    if identifier >= PROPERTY_LIMIT or RULES[identifier].wire == WIRE_NONE:
        return ST_PROPERTY_UNKNOWN
    rule = &RULES[identifier]
    if not rule.places >> place & 1:
        return ST_PROPERTY_PLACE
    bit = 1ULL << identifier
    if found.seen & bit and not rule.repeats_in >> place & 1:
        return ST_PROPERTY_REPEATED
    found.seen |= bit
    found.id = <uint8_t>identifier

    if rule.wire == WIRE_BYTE:
        status = take_u8(cursor, &byte)
        found.number = byte
    elif rule.wire == WIRE_TWO_BYTE:
        status = take_u16(cursor, &two)
        found.number = two
    elif rule.wire == WIRE_FOUR_BYTE:
        status = take_u32(cursor, &found.number)
    elif rule.wire == WIRE_VARINT:
        status = take_varint(cursor, &found.number)
    elif rule.wire == WIRE_TEXT:
        status = take_text(cursor, &found.text, &found.text_size)
    elif rule.wire == WIRE_BINARY:
        status = take_binary(cursor, &found.text, &found.text_size)
    else:
        status = take_text(cursor, &found.text, &found.text_size)
        if status == ST_OK:
            status = take_text(cursor, &found.second, &found.second_size)
    if status != ST_OK:
        return status

    if rule.value == VALUE_ANY:
        return ST_OK
    if rule.value == VALUE_NOT_ZERO:
        return ST_OK if found.number != 0 else rule.fault
    if rule.value == VALUE_BOOLEAN:
        return ST_OK if found.number <= 1 else rule.fault
    return ST_OK if check_topic_name(found.text, found.text_size) == ST_OK else rule.fault


cdef int check_properties(const uint8_t* block, Py_ssize_t size, int place) noexcept nogil:
    cdef cursor_t cursor
    cdef property_t found
    cdef int status
    cursor.at = block
    cursor.end = block + size
    found.seen = 0
    while cursor.at < cursor.end:
        status = read_property(&cursor, place, &found)
        if status != ST_OK:
            return status
    return ST_OK


cdef inline str text_of(const uint8_t* text, uint32_t size):
    return PyUnicode_DecodeUTF8(<const char*>text, size, NULL)


cdef object value_of(property_t* found):
    cdef uint8_t wire = RULES[found.id].wire
    if wire == WIRE_TEXT:
        return text_of(found.text, found.text_size)
    if wire == WIRE_BINARY:
        return PyBytes_FromStringAndSize(<const char*>found.text, found.text_size)
    if wire == WIRE_PAIR:
        return (text_of(found.text, found.text_size), text_of(found.second, found.second_size))
    return found.number


cdef dict read_block(cursor_t* cursor, int place):
    cdef dict properties = {}
    cdef property_t found
    cdef object key, value
    cdef list values
    cdef int status
    found.seen = 0
    while cursor.at < cursor.end:
        status = read_property(cursor, place, &found)
        if status != ST_OK:
            raise status_error(status)
        key = KEYS[found.id]
        value = value_of(&found)
        if RULES[found.id].repeats_in >> place & 1:
            values = properties.get(key)
            if values is None:
                properties[key] = [value]
            else:
                values.append(value)
        else:
            properties[key] = value
    return properties


cdef dict take_properties(cursor_t* cursor, int place):
    cdef cursor_t block
    cdef uint32_t size = 0
    cdef dict properties
    cdef int status = take_varint(cursor, &size)
    if status == ST_OK and size > bytes_left(cursor):
        status = ST_TRUNCATED
    if status != ST_OK:
        raise status_error(status)
    if size == 0:
        return {}
    block.at = cursor.at
    block.end = cursor.at + size
    properties = read_block(&block, place)
    cursor.at += size
    return properties


# --- writing ----------------------------------------------------------------------------------------------------------

cdef int write_number(writer_t* out, object value, str name, uint8_t wire) except -1:
    cdef uint32_t limit = 0xFFFFFFFF
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if wire == WIRE_BYTE:
        limit = 0xFF
    elif wire == WIRE_TWO_BYTE:
        limit = 0xFFFF
    elif wire == WIRE_VARINT:
        limit = MAX_VARINT
    if not 0 <= value <= limit:
        raise ValueError(f"{name} must be 0 to {limit}")
    if wire == WIRE_BYTE:
        return write_u8(out, value)
    if wire == WIRE_TWO_BYTE:
        return write_u16(out, value)
    if wire == WIRE_FOUR_BYTE:
        return write_u32(out, value)
    return write_varint(out, value)


cdef int write_value(writer_t* out, rule_t* rule, uint8_t identifier, object value, str name) except -1:
    cdef bytes encoded
    write_u8(out, identifier)           # every identifier fits one byte of a varint
    if rule.wire == WIRE_TEXT:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {type(value).__name__}")
        write_text(out, value, name)
        if rule.value == VALUE_TOPIC_NAME:
            encoded = (<str>value).encode()
            if check_topic_name(encoded, len(encoded)) != ST_OK:
                raise ValueError(f"{name} is no topic name")
        return 0
    if rule.wire == WIRE_BINARY:
        if not isinstance(value, bytes):
            raise TypeError(f"{name} must be bytes, not {type(value).__name__}")
        return write_binary(out, value, name)
    if rule.wire == WIRE_PAIR:
        if not (isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)):
            raise TypeError(f"{name} must be a list of pairs of str")
        write_text(out, value[0], name)
        return write_text(out, value[1], name)
    write_number(out, value, name, rule.wire)
    if rule.value == VALUE_NOT_ZERO and value == 0:
        raise ValueError(f"{name} must not be 0")
    if rule.value == VALUE_BOOLEAN and value > 1:
        raise ValueError(f"{name} must be 0 or 1")
    return 0


cdef int write_block(writer_t* out, dict properties, int place) except -1:
    cdef rule_t* rule
    cdef uint8_t identifier
    for key, value in properties.items():
        if not isinstance(key, int) or not 0 <= key < PROPERTY_LIMIT or KEYS[key] is None:
            raise ValueError(f"unknown property {key!r}")
        identifier = key
        rule = &RULES[identifier]
        name = NAMES[identifier]
        if not rule.places >> place & 1:
            raise ValueError(f"{name} is not allowed here")
        if isinstance(value, list):
            if not rule.repeats_in >> place & 1:
                raise TypeError(f"{name} may be given only once")
            for one in value:
                write_value(out, rule, identifier, one, name)
        elif rule.wire == WIRE_PAIR:
            raise TypeError(f"{name} must be a list of pairs of str")
        else:
            write_value(out, rule, identifier, value, name)
    return 0


cdef bytes block_of(dict properties, int place):
    cdef writer_t out
    writer_open(&out)
    try:
        write_block(&out, properties, place)
        return PyBytes_FromStringAndSize(<const char*>out.data + HEADER_ROOM, out.size - HEADER_ROOM)
    finally:
        writer_close(&out)


cdef bytes encode_properties_block(dict properties):
    return block_of(properties, PLACE_ANY)


cdef int write_properties(writer_t* out, dict properties, int place) except -1:
    cdef bytes block
    if not properties:
        return write_u8(out, 0)         # [MQTT-2.2.2-1]
    block = block_of(properties, place)
    if len(block) > MAX_VARINT:
        raise ValueError("properties are longer than 268,435,455 bytes")
    write_varint(out, <uint32_t>len(block))
    return write_bytes(out, block, len(block))


# --- Python face ------------------------------------------------------------------------------------------------------

def decode_properties(bytes block not None):
    """Return the properties of *block* (without its length) as a dict.

    Values are int, str or bytes; USER_PROPERTY gives a list of pairs, SUBSCRIPTION_IDENTIFIER a list of int. Where the
    properties may stand is not checked, since the packet is not known. Raises ProtocolError.
    """
    cdef cursor_t cursor
    cursor.at = block
    cursor.end = cursor.at + len(block)
    return read_block(&cursor, PLACE_ANY)


def encode_properties(dict properties not None):
    """Return the block of *properties* without its length; a list is written as a repeated property.

    Raises ValueError and TypeError for what cannot be written.
    """
    return encode_properties_block(properties)
