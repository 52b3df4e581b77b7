"""docs/plugins.md: every hook has an example, and every example does what the text says."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

from mqttcore import Auth, Broker, Config, Identity, Listener, PropertyId, ReasonCode, Secret, hookimpl
from mqttcore.codec import ConnAck, Connect
from mqttcore.plugins.hooks import HOOKS, implementations
from mqttcore.plugins.loading import check_class
from mqttcore.testing import MemoryBroker

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")


def run_blocks() -> dict[str, Any]:
    """Return what the examples define, by name."""
    found: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE):
        module = sys.modules["mqttcore_docs"] = ModuleType("mqttcore_docs")
        space = vars(module)
        exec(compile(block, "docs/plugins.md", "exec", dont_inherit=True), space)
        found |= {name: value for name, value in space.items() if getattr(value, "__module__", "") == "mqttcore_docs"}
    return found


DEFINED = run_blocks()
PLUGINS = {
    name: value
    for name, value in DEFINED.items()
    if isinstance(value, type) and any(hasattr(member, "mqttcore_impl") for member in vars(value).values())
}


class Everybody:
    @hookimpl
    def authenticate(self, client: Any, connect: Any) -> Identity:
        return Identity(connect.client_id)


@pytest.mark.parametrize("name", PLUGINS)
def test_plugin_can_be_loaded(name: str):
    check_class(name, PLUGINS[name])
    assert PLUGINS[name].__doc__


def test_every_hook_has_an_example():
    shown = {hook for name, cls in PLUGINS.items() for hook in implementations(name, cls)}
    assert shown == set(HOOKS)


def test_every_hook_is_named_in_the_text():
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert [hook for hook in HOOKS if f"`{hook}`" not in prose] == []


def test_test_of_the_text_is_green():
    DEFINED["test_everybody_comes_in_and_time_passes"]()


async def test_heartbeat():
    cls = PLUGINS["Heartbeat"]
    plugin = cls(cls.Config(Secret("k")))
    async with MemoryBroker(plugins=[plugin]) as broker:
        client = await broker.connect("c")
        await client.subscribe("heartbeat")
        await broker.advance(1)
        assert (await client.message()).payload == b"k"
        await plugin.reload(cls.Config(Secret("l")))
        await broker.advance(1)
        assert (await client.message()).payload == b"l"
    assert plugin.task.done()


async def test_clients_over_http():
    config = Config(listeners=[Listener(port=0, protocol="http")], sys_interval_s=0)
    async with Broker(config, plugins=[PLUGINS["Clients"]()]) as broker:
        url = f"http://127.0.0.1:{broker.addresses[0][2]}/clients"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert await response.json() == []


async def test_post():
    async with MemoryBroker(plugins=[PLUGINS["Post"]()]) as broker:
        anna, bert = await broker.connect("anna"), await broker.connect("bert")
        await bert.subscribe("#")
        assert await bert.publish("bin", b"x", qos=1) == 0
        await bert.publish("post/anna", b"x", qos=1)
        assert (await anna.message()).topic == "post/anna"
        await bert.expect_nothing()


async def test_no_store():
    async with MemoryBroker(plugins=[PLUGINS["NoStore"]()]) as broker:
        await broker.connect("a")


async def test_doors_have_events():
    async with MemoryBroker(plugins=[PLUGINS["Doors"]()]) as broker:
        assert broker._plugins is not None
        assert broker._plugins.event_types == {DEFINED["DoorOpened"]}


async def test_old_versions():
    async with MemoryBroker(plugins=[PLUGINS["OldVersions"]()]) as broker:
        await broker.connect("a", version=3, expect=0x84)
        await broker.connect("a", version=4)


async def test_slow():
    async with MemoryBroker(plugins=[PLUGINS["Slow"]()]) as broker:
        await broker.connect("a", expect=ReasonCode.NOT_AUTHORIZED)
        await broker.connect("a", user_name="anna", password=b"x", expect=ReasonCode.NOT_AUTHORIZED)
        await broker.connect("a", user_name="anna", password=b"open sesame")


async def test_slow_gives_permissions():
    async with MemoryBroker(plugins=[PLUGINS["Slow"]()]) as broker:
        client = await broker.connect("a", user_name="anna", password=b"open sesame")
        assert await client.subscribe("clients/a/x", "news/1", "other") == [2, 1, ReasonCode.NOT_AUTHORIZED]


@pytest.mark.parametrize(("answer", "code"), [(b"42", 0), (b"41", ReasonCode.NOT_AUTHORIZED)])
async def test_riddle(answer: bytes, code: int):
    method = {PropertyId.AUTHENTICATION_METHOD: "riddle"}
    async with MemoryBroker(plugins=[PLUGINS["Riddle"]()]) as broker:
        client = broker.open()
        await client.send(Connect("c", properties=method))
        assert (await client.expect(Auth)).properties[PropertyId.AUTHENTICATION_DATA] == b"6 x 7?"
        await client.send(Auth(0x18, {**method, PropertyId.AUTHENTICATION_DATA: answer}))
        assert (await client.expect(ConnAck)).reason_code == code


async def test_no_wildcards():
    async with MemoryBroker(plugins=[PLUGINS["NoWildcards"]()]) as broker:
        client = await broker.connect("c")
        assert await client.subscribe("a/#", "b", "#") == [1, 1, ReasonCode.NOT_AUTHORIZED]


async def test_quiet_hours():
    plugin = PLUGINS["QuietHours"]()
    async with MemoryBroker(plugins=[plugin]) as broker:
        client = await broker.connect("c")
        await client.subscribe("#")
        assert await client.publish("alarm/1", qos=1) == ReasonCode.NOT_AUTHORIZED
        await client.publish("siren/1", qos=1)
        await client.expect_nothing()
        plugin.is_quiet = False
        for topic in ("alarm/1", "siren/1"):
            await client.publish(topic, qos=1)
            assert (await client.message()).topic == topic


async def test_upper():
    async with MemoryBroker(plugins=[PLUGINS["Upper"]()]) as broker:
        client = await broker.connect("c")
        await client.subscribe("t")
        await client.publish("t", b"loud")
        assert (await client.message()).payload == b"LOUD"


async def test_guestbook():
    plugin = PLUGINS["Guestbook"]()
    async with MemoryBroker(plugins=[plugin]) as broker:
        await broker.connect("anna")
        await broker.settle()
        await asyncio.sleep(0)
        assert plugin.names == ["anna"]
