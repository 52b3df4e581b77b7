"""The few packets a load generator sends, built once per client: they need no speed and share no code with the broker.

Bytes of both protocol versions; *version* is 4 for 3.1.1 and 5 for MQTT 5.
"""

from dataclasses import dataclass

__all__ = ["PublishTemplate", "connect_packet", "publish_template", "subscribe_packet", "upgrade_request"]

SAMPLE_PROPERTIES = (
    b"\x02\x00\x00\x0e\x10"  # Message Expiry Interval 3600 s
    b"\x03\x00\x10application/json"  # Content Type
    b"\x26\x00\x06device\x00\x08sensor-7"  # User Property
)


def variable_byte_integer(value: int) -> bytes:
    """Return *value* in one to four bytes (MQTT 5 §1.5.5)."""
    encoded = bytearray()
    while True:
        value, digit = divmod(value, 128)
        encoded.append(digit | 0x80 if value else digit)
        if not value:
            return bytes(encoded)


def text(value: str) -> bytes:
    """Return *value* as an MQTT UTF-8 string with its length."""
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def upgrade_request(host: str, path: str) -> bytes:
    """Return the HTTP request that turns a connection to WebSocket (RFC 6455 §4.1)."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: bXF0dGNvcmUgYmVuY2ghIQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    ).encode()


def connect_packet(client_id: str, version: int, *, is_durable: bool = False) -> bytes:
    """Return a CONNECT without keep alive, so that a held connection needs no timer.

    is_durable: for a session that outlives the connection, with MQTT 5 for ever; else a clean one.
    """
    body = text("MQTT") + bytes([version, 0x00 if is_durable else 0x02]) + b"\x00\x00"
    if version == 5:
        body += b"\x05\x11\xff\xff\xff\xff" if is_durable else b"\x00"  # Session Expiry Interval
    body += text(client_id)
    return b"\x10" + variable_byte_integer(len(body)) + body


def subscribe_packet(packet_id: int, topic_filters: list[str], qos: int, version: int) -> bytes:
    """Return one SUBSCRIBE for all *topic_filters*."""
    body = packet_id.to_bytes(2, "big") + (b"\x00" if version == 5 else b"")
    body += b"".join(text(topic_filter) + bytes([qos]) for topic_filter in topic_filters)
    return b"\x82" + variable_byte_integer(len(body)) + body


@dataclass(frozen=True)
class PublishTemplate:
    """A PUBLISH whose topic, packet id and payload the generator overwrites; offsets in bytes from its start."""

    data: bytes
    topic_at: int
    topic_size: int
    packet_id_at: int  # 0 at QoS 0
    payload_at: int


def publish_template(
    topic: str, payload_size: int, *, qos: int, version: int, retain: bool = False, properties: bytes = b""
) -> PublishTemplate:
    """Return a PUBLISH to *topic*; other topics of the same length can be written over it."""
    head = text(topic)
    packet_id_at = len(head) if qos else 0
    head += b"\x00\x00" if qos else b""
    if version == 5:
        head += variable_byte_integer(len(properties)) + properties
    size = variable_byte_integer(len(head) + payload_size)
    first = bytes([0x30 | qos << 1 | int(retain)])
    start = 1 + len(size)
    return PublishTemplate(
        data=first + size + head + b"." * payload_size,
        topic_at=start + 2,
        topic_size=len(topic.encode()),
        packet_id_at=start + packet_id_at if qos else 0,
        payload_at=start + len(head),
    )
