"""Offline messages of the profile: batches, pulls, tokens that come after CONNECT, QoS and cleanSession."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mqttcore_plugins.aliyun.offline import Offline, PullRefused, wanted

from mqttcore import Config, MqttCoreError, PluginError, ReasonCode
from mqttcore.codec import PubAck, Publish
from mqttcore.testing import MemoryBroker, MemoryClient, assert_plugin_is_well_formed

from .test_conversations import AUTH, World, upload, world

LEGACY: dict[str, Any] = {"legacy_token": True}


def test_plugin_is_well_formed():
    assert_plugin_is_well_formed(Offline)


async def leave(here: World, device: str = "1", topic: str = "parent/a", *, qos: int = 1) -> None:
    client = await here.signed(device, clean_start=False)
    await client.subscribe(topic, qos=qos)
    await client.lose()


async def queue(broker: MemoryBroker, count: int, *, first: int = 0, topic: str = "parent/a") -> None:
    for number in range(first, first + count):
        await broker.publish(topic, b"%d" % number, qos=1)


async def back(here: World, **more: Any) -> MemoryClient:
    return await here.signed("1", clean_start=False, **more)


async def numbers(client: MemoryClient, count: int) -> list[int]:
    """Exactly so many messages come."""
    found = [int((await client.message()).payload) for _ in range(count)]
    await client.expect_nothing()
    return found


async def pull(client: MemoryClient, said: object) -> int:
    payload = said if isinstance(said, bytes) else json.dumps(said).encode()
    return await client.publish("$SYS/getOfflineMsg", payload, qos=1)


async def test_thirty_come_at_once():
    async with world(aliyun_offline={}) as here:
        await leave(here)
        await queue(here.broker, 30)
        assert await numbers(await back(here), 30) == list(range(30))


async def test_more_come_in_batches_of_thirty_every_five_seconds():
    async with world(aliyun_offline={}) as here:
        await leave(here)
        await queue(here.broker, 70)
        client = await back(here)
        assert await numbers(client, 30) == list(range(30))
        await queue(here.broker, 1, first=100)
        assert await numbers(client, 1) == [100]  # what is new does not wait
        await here.broker.advance(4.5)
        await client.expect_nothing()
        await here.broker.advance(0.5)
        assert await numbers(client, 30) == list(range(30, 60))
        await here.broker.advance(5)
        assert await numbers(client, 10) == list(range(60, 70))
        await here.broker.advance(60)
        await client.expect_nothing()
        metrics = here.broker.metrics()
        assert (metrics["plugin_aliyun_offline_batches"], metrics["plugin_aliyun_offline_messages"]) == (3, 70)
        assert metrics["plugin_aliyun_offline_batches_unacknowledged"] == 0


async def test_numbers_are_settings():
    table = {"batch": 2, "interval_s": 1, "start_delay_s": 10}
    async with world(aliyun_offline=table) as here:
        await leave(here)
        await queue(here.broker, 3)
        client = await back(here)
        await here.broker.advance(9)
        await client.expect_nothing()
        await here.broker.advance(1)
        assert await numbers(client, 2) == [0, 1]
        await here.broker.advance(1)
        assert await numbers(client, 1) == [2]


async def test_batches_go_on_with_the_next_connection():
    async with world(aliyun_offline={"batch": 2}) as here:
        await leave(here)
        await queue(here.broker, 5)
        first = await back(here)
        assert await numbers(first, 2) == [0, 1]
        second = await back(here)
        await first.expect_closed()
        assert await numbers(second, 2) == [2, 3]
        await here.broker.advance(5)
        assert await numbers(second, 1) == [4]


async def test_unacknowledged_batches_are_counted_and_not_sent_again():
    async with world(aliyun_offline={"batch": 1}) as here:
        await leave(here)
        await queue(here.broker, 2)
        client = await back(here)
        assert not (await client.expect(Publish)).dup
        await here.broker.advance(5)
        assert (await client.expect(Publish)).payload == b"1"
        await client.expect_nothing()  # [MQTT-4.4.0-1]
        assert here.broker.metrics()["plugin_aliyun_offline_batches_unacknowledged"] == 1
        again = await back(here)
        assert [(await again.expect(Publish)).dup for _ in range(2)] == [True, True]


async def test_pull_gives_what_is_asked_for_and_nothing_by_itself():
    async with world(aliyun_offline={"start_delay_s": 5}) as here:
        await leave(here)
        await queue(here.broker, 80)
        client = await back(here, keep_alive_s=60)
        await here.broker.advance(4)
        assert await pull(client, {"maxPushNum": 2, "pushOrder": "ASC"}) == 0
        assert await numbers(client, 2) == [0, 1]
        await pull(client, {"maxPushNum": 3, "pushOrder": "DESC"})
        assert await numbers(client, 3) == [79, 78, 77]
        await pull(client, {"maxPushNum": 100, "pushOrder": "ASC"})
        assert await numbers(client, 30) == list(range(2, 32))
        await here.broker.advance(30)
        await client.expect_nothing()
        await pull(client, {"maxPushNum": 30, "pushOrder": "ASC"})  # later than the first period: it is chosen already
        assert await numbers(client, 30) == list(range(32, 62))


async def test_pull_is_answered_before_its_messages():
    async with world(aliyun_offline={"start_delay_s": 5}) as here:
        await leave(here)
        await queue(here.broker, 1)
        client = await back(here)
        await client.send(Publish("$SYS/getOfflineMsg", b"{}", qos=1, packet_id=9))
        assert (await client.expect(PubAck)).packet_id == 9
        assert await numbers(client, 1) == [0]


async def test_pull_after_the_first_keep_alive_period_changes_nothing():
    async with world(aliyun_offline={"batch": 1, "interval_s": 20}) as here:
        await leave(here)
        await queue(here.broker, 4)
        client = await back(here, keep_alive_s=30)
        assert await numbers(client, 1) == [0]
        await here.broker.advance(20)
        assert await numbers(client, 1) == [1]
        await here.broker.advance(11)
        assert await pull(client, {"maxPushNum": 30, "pushOrder": "ASC"}) == 0
        await client.expect_nothing()
        await here.broker.advance(9)
        assert await numbers(client, 1) == [2]
        assert here.broker.metrics()["plugin_aliyun_offline_pulls_late"] == 1


@pytest.mark.parametrize(("version", "code"), [(4, 0), (5, ReasonCode.QUOTA_EXCEEDED)])
async def test_five_pulls_a_second(version: int, code: int):
    async with world(aliyun_offline={"start_delay_s": 60}) as here:
        await leave(here)
        await queue(here.broker, 10)
        expiry = {0x11: 3600} if version == 5 else None
        client = await back(here, version=version, properties=expiry)
        for number in range(5):
            assert await pull(client, {"maxPushNum": 1, "pushOrder": "ASC"}) == 0
            assert await numbers(client, 1) == [number]
        assert await pull(client, {"maxPushNum": 1, "pushOrder": "ASC"}) == code
        await client.expect_nothing()
        assert here.broker.metrics()["plugin_aliyun_offline_pulls_over_rate"] == 1
        await here.broker.advance(1)
        await pull(client, {"maxPushNum": 1, "pushOrder": "ASC"})
        assert await numbers(client, 1) == [5]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"30",
        b"[" * 100_000,
        b'{"maxPushNum":0}',
        b'{"maxPushNum":-1}',
        b'{"maxPushNum":true}',
        b'{"maxPushNum":"3"}',
        b'{"maxPushNum":1.5}',
        b'{"pushOrder":"UP"}',
        b'{"pushOrder":["ASC"]}',
    ],
)
def test_junk_is_no_pull(payload: bytes):
    with pytest.raises(PullRefused):
        wanted(payload, 30)


@pytest.mark.parametrize(("version", "code"), [(4, 0), (5, ReasonCode.PAYLOAD_FORMAT_INVALID)])
async def test_junk_is_answered_and_does_not_switch(version: int, code: int):
    async with world(aliyun_offline={"batch": 1}) as here:
        await leave(here)
        await queue(here.broker, 2)
        client = await back(here, version=version, properties={0x11: 3600} if version == 5 else None)
        assert await numbers(client, 1) == [0]
        assert await pull(client, b"junk") == code
        await here.broker.advance(5)
        assert await numbers(client, 1) == [1]


async def test_nothing_waits_and_a_pull_is_acknowledged():
    async with world(aliyun_offline={}) as here:
        client = await here.signed("1")
        assert await pull(client, {"maxPushNum": 30, "pushOrder": "ASC"}) == 0
        await client.expect_nothing()


async def test_nothing_comes_before_the_token_is_accepted():
    async with world(aliyun_auth=LEGACY, aliyun_offline={}) as here:
        first = await here.broker.connect("GID_Test@@@1", version=4, clean_start=False)
        await first.publish("$SYS/uploadToken", upload(here.token("RW", "parent/a", "parent/b")), qos=1)
        await first.subscribe("parent/a", "parent/b", qos=1)
        await first.lose()
        await queue(here.broker, 2)
        await queue(here.broker, 2, first=10, topic="parent/b")
        client = await here.broker.connect("GID_Test@@@1", version=4, clean_start=False)
        await client.expect_nothing()
        await here.broker.advance(10)
        await client.expect_nothing()
        await client.publish("$SYS/uploadToken", upload(here.token("R", "parent/b"), "R"), qos=1)
        assert await numbers(client, 2) == [10, 11]  # what the token does not allow is dropped


async def test_pull_before_the_token_gives_nothing_and_chooses():
    async with world(aliyun_auth=LEGACY, aliyun_offline={}) as here:
        first = await here.broker.connect("GID_Test@@@1", version=4, clean_start=False)
        await first.publish("$SYS/uploadToken", upload(here.token()), qos=1)
        await first.subscribe("parent/a", qos=1)
        await first.lose()
        await queue(here.broker, 2)
        client = await here.broker.connect("GID_Test@@@1", version=4, clean_start=False)
        await pull(client, {"maxPushNum": 1, "pushOrder": "ASC"})
        await client.expect_nothing()
        await client.publish("$SYS/uploadToken", upload(here.token()), qos=1)
        await client.expect_nothing()
        await pull(client, {"maxPushNum": 1, "pushOrder": "ASC"})
        assert await numbers(client, 1) == [0]


async def test_three_days_are_kept():
    async with world(aliyun_offline={}) as here:
        await leave(here)
        await queue(here.broker, 1)
        await here.broker.advance(100)
        await queue(here.broker, 1, first=1)
        await here.broker.advance(3 * 86_400 - 100)
        assert await numbers(await back(here), 1) == [1]


@pytest.mark.parametrize(
    ("qos", "published", "clean_start", "kept"),
    [(0, 1, False, 0), (1, 0, False, 0), (1, 1, False, 1), (1, 2, False, 1), (0, 0, True, 0), (1, 1, True, 0)],
)
async def test_what_is_kept_by_qos_and_clean_session(qos: int, published: int, clean_start: bool, kept: int):
    async with world(aliyun_offline={}) as here:
        client = await here.signed("1", clean_start=clean_start)
        await client.subscribe("parent/a", qos=qos)
        await here.broker.publish("parent/a", b"0", qos=published)
        assert await numbers(client, 1) == [0]
        await client.lose()
        await here.broker.publish("parent/a", b"1", qos=published)
        client = await here.signed("1", clean_start=clean_start)
        assert await numbers(client, kept) == [1] * kept


async def test_qos2_takes_no_effect_with_a_persistent_session():
    async with world(aliyun_offline={}) as here:
        client = await here.signed("1", clean_start=False)
        assert await client.subscribe("parent/a", qos=2) == [0x80]


@pytest.mark.parametrize(("clean_start", "kept"), [(False, 1), (True, 0)])
async def test_peer_to_peer_is_kept_by_the_senders_session(clean_start: bool, kept: int):
    async with world(aliyun_offline={}) as here:
        await leave(here)
        sender = await here.signed("2", clean_start=clean_start)
        await sender.publish("parent/p2p/GID_Test@@@1", b"7", qos=1)
        assert await numbers(await back(here), kept) == [7] * kept


async def test_restart_keeps_the_rest(tmp_path: Path):
    plugins = {"sqlite": {"path": str(tmp_path / "kept.db")}, "aliyun_offline": {"batch": 2}}
    config = Config(sys_interval_s=0, plugins=plugins)  # the plugin does not need the registry
    async with MemoryBroker(config) as broker:
        client = await broker.connect("a", version=4, clean_start=False)
        await client.subscribe("parent/a", qos=1)
        await client.lose()
        await queue(broker, 5)
        assert await numbers(await broker.connect("a", version=4, clean_start=False), 2) == [0, 1]
    async with MemoryBroker(config) as broker:
        client = await broker.connect("a", version=4, clean_start=False)
        assert await numbers(client, 2) == [2, 3]
        await broker.advance(5)
        assert await numbers(client, 1) == [4]


async def test_place_before_the_registry_stops_the_start():
    config = Config(sys_interval_s=0, plugins={"aliyun_offline": {}, "aliyun_auth": AUTH})
    with pytest.raises((PluginError, MqttCoreError), match="in a place before it"):
        async with MemoryBroker(config):
            pass
