"""Whoever the standard allows, the management API can name; and it says in words what it cannot."""

import pytest

from mqttcore import Broker
from mqttcore.client import ConnectionRefused, open_client
from mqttcore.codec import Connect, Subscription

from .http_api import Api, api_config

ODD = [
    "line\nbreak",
    "\x1b[31mred",
    "\x7f",
    "a\x85b",
    "%2F",
    "a/../b",
    "+",
    "#",
    "$x",
    "//",
    "日本",
    "\u202eleft",
    "?a=b&c",
]


def address(broker: Broker) -> dict[str, object]:
    _, host, port = broker.addresses[1]
    return {"host": host, "port": port}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_client_is_found_and_banned(name: str):
    async with Broker(api_config()) as broker, Api(broker) as api:
        client = await open_client(Connect(name, user_name=f"user {name}"), **address(broker))
        for wanted in ({"client_id_prefix": name}, {"user_name": f"user {name}"}):
            assert [one["client_id"] for one in (await api.ask("GET", "/clients", params=wanted))["clients"]] == [name]
        for kind, value in (("client_id", name), ("user_name", f"user {name}")):
            asked = {"kind": kind, "value": value, "reason": "two\nlines"}
            assert (await api.ask("POST", "/bans", json=asked))["ban"]["value"] == value
            with pytest.raises(ConnectionRefused):
                await open_client(Connect(name, user_name=f"user {name}"), **address(broker))
            await api.ask("DELETE", "/bans", params={"kind": kind, "value": value}, expect=204)
        await client.close()


@pytest.mark.parametrize("name", [name for name in ODD if name not in ("+", "#")])
async def test_messages_and_subscriptions_of_odd_topics_are_seen_and_removed(name: str):
    async with Broker(api_config()) as broker, Api(broker) as api:
        client = await open_client(Connect("c"), **address(broker))
        await client.subscribe([Subscription(name)])
        await client.publish(name, b"x", qos=1, retain=True)
        asked = {"topic": name}
        assert (await api.ask("GET", "/retained/message", params=asked))["topic"] == name
        await api.ask("PUT", "/retained/message", params=asked, json={"payload": "y"}, expect=204)
        await api.ask("DELETE", "/retained/message", params=asked, expect=204)
        assert (await api.ask("POST", "/publish", json={"topic": name}))["reached"] == 1
        found = await api.ask("GET", "/subscriptions", params={"topic_filter": name})
        assert [one["topic_filter"] for one in found["subscriptions"]] == [name]
        await api.ask("DELETE", "/clients/c/subscriptions", params={"topic_filter": name}, expect=204)
        assert broker.subscriptions(client_id="c") == []
        await client.close()


@pytest.mark.parametrize(
    ("method", "path", "given", "said"),
    [
        ("POST", "/publish", {"topic": "a+"}, "Expected a Topic Name, without `+`, `#` and U+0000 - at `$.topic`"),
        ("POST", "/publish", {"topic": "a\0"}, "Expected a Topic Name, without `+`, `#` and U+0000 - at `$.topic`"),
        ("GET", "/retained", {"topic_filter": "a/#/b"}, "Expected a Topic Filter: `+` fills a whole level"),
        ("GET", "/clients", {"user_name": "\0"}, "Expected text without U+0000 - at `$.user_name`"),
        ("GET", "/clients", {"cursor": "a"}, "Expected the `next_cursor` of the answer before - at `$.cursor`"),
        (
            "POST",
            "/traces",
            {"subject": "client_id", "value": "a", "name": "/"},
            "Expected a name of at most 64 letters",
        ),
    ],
)
async def test_what_cannot_be_is_refused_in_words(method: str, path: str, given: dict[str, str], said: str):
    async with Broker(api_config()) as broker, Api(broker) as api:
        asked = {"params": given} if method == "GET" else {"json": given}
        answer = await api.ask(method, path, expect=400, **asked)
        assert said in answer["detail"]
