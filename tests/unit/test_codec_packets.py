"""Packets as Python objects: arguments, comparison, repr, what older versions leave out."""

import pytest

from mqttcore.codec import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
    connect_return_code,
    decode,
    decode_properties,
    encode,
    encode_properties,
)
from mqttcore.constants import ConnectReturnCode, PacketType, PropertyId, ReasonCode
from mqttcore.errors import MalformedPacket, ProtocolError

METHOD = {PropertyId.AUTHENTICATION_METHOD: "X"}


@pytest.mark.parametrize(
    ("packet", "version", "text"),
    [
        (Publish("a/#"), 4, "topic is empty or holds a wildcard"),
        (Publish(""), 5, "topic is empty or holds a wildcard"),
        (Publish("a\0"), 5, "topic holds U\\+0000"),
        (Publish("x" * 65536), 4, "topic is longer"),
        (Publish("a", qos=1), 4, "packet_id must be 1 to 65535"),
        (Publish("a", packet_id=1), 4, "packet_id must be 0 at QoS 0"),
        (Publish("a", dup=True), 4, "dup needs QoS"),
        (Publish("a", properties={PropertyId.RECEIVE_MAXIMUM: 1}), 5, "RECEIVE_MAXIMUM is not allowed here"),
        (Publish("a", properties={0x7E: 1}), 5, "unknown property 126"),
        (Publish("a", properties={PropertyId.TOPIC_ALIAS: 0}), 5, "TOPIC_ALIAS must not be 0"),
        (Publish("a", properties={PropertyId.TOPIC_ALIAS: 65536}), 5, "TOPIC_ALIAS must be 0 to 65535"),
        (Publish("a", properties={PropertyId.PAYLOAD_FORMAT_INDICATOR: 2}), 5, "must be 0 or 1"),
        (Publish("a", properties={PropertyId.RESPONSE_TOPIC: "a/+"}), 5, "RESPONSE_TOPIC is no topic name"),
        (PubAck(0), 4, "packet_id must be 1 to 65535"),
        (PubRec(1, 0x92), 5, "reason code 0x92 does not exist in PUBREC"),
        (Connect("a", protocol_version=4, password=b"x"), 4, "a password needs a user name"),
        (Connect("a", will=Will("")), 5, "will topic is empty"),
        (Connect("a", user_name="\0"), 5, "user_name holds"),
        (Connect("a", user_name="u", password=b"x" * 65536), 5, "password is longer"),
        (Connect("a", properties={PropertyId.AUTHENTICATION_DATA: b"x"}), 5, "needs AUTHENTICATION_METHOD"),
        (Connect("a", will=Will("w", properties={PropertyId.TOPIC_ALIAS: 1})), 5, "TOPIC_ALIAS is not allowed here"),
        (ConnAck(True, 0x87), 5, "session_present needs"),
        (ConnAck(False, 0x8E), 4, "does not exist in CONNACK"),
        (Subscribe(1, []), 4, "subscriptions must not be empty"),
        (Subscribe(0, [Subscription("a")]), 4, "packet_id"),
        (Unsubscribe(1, []), 4, "topic_filters must not be empty"),
        (SubAck(1, []), 4, "reason_codes must not be empty"),
        (SubAck(1, [3]), 5, "does not exist in SUBACK"),
        (SubAck(1, [256]), 5, "reason code must be 0 to 255"),
        (UnsubAck(1, []), 5, "reason_codes must not be empty"),
        (Disconnect(0x86), 5, "does not exist in DISCONNECT"),
        (Auth(0x18), 5, "AUTH needs AUTHENTICATION_METHOD"),
        (Auth(0x18, METHOD), 4, "AUTH needs MQTT 5"),
        (PingReq(), 6, "version must be 3, 4 or 5"),
    ],
)
def test_what_cannot_be_written_is_refused(packet, version: int, text: str):
    with pytest.raises(ValueError, match=text):
        encode(packet, version)


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (Subscribe(1, ["a"]), "list of Subscription"),
        (Unsubscribe(1, [b"a"]), "list of str"),
        (SubAck(1, ["0"]), "must be an int"),
        (Publish("a", properties={PropertyId.CONTENT_TYPE: b"x"}), "CONTENT_TYPE must be a str"),
        (Publish("a", properties={PropertyId.CORRELATION_DATA: "x"}), "CORRELATION_DATA must be bytes"),
        (Publish("a", properties={PropertyId.TOPIC_ALIAS: "1"}), "TOPIC_ALIAS must be an int"),
        (Publish("a", properties={PropertyId.TOPIC_ALIAS: [1, 2]}), "TOPIC_ALIAS may be given only once"),
        (Publish("a", properties={PropertyId.USER_PROPERTY: ("a", "b")}), "list of pairs"),
        (Publish("a", properties={PropertyId.USER_PROPERTY: [("a",)]}), "list of pairs"),
    ],
)
def test_wrong_types_are_named(packet, text: str):
    with pytest.raises(TypeError, match=text):
        encode(packet, 5)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Publish("a", qos=3), ValueError),
        (lambda: Publish("a", qos="1"), TypeError),
        (lambda: Publish(b"a"), TypeError),
        (lambda: Publish("a", "text"), TypeError),
        (lambda: Publish("a", packet_id=65536), ValueError),
        (lambda: Publish("a", packet_id=-1), ValueError),
        (lambda: Connect(None), TypeError),
        (lambda: Connect("a", protocol_version=6), ValueError),
        (lambda: Connect("a", keep_alive_s=65536), ValueError),
        (lambda: Connect("a", password="x"), TypeError),
        (lambda: Connect("a", will="w"), TypeError),
        (lambda: Will("a", qos=3), ValueError),
        (lambda: Subscription("a", 3), ValueError),
        (lambda: Subscription("a", retain_handling=3), ValueError),
        (lambda: ConnAck(False, 256), ValueError),
    ],
)
def test_fields_that_do_not_fit_are_refused_at_once(make, error: type[Exception]):
    with pytest.raises(error):
        make()


def test_packets_compare_by_type_and_fields():
    assert PubAck(1) == PubAck(1)
    assert PubAck(1) != PubAck(2)
    assert PubAck(1) != PubComp(1)
    assert PubAck(1) != 1
    assert Will("a") == Will("a")
    assert Will("a") != Will("a", retain=True)
    assert Subscription("a", 1) != Subscription("a", 2)
    assert Connect("a", will=Will("a", b"1")) != Connect("a", will=Will("a", b"2"))


def test_fields_are_read_only():
    with pytest.raises(AttributeError):
        Publish("a").topic = "b"  # type: ignore[misc]


def test_repr_hides_secrets():
    packet = Connect(
        "dev", user_name="u", password=b"hunter2", properties={**METHOD, PropertyId.AUTHENTICATION_DATA: b"hunter2"}
    )
    assert "hunter2" not in repr(packet)
    assert "client_id='dev'" in repr(packet)
    assert "hunter2" not in repr(Auth(0x18, {**METHOD, PropertyId.AUTHENTICATION_DATA: b"hunter2"}))
    assert repr(PubAck(7)) == "PubAck(packet_id=7, reason_code=0, properties={})"


def test_decoded_packets_do_not_share_their_properties():
    first, _ = decode(b"\xe0\x00", 5)
    second, _ = decode(b"\xe0\x00", 5)
    first.properties[PropertyId.REASON_STRING] = "x"
    assert second.properties == {}


def test_packet_type_is_known_to_class_and_object():
    assert Connect.packet_type is PacketType.CONNECT
    assert PubComp(1).packet_type is PacketType.PUBCOMP


def test_protocol_name_follows_the_version():
    assert Connect("a", protocol_version=3).protocol_name == "MQIsdp"
    assert Connect("a", protocol_version=4).protocol_name == "MQTT"


def test_subscription_options():
    subscription = Subscription("a", 2, no_local=True, retain_as_published=True, retain_handling=1)
    assert subscription.options == 0x1E
    assert (subscription.qos, subscription.no_local, subscription.retain_as_published) == (2, True, True)
    assert subscription.retain_handling == 1


@pytest.mark.parametrize("version", [3, 4])
def test_older_versions_leave_out_what_they_lack(version: int):
    reason = {PropertyId.REASON_STRING: "why"}
    assert encode(PubRec(1, 0x97, reason), version) == b"\x50\x02\x00\x01"
    assert encode(Disconnect(0x8E, reason), version) == b"\xe0\x00"
    assert encode(SubAck(1, [2, 0x87, 0xA1], reason), version) == b"\x90\x05\x00\x01\x02\x80\x80"
    assert encode(UnsubAck(1, [0x11], reason), version) == b"\xb0\x02\x00\x01"
    options = Subscription("a", 1, no_local=True, retain_handling=2)
    assert encode(Subscribe(1, [options]), version) == b"\x82\x06\x00\x01\x00\x01a\x01"
    assert encode(ConnAck(False, 0x9F, reason), version) == b"\x20\x02\x00\x03"


def test_session_present_does_not_exist_in_3_1():
    assert encode(ConnAck(True), 3) == b"\x20\x02\x00\x00"
    assert encode(ConnAck(True), 4) == b"\x20\x02\x01\x00"


def test_every_reason_code_has_a_return_code():
    codes = {reason_code: connect_return_code(reason_code) for reason_code in ReasonCode}
    assert codes[ReasonCode.SUCCESS] is ConnectReturnCode.ACCEPTED
    assert codes[ReasonCode.UNSUPPORTED_PROTOCOL_VERSION] is ConnectReturnCode.UNACCEPTABLE_PROTOCOL_VERSION
    assert codes[ReasonCode.CLIENT_IDENTIFIER_NOT_VALID] is ConnectReturnCode.IDENTIFIER_REJECTED
    assert codes[ReasonCode.SERVER_BUSY] is ConnectReturnCode.SERVER_UNAVAILABLE
    assert codes[ReasonCode.BAD_USER_NAME_OR_PASSWORD] is ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD
    assert codes[ReasonCode.NOT_AUTHORIZED] is ConnectReturnCode.NOT_AUTHORIZED
    assert all(code is not ConnectReturnCode.ACCEPTED for reason, code in codes.items() if reason >= 0x80)
    with pytest.raises(ValueError, match="0 to 255"):
        connect_return_code(256)


def test_property_blocks_without_a_packet():
    properties = {
        PropertyId.USER_PROPERTY: [("a", "b"), ("c", "d")],
        PropertyId.TOPIC_ALIAS: 5,
        PropertyId.SUBSCRIPTION_IDENTIFIER: [1, 200],
    }
    block = encode_properties(properties)
    assert block == b"\x26\x00\x01a\x00\x01b\x26\x00\x01c\x00\x01d\x23\x00\x05\x0b\x01\x0b\xc8\x01"
    assert decode_properties(block) == properties
    assert decode_properties(b"") == {}
    assert encode_properties({}) == b""


def test_faults_in_property_blocks():
    with pytest.raises(ProtocolError, match="only once"):
        decode_properties(b"\x23\x00\x05\x23\x00\x05")
    with pytest.raises(MalformedPacket):
        decode_properties(b"\x23\x00")


def test_largest_body_is_written_with_four_bytes_of_length():
    payload = bytes(2_097_152)
    encoded = encode(Publish("t", payload), 4)
    assert encoded[:5] == b"\x30\x83\x80\x80\x01"
    assert decode(encoded, 4) == (Publish("t", payload), len(encoded))
