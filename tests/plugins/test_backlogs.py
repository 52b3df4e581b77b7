"""`Broker.keep_backlogs` and `release_backlog`: what was queued for a client goes in a service's time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mqttcore import Action, ClientView, Config, Identity, Limits, Message, MqttCoreError, Permission, hookimpl
from mqttcore.codec import Connect, PubAck, Publish
from mqttcore.testing import MemoryBroker, MemoryClient


class Keeper:
    """Lets *at_once* messages of each backlog go, and remembers what it was asked."""

    def __init__(self, at_once: int | None = 0) -> None:
        self.at_once = at_once
        self.asked: list[tuple[str, int, int]] = []

    def __call__(self, client: ClientView, queued: int, keep_alive_s: int) -> int | None:
        self.asked.append((client.client_id, queued, keep_alive_s))
        return self.at_once


async def away_with(broker: MemoryBroker, count: int, *, first: int = 0) -> None:
    """Let `a` subscribe and leave, and queue *count* messages for it."""
    client = await broker.connect("a", version=4, clean_start=False)
    await client.subscribe("t", qos=1)
    await client.lose()
    await queue(broker, count, first=first)


async def queue(broker: MemoryBroker, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        await broker.publish("t", b"%d" % number, qos=1)


async def back(broker: MemoryBroker, **more: int) -> MemoryClient:
    return await broker.connect("a", version=4, clean_start=False, **more)


async def numbers(client: MemoryClient, count: int) -> list[int]:
    """Exactly so many messages come."""
    found = [int((await client.message()).payload) for _ in range(count)]
    await client.expect_nothing()
    return found


async def test_backlog_goes_as_it_is_released_and_new_messages_pass_it():
    keeper = Keeper(at_once=3)
    async with MemoryBroker() as broker:
        broker.keep_backlogs(keeper)
        await away_with(broker, 10)
        client = await back(broker, keep_alive_s=60)
        assert keeper.asked == [("a", 10, 60)]
        assert await numbers(client, 3) == [0, 1, 2]
        await queue(broker, 1, first=100)
        assert await numbers(client, 1) == [100]
        assert broker.release_backlog("a", 2) == 2
        assert await numbers(client, 2) == [3, 4]
        assert broker.release_backlog("a", 2, newest_first=True) == 2
        assert await numbers(client, 2) == [9, 8]
        assert (broker.backlog("a"), broker.metrics()["queued_kept_back"]) == (3, 3)
        assert broker.release_backlog("a") == 3
        assert await numbers(client, 3) == [5, 6, 7]
        assert broker.release_backlog("a") == 0
        metrics = broker.metrics()
        assert metrics["queued"] == metrics["queued_bytes"] == metrics["queued_kept_back"] == 0


async def test_backlog_is_one_queue_in_order_when_the_connection_ends():
    async with MemoryBroker(Config(sys_interval_s=0, limits=Limits(in_flight_maximum=1))) as broker:
        keeper = Keeper()
        broker.keep_backlogs(keeper)
        await away_with(broker, 5)
        client = await back(broker)
        await broker.advance(1)
        assert broker.release_backlog("a", 2) == 2  # one is sent, one waits for the window
        assert int((await client.expect(Publish)).payload) == 0
        await queue(broker, 2, first=10)
        client = await back(broker)  # a takeover
        assert keeper.asked[1:] == [("a", 6, 0)]
        again = await client.expect(Publish)
        assert (int(again.payload), again.dup) == (0, True)  # what is in flight is not kept back
        await client.expect_nothing()
        assert broker.release_backlog("a") == 6
        await client.send(PubAck(again.packet_id))
        assert await numbers(client, 6) == [1, 2, 3, 4, 10, 11]
        assert broker.metrics()["queued"] == broker.metrics()["queued_bytes"] == 0


async def test_backlog_counts_to_the_limits_and_its_oldest_go_first():
    async with MemoryBroker(
        Config(sys_interval_s=0, limits=Limits(queued_messages_maximum=4, in_flight_maximum=1))
    ) as broker:
        broker.keep_backlogs(Keeper())
        await away_with(broker, 4)
        client = await back(broker)
        await queue(broker, 3, first=10)  # one in flight, two queued
        assert int((await client.expect(Publish)).payload) == 10
        assert (broker.backlog("a"), broker.client("a").queued) == (2, 4)
        broker.discard_session("a")
        metrics = broker.metrics()
        assert metrics["queued"] == metrics["queued_bytes"] == metrics["queued_kept_back"] == 0


async def test_rights_are_asked_on_release():
    async with MemoryBroker() as broker:
        broker.keep_backlogs(Keeper())
        await away_with(broker, 2)
        client = await back(broker)
        broker.set_identity("a", Identity("a", permissions=(Permission(Action.SUBSCRIBE, "u"),)))
        assert broker.backlog("a") == 2
        assert broker.release_backlog("a") == 0
        await client.expect_nothing()
        assert broker.metrics()["messages_dropped_not_authorized"] == 2


async def test_what_is_too_old_is_dropped_on_release():
    async with MemoryBroker() as broker:
        broker.keep_backlogs(Keeper())
        await away_with(broker, 2)
        await broker.advance(100)
        await queue(broker, 1, first=2)
        client = await back(broker)
        assert broker.release_backlog("a", age_maximum_s=50) == 1
        assert await numbers(client, 1) == [2]
        assert broker.metrics()["messages_dropped_expired"] == 2


@pytest.mark.parametrize("answer", ["many", -1])
async def test_failure_lets_everything_go(answer: object, caplog: pytest.LogCaptureFixture):
    async with MemoryBroker() as broker:
        broker.keep_backlogs(lambda client, queued, keep_alive_s: answer)  # type: ignore[arg-type, return-value]
        await away_with(broker, 3)
        assert await numbers(await back(broker), 3) == [0, 1, 2]
        assert "is no number of messages" in caplog.text


async def test_one_function_decides_and_numbers_are_checked():
    async with MemoryBroker() as broker:
        broker.keep_backlogs(Keeper(None))
        with pytest.raises(MqttCoreError, match="another function"):
            broker.keep_backlogs(Keeper())
        with pytest.raises(ValueError, match="not negative"):
            broker.release_backlog("a", -1)
        with pytest.raises(ValueError, match="not negative"):
            broker.release_backlog("a", age_maximum_s=-1)
        assert (broker.backlog("nobody"), broker.release_backlog("nobody")) == (0, 0)
        await away_with(broker, 3)
        assert await numbers(await back(broker), 3) == [0, 1, 2]


async def test_backlog_larger_than_memory_survives_a_restart(tmp_path: Path):
    config = Config(
        sys_interval_s=0,
        limits=Limits(queued_resident_messages=4, in_flight_maximum=5),
        plugins={"sqlite": {"path": str(tmp_path / "kept.db")}},
    )
    async with MemoryBroker(config) as broker:
        broker.keep_backlogs(Keeper())
        await away_with(broker, 40)
        client = await back(broker)
        assert broker.release_backlog("a", 10) == 10
        assert [int((await client.message()).payload) for _ in range(10)] == list(range(10))
        assert broker.release_backlog("a", 3, newest_first=True) == 3
        assert [int((await client.message()).payload) for _ in range(3)] == [39, 38, 37]
    async with MemoryBroker(config) as broker:
        broker.keep_backlogs(Keeper())
        client = await back(broker)
        await client.expect_nothing()
        assert broker.backlog("a") == 27
        await queue(broker, 1, first=100)
        assert int((await client.message()).payload) == 100
        assert broker.release_backlog("a") == 27
        assert [int((await client.message()).payload) for _ in range(27)] == list(range(10, 37))
        assert broker.metrics()["queued"] == broker.metrics()["queued_bytes"] == 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_durable", [False, True])
async def test_whatever_is_released_each_message_comes_once(seed: int, is_durable: bool, tmp_path: Path):
    chance = random.Random(seed)
    config = Config(
        sys_interval_s=0,
        limits=Limits(queued_resident_messages=3, in_flight_maximum=4),
        plugins={"sqlite": {"path": str(tmp_path / "kept.db")}} if is_durable else {},
    )
    came: list[int] = []
    published = 0
    async with MemoryBroker(config) as broker:
        broker.keep_backlogs(lambda client, queued, keep_alive_s: chance.choice([0, 1, 5, None]))
        await away_with(broker, 0)
        client: MemoryClient | None = None
        for _ in range(60):
            match chance.randrange(5):
                case 0 | 1:
                    count = chance.randrange(1, 6)
                    await queue(broker, count, first=published)
                    published += count
                case 2 if client is not None:
                    broker.release_backlog("a", chance.randrange(4), newest_first=chance.random() < 0.5)
                    await broker.settle()
                case 3 if client is not None:
                    await take_all(broker, came, client)
                    await client.lose()
                    client = None
                case _:
                    if client is not None:
                        await take_all(broker, came, client)
                    client = await back(broker)
            if client is not None and chance.random() < 0.7:
                await take_all(broker, came, client)
        if client is None:
            client = await back(broker)
        broker.release_backlog("a")
        while len(came) < published:
            came.append(int((await client.message()).payload))
        await client.expect_nothing()
        assert sorted(came) == list(range(published))
        metrics = broker.metrics()
        assert metrics["queued"] == metrics["queued_bytes"] == metrics["queued_kept_back"] == metrics["in_flight"] == 0


async def take_all(broker: MemoryBroker, came: list[int], client: MemoryClient) -> None:
    """Acknowledge what is on its way."""
    while True:
        info = broker.client("a")
        assert info is not None
        if not info.in_flight:
            return
        came.append(int((await client.message()).payload))


class Door:
    """Gives `a` the right to read one topic from its second connection on."""

    name = "door"

    def __init__(self) -> None:
        self.connects = 0

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> Identity:
        self.connects += connect.client_id == "a"
        readable = "t" if connect.client_id == "a" and self.connects > 1 else "#"
        return Identity(connect.client_id, permissions=(Permission(Action.ALL, readable),))


class Guard:
    """Is asked about each delivery, and allows those of even numbers."""

    name = "guard"

    @hookimpl
    def authorize_deliver(self, client: ClientView, message: Message) -> bool:
        return int(message.payload) % 2 == 0


async def test_all_at_once_is_held_against_the_rights_of_the_connection():
    async with MemoryBroker(plugins=[Door()]) as broker:
        broker.keep_backlogs(Keeper(None))
        client = await broker.connect("a", version=4, clean_start=False)
        await client.subscribe("t", "u", qos=1)
        await client.lose()
        await broker.publish("u", b"0", qos=1)
        await broker.publish("t", b"1", qos=1)
        assert await numbers(await back(broker), 1) == [1]
        metrics = broker.metrics()
        assert metrics["messages_dropped_not_authorized"] == 1
        assert metrics["queued"] == metrics["queued_bytes"] == metrics["queued_kept_back"] == 0


async def test_what_is_shared_goes_to_another_member_when_rights_are_gone():
    async with MemoryBroker() as broker:
        broker.keep_backlogs(Keeper())
        client = await broker.connect("a", version=4, clean_start=False)
        await client.subscribe("$share/g/t", qos=1)
        await client.lose()
        await queue(broker, 2)
        await back(broker)
        other = await broker.connect("b")
        await other.subscribe("$share/g/t", qos=1)
        broker.set_identity("a", Identity("a", permissions=(Permission(Action.SUBSCRIBE, "u"),)))
        assert broker.release_backlog("a") == 0
        assert await numbers(other, 2) == [0, 1]
        assert broker.metrics()["queued"] == 0


async def test_hook_is_asked_about_what_is_released():
    async with MemoryBroker(plugins=[Guard()]) as broker:
        broker.keep_backlogs(Keeper(1))
        await away_with(broker, 5)
        client = await back(broker)
        assert await numbers(client, 1) == [0]
        assert broker.release_backlog("a") == 4
        assert await numbers(client, 2) == [2, 4]
        assert broker.metrics()["queued"] == 0


async def test_function_may_close_the_connection_it_is_asked_about():
    async with MemoryBroker() as broker:

        def closes(client: ClientView, queued: int, keep_alive_s: int) -> int:
            broker.disconnect(client.client_id)
            return 1

        broker.keep_backlogs(closes)
        await away_with(broker, 2)
        client = await back(broker)
        await client.expect_closed()
        info = broker.client("a")
        assert info is not None
        assert (info.queued, broker.metrics()["queued_kept_back"]) == (2, 0)


async def test_a_session_that_is_replaced_takes_what_is_kept_back_with_it():
    async with MemoryBroker() as broker:
        broker.keep_backlogs(Keeper())
        await away_with(broker, 3)
        await back(broker)
        client = await broker.connect("a", version=4)
        await client.expect_nothing()
        metrics = broker.metrics()
        assert metrics["queued"] == metrics["queued_bytes"] == metrics["queued_kept_back"] == 0
