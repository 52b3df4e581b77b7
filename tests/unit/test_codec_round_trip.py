"""Packets of any content come back as they went out, however the stream is cut."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mqttcore.codec import (
    Auth,
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    PingReq,
    PingResp,
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
    decode,
    decode_properties,
    encode,
    encode_properties,
)
from mqttcore.constants import PropertyId as Id

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
topics = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=30)
binary = st.binary(max_size=40)
packet_ids = st.integers(1, 0xFFFF)
two_bytes = st.integers(0, 0xFFFF)
four_bytes = st.integers(0, 0xFFFFFFFF)
booleans = st.integers(0, 1)
subscription_ids = st.integers(1, 268_435_455)
qos = st.integers(0, 2)

USER_PROPERTY = {Id.USER_PROPERTY: st.lists(st.tuples(text, text), min_size=1, max_size=3)}
REASON = {**USER_PROPERTY, Id.REASON_STRING: text}
AUTHENTICATION = {Id.AUTHENTICATION_METHOD: text, Id.AUTHENTICATION_DATA: binary}
LIMITS = {
    Id.SESSION_EXPIRY_INTERVAL: four_bytes,
    Id.RECEIVE_MAXIMUM: st.integers(1, 0xFFFF),
    Id.TOPIC_ALIAS_MAXIMUM: two_bytes,
    Id.MAXIMUM_PACKET_SIZE: st.integers(1, 0xFFFFFFFF),
}
MESSAGE = {
    **USER_PROPERTY,
    Id.PAYLOAD_FORMAT_INDICATOR: booleans,
    Id.MESSAGE_EXPIRY_INTERVAL: four_bytes,
    Id.CONTENT_TYPE: text,
    Id.RESPONSE_TOPIC: topics,
    Id.CORRELATION_DATA: binary,
}
CONNECT = {
    **USER_PROPERTY,
    **LIMITS,
    Id.REQUEST_PROBLEM_INFORMATION: booleans,
    Id.REQUEST_RESPONSE_INFORMATION: booleans,
}
CONNACK = {
    **REASON,
    **LIMITS,
    **AUTHENTICATION,
    Id.ASSIGNED_CLIENT_IDENTIFIER: text,
    Id.SERVER_KEEP_ALIVE: two_bytes,
    Id.RESPONSE_INFORMATION: text,
    Id.SERVER_REFERENCE: text,
    Id.MAXIMUM_QOS: booleans,
    Id.RETAIN_AVAILABLE: booleans,
    Id.WILDCARD_SUBSCRIPTION_AVAILABLE: booleans,
    Id.SUBSCRIPTION_IDENTIFIER_AVAILABLE: booleans,
    Id.SHARED_SUBSCRIPTION_AVAILABLE: booleans,
}
PUBLISH = {
    **MESSAGE,
    Id.TOPIC_ALIAS: st.integers(1, 0xFFFF),
    Id.SUBSCRIPTION_IDENTIFIER: st.lists(subscription_ids, min_size=1, max_size=3),
}
SUBSCRIBE = {**USER_PROPERTY, Id.SUBSCRIPTION_IDENTIFIER: subscription_ids}
WILL = {**MESSAGE, Id.WILL_DELAY_INTERVAL: four_bytes}
DISCONNECT = {**REASON, Id.SESSION_EXPIRY_INTERVAL: four_bytes, Id.SERVER_REFERENCE: text}
PUBLISH_REASONS = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]


def block(properties: dict[Id, Any], version: int) -> st.SearchStrategy[dict[int, Any]]:
    return st.fixed_dictionaries({}, optional=properties) if version == 5 else st.just({})


def publishes(version: int) -> st.SearchStrategy[Publish]:
    common: dict[str, Any] = {"retain": st.booleans(), "properties": block(PUBLISH, version)}
    return st.one_of(
        st.builds(Publish, topics, binary, **common),
        st.builds(Publish, topics, binary, qos=st.integers(1, 2), dup=st.booleans(), packet_id=packet_ids, **common),
    )


def connects(version: int) -> st.SearchStrategy[Connect]:
    wills = st.builds(Will, topics, binary, qos=qos, retain=st.booleans(), properties=block(WILL, version))
    return st.builds(
        Connect,
        text,
        protocol_version=st.just(version),
        clean_start=st.booleans(),
        keep_alive_s=two_bytes,
        user_name=text,
        password=st.none() | binary,
        will=st.none() | wills,
        properties=block(CONNECT, version),
    )


def subscriptions(version: int) -> st.SearchStrategy[Subscription]:
    if version < 5:
        return st.builds(Subscription, text, qos)
    # no local never stands on a shared subscription
    local = text.filter(lambda topic_filter: not topic_filter.startswith("$share/"))
    return st.builds(
        Subscription,
        local,
        qos,
        no_local=st.booleans(),
        retain_as_published=st.booleans(),
        retain_handling=st.integers(0, 2),
    )


def acknowledgements(version: int) -> st.SearchStrategy[Any]:
    reasons = st.sampled_from(PUBLISH_REASONS) if version == 5 else st.just(0)
    release_reasons = st.sampled_from([0x00, 0x92]) if version == 5 else st.just(0)
    suback_reasons = [0, 1, 2, 0x80, 0x87] if version == 5 else [0, 1, 2, 0x80]
    properties = block(REASON, version)
    return st.one_of(
        st.builds(PubAck, packet_ids, reasons, properties),
        st.builds(PubRec, packet_ids, reasons, properties),
        st.builds(PubRel, packet_ids, release_reasons, properties),
        st.builds(PubComp, packet_ids, release_reasons, properties),
        st.builds(SubAck, packet_ids, st.lists(st.sampled_from(suback_reasons), min_size=1, max_size=5), properties),
        st.builds(
            UnsubAck,
            packet_ids,
            st.lists(st.sampled_from([0, 0x11, 0x80]), min_size=1, max_size=5) if version == 5 else st.just([]),
            properties,
        ),
    )


def packets(version: int) -> st.SearchStrategy[Any]:
    kinds = [
        publishes(version),
        connects(version),
        acknowledgements(version),
        st.builds(ConnAck, st.booleans() if version > 3 else st.just(False), st.just(0), block(CONNACK, version)),
        st.builds(
            Subscribe, packet_ids, st.lists(subscriptions(version), min_size=1, max_size=4), block(SUBSCRIBE, version)
        ),
        st.builds(Unsubscribe, packet_ids, st.lists(text, min_size=1, max_size=4), block(USER_PROPERTY, version)),
        st.just(PingReq()),
        st.just(PingResp()),
        st.builds(
            Disconnect, st.sampled_from([0x00, 0x04, 0x8E]) if version == 5 else st.just(0), block(DISCONNECT, version)
        ),
    ]
    if version == 5:
        method = st.fixed_dictionaries({Id.AUTHENTICATION_METHOD: text}, optional={Id.AUTHENTICATION_DATA: binary})
        kinds.append(st.builds(Auth, st.sampled_from([0x00, 0x18, 0x19]), method))
    return st.one_of(kinds)


versions_with_packets = st.sampled_from([3, 4, 5]).flatmap(
    lambda version: st.tuples(st.just(version), st.lists(packets(version), min_size=1, max_size=8))
)


@given(versions_with_packets)
def test_packets_come_back(case):
    version, sent = case
    for packet in sent:
        encoded = encode(packet, version)
        assert decode(encoded, version) == (packet, len(encoded))


@given(versions_with_packets, st.lists(st.integers(0, 400), max_size=20))
def test_streams_come_back_wherever_they_are_cut(case, cuts):
    version, sent = case
    stream = b"".join(encode(packet, version) for packet in sent)
    decoder = Decoder(version)
    received = []
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in pairwise(edges):
        received += decoder.feed(stream[start:end])
    assert received == sent
    assert decoder.rest_size_bytes == 0


@given(block(PUBLISH | CONNACK, 5))
def test_property_blocks_come_back(properties):
    assert decode_properties(encode_properties(properties)) == properties
