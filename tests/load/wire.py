"""MQTT 3.1.1 packets by struct, for load tests: a second reading of the standard, independent of mqttcore.codec."""

from __future__ import annotations

import struct
from collections.abc import Iterator

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP = 2, 3, 4, 5, 6, 7, 9, 11, 13
DUP = 0x08


def _packet(first: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes((first,)) + bytes(digits) + body


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def connect(client_id: str, clean_session: bool, keep_alive_s: int = 0) -> bytes:
    return _packet(
        0x10, b"\x00\x04MQTT\x04" + struct.pack("!BH", 2 if clean_session else 0, keep_alive_s) + _string(client_id)
    )


def subscribe(packet_id: int, topic_filter: str, qos: int) -> bytes:
    return _packet(0x82, struct.pack("!H", packet_id) + _string(topic_filter) + bytes((qos,)))


def publish(packet_id: int, topic: str, payload: bytes, qos: int, dup: bool = False) -> bytes:
    first = 0x30 | qos << 1 | (DUP if dup else 0)
    return _packet(first, _string(topic) + (struct.pack("!H", packet_id) if qos else b"") + payload)


def acknowledge(packet_type: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP."""
    return struct.pack("!BBH", packet_type << 4 | (2 if packet_type == PUBREL else 0), 2, packet_id)


def disconnect() -> bytes:
    return b"\xe0\x00"


def packet_id_of(body: bytes) -> int:
    return int(struct.unpack_from("!H", body)[0])


def parse_publish(first: int, body: bytes) -> tuple[str, int, bytes]:
    """Return topic, packet id (0 at QoS 0) and payload."""
    end = 2 + packet_id_of(body)
    topic = body[2:end].decode()
    if not first & 0x06:
        return topic, 0, body[end:]
    return topic, int(struct.unpack_from("!H", body, end)[0]), body[end + 2 :]


class Splitter:
    """Cuts a stream into packets."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (first byte, body) of each whole packet; keep the torn rest."""
        data = self._rest + data
        at = 0
        while True:
            length = shift = 0
            head = at + 1
            while head < len(data):
                length |= (data[head] & 0x7F) << shift
                shift += 7
                head += 1
                if not data[head - 1] & 0x80:
                    break
            else:
                break
            if head + length > len(data):
                break
            yield data[at], data[head : head + length]
            at = head + length
        self._rest = data[at:]
