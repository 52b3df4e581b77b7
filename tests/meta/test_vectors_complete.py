"""The vectors leave no packet type, version, property or fault out."""

import re
from pathlib import Path

import pytest

from mqttcore.constants import PacketType, PropertyId
from vectors import FAULTY, VALID, Vector

STATUS_SOURCE = Path(__file__).parents[2] / "src" / "mqttcore" / "codec" / "status.pyx"
ONLY_CLIENTS = {PacketType.CONNECT, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE, PacketType.PINGREQ}
ONLY_SERVERS = {PacketType.CONNACK, PacketType.SUBACK, PacketType.UNSUBACK, PacketType.PINGRESP}
# property -> places, from table 2-4 of MQTT 5; WILL are the will properties of CONNECT
ACKNOWLEDGEMENTS = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK")
PLACES = {
    PropertyId.PAYLOAD_FORMAT_INDICATOR: ("PUBLISH", "WILL"),
    PropertyId.MESSAGE_EXPIRY_INTERVAL: ("PUBLISH", "WILL"),
    PropertyId.CONTENT_TYPE: ("PUBLISH", "WILL"),
    PropertyId.RESPONSE_TOPIC: ("PUBLISH", "WILL"),
    PropertyId.CORRELATION_DATA: ("PUBLISH", "WILL"),
    PropertyId.SUBSCRIPTION_IDENTIFIER: ("PUBLISH", "SUBSCRIBE"),
    PropertyId.SESSION_EXPIRY_INTERVAL: ("CONNECT", "CONNACK", "DISCONNECT"),
    PropertyId.ASSIGNED_CLIENT_IDENTIFIER: ("CONNACK",),
    PropertyId.SERVER_KEEP_ALIVE: ("CONNACK",),
    PropertyId.AUTHENTICATION_METHOD: ("CONNECT", "CONNACK", "AUTH"),
    PropertyId.AUTHENTICATION_DATA: ("CONNECT", "CONNACK", "AUTH"),
    PropertyId.REQUEST_PROBLEM_INFORMATION: ("CONNECT",),
    PropertyId.WILL_DELAY_INTERVAL: ("WILL",),
    PropertyId.REQUEST_RESPONSE_INFORMATION: ("CONNECT",),
    PropertyId.RESPONSE_INFORMATION: ("CONNACK",),
    PropertyId.SERVER_REFERENCE: ("CONNACK", "DISCONNECT"),
    PropertyId.REASON_STRING: ("CONNACK", *ACKNOWLEDGEMENTS, "DISCONNECT", "AUTH"),
    PropertyId.RECEIVE_MAXIMUM: ("CONNECT", "CONNACK"),
    PropertyId.TOPIC_ALIAS_MAXIMUM: ("CONNECT", "CONNACK"),
    PropertyId.TOPIC_ALIAS: ("PUBLISH",),
    PropertyId.MAXIMUM_QOS: ("CONNACK",),
    PropertyId.RETAIN_AVAILABLE: ("CONNACK",),
    PropertyId.USER_PROPERTY: (
        *("CONNECT", "WILL", "CONNACK", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT", "AUTH"),
        *ACKNOWLEDGEMENTS,
    ),
    PropertyId.MAXIMUM_PACKET_SIZE: ("CONNECT", "CONNACK"),
    PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE: ("CONNACK",),
    PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE: ("CONNACK",),
    PropertyId.SHARED_SUBSCRIPTION_AVAILABLE: ("CONNACK",),
}
# faults of topic filters, which no packet decoder looks at: tests/unit/test_codec_names.py has them
FILTER_CLAUSES = {"MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.8.2-1", "MQTT-4.8.2-2"}


def places_of(vector: Vector) -> set[tuple[PropertyId, str]]:
    found = {(name, vector.packet_type.name) for name in getattr(vector.packet, "properties", {})}
    will = getattr(vector.packet, "will", None)
    if will is not None:
        found |= {(name, "WILL") for name in will.properties}
    return found


def versions_of(packet_type: PacketType) -> tuple[int, ...]:
    return (5,) if packet_type is PacketType.AUTH else (3, 4, 5)


def senders_of(packet_type: PacketType, version: int) -> set[str]:
    if packet_type in ONLY_CLIENTS:
        return {"client"}
    if packet_type in ONLY_SERVERS:
        return {"server"}
    # a server has no DISCONNECT below MQTT 5
    return {"client"} if packet_type is PacketType.DISCONNECT and version < 5 else {"client", "server"}


@pytest.mark.parametrize("packet_type", PacketType)
def test_every_packet_in_every_version_from_both_sides(packet_type: PacketType):
    found = {(vector.version, vector.sender) for vector in VALID if vector.packet_type is packet_type}
    expected = {
        (version, sender) for version in versions_of(packet_type) for sender in senders_of(packet_type, version)
    }
    assert found == expected


@pytest.mark.parametrize("packet_type", PacketType)
def test_every_packet_is_seen_broken_in_every_version(packet_type: PacketType):
    found = {vector.version for vector in FAULTY if vector.data[0] >> 4 == packet_type}
    assert found == {3, 4, 5}


@pytest.mark.parametrize("name", PropertyId)
def test_every_property_in_every_place(name: PropertyId):
    found = {place for vector in VALID for key, place in places_of(vector) if key is name}
    assert found == set(PLACES[name])


def test_every_clause_of_the_fault_table_has_a_vector():
    table = STATUS_SOURCE.read_text(encoding="utf-8")
    clauses = set(re.findall(r'RC_\w+,\s+"((?:v3 )?(?:MQTT-|§)[\d.-]+)"', table))
    assert clauses - {vector.clause for vector in FAULTY} == FILTER_CLAUSES


def test_names_of_vectors_are_unique():
    names = [vector.name for vector in VALID + FAULTY]
    assert len(names) == len(set(names))
