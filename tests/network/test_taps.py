"""Batched taps, observers, repeating calls, sections: what runs beside the packet path, on both loops and drivers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest

from mqttcore import (
    AlarmChanged,
    Broker,
    ClientConnected,
    Config,
    ConnectionClosed,
    Event,
    Message,
    MqttCoreError,
    SessionEnded,
)
from mqttcore.codec import ConnAck, Connect, PubAck, Publish, Subscription
from network.clients import Raw, join, until
from network.conftest import quiet_config

pytestmark = pytest.mark.usefixtures("driver")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather(Event):
    """A plugin's own event."""

    text: str


class Sink:
    """Takes batches as slowly as it is told."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.batches: list[list[Message]] = []
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()
        self.working = 0

    async def __call__(self, batch: list[Message]) -> None:
        self.working += 1
        assert self.working == 1, "two batches at a time"
        await self.gate.wait()
        self.batches.append(batch)
        self.working -= 1

    @property
    def payloads(self) -> list[bytes]:
        """Everything it got, in order."""
        return [message.payload for batch in self.batches for message in batch]


# --- taps -------------------------------------------------------------------------------------------------------------


async def test_messages_of_one_turn_come_as_one_batch(config: Config):
    batches: list[list[Message]] = []
    async with Broker(config) as broker:
        tap = broker.tap("t/#", batches.append)
        for number in range(10):
            broker.publish_nowait("t/x", b"%d" % number)
        broker.publish_nowait("u")
        assert tap.queued == 10
        await tap.drain()
        assert [[message.payload for message in batch] for batch in batches] == [[b"%d" % n for n in range(10)]]
        assert (tap.queued, tap.taken, tap.dropped) == (0, 10, 0)
        assert broker.metrics()["batch_taps"] == 1
        tap.close()
        tap.close()
        broker.publish_nowait("t/x")
        assert broker.metrics()["taps"] == broker.metrics()["batch_taps"] == 0
    assert len(batches) == 1


async def test_batches_are_bounded(config: Config):
    batches: list[list[Message]] = []
    async with Broker(config) as broker:
        tap = broker.tap("#", batches.append, batch_maximum=4)
        for number in range(10):
            broker.publish_nowait("t", b"%d" % number)
        await tap.drain()
    assert [len(batch) for batch in batches] == [4, 4, 2]


async def test_coroutine_gets_one_batch_at_a_time(config: Config):
    sink = Sink(is_open=False)
    async with Broker(config) as broker:
        tap = broker.tap("#", sink)
        broker.publish_nowait("t", b"1")
        await until(lambda: sink.working == 1)
        for payload in (b"2", b"3"):
            broker.publish_nowait("t", payload)
        assert tap.queued == 2
        sink.gate.set()
        await tap.drain()
    assert [len(batch) for batch in sink.batches] == [1, 2]
    assert sink.payloads == [b"1", b"2", b"3"]


async def test_full_tap_drops_the_newest_and_counts(config: Config):
    sink = Sink(is_open=False)
    async with Broker(config) as broker:
        tap = broker.tap("#", sink, messages_maximum=3)
        broker.publish_nowait("t", b"0")
        await until(lambda: sink.working == 1)
        for number in range(1, 6):
            broker.publish_nowait("t", b"%d" % number)
        assert (tap.queued, tap.dropped) == (3, 2)
        assert broker.metrics()["messages_dropped_tap_full"] == 2
        sink.gate.set()
        await tap.drain()
    assert sink.payloads == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("qos", [1, 2])
async def test_pausing_tap_loses_nothing_that_was_acknowledged(config: Config, qos: int):
    sink = Sink(is_open=False)
    count, clients = 200, 3
    async with Broker(config) as broker:
        tap = broker.tap("t/#", sink, messages_maximum=8, batch_maximum=5, when_full="pause")
        writers = [await join(broker, f"writer{number}") for number in range(clients)]

        async def write(number: int) -> None:
            for n in range(count):
                await writers[number].publish(f"t/{number}", b"%d" % n, qos=qos)

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(write(number))
            await until(lambda: broker.metrics()["publishers_paused"] >= 1)
            most = 8 + clients
            for _ in range(20):
                await asyncio.sleep(0)
                assert tap.queued <= most
            sink.gate.set()
        await tap.drain()
        assert tap.dropped == 0
        for number in range(clients):
            got = [m.payload for batch in sink.batches for m in batch if m.topic == f"t/{number}"]
            assert got == [b"%d" % n for n in range(count)]
        for writer in writers:
            await writer.close()


async def test_pausing_tap_drops_qos_0_and_what_the_broker_says(config: Config):
    sink = Sink(is_open=False)
    async with Broker(config) as broker:
        tap = broker.tap("#", sink, messages_maximum=4, when_full="pause")
        broker.publish_nowait("t", b"0", qos=1)
        await until(lambda: sink.working == 1)
        async with await join(broker, "a") as client:
            for _ in range(10):
                await client.publish("t", qos=0)
            await client.subscribe([Subscription("last", 0)])  # the broker has handled all before it
        for _ in range(10):
            broker.publish_nowait("t", qos=1)
        assert (tap.queued, tap.dropped) == (4, 16)
        sink.gate.set()
        await tap.drain()


async def test_closing_a_full_tap_lets_publishers_go_on(config: Config):
    sink = Sink(is_open=False)
    async with Broker(config) as broker:
        tap = broker.tap("#", sink, messages_maximum=2, when_full="pause")
        async with await Raw.open(broker) as raw:
            await raw.send(Connect("a"), *[Publish("t", qos=1, packet_id=n) for n in range(1, 11)])
            assert isinstance(await raw.receive(), ConnAck)
            await until(lambda: broker.metrics()["publishers_paused"] == 2)  # with the first two, and behind them
            assert tap.queued == 2
            tap.close()
            assert [await raw.receive() for _ in range(10)] == [PubAck(n, 0x10 if n > 4 else 0) for n in range(1, 11)]


async def test_failing_tap_is_alone(config: Config, caplog: pytest.LogCaptureFixture):
    failures: list[BaseException] = []
    got: list[bytes] = []

    def fail(batch: list[Message]) -> None:
        raise ZeroDivisionError

    async def fail_later(batch: list[Message]) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async with Broker(config) as broker:
        taps = [
            broker.tap("#", fail, batch_maximum=1),
            broker.tap("#", fail_later, batch_maximum=1, on_failure=failures.append),
            broker.tap("#", lambda batch: got.extend(message.payload for message in batch)),
        ]
        for number in range(3):
            broker.publish_nowait("t", b"%d" % number)
        for tap in taps:
            await tap.drain()
        assert [tap.failures for tap in taps] == [3, 3, 0]
    assert got == [b"0", b"1", b"2"]
    assert [type(error) for error in failures] == [ZeroDivisionError] * 3
    logged = [record for record in caplog.records if "tap on #" in record.getMessage()]
    assert len(logged) == 2
    caplog.clear()


async def test_stopping_ends_taps(config: Config):
    sink = Sink(is_open=False)
    async with Broker(config) as broker:
        tap = broker.tap("#", sink)
        broker.publish_nowait("t")
        await until(lambda: sink.working == 1)
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await tap.drain()
    with pytest.raises(MqttCoreError):
        broker.tap("#", sink)


# --- observers and event streams --------------------------------------------------------------------------------------


async def test_event_stream(config: Config):
    async with Broker(config) as broker, broker.events(ClientConnected, ConnectionClosed) as events:
        async with await join(broker, "a"):
            pass
        first, second = await anext(events), await anext(events)
        assert isinstance(first, ClientConnected)
        assert isinstance(second, ConnectionClosed)
        assert first.connection_id == second.connection_id
        assert first.listener == "default"
        assert abs(first.time_ms - second.time_ms) < 60_000


async def test_event_stream_ends_with_the_broker_and_its_last_events(config: Config):
    broker = Broker(config)
    await broker.start()
    async with broker.events() as events:
        client = await join(broker, "a")
        await broker.stop()
        seen = [type(event) async for event in events]
    assert seen == [ClientConnected, ConnectionClosed, SessionEnded]
    await client.close()


async def test_event_stream_is_bounded():
    broker = Broker(msgspec.structs.replace(quiet_config(), events_queued_maximum=3))
    async with broker, broker.events() as events:
        for number in range(5):
            broker.emit(Weather(time_ms=number, text="rain"))
            await asyncio.sleep(0)
        assert events.dropped == 2
        assert [(await anext(events)).time_ms for _ in range(3)] == [0, 1, 2]


async def test_observers_get_batches_in_order(config: Config):
    batches: list[Sequence[Event]] = []
    slow: list[Sequence[Event]] = []
    gate = asyncio.Event()

    async def observe_slowly(events: Sequence[Event]) -> None:
        await gate.wait()
        slow.append(events)

    broker = Broker(config)
    observer = broker._observers.add(batches.append)  # before it starts, as plugins are
    broker._observers.add(observe_slowly, Weather)
    async with broker:
        for number in range(3):
            broker.emit(Weather(time_ms=number, text="rain"))
        await asyncio.sleep(0)
        broker.emit(Weather(time_ms=3, text="sun"))
        await asyncio.sleep(0)
        assert [[event.time_ms for event in batch] for batch in batches] == [[0, 1, 2], [3]]
        assert slow == []
        assert broker.metrics()["events_queued"] == 1
        gate.set()
        await until(lambda: len(slow) == 2)
        observer.close()
        observer.close()
        broker.emit(Weather(time_ms=4, text="sun"))
    assert [[event.time_ms for event in batch] for batch in slow] == [[0, 1, 2], [3], [4]]
    assert len(batches) == 2


async def test_slow_observer_drops_its_own(caplog: pytest.LogCaptureFixture):
    broker = Broker(msgspec.structs.replace(quiet_config(), events_queued_maximum=2, plugin_timeout_s=0.05))
    seen: list[Event] = []

    async def hang(events: Sequence[Event]) -> None:
        await asyncio.Event().wait()

    broker._observers.add(hang, name="hanging")
    broker._observers.add(seen.extend)
    async with broker:
        for number in range(5):
            broker.emit(Weather(time_ms=number, text="rain"))
            await asyncio.sleep(0)
        assert len(seen) == 5
        metrics = broker.metrics()
        assert (metrics["events_queued"], metrics["events_dropped_by_observers"]) == (2, 2)
    assert "hanging: 2 events were not taken in time" in caplog.text


async def test_failing_observer_is_alone(config: Config, caplog: pytest.LogCaptureFixture):
    failures: list[BaseException] = []
    seen: list[Event] = []

    async def fail(events: Sequence[Event]) -> None:
        raise ZeroDivisionError

    broker = Broker(config)
    broker._observers.add(lambda events: 1 // 0, name="broken")
    broker._observers.add(fail, on_failure=failures.append)
    broker._observers.add(seen.extend)
    async with broker:
        for number in range(3):
            broker.emit(Weather(time_ms=number, text="rain"))
            await asyncio.sleep(0)
        await until(lambda: len(failures) == 3)
    assert len(seen) == 3
    assert len([record for record in caplog.records if "broken failed" in record.getMessage()]) == 2
    caplog.clear()


async def test_only_events_are_emitted(config: Config):
    async with Broker(config) as broker:
        with pytest.raises(TypeError):
            broker.emit("rain")  # type: ignore[arg-type]
        broker.emit(Weather(time_ms=1, text="nobody observes"))


async def test_alarms(config: Config, caplog: pytest.LogCaptureFixture):
    async with Broker(config) as broker, broker.events(AlarmChanged) as events:
        for text in ("full", "full", "fuller"):
            broker.raise_alarm("store_full", text)
        assert broker.alarms == {"store_full": "fuller"}
        broker.clear_alarm("store_full", "cleaned up")
        broker.clear_alarm("store_full")
        assert broker.alarms == {}
        seen = [await anext(events) for _ in range(3)]
    assert [(e.name, e.is_raised, e.text) for e in seen if isinstance(e, AlarmChanged)] == [
        ("store_full", True, "full"),
        ("store_full", True, "fuller"),
        ("store_full", False, "cleaned up"),
    ]
    assert "alarm store_full: fuller" in caplog.text


# --- repeating calls, sections ----------------------------------------------------------------------------------------


async def test_calls_repeat_until_they_are_cancelled(config: Config, caplog: pytest.LogCaptureFixture):
    failures: list[BaseException] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async with Broker(config) as broker:
        call = broker.call_every(0.001, fail, on_failure=failures.append)
        other = broker.call_every(0.001, lambda: 1 // 0)
        await until(lambda: len(failures) >= 3 and other.failures >= 3)
        call.cancel()
        call.cancel()
        assert broker.metrics()["repeating_calls"] == 1
        later = other.failures + 1
        await until(lambda: other.failures >= later)  # the coroutine that was under way is done
        count, later = call.failures, other.failures + 5
        await until(lambda: other.failures >= later)
        assert call.failures == len(failures) == count
        with pytest.raises(ValueError, match="not above 0"):
            broker.call_every(0, fail)
    assert "called every 0.001 s, failed 2 times" in caplog.text
    caplog.clear()


async def test_stopping_ends_calls(config: Config):
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    async with Broker(config) as broker:
        broker.call_every(0.001, hang)
        await started.wait()
    await asyncio.sleep(0)


async def test_section_of_a_plugin(caplog: pytest.LogCaptureFixture):
    async with Broker(quiet_config(sys_interval_s=1)) as broker:
        section = broker.plugin_section("bridge")
        assert broker.plugin_section("bridge") is section
        section.add("sent")
        section.add("sent", 4)
        section.set("queued", 7)
        section.measure("age_s", lambda: 9)
        section.measure("broken", lambda: 1 // 0)
        found = {key: value for key, value in broker.metrics().items() if key.startswith("plugin_bridge_")}
        assert found == {"plugin_bridge_sent": 5, "plugin_bridge_queued": 7, "plugin_bridge_age_s": 9}
        async with broker.subscribe("$SYS/broker/plugins/bridge/sent") as messages, asyncio.timeout(60):
            assert (await anext(messages)).payload == b"5"
        for key in ("Sent", "", "a/b", "x" * 65):
            with pytest.raises(ValueError, match="no name of a metric"):
                section.add(key)
        with pytest.raises(ValueError, match="of the other kind"):
            section.measure("sent", lambda: 1)
        with pytest.raises(ValueError, match="at most"):  # noqa: PT012 (which one it is does not matter)
            for number in range(300):
                section.set(f"n{number}", 1)
    assert caplog.text.count("gauge broken of plugin bridge") == 1
    caplog.clear()
