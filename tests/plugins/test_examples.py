"""Every plugin in plugins/examples does what it says."""

from __future__ import annotations

import hmac
import importlib.util
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

from mqttcore import (
    Auth,
    Broker,
    Config,
    Connect,
    Identity,
    Listener,
    PropertyId,
    ReasonCode,
    Secret,
    SessionEnded,
    hookimpl,
)
from mqttcore.codec import ConnAck
from mqttcore.testing import AuthenticatorContract, Credentials, MemoryBroker, assert_plugin_is_well_formed

EXAMPLES = Path(__file__).parents[2] / "plugins" / "examples"
PATHS = sorted(EXAMPLES.glob("*.py"))


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mqttcore_examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plugin_class(module: ModuleType) -> Any:
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "Config")
    ]
    return found


def make(name: str, **settings: Any) -> Any:
    cls = plugin_class(example(name))
    return cls(cls.Config(**settings))


class Everybody:
    """Accepts whom nobody else knows."""

    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Identity:
        return Identity(connect.client_id)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_example_is_short_and_well_formed(path: Path):
    module = example(path.stem)
    assert module.__doc__
    assert_plugin_is_well_formed(plugin_class(module))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 90


def test_there_are_ten_and_each_is_tested_here():
    assert len(PATHS) == 10
    own = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in PATHS if f'make("{path.stem}"' not in own] == []


class TestStaticUsers(AuthenticatorContract):
    good = Credentials("anna", b"hunter2")

    def plugins(self) -> list[object]:
        return [make("static_users", passwords={"anna": Secret("hunter2"), "bert": Secret("")})]


async def test_clients_with_the_prefix_are_denied_before_they_authenticate():
    async with MemoryBroker(plugins=[make("deny_prefix", prefixes=("bad-", "worse-")), Everybody()]) as broker:
        await broker.connect("bad-1", expect=ReasonCode.BANNED)
        await broker.connect("good-1")
        assert [call.arguments[0].client_id for call in broker.hook_calls("authenticate")] == ["good-1"]


async def test_topics_are_rewritten():
    async with MemoryBroker(plugins=[make("rewrite_topic", old="old/", new="new/")]) as broker:
        subscriber = await broker.connect("s")
        await subscriber.subscribe("#")
        publisher = await broker.connect("p")
        for topic in ("old/1", "older", "x/old/1"):
            await publisher.publish(topic, b"x", qos=1)
        assert [(await subscriber.message()).topic for _ in range(3)] == ["new/1", "older", "x/old/1"]


async def test_messages_are_stamped_and_stamps_not_forged():
    async with MemoryBroker(plugins=[make("stamp")]) as broker:
        subscriber = await broker.connect("s")
        await subscriber.subscribe("t")
        publisher = await broker.connect("p")
        forged = {PropertyId.USER_PROPERTY: [("publisher", "boss"), ("a", "b")], PropertyId.CONTENT_TYPE: "x"}
        await publisher.publish("t", b"x", properties=forged)
        properties = (await subscriber.message()).properties
        assert properties[PropertyId.USER_PROPERTY] == [("a", "b"), ("publisher", "p")]
        assert properties[PropertyId.CONTENT_TYPE] == "x"


async def test_events_are_logged_by_kind(caplog: pytest.LogCaptureFixture):
    plugin = make("log_events", kinds=frozenset({"SessionEnded"}))
    async with MemoryBroker(plugins=[plugin]) as broker:
        with caplog.at_level(logging.INFO, "mqttcore_examples.log_events"):
            client = await broker.connect("c")
            await client.disconnect()
            await broker.settle()
            assert "SessionEnded" in caplog.text
            assert "client_id='c'" in caplog.text
            assert "ClientConnected" not in caplog.text
            plugin.reload(type(plugin).Config())
            await broker.connect("d")
            await broker.settle()
    assert "ClientConnected" in caplog.text


def test_events_are_logged_in_a_line(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "mqttcore_examples.log_events"):
        make("log_events").observe([SessionEnded(time_ms=1, client_id="c")])
    assert caplog.messages == ["SessionEnded(time_ms=1, client_id='c')"]


async def test_topics_are_counted():
    plugin = make("count_topics", topic_filter="a/#", topics_maximum=2)
    async with MemoryBroker(plugins=[plugin]) as broker:
        client = await broker.connect("c")
        for topic in ("a/1", "a/1", "b", "a/2", "a/3", "a/4"):
            await client.publish(topic)
        await broker.settle()
        assert broker.service("count_topics.counts") == {"a/1": 2, "a/2": 1, "other": 2}


async def test_status_is_told_over_http():
    config = Config(listeners=[Listener(port=0, protocol="http")], sys_interval_s=0)
    async with Broker(config, plugins=[make("http_status", path="/state")]) as broker:
        url = f"http://127.0.0.1:{broker.addresses[0][2]}/state"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.status == 200
            assert await response.json() == {
                "sessions_connected": 0,
                "sessions": 0,
                "subscriptions": 0,
                "retained": 0,
                "alarms": {},
            }


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_echo_comes_back_to_its_publisher_alone(qos: int):
    async with MemoryBroker(plugins=[make("echo")]) as broker:
        other = await broker.connect("other")
        await other.subscribe("#")
        client = await broker.connect("c")
        assert await client.publish("echo/1", b"x", qos=qos) == 0
        message = await client.message()
        assert (message.topic, message.payload, message.qos) == ("echo/1", b"x", qos)
        await other.expect_nothing()


METHOD = {PropertyId.AUTHENTICATION_METHOD: "EXAMPLE-HMAC-SHA-256"}


@pytest.mark.parametrize(
    ("user_name", "secret", "code"),
    [("anna", b"hunter2", 0), ("anna", b"hunter", ReasonCode.NOT_AUTHORIZED), ("eve", b"", ReasonCode.NOT_AUTHORIZED)],
)
async def test_challenge_is_answered(user_name: str, secret: bytes, code: int):
    async with MemoryBroker(plugins=[make("challenge", secrets={"anna": Secret("hunter2")})]) as broker:
        client = broker.open()
        await client.send(Connect("c", user_name=user_name, properties=METHOD))
        nonce = (await client.expect(Auth)).properties[PropertyId.AUTHENTICATION_DATA]
        proof = hmac.digest(secret, nonce, "sha256")
        await client.send(Auth(0x18, {**METHOD, PropertyId.AUTHENTICATION_DATA: proof}))
        assert (await client.expect(ConnAck)).reason_code == code
        if code == 0:
            await client.send(Auth(0x19, METHOD))
            again = (await client.expect(Auth)).properties[PropertyId.AUTHENTICATION_DATA]
            assert again != nonce
            await client.send(Auth(0x18, {**METHOD, PropertyId.AUTHENTICATION_DATA: proof}))
            await client.expect_closed(ReasonCode.NOT_AUTHORIZED)  # an old proof


async def test_guests_have_quotas_and_topics_of_their_own():
    plugin = make("quotas", messages_per_s=5)
    async with MemoryBroker(plugins=[plugin, Everybody()]) as broker:
        guest = await broker.connect("guest-1")
        (call,) = broker.hook_calls("authenticate")
        assert call.answer.quotas.messages_per_s == 5
        assert await guest.subscribe("guests/guest-1/#", "guests/guest-2/#", "news/#") == [
            2,
            ReasonCode.NOT_AUTHORIZED,
            0,
        ]
        assert await guest.publish("guests/guest-1/a", qos=1) == 0
        assert await guest.publish("news/a", qos=1) == ReasonCode.NOT_AUTHORIZED
        assert await (await broker.connect("other")).publish("news/a", qos=1) == 0
