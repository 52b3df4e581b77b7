"""The management API's look into queues, at what is in flight and at filters."""

import base64

import msgspec

from mqttcore import Broker, Config, Limits
from mqttcore.client import open_client
from mqttcore.codec import Connect, Publish, Subscription
from network.clients import Raw

from .http_api import Api, api_config


def config_with(**limits: int) -> Config:
    config = api_config()
    return msgspec.structs.replace(config, listeners=[*reversed(config.listeners)], limits=Limits(**limits))


async def queue_for(broker: Broker, client_id: str, *payloads: bytes) -> None:
    """Let a client subscribe and leave, and queue messages for it."""
    _, host, port = broker.addresses[0]
    connect = Connect(client_id, protocol_version=4, clean_start=False)
    async with await open_client(connect, host=host, port=port) as client:
        await client.subscribe([Subscription("t", 1)])
    for payload in payloads:
        await broker.publish("t", payload, qos=1)


class WebSecond(Api):
    """Asks by the second listener: the first is for MQTT."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        _, host, port = broker.addresses[1]
        self.url = f"http://{host}:{port}"


async def test_queue_is_shown_page_by_page():
    async with Broker(config_with()) as broker, WebSecond(broker) as api:
        await queue_for(broker, "a/b", *(b"%d" % number for number in range(5)))
        path = "/clients/a%2Fb/queue"
        page = await api.ask("GET", path, params={"limit": "3"})
        assert (page["queued"], page["kept_back"], len(page["messages"])) == (5, 0, 3)
        assert page["queued_bytes"] == broker.client("a/b").queued_bytes
        one = page["messages"][0]
        assert one["topic"] == "t"
        assert (one["payload_size_bytes"], one["payload_base64"], one["publisher"]) == (1, None, None)
        assert (one["qos"], one["retain"], one["is_in_memory"], one["is_kept_back"]) == (1, False, True, False)
        assert one["published_ms"] > 1_700_000_000_000
        assert one["queued_for_s"] >= 0
        assert one["expires_in_s"] is None
        page = await api.ask("GET", path, params={"cursor": page["next_cursor"], "payloads": "true"})
        assert [base64.b64decode(one["payload_base64"]) for one in page["messages"]] == [b"3", b"4"]
        assert page["next_cursor"] is None
        await api.ask("GET", "/clients/nobody/queue", expect=404)
        await api.ask("GET", path, params={"cursor": "AAAA"}, expect=404)
        await api.ask("GET", path, params={"payloads": "some"}, expect=400)


async def test_payloads_of_a_page_are_bounded():
    async with Broker(config_with()) as broker, WebSecond(broker) as api:
        await queue_for(broker, "a", bytes(700_000), bytes(300_000), bytes(100_000), b"")
        page = await api.ask("GET", "/clients/a/queue", params={"payloads": "true"})
        shown = [one["payload_base64"] and len(base64.b64decode(one["payload_base64"])) for one in page["messages"]]
        assert shown == [700_000, 300_000, None, None]
        assert [one["payload_size_bytes"] for one in page["messages"]] == [700_000, 300_000, 100_000, 0]


async def test_what_is_in_flight_is_shown():
    async with Broker(config_with()) as broker, WebSecond(broker) as api, await Raw.open(broker) as raw:
        await raw.send(Connect("a"))
        await raw.receive()
        broker.subscribe_client("a", "t", 2)
        for qos in (1, 2):
            await broker.publish("t", b"x" * qos, qos=qos)
        await raw.send(Publish("other", b"", qos=2, packet_id=9))
        for _ in range(3):
            await raw.receive()
        page = await api.ask("GET", "/clients/a/in-flight", params={"payloads": "true"})
        assert (page["in_flight"], page["awaiting_release"], page["next_cursor"]) == (2, [9], None)
        assert [(one["packet_id"], one["awaits"], one["qos"]) for one in page["messages"]] == [
            (1, "PUBACK", 1),
            (2, "PUBREC", 2),
        ]
        assert [one["payload_base64"] for one in page["messages"]] == ["eA==", "eHg="]
        page = await api.ask("GET", "/clients/a/in-flight", params={"limit": "1"})
        page = await api.ask("GET", "/clients/a/in-flight", params={"cursor": page["next_cursor"]})
        assert [one["packet_id"] for one in page["messages"]] == [2]
        await api.ask("GET", "/clients/nobody/in-flight", expect=404)
        await api.ask("GET", "/clients/a/in-flight", params={"cursor": "AAAA"}, expect=404)


async def test_filters_are_listed():
    async with Broker(config_with()) as broker, WebSecond(broker) as api:
        for client_id in ("a", "b"):
            await queue_for(broker, client_id)
            broker.subscribe_client(client_id, f"own/{client_id}")
            broker.subscribe_client(client_id, "$share/g/own/shared")
        seen, cursor = [], ""
        while cursor is not None:
            page = await api.ask("GET", "/topics", params={"limit": "1", "cursor": cursor})
            seen += page["topics"]
            cursor = page["next_cursor"]
        assert sorted((one["topic_filter"], one["subscribers"], one["shared_subscribers"]) for one in seen) == [
            ("own/a", 1, 0),
            ("own/b", 1, 0),
            ("own/shared", 0, 2),
            ("t", 2, 0),
        ]
        assert [one["share_names"] for one in seen if one["share_groups"]] == [["g"]]
        page = await api.ask("GET", "/topics", params={"prefix": "own/"})
        assert len(page["topics"]) == 3
        assert all(one["is_complete"] for one in page["topics"])
        await api.ask("GET", "/topics", params={"cursor": "AAAA"}, expect=404)
