"""The broker watches how much memory it has: alarm, metrics, who is refused; set and set anew by the configuration."""

import msgspec
import pytest

from mqttcore import AlarmChanged, Broker, Config, ConnectionRefused, Event, ReasonCode, hookimpl
from mqttcore.net import memory
from network.clients import join, until

MIB = 1 << 20


class Watcher:
    """Keeps the alarms that it is told of."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, str]] = []

    @hookimpl
    def observe(self, events: list[Event]) -> None:
        told = [one for one in events if isinstance(one, AlarmChanged) and one.name == "memory"]
        self.seen += [(one.is_raised, one.text) for one in told]


async def is_refused(broker: Broker, client_id: str) -> bool:
    try:
        await (await join(broker, client_id)).close()
    except ConnectionRefused as error:
        return error.reason_code == ReasonCode.SERVER_BUSY
    return False


async def test_alarm_and_refusals_come_and_go(config: Config, monkeypatch: pytest.MonkeyPatch):
    resident = 50 * MIB
    monkeypatch.setattr(memory, "resident_bytes", lambda: resident)
    watcher = Watcher()
    config = msgspec.structs.replace(config, memory_maximum_bytes=100 * MIB)
    async with Broker(config, plugins=[watcher]) as broker, await join(broker, "old") as old:
        assert not await is_refused(broker, "new")
        resident = 95 * MIB
        await until(lambda: "memory" in broker.alarms)
        assert broker.metrics()["memory_short"] == 1
        assert await is_refused(broker, "new")
        resident = 100 * MIB
        await until(lambda: broker.metrics()["memory_full"] == 1)
        assert broker.metrics()["memory_resident_bytes"] == resident
        await old.publish("t", b"1")
        resident = 80 * MIB
        await until(lambda: "memory" not in broker.alarms)
        assert not await is_refused(broker, "new")
        await until(lambda: len(watcher.seen) == 3)
    assert watcher.seen == [
        (True, "95 of 100 MiB are resident: there are no new sessions"),
        (True, "100 of 100 MiB are resident: nothing may grow"),
        (False, "80 of 100 MiB are resident"),
    ]


async def test_maximum_can_be_set_anew(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "resident_bytes", lambda: 50 * MIB)
    async with Broker(msgspec.structs.replace(config, memory_maximum_bytes=40 * MIB)) as broker:
        await until(lambda: broker.metrics()["memory_full"] == 1)
        assert await broker.reload(msgspec.structs.replace(config, memory_maximum_bytes=0)) == []
        await until(lambda: broker.metrics()["memory_short"] == 0)
        assert broker.metrics()["memory_maximum_bytes"] == 0
        assert not await is_refused(broker, "new")


async def test_without_a_maximum_there_is_one_by_the_machine(config: Config):
    async with Broker(config) as broker:
        await until(lambda: broker.metrics()["memory_resident_bytes"] > 0)
        whole = memory.available_bytes()
        assert whole is not None
        assert broker.metrics()["memory_maximum_bytes"] == int(whole * 0.8)
