"""Bytes to decode: vectors as they are, packets of random content, and both damaged. All frames are whole."""

import random
from collections.abc import Iterator
from typing import Any

from mqttcore.codec import (
    ConnAck,
    Connect,
    Disconnect,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from mqttcore.constants import PropertyId
from vectors import FAULTY, VALID

ALPHABET = "ab/+#$\u00e9\u20ac\U0001f600 \ufeff\x01\x7f\u0085\ufffe"
INTERESTING = bytes([0x00, 0x01, 0x02, 0x03, 0x04, 0x1F, 0x23, 0x26, 0x7F, 0x80, 0x82, 0xC0, 0xED, 0xFF])
BODY_MAXIMUM = 2_000


def body_of(data: bytes) -> bytes:
    """Return what stands behind the Remaining Length, as far as that can be told."""
    at = 1
    while at < min(len(data), 5) and data[at] & 0x80:
        at += 1
    return data[at + 1 :]


def framed(first: int, body: bytes) -> bytes:
    """Return a packet whose Remaining Length is right."""
    length = bytearray()
    rest = len(body)
    while True:
        rest, byte = divmod(rest, 128)
        length.append(byte | 0x80 if rest else byte)
        if not rest:
            return bytes([first, *length]) + body


class Maker:
    """Packets for one version, in an order that the seed decides."""

    def __init__(self, version: int, seed: int) -> None:
        self.version = version
        self.dice = random.Random(seed)
        self.seeds = [
            vector.data for vector in VALID + FAULTY if vector.version == version and len(vector.data) < BODY_MAXIMUM
        ]

    def make(self, count: int) -> Iterator[bytes]:
        """Yield the vectors once, then a third random packets and two thirds damaged ones."""
        yield from (framed(data[0], body_of(data)) for data in self.seeds)
        for n in range(count):
            source = self.random_packet() if self.dice.random() < 0.5 else self.dice.choice(self.seeds)
            if n % 3 == 0:
                yield framed(source[0], body_of(source))
            else:
                yield self.damaged(source)

    def damaged(self, data: bytes) -> bytes:
        """Change some bytes of the body, sometimes the first byte, and frame the result."""
        dice = self.dice
        body = bytearray(body_of(data))
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            at = dice.randrange(len(body) + 1)
            kind = dice.randrange(6)
            if kind == 0:
                body[at : at + 1] = bytes([dice.choice(INTERESTING)])
            elif kind == 1:
                body[at:at] = bytes([dice.choice(INTERESTING)])
            elif kind == 2:
                del body[at : at + dice.choice([1, 1, 2, 5])]
            elif kind == 3:
                body[at:at] = body[max(0, at - dice.choice([1, 2, 5, 9])) : at]
            elif kind == 4 and at < len(body):
                body[at] ^= 1 << dice.randrange(8)
            else:
                del body[at:]
        first = data[0]
        if dice.random() < 0.1:
            first ^= 1 << dice.randrange(8)
        return framed(first, bytes(body[:BODY_MAXIMUM]))

    # --- packets of random content

    def text(self, most: int = 8) -> str:
        return "".join(self.dice.choice(ALPHABET[:8] + ALPHABET[9:]) for _ in range(self.dice.randrange(most + 1)))

    def topic(self) -> str:
        return (self.text() + "t").replace("+", "p").replace("#", "h")

    def binary(self) -> bytes:
        return self.dice.randbytes(self.dice.randrange(10))

    def block(self, *identifiers: PropertyId) -> dict[int, Any]:
        if self.version < 5:
            return {}
        return {identifier: self.value(identifier) for identifier in identifiers if self.dice.random() < 0.4}

    def value(self, identifier: PropertyId) -> Any:
        dice = self.dice
        if identifier == PropertyId.USER_PROPERTY:
            return [(self.text(), self.text()) for _ in range(dice.randrange(1, 4))]
        if identifier in (PropertyId.CORRELATION_DATA, PropertyId.AUTHENTICATION_DATA):
            return self.binary()
        if identifier == PropertyId.RESPONSE_TOPIC:
            return self.topic()
        if identifier in TEXTS:
            return self.text()
        if identifier in BOOLEANS:
            return dice.randrange(2)
        if identifier == PropertyId.SUBSCRIPTION_IDENTIFIER:
            return dice.choice([1, 127, 128, 268_435_455])
        if identifier in TWO_BYTES:
            return dice.choice([1, 256, 65535])
        return dice.choice([1, 65536, 0xFFFFFFFF])

    def random_packet(self) -> bytes:
        """Return a valid packet of any type."""
        dice, version = self.dice, self.version
        packet_id = dice.choice([1, 255, 256, 65535])
        reason = self.block(PropertyId.REASON_STRING, PropertyId.USER_PROPERTY)
        qos = dice.randrange(3)
        message = (
            PropertyId.PAYLOAD_FORMAT_INDICATOR, PropertyId.MESSAGE_EXPIRY_INTERVAL, PropertyId.CONTENT_TYPE,
            PropertyId.RESPONSE_TOPIC, PropertyId.CORRELATION_DATA, PropertyId.USER_PROPERTY,
        )  # fmt: skip
        packets: list[Any] = [
            lambda: Connect(
                self.text(),
                protocol_version=version,
                clean_start=dice.random() < 0.5,
                keep_alive_s=dice.randrange(65536),
                user_name=self.text(),
                password=self.binary() if dice.random() < 0.5 else None,
                will=Will(
                    self.topic(), self.binary(), qos=qos, retain=dice.random() < 0.5,
                    properties=self.block(*message, PropertyId.WILL_DELAY_INTERVAL),
                ) if dice.random() < 0.5 else None,
                properties=self.block(*CONNECT),
            ),
            lambda: ConnAck(dice.random() < 0.5, 0, self.block(*CONNACK)),
            lambda: Publish(
                self.topic(), self.binary(), qos=qos, retain=dice.random() < 0.5, dup=bool(qos and dice.random() < 0.5),
                packet_id=packet_id if qos else 0, properties=self.block(*message, PropertyId.TOPIC_ALIAS),
            ),
            lambda: dice.choice([PubAck, PubRec, PubRel, PubComp])(packet_id, 0, reason),
            lambda: Subscribe(
                packet_id,
                [
                    Subscription(
                        "f" + self.text(), dice.randrange(3), no_local=version == 5 and dice.random() < 0.5,
                        retain_handling=dice.randrange(3) if version == 5 else 0,
                    ) for _ in range(dice.randrange(1, 4))
                ],
                self.block(PropertyId.SUBSCRIPTION_IDENTIFIER, PropertyId.USER_PROPERTY),
            ),
            lambda: SubAck(packet_id, [dice.randrange(3) for _ in range(dice.randrange(1, 5))], reason),
            lambda: Unsubscribe(
                packet_id, [self.text() for _ in range(dice.randrange(1, 4))], self.block(PropertyId.USER_PROPERTY)
            ),
            lambda: UnsubAck(packet_id, [0, 0x11] if version == 5 else None, reason),
            lambda: Disconnect(
                dice.choice([0, 4, 0x81]) if version == 5 else 0,
                self.block(PropertyId.SESSION_EXPIRY_INTERVAL, PropertyId.REASON_STRING, PropertyId.USER_PROPERTY),
            ),
        ]  # fmt: skip
        packet = dice.choice(packets)()
        encoded: bytes = packet.encode(version)
        return encoded


TEXTS = {
    PropertyId.CONTENT_TYPE, PropertyId.ASSIGNED_CLIENT_IDENTIFIER, PropertyId.AUTHENTICATION_METHOD,
    PropertyId.RESPONSE_INFORMATION, PropertyId.SERVER_REFERENCE, PropertyId.REASON_STRING,
}  # fmt: skip
BOOLEANS = {
    PropertyId.PAYLOAD_FORMAT_INDICATOR, PropertyId.REQUEST_PROBLEM_INFORMATION,
    PropertyId.REQUEST_RESPONSE_INFORMATION, PropertyId.MAXIMUM_QOS, PropertyId.RETAIN_AVAILABLE,
    PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE, PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    PropertyId.SHARED_SUBSCRIPTION_AVAILABLE,
}  # fmt: skip
TWO_BYTES = {
    PropertyId.SERVER_KEEP_ALIVE, PropertyId.RECEIVE_MAXIMUM, PropertyId.TOPIC_ALIAS_MAXIMUM, PropertyId.TOPIC_ALIAS,
}  # fmt: skip
CONNECT = (
    PropertyId.SESSION_EXPIRY_INTERVAL, PropertyId.RECEIVE_MAXIMUM, PropertyId.MAXIMUM_PACKET_SIZE,
    PropertyId.TOPIC_ALIAS_MAXIMUM, PropertyId.REQUEST_RESPONSE_INFORMATION, PropertyId.REQUEST_PROBLEM_INFORMATION,
    PropertyId.USER_PROPERTY, PropertyId.AUTHENTICATION_METHOD,
)  # fmt: skip
CONNACK = (
    *CONNECT[:4], PropertyId.MAXIMUM_QOS, PropertyId.RETAIN_AVAILABLE, PropertyId.ASSIGNED_CLIENT_IDENTIFIER,
    PropertyId.REASON_STRING, PropertyId.USER_PROPERTY, PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE,
    PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE, PropertyId.SHARED_SUBSCRIPTION_AVAILABLE,
    PropertyId.SERVER_KEEP_ALIVE, PropertyId.RESPONSE_INFORMATION, PropertyId.SERVER_REFERENCE,
    PropertyId.AUTHENTICATION_METHOD, PropertyId.AUTHENTICATION_DATA,
)  # fmt: skip
