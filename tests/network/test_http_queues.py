"""The management API's look into queues, at what is in flight and at filters."""

import asyncio
import base64
from typing import Any

import msgspec
import pytest

from mqttcore import Broker, Config, Limits, MqttCoreError, PropertyId, StoreError, inspection
from mqttcore.client import open_client
from mqttcore.codec import Connect, Publish, Subscription
from mqttcore.testing.store import ControlledStore
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


class SlowStore(ControlledStore):
    """A store that reads only while it is told to. fails: every reading."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []  # how many records each wanted
        self.fails = False

    async def read(self, keys: bytes) -> bytes:
        self.reads.append(len(keys) // 8)
        if self.fails:
            raise StoreError("io", "as the test wants it")
        return await super().read(keys)


def without_place(page: Any) -> list[dict[str, Any]]:
    """Return the messages of a page without what says when, and where they are."""
    told = ("is_in_memory", "queued_for_s", "published_ms", "expires_in_s")
    return [{key: value for key, value in one.items() if key not in told} for one in page["messages"]]


async def test_queue_that_is_in_the_store_is_shown_as_one_in_memory():
    pages = []
    for resident in (1000, 3):
        store = SlowStore()
        config = config_with(queued_resident_messages=resident)
        async with Broker(config, store=store) as broker, WebSecond(broker) as api:
            await queue_for(broker, "a", *(b"%d" % number for number in range(20)))
            await broker.publish("t", b"with", qos=1, properties={PropertyId.MESSAGE_EXPIRY_INTERVAL: 1000})
            first = await api.ask("GET", "/clients/a/queue", params={"limit": "8", "payloads": "true"})
            rest = await api.ask("GET", "/clients/a/queue", params={"payloads": "true", "cursor": first["next_cursor"]})
            assert [base64.b64decode(one["payload_base64"]) for one in rest["messages"]][-2:] == [b"19", b"with"]
            assert 990 < rest["messages"][-1]["expires_in_s"] <= 1000
            assert all(one["published_ms"] > 1_700_000_000_000 for one in rest["messages"])
            pages.append((without_place(first), without_place(rest)))
            places = [one["is_in_memory"] for one in first["messages"] + rest["messages"]]
            assert places == [number < resident for number in range(21)]
            assert store.reads == ([] if resident == 1000 else [5, 13])
            assert broker.metrics()["store_reads"] == len(store.reads)
            assert broker.metrics()["queued_paged_in"] == 0  # it was looked at, and stays where it was
    assert pages[0] == pages[1]


async def test_page_takes_no_more_from_the_store_than_it_may(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inspection, "_STORED_BYTES_AT_ONCE", 2500)
    store = SlowStore()
    async with Broker(config_with(queued_resident_messages=1), store=store) as broker, WebSecond(broker) as api:
        await queue_for(broker, "a", *(bytes(size) for size in (10, 1000, 1000, 1000, 5000, 10, 10)))
        sizes: list[list[int]] = []
        cursor = ""
        while cursor is not None:
            page = await api.ask("GET", "/clients/a/queue", params={"cursor": cursor})
            sizes.append([one["payload_size_bytes"] for one in page["messages"]])
            cursor = page["next_cursor"]
        assert sizes == [[10, 1000, 1000], [1000], [5000], [10, 10]]  # one that is too large comes alone
        assert store.reads == [2, 1, 1, 2]


async def test_queue_is_shown_while_the_store_cannot_be_read():
    store = SlowStore()
    store.fails = True
    async with Broker(config_with(queued_resident_messages=2), store=store) as broker, WebSecond(broker) as api:
        await queue_for(broker, "a", b"0", b"1", b"2")
        page = await api.ask("GET", "/clients/a/queue", params={"payloads": "true"})
        assert [one["payload_base64"] for one in page["messages"]] == ["MA==", "MQ==", None]
        last = page["messages"][2]
        assert (last["topic"], last["published_ms"], last["payload_size_bytes"]) == (None, None, None)
        assert (last["qos"], last["is_in_memory"]) == (1, False)
        assert last["size_bytes"] > 0
        assert broker.metrics()["store_read_failures"] == 1


async def test_what_is_still_to_be_written_is_waited_for():
    store = SlowStore()
    async with Broker(config_with(queued_resident_messages=1), store=store) as broker, WebSecond(broker) as api:
        await queue_for(broker, "a")
        store.is_held = True
        for payload in (b"0", b"1", b"2"):
            broker.publish_nowait("t", payload, qos=1)
        shown = asyncio.create_task(api.ask("GET", "/clients/a/queue", params={"payloads": "true"}))
        while not shown.done():
            store.is_held = store.is_held and not store.release()
            await asyncio.sleep(0)
        assert [one["payload_base64"] for one in (await shown)["messages"]] == ["MA==", "MQ==", "Mg=="]


async def test_embedded_broker_looks_at_its_queues():
    store = SlowStore()
    async with Broker(config_with(queued_resident_messages=1), store=store) as broker:
        await queue_for(broker, "a", b"0", b"1")
        found, after = broker.queued_messages("a")
        assert [one.message and one.message.payload for one in found] == [b"0", None]
        assert after is None
        found, after = await broker.read_queued_messages("a")
        assert [one.message.payload for one in found] == [b"0", b"1"]
        assert [one.is_in_memory for one in found] == [True, False]
        assert broker.client("a").queued == 2
        with pytest.raises(MqttCoreError, match="has no session"):
            await broker.read_queued_messages("b")
        with pytest.raises(ValueError, match="no place"):
            await broker.read_queued_messages("a", after="x")
