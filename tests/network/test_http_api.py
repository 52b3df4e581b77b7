"""The management API: what it shows and does, noun by noun."""

import base64
import json
import logging
import socket

import aiohttp
import msgspec
import pytest

from mqttcore import Broker, ConfigError, PropertyId, Secret, hookimpl, publishing
from mqttcore.client import Client, open_client
from mqttcore.codec import Connect
from mqttcore.plugins import loading
from mqttcore.plugins.discovery import InstalledPlugin

from .http_api import Api, api_config


async def connect(broker: Broker, client_id: str, **connect) -> Client:
    _, host, port = broker.addresses[1]
    return await open_client(Connect(client_id, **connect), host=host, port=port)


async def test_clients_are_listed_page_by_page_and_by_what_they_are():
    async with Broker(api_config()) as broker, Api(broker) as api:
        clients = [await connect(broker, f"c{number}") for number in range(5)]
        seen, cursor = [], ""
        while cursor is not None:
            page = await api.ask("GET", "/clients", params={"limit": "2", "cursor": cursor})
            assert 1 <= len(page["clients"]) <= 2
            seen += [one["client_id"] for one in page["clients"]]
            cursor = page["next_cursor"]
        assert seen == ["c0", "c1", "c2", "c3", "c4"]
        for wanted, found in (
            ({"client_id_prefix": "c3"}, ["c3"]),
            ({"is_connected": "true", "limit": "1"}, ["c0"]),
            ({"is_connected": "false"}, []),
            ({"host": "127.0.0.1", "client_id_prefix": "c4"}, ["c4"]),
            ({"host": "10.0.0.1"}, []),
            ({"user_name": "nobody"}, []),
        ):
            page = await api.ask("GET", "/clients", params=wanted)
            assert [one["client_id"] for one in page["clients"]] == found, wanted
        one = await api.ask("GET", "/clients/c1")
        assert one["is_connected"] is True
        assert one["protocol_version"] == 5
        assert one["address"].startswith("127.0.0.1:")
        await api.ask("GET", "/clients/nobody", expect=404)
        await api.ask("GET", "/clients", params={"limit": "0"}, expect=400)
        await api.ask("GET", "/clients", params={"colour": "red"}, expect=400)
        await api.ask("GET", "/clients", params=[("limit", "1"), ("limit", "2")], expect=400)
        for client in clients:
            await client.close()


async def test_subscriptions_to_a_filter_are_listed_page_by_page():
    async with Broker(api_config()) as broker, Api(broker) as api:
        names = ["a", "b", "ä", "\n", "z" * 100]
        clients = [await connect(broker, name) for name in names]
        for name in names:
            broker.subscribe_client(name, "t/#")
        broker.subscribe_client("a", "$share/g/t/#")
        found, cursor = [], ""
        while cursor is not None:
            asked = {"topic_filter": "t/#", "limit": "2", "cursor": cursor}
            page = await api.ask("GET", "/subscriptions", params=asked)
            assert 0 < len(page["subscriptions"]) <= 2
            found += [one["client_id"] for one in page["subscriptions"]]
            cursor = page["next_cursor"]
        assert found == sorted(names)
        nowhere = {"topic_filter": "t/#", "cursor": "gA=="}
        await api.ask("GET", "/subscriptions", params=nowhere, expect=404)
        for client in clients:
            await client.close()


async def test_clients_are_kicked_and_sessions_ended():
    async with Broker(api_config()) as broker, Api(broker) as api:
        clients = {
            name: await connect(broker, name, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60})
            for name in ("a", "b/c", "d")
        }
        await api.ask("POST", "/clients/a/kick", json={"reason": "go"}, expect=204)
        assert not broker.client("a").is_connected
        await api.ask("POST", "/clients/a/kick", json={}, expect=404)
        await api.ask("POST", "/clients/b%2Fc/kick", json={}, expect=204)
        asked = {"client_ids": ["d", "nobody", "d"]}
        assert await api.ask("POST", "/kick", json=asked) == {"count": 1, "missing": ["nobody"]}
        assert [one["client_id"] for one in (await api.ask("GET", "/sessions"))["clients"]] == ["a", "b/c", "d"]
        await api.ask("DELETE", "/sessions/d", expect=204)
        await api.ask("DELETE", "/sessions/d", expect=404)
        assert broker.client("d") is None
        for client in clients.values():
            await client.close()


async def test_subscriptions_are_made_and_removed_on_a_clients_behalf():
    async with Broker(api_config()) as broker, Api(broker) as api:
        client = await connect(broker, "a")
        granted = await api.ask("POST", "/clients/a/subscriptions", json={"topic_filter": "t/+", "qos": 1})
        assert granted == {"reason_code": 1}
        wanted = {
            "client_id": "a",
            "topic_filter": "t/+",
            "qos": 1,
            "no_local": False,
            "retain_as_published": False,
            "retain_handling": 0,
            "subscription_id": 0,
        }
        assert await api.ask("GET", "/clients/a/subscriptions") == {"subscriptions": [wanted], "next_cursor": None}
        assert await api.ask("GET", "/subscriptions", params={"topic_filter": "t/+"}) == {
            "subscriptions": [wanted],
            "next_cursor": None,
        }
        await api.ask("DELETE", "/clients/a/subscriptions", params={"topic_filter": "t/+"}, expect=204)
        await api.ask("DELETE", "/clients/a/subscriptions", params={"topic_filter": "t/+"}, expect=404)
        await api.ask("POST", "/clients/nobody/subscriptions", json={"topic_filter": "t"}, expect=404)
        await api.ask("POST", "/clients/a/subscriptions", json={"topic_filter": "a#"}, expect=400)
        await client.close()


async def test_messages_are_published():
    async with Broker(api_config()) as broker, Api(broker) as api, broker.subscribe("#") as stream:
        given = {
            "topic": "t",
            "payload": "grüße",
            "qos": 1,
            "content_type": "text/plain",
            "correlation_data": base64.b64encode(b"\0\1").decode(),
            "message_expiry_s": 60,
            "response_topic": "r",
            "user_properties": [["a", "b"], ["a", "c"]],
        }
        assert (await api.ask("POST", "/publish", json=given))["reached"] == 1
        message = await anext(stream)
        assert (message.payload, message.qos) == ("grüße".encode(), 1)
        assert message.properties[PropertyId.CORRELATION_DATA] == b"\0\1"
        assert message.properties[PropertyId.USER_PROPERTY] == [("a", "b"), ("a", "c")]
        assert message.properties[PropertyId.RESPONSE_TOPIC] == "r"
        many = [{"topic": "a", "payload_base64": "AAH/"}, {"topic": "b", "payload": "1", "payload_base64": "AA=="}]
        results = (await api.ask("POST", "/publish/bulk", json={"messages": many}))["results"]
        assert [one["error"] is None for one in results] == [True, False]
        assert (await anext(stream)).payload == b"\0\1\xff"
        for wrong in ({"topic": "a/#"}, {"topic": ""}, {"topic": "a", "qos": 3}, {"topic": "a", "colour": 1}, [], "x"):
            await api.ask("POST", "/publish", json=wrong, expect=400)
        await api.ask("POST", "/publish", data='{"topic":"a"}', expect=415)


async def test_retained_messages_are_listed_set_and_removed():
    async with Broker(api_config()) as broker, Api(broker) as api:
        for topic in ("b/1", "b/2", "/", "a"):
            await api.ask("PUT", "/retained/message", params={"topic": topic}, json={"payload": "x"}, expect=204)
        page = await api.ask("GET", "/retained", params={"limit": "3"})
        assert [one["topic"] for one in page["messages"]] == ["/", "a", "b/1"]
        page = await api.ask("GET", "/retained", params={"limit": "3", "cursor": page["next_cursor"]})
        assert ([one["topic"] for one in page["messages"]], page["next_cursor"]) == (["b/2"], None)
        page = await api.ask("GET", "/retained", params={"topic_filter": "b/+"})
        assert [one["topic"] for one in page["messages"]] == ["b/1", "b/2"]
        one = await api.ask("GET", "/retained/message", params={"topic": "/"})
        assert one == {"topic": "/", "payload": "x", "payload_base64": "eA==", "qos": 0, "retain": True}
        await api.ask("DELETE", "/retained/message", params={"topic": "/"}, expect=204)
        for method in ("GET", "DELETE"):
            await api.ask(method, "/retained/message", params={"topic": "/"}, expect=404)
        await api.ask("PUT", "/retained/message", params={"topic": "/"}, json={}, expect=409)


async def test_broker_says_what_it_is():
    async with Broker(api_config()) as broker, Api(broker) as api:
        broker.raise_alarm("test", "something")
        assert (await api.ask("GET", "/broker"))["is_ready"] is True
        listeners = (await api.ask("GET", "/listeners"))["listeners"]
        assert [(one["name"], one["protocol"]) for one in listeners] == [("web", "http"), ("tcp", "mqtt")]
        assert listeners[0]["addresses"] == [api.url.removeprefix("http://")]
        assert await api.ask("GET", "/plugins") == {"plugins": []}
        offered = (await api.ask("GET", "/plugins", params={"installed": "true"}))["plugins"]
        assert {"sqlite", "users"} <= {one["name"] for one in offered}
        assert not any(one["is_enabled"] for one in offered)
        assert (await api.ask("GET", "/metrics"))["metrics"]["sessions"] == 0
        assert await api.ask("GET", "/alarms") == {"alarms": [{"name": "test", "text": "something"}]}
        shown = (await api.ask("GET", "/configuration"))["configuration"]
        assert shown["listeners"][1]["name"] == "tcp"
        assert shown["limits"]["maximum_qos"] == 2


async def test_listeners_are_shown_stopped_and_started():
    async with Broker(api_config()) as broker, Api(broker) as api:
        one = await api.ask("GET", "/listeners/tcp")
        assert (one["is_listening"], one["takes_clients"], one["connections"]) == (True, True, 0)
        client = await connect(broker, "a")
        stopped = await api.ask("POST", "/listeners/tcp/stop", json={})
        assert stopped == {"listener": one | {"is_listening": False, "connections": 1}, "disconnected": 0}
        stopped = await api.ask("POST", "/listeners/tcp/stop", json={"close_connections": True})
        assert stopped["disconnected"] == 1
        assert not broker.client("a")
        await client.close()
        again = await api.ask("POST", "/listeners/tcp/start")
        assert (again["is_listening"], again["addresses"]) == (True, one["addresses"])
        await api.ask("POST", "/listeners/tcp/start")
        said = await api.ask("POST", "/listeners/web/stop", json={}, expect=409)
        assert "last listener that speaks HTTP" in said["detail"]
        for how in ("stop", "start"):
            await api.ask("POST", f"/listeners/nobody/{how}", expect=404, **({"json": {}} if how == "stop" else {}))
        await api.ask("GET", "/listeners/nobody", expect=404)
        await api.ask("POST", "/listeners/tcp/stop", json={"close": True}, expect=400)


async def test_address_that_is_taken_is_a_problem():
    async with Broker(api_config()) as broker, Api(broker) as api:
        _, host, port = broker.addresses[1]
        await api.ask("POST", "/listeners/tcp/stop", json={})
        with socket.socket() as squatter:
            squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            squatter.bind((host, port))
            squatter.listen()
            said = await api.ask("POST", "/listeners/tcp/start", expect=409)
        assert f"cannot listen on {host} port {port}" in said["detail"]
        assert (await api.ask("GET", "/listeners/tcp"))["is_listening"] is False


async def test_readiness_follows_the_listeners():
    config = api_config()
    no_websocket = msgspec.structs.replace(config.listeners[0], websocket_path="")
    config = msgspec.structs.replace(config, listeners=[no_websocket, config.listeners[1]])
    async with Broker(config) as broker, Api(broker) as api, aiohttp.ClientSession() as session:

        async def status(query: str = "") -> int:
            async with session.get(f"{api.url}/readyz{query}") as answer:
                return answer.status

        assert [await status(), await status("?listener=tcp"), await status("?listener=x")] == [200, 200, 404]
        await broker.stop_listener("tcp")
        assert [await status(), await status("?listener=tcp"), await status("?listener=web")] == [503, 503, 200]
        async with session.get(f"{api.url}/metrics") as answer:
            text = await answer.text()
        assert 'mqttcore_listener_accepting{listener="tcp"} 0.0' in text
        assert 'mqttcore_listener_accepting{listener="web"} 1.0' in text
        assert "mqttcore_listeners_stopped 1.0" in text
        await broker.start_listener("tcp")
        assert await status() == 200


async def test_configuration_is_read_again(monkeypatch: pytest.MonkeyPatch):
    async with Broker(api_config()) as broker, Api(broker) as api:
        said = await api.ask("POST", "/configuration/reload", expect=409)
        assert "did not come from a file" in said["detail"]

        async def reread() -> list[str]:
            return await broker.reload(msgspec.structs.replace(broker.config, gather_us=7))

        async def refuse() -> list[str]:
            raise ConfigError("listeners", "there are none", "mqttcore.toml")

        broker.set_rereading(reread)
        assert await api.ask("POST", "/configuration/reload") == {"needing_restart": ["gather_us"]}
        broker.set_rereading(refuse)
        said = await api.ask("POST", "/configuration/reload", expect=409)
        assert "mqttcore.toml: listeners: there are none" in said["detail"]


async def test_log_level_is_set_while_it_runs():
    logger = logging.getLogger("mqttcore")
    before = logger.level
    try:
        async with Broker(api_config()) as broker, Api(broker) as api:
            await api.ask("PUT", "/log-level", json={"level": "error"}, expect=204)
            assert logger.level == logging.ERROR
            assert await api.ask("GET", "/log-level") == {"level": "error"}
            await api.ask("PUT", "/log-level", json={"level": "loud"}, expect=400)
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_switched_off_there_is_nothing(method: str):
    async with Broker(api_config(enabled=False)) as broker, Api(broker) as api:
        await api.ask(method, "/publish", expect=404)
        await api.ask("GET", "/openapi.json", expect=404)


class Secretive:
    """A plugin that was told a secret."""

    class Config(msgspec.Struct, frozen=True):
        password: Secret
        colour: str = "red"

    def __init__(self, config: Config) -> None:
        self.config = config

    @hookimpl
    def shutdown(self) -> None:
        """Do nothing: a plugin has a hook."""

    def reload(self, config: Config) -> None:
        if config.colour == "green":
            raise RuntimeError("open sesame")
        self.config = config


async def test_plugin_is_shown_and_reloaded(monkeypatch: pytest.MonkeyPatch):
    there = InstalledPlugin("secretive", f"{__name__}:Secretive", "tests 1.0")
    monkeypatch.setattr(loading, "installed", lambda *_: {"secretive": [there]})
    config = msgspec.structs.replace(api_config(), plugins={"secretive": {"password": "open sesame"}})
    async with Broker(config) as broker, Api(broker) as api:
        (one,) = (await api.ask("GET", "/plugins"))["plugins"]
        assert one == await api.ask("GET", "/plugins/secretive")
        assert (one["is_enabled"], one["has_table"], one["can_reload"]) == (True, True, True)
        assert (one["distribution"], one["hooks"], one["failures"]) == ("tests 1.0", ["shutdown"], {})
        assert (one["reloaded_s"], one["reload_failed"], one["is_failing"]) == (None, False, False)
        again = await api.ask("POST", "/plugins/secretive/reload")
        assert again["reloaded_s"] > 1_700_000_000
        monkeypatch.setattr(broker.plugins["secretive"], "reload", None)
        assert (await api.ask("GET", "/plugins/secretive"))["can_reload"] is False
        said = await api.ask("POST", "/plugins/secretive/reload", expect=409)
        assert "takes no settings while it runs" in said["detail"]
        await api.ask("POST", "/plugins/nobody/reload", expect=404)
        await api.ask("GET", "/plugins/nobody", expect=404)


async def test_reload_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch):
    there = InstalledPlugin("secretive", f"{__name__}:Secretive", "tests 1.0")
    monkeypatch.setattr(loading, "installed", lambda *_: {"secretive": [there]})
    table = {"password": "x", "colour": "green"}
    async with (
        Broker(msgspec.structs.replace(api_config(), plugins={"secretive": table})) as broker,
        Api(broker) as api,
    ):
        said = await api.ask("POST", "/plugins/secretive/reload", expect=409)
        assert "its former settings stay in force" in said["detail"]
        shown = await api.ask("GET", "/plugins/secretive")
        assert shown["reload_failed"] is True
        assert "sesame" not in str(shown)


async def test_configuration_has_no_secret(monkeypatch: pytest.MonkeyPatch):
    there = InstalledPlugin("secretive", f"{__name__}:Secretive", "tests 1.0")
    monkeypatch.setattr(loading, "installed", lambda *_: {"secretive": [there]})
    config = msgspec.structs.replace(api_config(), plugins={"secretive": {"password": "open sesame"}})
    async with Broker(config) as broker, Api(broker) as api:
        assert broker.plugins["secretive"].config.password.reveal() == "open sesame"
        shown = (await api.ask("GET", "/configuration"))["configuration"]
        assert shown["plugins"] == {"secretive": {"password": "(secret)", "colour": "red"}}
        assert "sesame" not in str(shown)


@pytest.mark.parametrize(
    "given",
    [
        {"topic": "a\0"},
        {"topic": "a#\n"},
        {"topic": "a", "response_topic": "b\0\n"},
        {"topic": "a", "content_type": "text\0"},
        {"topic": "a", "user_properties": [["k", "\0v"]]},
        {"topic": "\ud800"},
        {"topic": "a", "payload": "\udfff"},
        {"topic": "a", "user_properties": [["\ud800\ud800", "v"]]},
    ],
)
async def test_text_that_mqtt_cannot_carry_is_refused(given: dict):
    """NUL, halves of characters, wildcards before a line break, where Python's `$` matches already."""
    headers = {"content-type": "application/json"}
    async with Broker(api_config()) as broker, Api(broker) as api, broker.subscribe("#") as stream:
        await api.ask("POST", "/publish", data=json.dumps(given), headers=headers, expect=400)
        await api.ask("POST", "/publish/bulk", data=json.dumps({"messages": [given]}), headers=headers, expect=400)
        await api.ask("POST", "/publish", json={"topic": "good"})
        assert (await anext(stream)).topic == "good"


async def test_null_is_a_word_in_queries():
    async with Broker(api_config()) as broker, Api(broker) as api, await connect(broker, "null"):
        await api.ask("GET", "/clients", params={"is_connected": "null"}, expect=400)
        for prefix, count in (("null", 1), ("nil", 0)):
            found = await api.ask("GET", "/clients", params={"client_id_prefix": prefix})
            assert len(found["clients"]) == count


async def test_listing_many_retained_messages_leaves_others_their_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(publishing, "_RETAINED_NODES", 50)
    async with Broker(api_config()) as broker, Api(broker) as api:
        for number in range(1000):
            broker.set_retained(f"t/{number}", b"x")
        slices = list(broker.retained_slices("t/#"))
        assert max(map(len, slices)) <= 50
        assert sorted(one.topic for many in slices for one in many) == sorted(f"t/{n}" for n in range(1000))
        shown, cursor = [], ""
        while cursor is not None:
            page = await api.ask("GET", "/retained", params={"limit": 300, "cursor": cursor, "topic_filter": "t/+"})
            shown += [one["topic"] for one in page["messages"]]
            cursor = page["next_cursor"]
        assert shown == sorted(f"t/{n}" for n in range(1000))
