"""What an engine with a store says to it, what waits for it, and what comes back after a crash at a given moment."""

from __future__ import annotations

import pytest
from durable_world import WALL_MS, World, publish

from mqttcore.codec import (
    ConnAck,
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
)
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.engine.watch import Watch
from mqttcore.errors import StoreError
from mqttcore.identity import Action, Identity, Permission
from mqttcore.store import records
from mqttcore.trace_entries import PacketSeen

SUCCESS = ReasonCode.SUCCESS
EXPIRY = PropertyId.MESSAGE_EXPIRY_INTERVAL
DELAY = PropertyId.WILL_DELAY_INTERVAL


def payloads(packets):
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


# --- what waits, and what does not ------------------------------------------------------------------------------------


def test_clean_sessions_and_qos_0_leave_no_record():
    world = World()
    reader = world.connect("reader", expiry_s=0, clean=True)
    reader.send(Subscribe(1, [Subscription("a", 2)], {}))
    writer = world.publisher()
    for qos in (0, 1, 2):
        writer.send(publish("a", b"m", qos, packet_id=qos))
    durable = world.durable("durable", "a")
    written = world.disk.written
    writer.send(publish("a", b"m", 0))
    assert world.take() is None
    assert world.disk.written == written
    assert writer.take() == [PubAck(1), PubRec(2)]
    assert payloads(durable.take()) == [b"m"]


def test_puback_waits_for_the_batch_that_covers_it():
    world = World()
    world.durable("sleeper", "a").lose()
    writer = world.publisher()
    writer.send(publish("a", b"1", packet_id=1))
    assert writer.take() == []
    world.take()
    writer.send(publish("a", b"2", packet_id=2), PingReq())
    assert writer.take() == [PingResp()]
    world.take()
    world.commit(1)
    assert writer.take() == [PubAck(1)]
    world.commit(1)
    assert writer.take() == [PubAck(2)]


def test_acknowledgements_leave_in_order():
    """A message that need not wait waits behind one that does [MQTT-4.6.0-2]."""
    world = World()
    world.durable("sleeper", "a").lose()
    writer = world.publisher()
    writer.send(publish("x", b"", packet_id=9))
    assert writer.take() == [PubAck(9, ReasonCode.NO_MATCHING_SUBSCRIBERS)]
    writer.send(publish("a", b"", packet_id=1), publish("x", b"", packet_id=2), publish("a", b"", 2, packet_id=3))
    assert writer.take() == []
    world.settle()
    assert writer.take() == [PubAck(1), PubAck(2, ReasonCode.NO_MATCHING_SUBSCRIBERS), PubRec(3)]


def test_connack_and_all_behind_it_wait():
    world = World()
    peer = world.connect("c")
    peer.send(Subscribe(1, [Subscription("a", 1)], {}), PingReq())
    assert peer.take() == []
    world.settle()
    connack, *others = peer.take()
    assert isinstance(connack, ConnAck)
    assert not connack.session_present
    assert others == [PingResp(), SubAck(1, [1])]


def test_suback_and_unsuback_wait():
    world = World()
    peer = world.durable("c")
    peer.send(Subscribe(1, [Subscription("a", 1), Subscription("b", 0)], {}))
    assert peer.take() == []
    world.settle()
    assert peer.take() == [SubAck(1, [1, 0])]
    peer.send(Unsubscribe(2, ["a", "c"]))
    assert peer.take() == []
    world.settle()
    assert peer.take() == [UnsubAck(2, [SUCCESS, ReasonCode.NO_SUBSCRIPTION_EXISTED])]
    assert [row.topic_filter for row in world.disk.rows(records.SubscriptionRecord)] == ["b"]
    peer.send(Unsubscribe(3, ["a"]))  # changes nothing, so there is nothing to wait for
    assert peer.take() == [UnsubAck(3, [ReasonCode.NO_SUBSCRIPTION_EXISTED])]


def test_qos_1_goes_out_at_once_and_qos_2_when_its_id_is_safe():
    world = World()
    reader = world.durable("reader", "a")
    writer = world.publisher()
    writer.send(publish("a", b"1", 1, packet_id=1), publish("a", b"2", 2, packet_id=2))
    assert payloads(reader.take()) == [b"1"]
    world.settle()
    (second,) = reader.take()
    assert (second.payload, second.qos, second.dup) == (b"2", 2, False)


def test_pubrel_waits_for_pubrec_to_be_safe():
    world = World()
    reader = world.durable("reader", "a")
    world.publisher().send(publish("a", b"m", 2))
    world.settle()
    (message,) = reader.take()
    reader.send(PubRec(message.packet_id))
    assert reader.take() == []
    world.settle()
    assert reader.take() == [PubRel(message.packet_id)]
    assert not world.disk.rows(records.MessageRecord)
    reader.send(PubComp(message.packet_id))
    world.settle()
    assert not world.disk.rows(records.EntryRecord)


def test_pubcomp_waits_for_the_id_to_be_gone():
    world = World()
    writer = world.durable("writer")
    writer.send(publish("nobody", b"", 2, packet_id=7))
    assert writer.take() == []
    world.settle()
    assert writer.take() == [PubRec(7, ReasonCode.NO_MATCHING_SUBSCRIBERS)]
    writer.send(PubRel(7))
    assert writer.take() == []
    assert [row.packet_id for row in world.disk.rows(records.ReceivedRecord)] == [7]
    world.settle()
    assert writer.take() == [PubComp(7)]
    assert not world.disk.rows(records.ReceivedRecord)


def test_message_that_everybody_had_is_never_written():
    world = World()
    readers = [world.durable(f"reader {n}", "a", qos=1) for n in range(3)]
    writer = world.publisher()
    written = world.disk.written
    for number in range(10):
        writer.send(publish("a", b"m", packet_id=number + 1))
        for reader in readers:
            reader.send(*[PubAck(packet.packet_id) for packet in reader.take()])
    assert world.take() is None  # and what waited for it was released
    assert writer.take() == [PubAck(number + 1) for number in range(10)]
    assert world.disk.written == written


def test_payload_is_stored_once():
    world = World()
    for number in range(5):
        world.durable(f"c{number}", "a").lose()
    world.publisher().send(publish("a", b"once", retain=True))
    world.settle()
    assert [row.payload for row in world.disk.rows(records.MessageRecord)] == [b"once"]
    assert len(world.disk.rows(records.EntryRecord)) == 5
    assert len(world.disk.rows(records.RetainedRecord)) == 1


# --- what comes back --------------------------------------------------------------------------------------------------


def test_session_comes_back_with_its_subscriptions_and_messages():
    world = World()
    peer = world.connect("c", user_name="user")
    world.settle()
    subscriptions = [
        Subscription("a/+", 2, no_local=True, retain_as_published=True),
        Subscription("b", 0),
        Subscription("$share/g/a/#", 1),
    ]
    peer.send(Subscribe(1, subscriptions, {PropertyId.SUBSCRIPTION_IDENTIFIER: 300}))
    world.settle()
    peer.lose()
    world.publisher().send(publish("a/1", b"one", 2, packet_id=1, properties={PropertyId.CONTENT_TYPE: "text"}))
    world.settle()
    world.crash()
    assert world.counts["sessions"] == 1
    session = world.engine.session("c")
    assert session.topic_filters == ("a/+", "b", "$share/g/a/#")
    assert session.user_name == "user"
    assert session.queued == 2
    peer = world.connect("c")
    world.settle()
    connack, first, second = peer.take()
    assert connack.session_present
    assert {first.payload, second.payload} == {b"one"}
    assert {first.qos, second.qos} == {1, 2}
    assert first.properties[PropertyId.CONTENT_TYPE] == "text"
    assert first.properties[PropertyId.SUBSCRIPTION_IDENTIFIER] == [300]
    peer.send(publish("a/2", b"own", 0))  # No Local is in force; the shared subscription has none
    world.settle()
    assert payloads(peer.take()) == [b"own"]


def test_what_was_not_committed_is_gone_and_was_not_acknowledged():
    world = World()
    world.durable("sleeper", "a").lose()
    world.settle()
    writer = world.publisher()
    writer.send(publish("a", b"kept", packet_id=1))
    world.settle()
    writer.send(publish("a", b"lost", packet_id=2))
    world.take()
    assert writer.take() == [PubAck(1)]
    world.crash()
    peer = world.connect("sleeper")
    world.settle()
    assert payloads(peer.take()) == [b"kept"]


def test_in_flight_comes_first_with_dup_and_its_packet_ids():
    world = World(in_flight_maximum=3)
    reader = world.durable("reader", "a")
    writer = world.publisher()
    for number in range(6):
        writer.send(publish("a", b"%d" % number, 1 + number % 2, packet_id=number + 1))
    world.settle()
    before = [(packet.packet_id, packet.payload) for packet in reader.take()]
    assert sorted(payload for _, payload in before) == [b"0", b"1", b"2"]
    world.crash()
    reader = world.connect("reader")
    world.settle()
    _, *again = reader.take()
    assert sorted((packet.packet_id, packet.payload) for packet in again) == sorted(before)
    assert [packet.payload for packet in again] == [b"0", b"1", b"2"]
    assert all(packet.dup for packet in again)
    for packet in again:
        reader.send(PubAck(packet.packet_id) if packet.qos == 1 else PubRec(packet.packet_id))
    world.settle()
    rest = reader.take()
    assert [packet for packet in rest if isinstance(packet, PubRel)] == [PubRel(again[1].packet_id)]
    assert sorted(payloads(rest)) == [b"3", b"4"]
    assert not any(packet.dup for packet in rest if isinstance(packet, Publish))


def test_pubrel_is_repeated_after_a_crash_and_the_message_is_not():
    world = World()
    reader = world.durable("reader", "a")
    world.publisher().send(publish("a", b"m", 2))
    world.settle()
    (message,) = reader.take()
    reader.send(PubRec(message.packet_id))
    world.settle()
    reader.take()
    world.crash()
    reader = world.connect("reader")
    world.settle()
    assert reader.take()[1:] == [PubRel(message.packet_id)]
    reader.send(PubComp(message.packet_id))
    world.settle()
    assert world.engine.metrics()["in_flight"] == 0
    assert not world.disk.rows(records.EntryRecord)


def test_qos_2_sent_again_after_a_crash_is_not_delivered_twice():
    world = World()
    world.durable("sleeper", "a").lose()
    writer = world.durable("writer")
    writer.send(publish("a", b"m", 2, packet_id=5))
    world.settle()
    assert writer.take() == [PubRec(5)]
    world.crash()
    writer = world.connect("writer")
    world.settle()
    writer.take()
    writer.send(publish("a", b"m", 2, packet_id=5, dup=True))
    assert writer.take() == [PubRec(5)]
    writer.send(PubRel(5))
    world.settle()
    assert writer.take() == [PubComp(5)]
    assert world.engine.session("sleeper").queued == 1


def test_expiry_goes_on_while_the_broker_is_down():
    world = World()
    world.durable("short", "a", expiry_s=100).lose()
    world.durable("long", "a", expiry_s=10_000).lose()
    writer = world.publisher()
    writer.send(publish("a", b"fading", packet_id=1, properties={EXPIRY: 100}))
    writer.send(publish("a", b"lasting", packet_id=2, properties={EXPIRY: 1000}))
    world.settle()
    world.tick(20_000)
    world.crash(down_ms=70_000)
    world.tick(200)
    assert world.engine.session("short") is not None
    world.crash(down_ms=20_000)
    world.tick(200)
    assert world.engine.session("short") is None
    peer = world.connect("long")
    world.settle()
    (message,) = peer.take()[1:]
    assert message.payload == b"lasting"
    assert message.properties[EXPIRY] in (889, 890)
    world.tick(200)
    world.settle()
    assert [row.client_id for row in world.disk.rows(records.SessionRecord)] == ["long"]


def test_clock_of_a_session_that_was_connected_starts_at_the_restart():
    world = World()
    world.durable("c", expiry_s=50)
    world.crash(down_ms=1_000_000)
    world.tick(49_000)
    assert world.engine.session("c") is not None
    world.settle()
    world.crash(down_ms=2_000)  # its expiry does not begin anew
    world.tick(200)
    assert world.engine.session("c") is None


@pytest.mark.parametrize(("delay_s", "wait_ms"), [(0, 100), (30, 30_100)])
def test_will_of_a_client_that_the_crash_cut_off(delay_s, wait_ms):
    world = World()
    watcher = world.durable("watcher", "will")
    watcher.lose()
    will = Will("will", b"gone", qos=1, properties={DELAY: delay_s})
    world.durable("mortal", will=will)
    world.crash(down_ms=5_000)
    world.tick(wait_ms - 200)
    queued_before = world.engine.session("watcher").queued
    world.tick(300)
    assert (queued_before, world.engine.session("watcher").queued) == (0, 1)
    world.settle()
    world.crash()
    world.tick(wait_ms + 200)
    assert world.engine.session("watcher").queued == 1  # once


def test_will_that_fell_due_while_the_broker_was_down():
    world = World()
    world.durable("watcher", "will").lose()
    mortal = world.durable("mortal", will=Will("will", b"gone", qos=1, properties={DELAY: 30}))
    mortal.lose()
    world.settle()
    world.crash(down_ms=40_000)
    world.tick(200)
    assert world.engine.session("watcher").queued == 1


def test_will_is_deleted_by_a_clean_disconnect():
    world = World()
    mortal = world.durable("mortal", will=Will("will", b"gone", qos=1))
    assert len(world.disk.rows(records.MessageRecord)) == 1
    mortal.send(Disconnect())
    world.settle()
    assert not world.disk.rows(records.MessageRecord)
    assert world.disk.rows(records.SessionRecord)[0].will_message == 0


def test_session_that_ended_leaves_nothing():
    world = World()
    peer = world.durable("c", "a", "b", will=Will("w", b"w", properties={DELAY: 10}))
    writer = world.publisher()
    writer.send(publish("a", b"in flight", 1, packet_id=1), publish("b", b"in flight", 2, packet_id=2))
    world.settle()
    peer.send(publish("x", b"", 2, packet_id=9))
    world.settle()
    peer.lose()
    writer.send(publish("a", b"queued", packet_id=3))
    world.settle()
    assert len(world.disk.table) >= 9
    world.engine.discard_session("c")
    world.settle()
    assert world.disk.table == {}


def test_clean_start_removes_what_was_kept_before_it_is_answered():
    world = World()
    world.durable("c", "a").lose()
    world.publisher().send(publish("a", b"m"))
    world.settle()
    peer = world.connect("c", clean=True, expiry_s=0)
    assert peer.take() == []
    world.settle()
    assert world.disk.table == {}
    assert [type(packet) for packet in peer.take()] == [ConnAck]


def test_expiry_set_to_0_at_disconnect_removes_the_session():
    world = World()
    peer = world.durable("c", "a")
    peer.send(Disconnect(properties={PropertyId.SESSION_EXPIRY_INTERVAL: 0}))
    world.settle()
    assert world.disk.table == {}


def test_session_resumed_to_end_with_its_connection_ends_with_the_crash():
    world = World()
    world.durable("c", "a").lose()
    peer = world.connect("c", expiry_s=0)
    world.settle()
    assert peer.take()[0].session_present
    world.crash()
    assert world.engine.session("c") is None
    world.settle()
    assert world.disk.table == {}


def test_takeover_keeps_the_session():
    world = World()
    first = world.durable("c", "a")
    second = world.connect("c")
    world.settle()
    assert first.take() == [Disconnect(ReasonCode.SESSION_TAKEN_OVER)] or first.connection.is_closed
    assert second.take()[0].session_present
    assert len(world.disk.rows(records.SessionRecord)) == 1


def test_connection_that_ends_before_its_connack_was_safe():
    world = World()
    first = world.connect("c", will=Will("w", b"w"))
    second = world.connect("c")
    world.settle()
    assert first.take() == []  # never heard that it was accepted
    assert first.connection.is_closed
    assert not second.take()[0].properties.get(PropertyId.ASSIGNED_CLIENT_IDENTIFIER)
    assert len(world.disk.rows(records.SessionRecord)) == 1


def test_shared_subscription_hands_over_after_a_crash():
    world = World()
    world.durable("first", "$share/g/a", qos=1).lose()
    world.publisher().send(publish("a", b"m"))
    world.settle()
    world.crash()
    other = world.durable("second", "$share/g/a", qos=1)
    world.engine.discard_session("first")
    world.settle()
    assert payloads(other.take()) == [b"m"]


def test_rubbish_of_an_interrupted_clean_up_is_swept():
    world = World()
    world.durable("c", "a").lose()
    world.publisher().send(publish("a", b"m"))
    world.settle()
    session_key = next(
        key
        for key, row in [pair for chunk in world.disk.load() for pair in records.decode(chunk)]
        if isinstance(row, records.SessionRecord)
    )
    del world.disk.table[session_key]
    world.crash()
    assert world.counts["orphans"] > 0
    assert world.engine.sessions() == []
    world.settle()
    assert world.disk.table == {}
    assert world.engine.metrics()["queued"] == world.engine.metrics()["subscriptions"] == 0


@pytest.mark.parametrize("damage", ["torn", "kind", "order", "twice", "state"])
def test_what_is_no_record_is_refused(damage):
    world = World(chunk_records=1000)
    world.durable("c", "a").lose()
    world.publisher().send(publish("a", b"m"))
    world.settle()
    (chunk,) = world.disk.load()
    last = world.disk.last_key
    session = next(row for _, row in records.decode(chunk) if isinstance(row, records.SessionRecord))
    entry = next(row for _, row in records.decode(chunk) if isinstance(row, records.EntryRecord))
    extra = {
        "torn": chunk[:-1],
        "kind": chunk + b"\x0d\0\0\0" + (last + 1).to_bytes(8, "little") + b"\x63",
        "order": chunk + chunk,
        "twice": chunk + records.encode(last + 1, session),
        "state": chunk + records.encode(last + 1, records.msgspec.structs.replace(entry, state=2)),
    }[damage]
    world.disk.load = lambda: [extra]  # type: ignore[method-assign]
    world.disk.last_key += 10
    with pytest.raises(StoreError) as caught:
        world.crash()
    assert caught.value.kind == "corrupt"


# --- retained messages ------------------------------------------------------------------------------------------------


def test_retained_messages_come_back_with_what_is_left_of_them():
    world = World()
    writer = world.publisher()
    writer.send(publish("r/1", b"one", 1, packet_id=1, retain=True))
    writer.send(publish("r/2", b"two", 0, retain=True))
    writer.send(publish("r/3", b"fading", 1, packet_id=3, retain=True, properties={EXPIRY: 10}))
    writer.send(publish("r/4", b"four", 1, packet_id=4, retain=True, properties={EXPIRY: 100}))
    assert writer.take() == []
    world.settle()
    assert len(writer.take()) == 3
    world.engine.publish_bytes(b"$SYS/x", b"ours", 0, True)
    world.crash(down_ms=20_000)
    assert {message.topic for message in world.engine.retained_messages(b"#")} == {"r/1", "r/2", "r/4"}
    assert world.engine.retained_messages(b"$SYS/#") == []
    world.tick(100)
    world.engine.sweep()
    world.settle()
    assert {row.topic for row in world.disk.rows(records.MessageRecord)} == {"r/1", "r/2", "r/4"}


def test_retained_message_is_replaced_and_removed():
    world = World()
    writer = world.publisher()
    writer.send(publish("r", b"one", 1, packet_id=1, retain=True))
    world.settle()
    writer.send(publish("r", b"two", 1, packet_id=2, retain=True))
    writer.send(publish("r", b"three", 1, packet_id=3, retain=True))
    world.settle()
    assert [row.payload for row in world.disk.rows(records.MessageRecord)] == [b"three"]
    writer.send(publish("r", b"", 1, packet_id=4, retain=True))
    world.settle()
    assert world.disk.table == {}
    assert writer.take()[-1] == PubAck(4, ReasonCode.NO_MATCHING_SUBSCRIBERS)


def test_no_local_knows_the_publisher_after_a_crash():
    world = World()
    own = world.durable("own")
    own.send(publish("r", b"mine", 1, packet_id=1, retain=True))
    world.settle()
    world.crash()
    own = world.connect("own")
    other = world.connect("other")
    for peer in (own, other):
        peer.send(Subscribe(1, [Subscription("r", 1, no_local=True)], {}))
    world.settle()
    assert payloads(own.take()) == []
    assert payloads(other.take()) == [b"mine"]


def test_retained_messages_need_not_be_durable():
    world = World(keeps_retained=False)
    writer = world.publisher()
    writer.send(publish("r", b"m", 1, packet_id=1, retain=True))
    assert writer.take() == [PubAck(1, ReasonCode.NO_MATCHING_SUBSCRIBERS)]
    assert world.take() is None


# --- a store that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "code"), [("full", ReasonCode.QUOTA_EXCEEDED), ("io", ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)]
)
def test_failing_store_refuses_what_is_durable_and_nothing_else(kind, code):
    world = World()
    world.durable("sleeper", "a").lose()
    reader = world.connect("reader", expiry_s=0, clean=True)
    reader.send(Subscribe(1, [Subscription("clean/#", 2), Subscription("a", 2)], {}))
    reader.take()
    world.settle()
    five, four = world.publisher(5), world.publisher(4)
    for writer in (five, four):
        writer.send(publish("a", b"under way", packet_id=1))
    world.fail(kind)
    assert five.take() == [PubAck(1, code)]
    assert four.take() == []
    assert four.connection.is_closed
    reader.take()
    five.send(publish("a", b"", packet_id=3), publish("a", b"", 2, packet_id=4), publish("r", b"m", 1, 5, retain=True))
    assert five.take() == [PubAck(3, code), PubRec(4, code), PubAck(5, code)]
    four = world.publisher(4)
    four.send(publish("a", b"", packet_id=1))
    assert four.take() == []
    assert four.connection.is_closed
    five.send(publish("clean/1", b"1", packet_id=6), publish("clean/2", b"2", 2, packet_id=7), publish("a", b"3", 0))
    assert five.take() == [PubAck(6), PubRec(7)]
    assert payloads(reader.take()) == [b"1", b"2", b"3"]


def test_qos_2_that_was_taken_waits_for_the_store():
    """Its message will be delivered: told otherwise, the publisher would send it once more."""
    world = World()
    world.durable("sleeper", "a").lose()
    world.settle()
    writer = world.durable("writer")
    writer.send(publish("a", b"m", 2, packet_id=5))
    world.fail()
    writer.send(publish("a", b"refused", 2, packet_id=6), publish("a", b"refused", 1, packet_id=7))
    assert writer.take() == [PubAck(7, ReasonCode.QUOTA_EXCEEDED)]
    writer.lose()
    writer = world.connect("writer")
    assert [type(packet) for packet in writer.take()] == [ConnAck]
    writer.send(publish("a", b"m", 2, packet_id=5, dup=True), publish("a", b"refused", 2, packet_id=6, dup=True))
    assert writer.take() == []
    world.commit()
    world.settle()
    assert writer.take() == [PubRec(5), PubRec(6, ReasonCode.QUOTA_EXCEEDED)]
    assert world.engine.session("sleeper").queued == 1


def test_failing_store_refuses_new_sessions_and_subscriptions():
    world = World()
    kept = world.durable("kept", "a")
    old = world.durable("old", "a", version=4)
    waiting = world.connect("waiting")
    kept.send(Subscribe(1, [Subscription("b", 1)], {}))
    world.fail()
    (refused,) = waiting.take()
    assert refused.reason_code == ReasonCode.QUOTA_EXCEEDED
    assert waiting.connection.is_closed
    assert kept.take() == [Disconnect(ReasonCode.QUOTA_EXCEEDED, {PropertyId.REASON_STRING: "the store fails"})]
    (refused,) = world.connect("new").take()
    assert refused.reason_code == ReasonCode.QUOTA_EXCEEDED
    kept = world.connect("kept")  # what is on disk may be taken up, so that it can be emptied
    (connack,) = kept.take()
    assert connack.reason_code == SUCCESS
    kept.send(Subscribe(2, [Subscription("c", 1)], {}), Unsubscribe(3, ["a"]))
    assert kept.take() == [
        SubAck(2, [ReasonCode.QUOTA_EXCEEDED]),
        UnsubAck(3, [ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR]),
    ]
    old.send(Unsubscribe(3, ["a"]))
    assert old.connection.is_closed
    clean = world.connect("clean", expiry_s=0, clean=True)
    assert clean.take()[0].reason_code == SUCCESS


def test_store_that_recovers():
    world = World()
    reader = world.durable("reader", "a")
    writer = world.durable("writer")
    writer.send(publish("a", b"before", 2, packet_id=1))
    world.settle()
    (before,) = reader.take()
    writer.take()
    reader.send(PubRec(before.packet_id))
    writer.send(PubRel(1))
    world.fail()
    reader.send(PingReq())
    assert reader.take() == [PingResp()]  # PUBREL and PUBCOMP go on waiting
    assert writer.take() == []
    world.commit()
    assert reader.take() == [PubRel(before.packet_id)]
    assert writer.take() == [PubComp(1)]
    assert not world.keeper.is_failing
    writer.send(publish("a", b"after", packet_id=2))
    world.settle()
    assert writer.take() == [PubAck(2)]
    world.crash()
    assert world.engine.session("reader").in_flight == 2


def test_refused_message_may_still_arrive_and_is_then_safe():
    world = World()
    world.durable("sleeper", "a").lose()
    world.settle()
    writer = world.publisher()
    writer.send(publish("a", b"m"))
    world.fail()
    world.commit()
    world.crash()
    assert world.engine.session("sleeper").queued == 1


def test_broker_publishes_what_it_can():
    world = World()
    world.durable("sleeper", "a").lose()
    world.settle()
    world.engine.publish_bytes(b"a", b"m", 1)
    world.fail()
    with pytest.raises(StoreError, match="full"):
        world.engine.publish_bytes(b"a", b"m", 1)
    assert world.engine.publish_bytes(b"a", b"m", 0) == 1
    assert world.engine.publish_bytes(b"b", b"m", 1) == 0


def test_publisher_is_not_read_while_too_much_is_not_safe():
    world = World(bytes_maximum=1200)
    world.durable("sleeper", "a").lose()
    world.settle()
    writer = world.publisher()
    for number in range(1, 10):
        writer.send(publish("a", bytes(400), packet_id=number))
    assert world.engine.session("sleeper").queued == 3
    assert world.keeper.journal.pending_bytes < 2000
    clean = world.connect("other", expiry_s=0, clean=True)
    clean.send(publish("b", bytes(400), packet_id=1))
    assert [type(packet) for packet in clean.take()] == [ConnAck, PubAck]
    world.settle()
    assert writer.take() == [PubAck(number) for number in range(1, 10)]
    assert world.engine.session("sleeper").queued == 9


# --- queues -----------------------------------------------------------------------------------------------------------


def drain(world, peer, wanted):
    """Have a client acknowledge everything until it has *wanted* messages; their payloads, by QoS."""
    taken = {1: [], 2: []}
    while len(taken[1]) + len(taken[2]) < wanted:
        world.settle()
        packets = peer.take()
        assert packets, f"nothing comes any more, after {taken}"
        for packet in packets:
            if isinstance(packet, Publish):
                taken[packet.qos].append(int(packet.payload))
                peer.send(PubAck(packet.packet_id) if packet.qos == 1 else PubRec(packet.packet_id))
            elif isinstance(packet, PubRel):
                peer.send(PubComp(packet.packet_id))
    return taken


def test_long_queue_keeps_a_window_in_memory_and_is_paged_in():
    world = World(
        queued_resident_messages=10, queued_messages_maximum=5000, in_flight_maximum=4, queued_bytes_maximum=10**8
    )
    world.durable("sleeper", "a").lose()
    writer = world.publisher()
    for number in range(1, 301):
        writer.send(publish("a", b"%d" % number, 1 + number % 2, packet_id=number))
        writer.send(PubRel(number))
    world.settle()
    assert world.engine.metrics()["queued_paged_out"] == 290
    taken = drain(world, world.connect("sleeper"), 100)
    assert taken[1] == sorted(taken[1])
    assert taken[2] == sorted(taken[2])
    assert 80 < world.engine.metrics()["queued_paged_in"] < 200
    world.settle()
    world.crash()
    rest = drain(world, world.connect("sleeper"), 300 - len(taken[1]) - len(taken[2]))
    in_flight = set(taken[1] + taken[2]) & set(rest[1] + rest[2])
    assert len(in_flight) <= 4
    assert set(taken[1] + taken[2] + rest[1] + rest[2]) == set(range(1, 301))


def test_restart_does_not_load_payloads_beyond_the_window():
    world = World(
        queued_resident_messages=5, queued_messages_maximum=5000, in_flight_maximum=10, queued_bytes_maximum=10**8
    )
    world.durable("one", "a", qos=1).lose()
    world.durable("two", "a", qos=1).lose()
    writer = world.publisher()
    for number in range(1, 101):
        writer.send(publish("a", b"%d" % number, packet_id=number))
    world.settle()
    world.crash()
    for client_id in ("one", "two"):
        peer = world.connect(client_id)
        world.settle()
        taken = []
        while len(taken) < 100:
            packets = [packet for packet in peer.take() if isinstance(packet, Publish)]
            assert packets
            taken += [int(packet.payload) for packet in packets]
            peer.send(*[PubAck(packet.packet_id) for packet in packets])
            world.settle()
        assert taken == list(range(1, 101))
    assert world.engine.metrics()["queued_paged_in"] > 100
    assert not world.disk.rows(records.MessageRecord)
    world.settle()
    assert world.engine.metrics()["queued"] == world.engine.metrics()["queued_bytes"] == 0


def test_what_is_in_flight_after_a_restart_is_read_when_it_lies_beyond_the_window():
    """A message that another session has only in the store is needed here at once."""
    world = World(queued_resident_messages=1, in_flight_maximum=10)
    world.durable("sleeper", "a", qos=1).lose()
    reader = world.durable("reader", "a", qos=1)
    writer = world.publisher()
    writer.send(*[publish("a", b"%d" % number, packet_id=number) for number in range(1, 5)])
    world.settle()
    reader.take()
    reader.lose()
    world.settle()
    reader = world.connect("reader")  # its records are put anew, far from those of the messages
    world.settle()
    world.crash()
    reader = world.connect("reader")
    world.settle()
    assert payloads(reader.take()) == [b"1", b"2", b"3", b"4"]


def test_message_that_the_store_lost_is_counted_and_the_others_arrive():
    world = World(queued_resident_messages=1, in_flight_maximum=10)
    world.durable("sleeper", "a", qos=1).lose()
    writer = world.publisher()
    writer.send(*[publish("a", b"%d" % number, packet_id=number) for number in range(1, 6)])
    world.settle()
    key = next(
        key
        for chunk in world.disk.load()
        for key, row in records.decode(chunk)
        if isinstance(row, records.MessageRecord) and row.payload == b"3"
    )
    record = world.disk.table.pop(key)
    peer = world.connect("sleeper")
    while not world.engine.metrics()["messages_dropped_lost"]:
        world.take()
        world.commit()
        world.read()
    world.disk.table[key] = record  # or the disk would wonder why it is deleted
    world.settle()
    assert payloads(peer.take()) == [b"1", b"2", b"4", b"5"]
    assert world.engine.metrics()["messages_dropped_lost"] == 1


def test_total_cap_drops_the_oldest_of_all_sessions():
    world = World(queued_total_bytes_maximum=2000)
    world.durable("old", "old", qos=1).lose()
    world.durable("new", "new", qos=1).lose()
    writer = world.publisher()
    for number in range(1, 4):
        writer.send(publish("old", bytes(300), packet_id=number))
        world.tick(100)
    for number in range(4, 20):
        writer.send(publish("new", b"%03d" % number * 100, packet_id=number))
        world.tick(100)
        assert world.engine.metrics()["queued_bytes"] <= 2000
    assert world.engine.session("old").queued == 0
    assert world.engine.session("old").dropped == 3
    world.settle()
    assert len(world.disk.rows(records.MessageRecord)) == world.engine.session("new").queued
    peer = world.connect("new")
    world.settle()
    assert payloads(peer.take())[-1] == b"019" * 100


@pytest.mark.parametrize("is_durable", [True, False])
def test_full_queue_may_refuse_its_publisher(is_durable):
    world = World(queue_drop="refuse", queued_messages_maximum=2)
    world.durable("sleeper", "a", "$share/g/b").lose()
    reader = world.connect("reader", expiry_s=0, clean=True)
    reader.send(Subscribe(1, [Subscription("a", 1)], {}))
    reader.take()
    writer = world.publisher() if not is_durable else world.durable("writer")
    for number, topic in enumerate("abab", 1):
        writer.send(publish(topic, b"", packet_id=number))
    writer.send(publish("a", b"zero", 0), publish("a", b"", 2, packet_id=5))
    world.settle()
    full = ReasonCode.QUOTA_EXCEEDED
    assert writer.take() == [PubAck(1), PubAck(2), PubAck(3, full), PubAck(4, full), PubRec(5, full)]
    assert payloads(reader.take()) == [b"", b"zero"]  # nobody gets what is refused
    old = world.publisher(4)
    old.send(publish("a", b"", packet_id=1))
    assert old.connection.is_closed


def test_long_queue_of_an_ended_session_goes_in_slices():
    world = World(queued_messages_maximum=100_000, queued_bytes_maximum=10**8)
    world.durable("sleeper", "a", qos=1).lose()
    for number in range(30_000):
        world.engine.publish_bytes(b"a", b"%d" % number, 1)
        if number % 5000 == 0:
            world.settle()
    world.settle()
    world.engine.discard_session("sleeper")
    assert world.engine.metrics()["queued"] == 30_000
    world.tick(100)
    assert world.engine.metrics()["queued"] == 10_000
    world.settle()
    world.crash()  # in the middle
    assert world.counts["orphans"] > 0
    world.tick(200)
    world.settle()
    assert world.disk.table == {}
    assert world.engine.metrics()["queued"] == world.engine.metrics()["queued_bytes"] == 0


def test_sessions_that_expire_together_go_in_slices():
    world = World()
    for number in range(2500):
        world.connect(f"c{number}", expiry_s=10).lose()
    world.settle()
    world.crash(down_ms=20_000)
    left = []
    for _ in range(4):
        world.tick(100)
        left.append(len(world.engine.sessions()))
    assert left == [1500, 500, 0, 0]
    world.settle()
    assert world.disk.table == {}


def test_wall_clock_of_records():
    world = World()
    world.durable("c", "a", expiry_s=60).lose()
    world.publisher().send(publish("a", b"m", properties={EXPIRY: 5}))
    world.tick(1000)
    world.settle()
    (session,) = world.disk.rows(records.SessionRecord)
    (message,) = world.disk.rows(records.MessageRecord)
    (entry,) = world.disk.rows(records.EntryRecord)
    assert session.expires_at == WALL_MS + 60_000
    assert message.expires_at == WALL_MS + 5_000
    assert entry.queued_at == WALL_MS


# --- rights -----------------------------------------------------------------------------------------------------------


def allowed(name, *filters):
    return Identity(name, tuple(Permission(Action.ALL, topic_filter) for topic_filter in filters))


@pytest.fixture
def people():
    """Identities by user name; who is not there is anonymous."""
    return {}


@pytest.fixture
def hooks(people):
    return HookTable(authenticate=lambda client, connect: people.get(connect.user_name))


def test_session_belongs_to_its_identity_after_a_crash(people, hooks):
    people["ann"], people["bob"] = Identity("ann"), Identity("bob")
    world = World(hooks=hooks)
    world.durable("c", "a", user_name="ann").lose()
    world.settle()
    world.crash()
    assert world.engine.session("c").owner == "ann"
    for name in ("bob", None):
        (connack,) = world.connect("c", user_name=name).take()
        assert connack.reason_code == ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    peer = world.connect("c", user_name="ann")
    world.settle()
    assert peer.take()[0].session_present


def test_rights_taken_away_while_the_broker_was_down(people, hooks):
    people["ann"] = allowed("ann", "a/#", "b/#")
    world = World(hooks=hooks, queued_resident_messages=2, in_flight_maximum=2)
    peer = world.durable("c", "a/+", "b/+", qos=1, user_name="ann")
    writer = world.publisher()
    for number in range(1, 11):
        writer.send(publish("ab"[number % 2] + "/x", b"%d" % number, packet_id=number))
    world.settle()
    assert payloads(peer.take()) == [b"1", b"2"]
    peer.lose()
    world.settle()
    world.crash()
    people["ann"] = allowed("ann", "a/#")
    peer = world.connect("c", user_name="ann")
    world.settle()
    taken = drain(world, peer, 5)[1]
    assert taken == [2, 4, 6, 8, 10]
    world.settle()
    assert not world.disk.rows(records.MessageRecord)
    assert [row.topic_filter for row in world.disk.rows(records.SubscriptionRecord)] == ["a/+"]
    assert world.engine.metrics()["messages_dropped_not_authorized"] == 5
    assert world.engine.metrics()["queued_bytes"] == 0


def test_identity_replaced_is_the_owner_after_a_crash(people, hooks):
    people["ann"] = allowed("ann", "#")
    world = World(hooks=hooks)
    peer = world.durable("c", "a", "b", qos=2, user_name="ann")
    world.engine.set_identity("c", Identity("carol", (Permission(Action.SUBSCRIBE, "a", qos_maximum=1),)))
    world.settle()
    peer.lose()
    world.settle()
    world.crash()
    assert world.engine.session("c").owner == "carol"
    (subscription,) = world.disk.rows(records.SubscriptionRecord)
    assert (subscription.topic_filter, subscription.options & 3) == ("a", 1)


def test_message_for_a_named_receiver_stays_one_after_a_crash(people, hooks):
    people["ann"] = allowed("ann", "mine")
    world = World(hooks=hooks)
    world.durable("c", user_name="ann").lose()
    world.engine.deliver("c", b"elsewhere", b"for you", 1)
    world.settle()
    assert [row.flags for row in world.disk.rows(records.EntryRecord)] == [0x80]
    world.crash()
    peer = world.connect("c", user_name="ann")
    world.settle()
    (message,) = peer.take()[1:]
    assert (message.topic, message.payload, message.retain) == ("elsewhere", b"for you", False)


def test_hook_on_delivery_is_asked_of_what_was_stored():
    asked = []

    def authorize_deliver(client, message):
        asked.append(message.payload)
        return message.payload not in (b"2", b"4")

    world = World(hooks=HookTable(authorize_deliver=authorize_deliver), queued_resident_messages=1)
    world.durable("c", "a", qos=1).lose()
    writer = world.publisher()
    for number in range(1, 6):
        writer.send(publish("a", b"%d" % number, packet_id=number))
    world.settle()
    world.crash()
    taken = drain(world, world.connect("c"), 3)[1]
    assert taken == [1, 3, 5]
    assert set(asked) == {b"1", b"2", b"3", b"4", b"5"}
    world.settle()
    assert not world.disk.rows(records.MessageRecord)
    assert not world.disk.rows(records.EntryRecord)


def test_message_keeps_id_time_and_publisher(people, hooks):
    people["ann"] = Identity("ann")
    world = World(hooks=hooks)
    writer = world.connect("writer", user_name="ann", expiry_s=0, clean=True)
    writer.send(publish("r", b"m", 1, retain=True))
    world.engine.publish_bytes(b"ours", b"m", 1, True)
    before = {message.topic: message for message in world.engine.retained_messages(b"#")}
    world.settle()
    world.crash()
    for message in world.engine.retained_messages(b"#"):
        was = before[message.topic]
        for name in ("message_id", "received_ms", "client_id", "identity_name"):
            assert getattr(message, name) == getattr(was, name), name
    assert before["r"].client_id == "writer"


# --- what the store does not know of a message ------------------------------------------------------------------------


def test_trace_of_a_topic_follows_what_comes_back_from_the_store():
    world = World(queued_resident_messages=2, in_flight_maximum=1)
    world.durable("sleeper", "#").lose()
    writer = world.publisher()
    seen = []
    world.engine.add_watch(Watch("topic_filter", "a/#", seen.append, seen.append))
    for number in range(1, 11):
        writer.send(publish("a/b" if number % 2 else "other", b"%d" % number, packet_id=number))
    world.settle()
    assert world.engine.metrics()["queued_paged_out"] == 8
    seen.clear()
    drain(world, world.connect("sleeper"), 10)
    sent = [entry for entry in seen if isinstance(entry, PacketSeen)]
    assert [(entry.direction, entry.topic, entry.client_id) for entry in sent] == [("out", "a/b", "sleeper")] * 5
    assert world.engine.metrics()["queued_paged_in"] == 8


def test_shared_messages_that_come_back_too_late_for_their_member_go_to_another():
    # The rights were taken away while the messages were out of sight: none is lost, none counted as dropped.
    people = {"m0": Identity("m"), "m1": Identity("m")}
    hooks = HookTable(authenticate=lambda client, connect: people.get(client.client_id, Identity("w")))
    world = World(queued_resident_messages=2, hooks=hooks)
    world.durable("m0", "$share/g/a/#").lose()
    writer = world.publisher()
    for number in range(1, 11):
        writer.send(publish("a/b", b"%d" % number, packet_id=number))
    world.settle()
    assert world.engine.session("m0").queued == 10
    other = world.durable("m1", "$share/g/a/#")
    people["m0"] = Identity("m", (Permission(Action.ALL, "a/#", is_allowed=False),))
    world.connect("m0")
    world.settle()
    found = drain(world, other, 10)
    assert sorted(found[1]) == list(range(1, 11))
    world.settle()
    dropped = {key for key, value in world.engine.metrics().items() if key.startswith("messages_dropped") and value}
    assert not dropped
