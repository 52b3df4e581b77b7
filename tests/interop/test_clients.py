"""Every behaviour once, for every client that has it.

Messages that must not come are ruled out by one that must, sent after them.
"""

from __future__ import annotations

import time

import pytest

from broker_process import broker_kind
from interop import clients as can
from interop.driver import Message
from interop.wire import Wire, for_clients

ALL_BYTES = bytes(range(256))
CODES = {
    "no matching subscribers": 0x10,
    "session taken over": 0x8E,
    "disconnect with will": 0x04,
}


@for_clients(versions=(3, 4, 5))
def test_message_goes_round_in_every_version(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic = f"{wire.root}/töpic/☂"
    assert subscriber.subscribe(topic) == [0]
    publisher.publish(topic, b"hello")
    assert subscriber.receive() == Message(topic, b"hello", 0, False)


@for_clients()
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_come_once_in_order_and_unchanged(wire: Wire, qos: int) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic = f"{wire.root}/t"
    assert subscriber.subscribe(topic, qos=qos) == [qos]
    payloads = [ALL_BYTES, b"", b"1", b"2", b"last"]
    for payload in payloads:
        publisher.publish(topic, payload, qos)
    assert [subscriber.receive() for _ in payloads] == [Message(topic, payload, qos, False) for payload in payloads]


@for_clients()
def test_delivery_has_the_lower_qos(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic = f"{wire.root}/t"
    subscriber.subscribe(topic, qos=1)
    for qos in (2, 1, 0):
        publisher.publish(topic, b"x", qos)
    assert [subscriber.receive().qos for _ in range(3)] == [1, 1, 0]


@for_clients()
def test_large_payload_arrives(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic = f"{wire.root}/large"
    subscriber.subscribe(topic, qos=1)
    payload = ALL_BYTES * 800
    publisher.publish(topic, payload, 1)
    assert subscriber.receive().payload == payload


@for_clients()
@pytest.mark.parametrize(
    ("topic_filter", "topics"),
    [
        ("+/b", {"a/b"}),
        ("a/+", {"a/b", "a/"}),
        ("a/#", {"a", "a/b", "a/", "a/b/c"}),
        ("#", {"a", "a/b", "a/", "a/b/c", "b"}),
        ("+/+/c", {"a/b/c"}),
    ],
)
def test_wildcards(wire: Wire, topic_filter: str, topics: set[str]) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    end = f"{wire.root}-end"
    assert subscriber.subscribe(f"{wire.root}/{topic_filter}", end, qos=1) == [1, 1]
    for topic in ("a", "a/b", "a/", "a/b/c", "b"):
        publisher.publish(f"{wire.root}/{topic}", topic.encode(), 1)
    publisher.publish(end, b"end", 1)
    received = set()
    while (message := subscriber.receive()).topic != end:
        assert message.topic == f"{wire.root}/{message.payload.decode()}"
        received.add(message.payload.decode())
    assert received == topics


@for_clients(can.UNSUBSCRIBE)
def test_unsubscribed_filter_brings_nothing(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic, end = f"{wire.root}/t", f"{wire.root}/end"
    subscriber.subscribe(topic, end, qos=1)
    publisher.publish(topic, b"before", 1)
    assert subscriber.receive().payload == b"before"
    subscriber.unsubscribe(topic)
    publisher.publish(topic, b"after", 1)
    publisher.publish(end, b"end", 1)
    assert subscriber.receive().topic == end


@for_clients()
def test_retained_message_reaches_later_subscribers_until_it_is_cleared(wire: Wire) -> None:
    publisher, present = wire.connect(), wire.connect()
    topic, end = f"{wire.root}/r", f"{wire.root}/end"
    present.subscribe(topic, qos=1)
    publisher.publish(topic, b"old", 1, retain=True)
    publisher.publish(topic, b"new", 1, retain=True)
    for payload in (b"old", b"new"):
        assert present.receive() == Message(topic, payload, 1, False)  # [MQTT-3.3.1-12]

    later = wire.connect()
    later.subscribe(f"{wire.root}/+", qos=1)
    assert later.receive() == Message(topic, b"new", 1, True)

    publisher.publish(topic, b"", 1, retain=True)
    assert later.receive().payload == b""
    last = wire.connect()
    last.subscribe(topic, end, qos=1)
    publisher.publish(end, b"end", 1)
    assert last.receive().topic == end


@for_clients()
@pytest.mark.parametrize("retain", [False, True])
def test_will_is_published_when_the_connection_is_cut(wire: Wire, retain: bool) -> None:
    topic = f"{wire.root}/will"
    watcher, dying = wire.connect(), wire.connect(will={"topic": topic, "payload": b"gone", "qos": 1, "retain": retain})
    watcher.subscribe(topic, qos=2)
    dying.kill()
    assert watcher.receive() == Message(topic, b"gone", 1, False)
    if retain:
        later = wire.connect()
        later.subscribe(topic, qos=1)
        assert later.receive() == Message(topic, b"gone", 1, True)
        later.publish(topic, b"", 1, retain=True)


@for_clients(can.WILL_DISCARD)
def test_disconnect_discards_the_will(wire: Wire) -> None:
    topic, end = f"{wire.root}/will", f"{wire.root}/end"
    watcher, leaving = wire.connect(), wire.connect(will={"topic": topic, "payload": b"gone"})
    watcher.subscribe(topic, end, qos=1)
    leaving.disconnect()
    wire.connect().publish(end, b"end", 1)
    assert watcher.receive().topic == end


@for_clients(can.DISCONNECT_REASON, versions=(5,))
def test_disconnect_with_will_publishes_it(wire: Wire) -> None:
    topic = f"{wire.root}/will"
    watcher, leaving = wire.connect(), wire.connect(will={"topic": topic, "payload": b"gone"})
    watcher.subscribe(topic)
    leaving.disconnect(CODES["disconnect with will"])
    assert watcher.receive().payload == b"gone"


@for_clients(can.WILL_PROPERTIES, versions=(5,))
def test_will_has_its_properties_and_waits_for_its_delay(wire: Wire) -> None:
    topic = f"{wire.root}/will"
    described = {"content_type": "text/plain", "user_properties": [["k", "v"]], "response_topic": "r"}
    watcher = wire.connect()
    watcher.subscribe(topic, qos=1)
    will = {"topic": topic, "payload": b"gone", "properties": {"will_delay_s": 1, **described}}
    dying = wire.connect(wire.client_id(), clean_start=True, will=will, session_expiry_s=60)
    started = time.monotonic()
    dying.kill()
    message = watcher.receive()
    assert time.monotonic() - started > 0.9
    assert message.payload == b"gone"
    assert {name: message.properties[name] for name in described} == described


@for_clients()
@pytest.mark.parametrize("end", ["disconnect", "kill"])
def test_session_resumes_with_what_was_queued(wire: Wire, end: str) -> None:
    client_id, topic = wire.client_id(), f"{wire.root}/q"
    wire.connect(client_id, clean_start=True).disconnect()
    first, publisher = wire.connect_lasting(client_id), wire.connect()
    first.subscribe(topic, qos=2)
    getattr(first, end)()
    for number in range(20):
        publisher.publish(topic, b"%d" % number, 1 + number % 2)
    second = wire.connect_lasting(client_id)
    received = [second.receive() for _ in range(20)]
    for qos in (1, 2):  # a client gives a QoS 2 message to the application only at PUBREL, behind later QoS 1 ones
        payloads = [message.payload for message in received if message.qos == qos]
        assert payloads == [b"%d" % number for number in range(qos - 1, 20, 2)]
    publisher.publish(topic, b"live", 1)
    assert second.receive().payload == b"live"
    if can.SESSION_PRESENT in wire.driver.client.can:
        assert [first.connack["session_present"], second.connack["session_present"]] == [False, True]
    second.disconnect()

    third = wire.connect(client_id, clean_start=True)
    third.subscribe(f"{topic}/end", qos=1)
    for to in (topic, f"{topic}/end"):
        publisher.publish(to, b"after", 1)
    assert third.receive().topic == f"{topic}/end"


@for_clients(can.SESSION_PRESENT, versions=(5,))
def test_session_without_expiry_ends_with_its_connection(wire: Wire) -> None:
    client_id = wire.client_id()
    first = wire.connect(client_id, session_expiry_s=0)
    first.subscribe(f"{wire.root}/t", qos=1)
    first.disconnect()
    assert wire.connect(client_id, clean_start=False, session_expiry_s=0).connack["session_present"] is False


@for_clients()
def test_shared_subscription_gives_each_message_to_one_member(wire: Wire) -> None:
    members, outside, publisher = [wire.connect() for _ in range(2)], wire.connect(), wire.connect()
    topic, end = f"{wire.root}/t", f"{wire.root}/end"
    for member in members:
        assert member.subscribe(f"$share/group/{topic}", end, qos=1) == [1, 1]
    outside.subscribe(topic, qos=1)
    expected = [b"%d" % number for number in range(20)]
    for payload in expected:
        publisher.publish(topic, payload, 1)
    publisher.publish(end, b"end", 1)
    shares: list[list[bytes]] = [[], []]
    for member, share in zip(members, shares, strict=True):
        while (message := member.receive()).topic != end:
            share.append(message.payload)
        assert share == sorted(share, key=int)
    assert all(shares)
    assert sorted(shares[0] + shares[1], key=int) == expected
    assert [outside.receive().payload for _ in expected] == expected


@for_clients(can.CLOSED)
def test_second_connect_takes_the_session_over(wire: Wire) -> None:
    client_id, topic = wire.client_id(), f"{wire.root}/t"
    first = wire.connect_lasting(client_id)
    first.subscribe(topic, qos=1)
    second = wire.connect_lasting(client_id)
    reason_code = first.closed()
    # mosquitto 2.0.11 just closes
    if wire.version == 5 and can.SERVER_REASON in wire.driver.client.can and wire.broker.kind != "mosquitto":
        assert reason_code == CODES["session taken over"]
    wire.connect().publish(topic, b"yours", 1)
    assert second.receive().payload == b"yours"


@for_clients(versions=(5,))
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_properties_of_a_message_arrive(wire: Wire, qos: int) -> None:
    subscriber, publisher = wire.connect(), wire.connect(user_properties=[["who", "publisher"]])
    topic = f"{wire.root}/t"
    subscriber.subscribe(topic, qos=qos)
    described = {
        "user_properties": [["a", "1"], ["a", "2"], ["b", "ü"]],
        "content_type": "text/plain",
        "response_topic": f"{wire.root}/reply",
        "payload_format": 1,
    }
    publisher.publish(topic, b"text", qos, correlation_data=b"c0ffee", message_expiry_s=10_000, **described)
    message = subscriber.receive()
    assert (message.payload, message.qos) == (b"text", qos)
    properties = message.properties
    assert {name: properties.get(name) for name in described} == described
    assert bytes.fromhex(properties["correlation_data"]) == b"c0ffee"
    assert 9_900 <= properties["message_expiry_s"] <= 10_000


@for_clients(versions=(5,))
def test_request_is_answered(wire: Wire) -> None:
    asking, answering = wire.connect(), wire.connect()
    asking.subscribe(f"{wire.root}/reply", qos=1)
    answering.subscribe(f"{wire.root}/request", qos=1)
    asking.publish(f"{wire.root}/request", b"2+2", 1, response_topic=f"{wire.root}/reply", correlation_data=b"id7")
    request = answering.receive()
    answering.publish(
        request.properties["response_topic"],
        b"4",
        1,
        correlation_data=bytes.fromhex(request.properties["correlation_data"]),
    )
    answer = asking.receive()
    assert answer.payload == b"4"
    assert bytes.fromhex(answer.properties["correlation_data"]) == b"id7"


@for_clients(can.SUBSCRIPTION_ID, versions=(5,))
def test_message_carries_the_subscription_identifier(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    subscriber.subscribe(f"{wire.root}/a", qos=1, subscription_id=7)
    subscriber.subscribe(f"{wire.root}/b", qos=1, subscription_id=268435455)
    publisher.publish(f"{wire.root}/a", b"", 1)
    publisher.publish(f"{wire.root}/b", b"", 1)
    assert [subscriber.receive().properties["subscription_ids"] for _ in range(2)] == [[7], [268435455]]


@for_clients(can.SUBSCRIBE_OPTIONS, versions=(5,))
def test_no_local_keeps_own_messages_away(wire: Wire) -> None:
    one, other = wire.connect(), wire.connect()
    topic = f"{wire.root}/t"
    one.subscribe(topic, qos=1, no_local=True)
    one.publish(topic, b"own", 1)
    other.publish(topic, b"other", 1)
    assert one.receive().payload == b"other"


@for_clients(can.SUBSCRIBE_OPTIONS, versions=(5,))
def test_retain_as_published_keeps_the_flag(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic = f"{wire.root}/t"
    subscriber.subscribe(topic, qos=1, retain_as_published=True)
    publisher.publish(topic, b"r", 1, retain=True)
    publisher.publish(topic, b"n", 1)
    assert [subscriber.receive().retain for _ in range(2)] == [True, False]


@for_clients(can.SUBSCRIBE_OPTIONS, versions=(5,))
def test_retain_handling_chooses_when_retained_messages_come(wire: Wire) -> None:
    publisher, subscriber = wire.connect(), wire.connect()
    topic, end = f"{wire.root}/t", f"{wire.root}/end"
    publisher.publish(topic, b"kept", 1, retain=True)
    subscriber.subscribe(end, qos=1)
    subscriber.subscribe(topic, qos=1, retain_handling=2)  # never
    publisher.publish(end, b"1", 1)
    assert subscriber.receive().payload == b"1"
    subscriber.subscribe(topic, qos=1, retain_handling=1)  # only for a new subscription, and it is none
    publisher.publish(end, b"2", 1)
    assert subscriber.receive().payload == b"2"
    subscriber.subscribe(topic, qos=1, retain_handling=0)  # at every SUBSCRIBE
    assert subscriber.receive() == Message(topic, b"kept", 1, True)


@for_clients(can.ASSIGNED_CLIENT_ID, versions=(5,))
def test_broker_assigns_a_client_id(wire: Wire) -> None:
    assigned = [wire.connect(client_id="").connack["properties"]["assigned_client_id"] for _ in range(2)]
    assert all(assigned)
    assert assigned[0] != assigned[1]


@for_clients(can.TOPIC_ALIAS, versions=(5,))
def test_topic_alias_stands_for_the_topic(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topics = [f"{wire.root}/a", f"{wire.root}/b"]
    subscriber.subscribe(f"{wire.root}/+", qos=1)
    publisher.publish(topics[0], b"1", 1, topic_alias=1)
    publisher.publish("", b"2", 1, topic_alias=1)
    publisher.publish(topics[1], b"3", 1, topic_alias=1)
    publisher.publish("", b"4", 1, topic_alias=1)
    received = [subscriber.receive() for _ in range(4)]
    assert [message.topic for message in received] == [topics[0]] * 2 + [topics[1]] * 2
    assert [message.payload for message in received] == [b"1", b"2", b"3", b"4"]


@for_clients(can.TAKES_ALIASES, versions=(5,))
def test_subscriber_that_takes_topic_aliases_gets_whole_topics(wire: Wire) -> None:
    subscriber, publisher = wire.connect(topic_alias_maximum=10), wire.connect()
    subscriber.subscribe(f"{wire.root}/+", qos=1)
    topics = [f"{wire.root}/{number % 3}" for number in range(9)]
    for topic in topics:
        publisher.publish(topic, b"x", 1)
    assert [subscriber.receive().topic for _ in topics] == topics


@pytest.mark.xfail(
    broker_kind() == "mosquitto",
    reason="mosquitto 2.0.11 sends more than Receive Maximum, which stops MQTT.js",
    strict=False,
)
@for_clients(versions=(5,))
def test_small_receive_maximum_loses_nothing(wire: Wire) -> None:
    client_id, topic = wire.client_id(), f"{wire.root}/t"
    subscriber = wire.connect(client_id, session_expiry_s=60, receive_maximum=2)
    subscriber.subscribe(topic, qos=2)
    subscriber.kill()
    publisher = wire.connect()
    payloads = [b"%d" % number for number in range(12)]
    for payload in payloads:
        publisher.publish(topic, payload, 2)
    again = wire.connect(client_id, clean_start=False, session_expiry_s=60, receive_maximum=2)
    assert [again.receive().payload for _ in payloads] == payloads


@for_clients(can.PUBLISH_REASON, versions=(5,))
def test_publisher_learns_that_nobody_listens(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic = f"{wire.root}/t"
    assert publisher.publish(topic, b"x", 1)["reason_code"] == CODES["no matching subscribers"]
    subscriber.subscribe(topic)
    assert publisher.publish(topic, b"x", 1)["reason_code"] == 0
