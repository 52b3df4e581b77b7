"""Queues, what is in flight, and filters, looked at page by page while they move."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mqttcore import Config, Limits, Message, MqttCoreError, PropertyId, QoS
from mqttcore.codec import PubAck, Publish, PubRec
from mqttcore.testing import MemoryBroker, MemoryClient


async def away_with(broker: MemoryBroker, count: int, *, qos: int = 1) -> None:
    """Let `a` subscribe and leave, and queue *count* messages for it."""
    client = await broker.connect("a", version=4, clean_start=False)
    await client.subscribe("t", qos=2)
    await client.lose()
    for number in range(count):
        await broker.publish("t", b"%d" % number, qos=qos)


def payloads(broker: MemoryBroker, limit: int = 7) -> list[int]:
    found, after = [], None
    while True:
        page, after = broker.queued_messages("a", limit=limit, after=after)
        found += [int(payload_of(one.message)) for one in page]
        if after is None:
            return found
        assert len(page) == limit


def payload_of(message: Message | None) -> bytes:
    assert message is not None
    return message.payload


async def test_queue_is_shown_in_order_and_left_alone():
    async with MemoryBroker() as broker:
        await away_with(broker, 50)
        for limit in (1, 7, 50, 1000):
            assert payloads(broker, limit) == list(range(50))
        client = await broker.connect("a", version=4, clean_start=False)
        assert [int((await client.message()).payload) for _ in range(50)] == list(range(50))
        assert broker.queued_messages("a") == ([], None)


async def test_what_is_shown_of_a_message():
    async with MemoryBroker() as broker:
        await away_with(broker, 0)
        writer = await broker.connect("writer")
        properties = {PropertyId.MESSAGE_EXPIRY_INTERVAL: 100}
        await writer.publish("t", b"hello", qos=2, properties=properties)
        await broker.publish("t", b"", qos=1)
        await broker.advance(30)
        (first, second), after = broker.queued_messages("a")
        assert after is None
        assert first.message is not None
        assert (first.message.topic, first.message.client_id, first.message.payload_size_bytes) == ("t", "writer", 5)
        assert (first.qos, first.retain, first.is_kept_back) == (2, False, False)
        assert first.size_bytes > 6
        assert first.queued_for_s == pytest.approx(30, abs=5)
        assert first.expires_in_s == pytest.approx(70, abs=5)
        assert (second.qos, second.expires_in_s) == (1, None)
        with pytest.raises(MqttCoreError, match="no session"):
            broker.queued_messages("nobody")


@pytest.mark.parametrize("after", ["", "x", "1", "9.0.0", "-1.0.0", "0.0.-1", "1.2.3.4", "1" * 5000, f"0.{2**70}.0"])
async def test_place_that_is_none_is_refused(after: str):
    async with MemoryBroker() as broker:
        await away_with(broker, 1)
        with pytest.raises(ValueError, match="is no place"):
            broker.queued_messages("a", after=after)
        if after != "1":
            with pytest.raises(ValueError, match="is no place"):
                broker.in_flight_messages("a", after=after)
        with pytest.raises(ValueError, match="is no place"):
            broker.topic_filters(after=after)


async def test_pages_stay_in_step_with_a_queue_that_moves():
    config = Config(sys_interval_s=0, limits=Limits(in_flight_maximum=1))
    async with MemoryBroker(config) as broker:
        await away_with(broker, 100)
        page, after = broker.queued_messages("a", limit=20)
        client = await broker.connect("a", version=4, clean_start=False)  # 0 is in flight
        for number in range(30):  # more than the page had: all of one millisecond, perhaps
            packet = await client.expect(Publish)
            assert int(packet.payload) == number
            await client.send(PubAck(packet.packet_id))
        await broker.publish("t", b"100", qos=1)
        rest = []
        while after is not None:
            page, after = broker.queued_messages("a", limit=20, after=after)
            rest += [int(payload_of(one.message)) for one in page]
        assert rest == list(range(31, 101))


async def test_parts_follow_each_other():
    config = Config(sys_interval_s=0, limits=Limits(queue_qos0_offline=True))
    async with MemoryBroker(config) as broker:
        await away_with(broker, 0)
        for number in range(10):
            await broker.publish("t", b"%d" % number, qos=number % 2)
        for limit in (1, 3, 100):
            assert payloads(broker, limit) == [1, 3, 5, 7, 9, 0, 2, 4, 6, 8]


async def test_what_is_kept_back_comes_first():
    async with MemoryBroker() as broker:
        broker.keep_backlogs(lambda client, queued, keep_alive_s: 0)
        await away_with(broker, 10)
        client = await broker.connect("a", version=4, clean_start=False)
        await client.expect_nothing()
        found, _ = broker.queued_messages("a", limit=100)
        assert [one.is_kept_back for one in found] == [True] * 10
        assert payloads(broker, 3) == list(range(10))


async def test_messages_in_the_store_only_say_so(tmp_path: Path):
    config = Config(
        sys_interval_s=0,
        limits=Limits(queued_resident_messages=4),
        plugins={"sqlite": {"path": str(tmp_path / "kept.db")}},
    )
    async with MemoryBroker(config) as broker:
        await away_with(broker, 20)
        found, after = broker.queued_messages("a", limit=100)
        assert after is None
        assert [one.message is None for one in found] == [False] * 4 + [True] * 16
        assert sum(one.size_bytes for one in found) == broker.client("a").queued_bytes
        assert {one.qos for one in found} == {1}
    async with MemoryBroker(config) as broker:
        seen, after = 0, None
        while True:
            page, after = broker.queued_messages("a", limit=3, after=after)
            seen += len(page)
            assert all(one.queued_for_s >= 0 for one in page)
            if after is None:
                break
        assert seen == 20


# --- in flight --------------------------------------------------------------------------------------------------------


async def test_what_is_in_flight_is_shown_in_order_of_sending():
    async with MemoryBroker() as broker:
        client = await broker.connect("a")
        await client.subscribe("t", qos=2)
        for number in range(30):
            await broker.publish("t", b"%d" % number, qos=1 + number % 2)
        sent = [await client.expect(Publish) for _ in range(30)]
        await client.send(PubRec(sent[1].packet_id), PubAck(sent[2].packet_id))
        found, after = [], None
        while True:
            page, after = broker.in_flight_messages("a", limit=4, after=after)
            found += page
            if after is None:
                break
        # One was acknowledged; of another PUBREL was sent last, and its message is not needed any more.
        assert [one.packet_id for one in found] == [
            *(packet.packet_id for number, packet in enumerate(sent) if number not in (1, 2)),
            sent[1].packet_id,
        ]
        assert Counter(one.awaits for one in found) == {"PUBACK": 14, "PUBREC": 14, "PUBCOMP": 1}
        assert [(one.awaits, one.qos, one.message) for one in found[-1:]] == [("PUBCOMP", 2, None)]
        assert payload_of(found[0].message) == b"0"
        assert all(one.qos == (1 if one.awaits == "PUBACK" else 2) for one in found)
        assert broker.in_flight_messages("a", limit=1000)[1] is None
        with pytest.raises(MqttCoreError, match="no session"):
            broker.in_flight_messages("nobody")


async def publish_unreleased(client: MemoryClient, *packet_ids: int) -> None:
    for packet_id in packet_ids:
        await client.send(Publish("x", b"", qos=QoS.EXACTLY_ONCE, packet_id=packet_id))
        await client.expect(PubRec)


async def test_what_waits_for_pubrel_is_listed():
    async with MemoryBroker() as broker:
        client = await broker.connect("a")
        assert broker.awaiting_release("a") == []
        await publish_unreleased(client, 7, 65_535, 1)
        assert broker.awaiting_release("a") == [1, 7, 65_535]
        with pytest.raises(MqttCoreError, match="no session"):
            broker.awaiting_release("nobody")


# --- filters ----------------------------------------------------------------------------------------------------------


async def test_filters_are_listed_with_their_subscribers():
    async with MemoryBroker() as broker:
        for client_id in ("a", "b"):
            client = await broker.connect(client_id)
            await client.subscribe("one", "two/#", "$share/g/shared", f"own/{client_id}")
        found, after = [], None
        while True:
            page, after = broker.topic_filters(limit=2, after=after)
            found += page
            if after is None:
                break
        assert {one.topic_filter: (one.subscribers, one.share_groups, one.shared_subscribers) for one in found} == {
            "one": (2, 0, 0),
            "two/#": (2, 0, 0),
            "shared": (0, 1, 2),
            "own/a": (1, 0, 0),
            "own/b": (1, 0, 0),
        }
        assert len(found) == 5
        assert [one.share_names for one in found if one.topic_filter == "shared"] == [("g",)]
        assert {one.topic_filter for one in broker.topic_filters(prefix="own/")[0]} == {"own/a", "own/b"}


async def test_place_of_a_broker_that_stopped_means_nothing():
    broker = MemoryBroker()
    async with broker:
        client = await broker.connect("a")
        await client.subscribe(*(f"t/{number}" for number in range(10)))
        _, after = broker.topic_filters(limit=1)
    async with broker:
        with pytest.raises(ValueError, match="is no place"):
            broker.topic_filters(after=after)
