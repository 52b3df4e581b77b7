"""Clients of the service and a whole broker in memory: what they say, and what comes of it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mqttcore_plugins.aliyun.profile import PROFILE
from mqttcore_plugins.aliyun.records import AccessKey, CustomPermission
from mqttcore_plugins.aliyun.signatures import sign

from mqttcore import Config, ReasonCode
from mqttcore.codec import Publish, Subscribe, Subscription
from mqttcore.testing import MemoryBroker, MemoryClient

INSTANCE = "mqtt-xxxxx"
SECRET = "XXXXX"
AUTH: dict[str, Any] = {
    "instances": [{"id": INSTANCE, "groups": ["GID_Test"], "topics": ["parent", "other"]}],
    "access_keys": [
        {"id": "YYYYY", "secret": SECRET},
        {"id": "SUB", "secret": SECRET, "rights": "subscribe"},
        {"id": "PUB", "secret": SECRET, "rights": "publish", "topics": ["parent"]},
    ],
}


class World:
    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.registry = broker.service(PROFILE).registry
        self.codec = broker.service(PROFILE).tokens.codec

    async def signed(self, device: str, key: str = "YYYYY", **more: Any) -> MemoryClient:
        client_id = f"GID_Test@@@{device}"
        return await self.broker.connect(
            client_id,
            user_name=f"Signature|{key}|{INSTANCE}",
            password=sign(SECRET, client_id).encode(),
            **({"version": 4} | more),
        )

    def token(self, actions: str = "RW", *resources: str, life_s: float = 3600, key: str = "YYYYY") -> str:
        now_ms = time.time_ns() // 1_000_000
        return self.codec.issue(
            instance_id=INSTANCE,
            access_key_id=key,
            actions=actions,
            resources=resources or ("parent/#",),
            issued_ms=now_ms,
            expires_ms=now_ms + round(life_s * 1000),
        )

    async def by_token(self, device: str, password: str, **more: Any) -> MemoryClient:
        return await self.broker.connect(
            f"GID_Test@@@{device}",
            user_name=f"Token|YYYYY|{INSTANCE}",
            password=password.encode(),
            **({"version": 4} | more),
        )


@asynccontextmanager
async def world(**tables: dict[str, Any]) -> AsyncIterator[World]:
    plugins = {"aliyun_auth": AUTH, "p2p": {}, "ordered": {}, "presence": {}}
    for name, table in tables.items():
        plugins[name] = plugins.get(name, {}) | table
    config = Config(sys_interval_s=0, plugins=plugins)
    async with MemoryBroker(config) as broker:
        yield World(broker)


async def subscribe_and_be_cut(client: MemoryClient, topic_filter: str) -> None:
    """Subscribing closes the connection, and no SUBACK comes before."""
    await client.send(Subscribe(1, [Subscription(topic_filter, 0)]))
    await client.expect_closed()


async def client_is_told_and_cut(
    client: MemoryClient, code: int, token_type: str = "RW", *, reason_code: int | None = None
) -> None:
    notice = await client.message()
    assert (notice.topic, notice.qos) == ("$SYS/tokenInvalidNotice", 0)
    assert json.loads(notice.payload) == {"code": code, "type": token_type}
    await client.expect_closed(reason_code)


def upload(token: str, token_type: str = "RW") -> bytes:
    return json.dumps({"token": token, "type": token_type}).encode()


# --- login and rights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [3, 4, 5])
async def test_signature_logs_in_and_talks(version: int):
    async with world() as here:
        client = await here.signed("1", version=version)
        await client.subscribe("parent/testMq4Iot", qos=1)
        await client.publish("parent/testMq4Iot", b"hello", qos=1)
        assert (await client.message()).payload == b"hello"


@pytest.mark.parametrize(
    ("device", "user_name", "password", "return_code"),
    [
        ("1", f"Signature|YYYYY|{INSTANCE}", b"wrong", 4),
        ("1", "Signature|YYYYY|mqtt-none", sign(SECRET, "GID_Test@@@1").encode(), 5),
        ("a:b", f"Signature|YYYYY|{INSTANCE}", sign(SECRET, "GID_Test@@@a:b").encode(), 2),
        ("1", f"Token|YYYYY|{INSTANCE}", b"RW|abc", 4),
        ("1", "somebody", b"secret", 4),
    ],
)
async def test_refusals_on_the_wire(device: str, user_name: str, password: bytes, return_code: int):
    codes = {2: ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, 4: ReasonCode.BAD_USER_NAME_OR_PASSWORD, 5: 0x87}
    async with world() as here:
        client_id = f"GID_Test@@@{device}"
        old = await here.broker.connect(client_id, version=4, user_name=user_name, password=password, expect=None)
        assert old.connack.reason_code in (return_code, codes[return_code])
        await old.expect_closed()
        new = await here.broker.connect(client_id, user_name=user_name, password=password, expect=codes[return_code])
        await new.expect_closed()


async def test_publishing_without_the_right_closes():
    async with world() as here:
        for key, topic in (("SUB", "parent/a"), ("PUB", "other/a"), ("YYYYY", "none/a")):
            client = await here.signed("1", key)
            await client.publish(topic, b"x")
            await client.expect_closed()


async def test_subscribing_without_the_right_closes():
    async with world() as here:
        for key, topic_filter in (("PUB", "parent/a"), ("YYYYY", "none/a"), ("YYYYY", "#"), ("YYYYY", "+/a")):
            await subscribe_and_be_cut(await here.signed("1", key), topic_filter)


async def test_subscription_with_forbidden_characters_closes():
    async with world() as here:
        await subscribe_and_be_cut(await here.signed("1"), "parent/a:b")
    async with world(aliyun_auth={"any_topic_character": True}) as here:
        client = await here.signed("1")
        assert await client.subscribe("parent/a:b", qos=0) == [0]


async def test_too_long_a_filter_closes():
    async with world() as here:
        client = await here.signed("1")
        assert await client.subscribe("parent/" + "x" * 121, qos=0) == [0]
        await subscribe_and_be_cut(client, "parent/" + "x" * 122)


async def test_subscriptions_beyond_the_limit_are_granted_without_effect():
    async with world(aliyun_auth={"subscriptions_maximum": 2}) as here:
        client = await here.signed("1")
        assert await client.subscribe("parent/1", "parent/2", "parent/3", qos=1) == [1, 1, 1]
        await client.publish("parent/3", b"lost")
        await client.publish("parent/2", b"got")
        assert (await client.message()).payload == b"got"
        await client.expect_nothing()


async def test_qos_2_does_not_take_effect_on_a_persistent_session():
    async with world() as here:
        lasting = await here.signed("1", clean_start=False)
        assert await lasting.subscribe("parent/a", qos=2) == [0x80]
        assert await lasting.subscribe("parent/a", qos=1) == [1]
        clean = await here.signed("2")
        assert await clean.subscribe("parent/a", qos=2) == [2]
    async with world(aliyun_auth={"grants_qos2_persistent": True}) as here:
        lasting = await here.signed("1", clean_start=False)
        assert await lasting.subscribe("parent/a", qos=2) == [2]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_too_long_a_payload_is_acknowledged_and_discarded(version: int, qos: int):
    async with world(aliyun_auth={"payload_bytes_maximum": 100}) as here:
        client = await here.signed("1", version=version)
        await client.subscribe("parent/a", qos=1)
        told = ReasonCode.QUOTA_EXCEEDED if version == 5 and qos else ReasonCode.SUCCESS
        assert await client.publish("parent/a", b"x" * 101, qos=qos) == told
        await client.publish("parent/a", b"x" * 100, qos=1)
        assert len((await client.message()).payload) == 100
        await client.expect_nothing()


async def test_too_long_a_topic_closes():
    async with world() as here:
        client = await here.signed("1")
        await client.publish("parent/" + "x" * 121, b"x")
        await client.expect_nothing()
        await client.publish("parent/" + "x" * 122, b"x")
        await client.expect_closed()


@pytest.mark.parametrize("topic", ["parent/a:b", "parent/a b", "parent//b", "parent/é"])
async def test_publishing_with_forbidden_characters_closes(topic: str):
    async with world() as here:
        client = await here.signed("1")
        await client.publish("parent/a-B_9/", b"x")
        await client.expect_nothing()
        await client.publish(topic, b"x")
        await client.expect_closed()
    async with world(aliyun_auth={"any_topic_character": True}) as here:
        client = await here.signed("1")
        await client.publish(topic, b"x")
        await client.expect_nothing()


async def test_topics_made_by_use_are_in_the_registry():
    async with world(aliyun_auth={"auto_create_topics": True}) as here:
        client = await here.signed("1")
        await client.subscribe("fresh/a", qos=0)
        await client.publish("fresh/a", b"x")
        assert (await client.message()).topic == "fresh/a"
        assert "fresh" in here.registry.topics_of(INSTANCE)
        await subscribe_and_be_cut(client, "#")


async def test_second_connection_of_a_client_id_takes_over_whatever_key_it_has():
    async with world() as here:
        first = await here.signed("1")
        second = await here.signed("1", "SUB")
        await first.expect_closed()
        await second.expect_nothing()


# --- peer to peer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [4, 5])
async def test_peer_to_peer_reaches_one_client_and_no_wildcard(qos: int, version: int):
    async with world() as here:
        target, watcher = await here.signed("1", version=version), await here.signed("2", version=version)
        sender = await here.signed("3", version=version)
        await watcher.subscribe("parent/#")
        await sender.publish("parent/p2p/GID_Test@@@1", b"you", qos=qos)
        await sender.publish("parent/p2p/GID_Test@@@none", b"nobody", qos=qos)
        message = await target.message()
        assert (message.topic, message.payload, message.qos) == ("parent/p2p/GID_Test@@@1", b"you", qos)
        await target.expect_nothing()
        await watcher.expect_nothing()
        await sender.publish("parent/p2p/GID_Test@@@3", b"me", qos=qos)
        assert (await sender.message()).payload == b"me"


async def test_peer_to_peer_waits_when_the_senders_session_persists():
    async with world() as here:
        target = await here.signed("1", clean_start=False)
        await target.disconnect()
        fleeting, lasting = await here.signed("2"), await here.signed("3", clean_start=False)
        for sender, payload in ((fleeting, b"1"), (lasting, b"2"), (fleeting, b"3")):
            await sender.publish("parent/p2p/GID_Test@@@1", payload, qos=1)
        await lasting.publish("parent/p2p/GID_Test@@@1", b"4", qos=0)
        target = await here.signed("1", clean_start=False)
        assert (await target.message()).payload == b"2"
        await target.expect_nothing()


async def test_peer_to_peer_needs_the_right_to_publish():
    async with world() as here:
        for key, topic in (("SUB", "parent/p2p/GID_Test@@@1"), ("PUB", "other/p2p/GID_Test@@@1")):
            client = await here.signed("1", key)
            await client.publish(topic, b"x")
            await client.expect_closed()


async def test_peer_to_peer_by_another_word_and_level():
    async with world(p2p={"word": "to", "level": 3}) as here:
        client = await here.by_token("1", f"RW|{here.token('RW', 'parent/a')}")
        await client.publish("parent/room/to/GID_Test@@@1", b"x")
        assert (await client.message()).topic == "parent/room/to/GID_Test@@@1"


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_token_gives_its_resources_and_peer_to_peer():
    async with world() as here:
        client = await here.by_token("1", f"RW|{here.token('RW', 'parent/testMq4Iot')}")
        await client.subscribe("parent/testMq4Iot", qos=0)
        await client.publish("parent/testMq4Iot", b"1")
        await client.publish("parent/p2p/GID_Test@@@1", b"2")
        assert [(await client.message()).payload for _ in range(2)] == [b"1", b"2"]
        await client.publish("parent/else", b"3")
        await client_is_told_and_cut(client, 4)


async def test_filter_must_lie_in_the_resource():
    async with world() as here:
        client = await here.by_token("1", f"R|{here.token('R', 'parent/a/+')}")
        assert await client.subscribe("parent/a/+", qos=0) == [0]
        await client.send(Subscribe(1, [Subscription("parent/a/#", 0)]))
        await client_is_told_and_cut(client, 4, "R")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("types", "does_publish", "topic", "code", "token_type"),
    [
        ("R", True, "parent/a", 5, "R"),
        ("R", True, "parent/p2p/GID_Test@@@2", 5, "R"),
        ("W", False, "parent/a", 5, "W"),
        ("R", True, "parent/b", 4, "R"),
        ("W", False, "parent/#", 4, "W"),
        ("R|W", True, "other/a", 4, "W"),
        ("RW", False, "other/a", 4, "RW"),
        ("RW", True, "$SYS/else", 4, "RW"),
    ],
)
async def test_client_is_told_what_its_tokens_lack_before_it_is_cut_off(
    version: int, types: str, does_publish: bool, topic: str, code: int, token_type: str
):
    async with world() as here:
        password = "|".join(f"{one}|{here.token(one, 'parent/a')}" for one in types.split("|"))
        client = await here.by_token("1", password, version=version)
        if does_publish:
            await client.send(Publish(topic, b"x", qos=1, packet_id=7))
        else:
            await client.send(Subscribe(1, [Subscription(topic, 0)]))
        await client_is_told_and_cut(client, code, token_type, reason_code=0x87 if version == 5 else None)


async def test_client_is_told_that_its_access_key_was_narrowed():
    async with world() as here:
        token = here.token("RW", "other/a", key="PUB")
        client = await here.broker.connect(
            "GID_Test@@@1", version=4, user_name=f"Token|PUB|{INSTANCE}", password=f"RW|{token}".encode()
        )
        await client.publish("other/a", b"x")
        await client_is_told_and_cut(client, -1)


async def test_client_without_tokens_gets_no_notice():
    async with world() as here:
        await subscribe_and_be_cut(await here.signed("1"), "none/a")


async def test_client_is_told_before_its_token_expires_and_cut_off_when_it_does():
    async with world() as here:
        token = here.token(life_s=600)
        client = await here.by_token("1", f"RW|{token}")
        await here.broker.advance(290)
        await client.expect_nothing()
        await here.broker.advance(11)
        notice = await client.message()
        assert (notice.topic, notice.qos) == ("$SYS/tokenExpireNotice", 0)
        assert json.loads(notice.payload) == {"expireTime": here.codec.read(token).expires_ms, "type": "RW"}
        await here.broker.advance(298.5)
        await client.expect_nothing()  # told once
        await here.broker.advance(1)
        notice = await client.message()
        assert (notice.topic, json.loads(notice.payload)) == ("$SYS/tokenInvalidNotice", {"code": 2, "type": "RW"})
        await client.expect_closed()


async def test_uploaded_token_takes_the_place_of_the_old_one():
    async with world() as here:
        client = await here.by_token("1", f"RW|{here.token('RW', 'parent/a', life_s=400)}")
        assert await client.publish("$SYS/uploadToken", upload(here.token("RW", "other/b", life_s=4000)), qos=1) == 0
        await client.subscribe("other/b", qos=0)
        await client.publish("other/b", b"x")
        assert (await client.message()).topic == "other/b"
        await here.broker.advance(500)
        await client.expect_nothing()  # neither notice nor end of the old one
        await client.publish("parent/a", b"x")
        await client_is_told_and_cut(client, 4)


async def test_uploaded_token_replaces_that_of_its_type_only():
    async with world() as here:
        password = f"R|{here.token('R', 'parent/a')}|W|{here.token('W', 'parent/a')}"
        client = await here.by_token("1", password)
        await client.publish("$SYS/uploadToken", upload(here.token("W", "parent/b"), "W"), qos=1)
        await client.subscribe("parent/a", qos=0)
        await client.publish("parent/b", b"x")
        await client.expect_nothing()
        await client.publish("parent/a", b"x")
        await client_is_told_and_cut(client, 5, "R")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"{", 1),
        (b'{"token":"abc","type":"RW"}', 1),
        (b'{"token":"abc","type":"X"}', 1),
        (b"[]", 1),
        (b"[" * 50_000, 1),
        ("expired", 2),
        ("read only", 5),
        ("of another", -1),
    ],
)
@pytest.mark.parametrize("version", [4, 5])
async def test_upload_of_a_bad_token_is_told_and_closes(payload: bytes | str, code: int, version: int):
    async with world() as here:
        client = await here.by_token("1", f"RW|{here.token()}", version=version)
        made = {
            "expired": lambda: here.token(life_s=-1),
            "read only": lambda: here.token("R"),
            "of another": lambda: here.token(key="PUB"),
        }
        said = payload if isinstance(payload, bytes) else upload(made[payload]())
        assert await client.publish("$SYS/uploadToken", said, qos=1) == (0x87 if version == 5 else 0)
        notice = await client.message()
        assert notice.topic == "$SYS/tokenInvalidNotice"
        assert json.loads(notice.payload)["code"] == code
        await client.expect_closed(0x87 if version == 5 else None)


async def test_revoked_token_is_told_and_closes_all_that_rest_on_it():
    async with world(aliyun_token={}) as here:
        token = here.token()
        clients = [await here.by_token(str(number), f"RW|{token}") for number in range(3)]
        bystander = await here.by_token("4", f"RW|{here.token()}")
        key = here.registry.access_key("YYYYY", INSTANCE)
        await here.broker.plugins["aliyun_token"].service.revoke(key, token)
        await here.broker.settle()
        for client in clients:
            notice = await client.message()
            assert (notice.topic, json.loads(notice.payload)) == ("$SYS/tokenInvalidNotice", {"code": 3, "type": "RW"})
            await client.expect_closed()
        await bystander.expect_nothing()
        refused = await here.broker.connect(
            "GID_Test@@@1", user_name=f"Token|YYYYY|{INSTANCE}", password=f"RW|{token}".encode(), expect=0x86
        )
        await refused.expect_closed()


async def test_legacy_client_uploads_its_token_after_connect():
    async with world(aliyun_auth={"legacy_token": True}) as here:
        client = await here.broker.connect("GID_Test@@@1", version=4)
        await client.publish("$SYS/uploadToken", upload(here.token("RW", "parent/a")), qos=1)
        await client.subscribe("parent/a", qos=0)
        await client.publish("parent/a", b"x")
        assert (await client.message()).payload == b"x"
        await here.broker.advance(60)
        await client.expect_nothing()
        again = await here.broker.connect("GID_Test@@@1", version=4)
        await again.publish("parent/a", b"x")
        await again.expect_closed()
        silent = await here.broker.connect("GID_Test@@@2", version=4)
        await here.broker.advance(30)
        await silent.expect_closed()


async def test_control_topics_are_acknowledged_and_never_routed():
    async with world() as here:
        async with here.broker.subscribe("$SYS/#") as messages:
            client = await here.signed("1")
            for topic, payload in (
                ("$SYS/uploadToken", upload(here.token())),
                ("$SYS/getOfflineMsg", b'{"maxPushNum":30,"pushOrder":"ASC"}'),
                ("$SYS/enableOrderMsg", b'{"order":"true"}'),
            ):
                assert await client.publish(topic, payload, qos=1) == 0
            here.broker.publish_nowait("$SYS/end")
            assert (await anext(messages)).topic == "$SYS/end"
        await client.expect_nothing()


# --- changes while clients are there ----------------------------------------------------------------------------------


async def test_device_whose_credential_changes_is_cut_off():
    async with world() as here:
        credential = await here.registry.devices.register(INSTANCE, "GID_Test@@@1")
        client = await here.broker.connect(
            "GID_Test@@@1",
            version=4,
            user_name=f"DeviceCredential|{credential.device_access_key_id}|{INSTANCE}",
            password=sign(credential.device_access_key_secret, "GID_Test@@@1").encode(),
        )
        await client.publish("parent/a", b"x", qos=1)
        await here.registry.devices.refresh(INSTANCE, "GID_Test@@@1")
        await here.broker.settle()
        await client.expect_closed()


async def test_rights_of_a_custom_identity_change_at_once():
    def rule(topic: str, effect: str) -> CustomPermission:
        return CustomPermission(
            instance_id=INSTANCE,
            identity="alice",
            identity_type="USER",
            topic=topic,
            permit_action="PUB_SUB",
            effect=effect,
        )

    async with world() as here:
        custom = here.registry.custom
        await custom.add_identity(INSTANCE, "USER", "alice", "secret")
        await custom.put_permission(rule("parent/#", "ALLOW"))
        client = await here.broker.connect("phone", version=4, user_name="alice", password=b"secret")
        await client.subscribe("parent/#", qos=0)
        await client.publish("parent/a", b"1")
        assert (await client.message()).payload == b"1"
        await custom.put_permission(rule("parent/b", "DENY"))
        await client.publish("parent/a", b"2")
        await client.publish("parent/b", b"3")
        await client.expect_closed()
        client = await here.broker.connect("phone", version=4, user_name="alice", password=b"secret")
        await custom.delete_identity(INSTANCE, "USER", "alice")
        await here.broker.settle()
        await client.expect_closed()


async def test_blocked_client_is_cut_off():
    async with world() as here:
        client = await here.signed("1")
        await here.registry.custom.block(INSTANCE, "GID_Test@@@1")
        await here.broker.settle()
        await client.expect_closed()


async def test_access_key_that_is_disabled_or_narrowed_takes_effect_at_once():
    async with world() as here:
        await here.registry.put_access_key(AccessKey(access_key_id="AK", secret=SECRET))
        client = await here.signed("1", "AK")
        await client.publish("parent/a", b"x", qos=1)
        await here.registry.put_access_key(AccessKey(access_key_id="AK", secret=SECRET, topics=("other",)))
        await client.publish("other/a", b"x", qos=1)
        await client.publish("parent/a", b"x")
        await client.expect_closed()
        client = await here.signed("1", "AK")
        await here.registry.put_access_key(AccessKey(access_key_id="AK", secret=SECRET, is_enabled=False))
        await here.broker.settle()
        await client.expect_closed()


# --- order and presence -----------------------------------------------------------------------------------------------


async def test_ordering_key_is_that_of_the_client_while_it_is_on():
    async with world() as here:
        client = await here.signed("1")
        async with here.broker.subscribe("parent/a") as messages:
            for said in (None, b'{"order":"true"}', b'{"order":"false"}', b'{"order":true}', b"junk"):
                if said is not None:
                    await client.publish("$SYS/enableOrderMsg", said, qos=1)
                await client.publish("parent/a", b"x")
            keys = [(await anext(messages)).ordering_key for _ in range(5)]
        one = "GID_Test@@@1"
        assert keys == [None, one, None, one, one]


async def test_notices_reach_subscribers_and_the_register_knows():
    topics = [{"id": INSTANCE, "groups": ["GID_Test"], "topics": ["parent", "GID_Test_MQTT"]}]
    async with world(aliyun_auth={"instances": topics}) as here:
        register = here.broker.service("presence.register")
        watcher = await here.signed("0")
        await watcher.subscribe("GID_Test_MQTT/+", qos=0)
        client = await here.signed("1", address=("10.1.2.3", 4567))
        said = json.loads((await watcher.message()).payload)
        assert (said["clientId"], said["eventType"], said["clientIp"]) == ("GID_Test@@@1", "connect", "10.1.2.3:4567")
        assert len(said["channelId"]) == 32
        assert abs(said["time"] - time.time() * 1000) < 60_000
        assert register.connections("GID_Test@@@1") == 1
        await client.subscribe("parent/a", qos=0)
        await here.broker.settle()
        assert register.of_filter("parent/a") == (1, 0)
        await client.disconnect()
        left = [await watcher.message() for _ in range(2)]
        assert [one.topic for one in left] == ["GID_Test_MQTT/disconnect", "GID_Test_MQTT/tcpclean"]
        assert {json.loads(one.payload)["channelId"] for one in left} == {said["channelId"]}
        lost = await here.signed("1")
        await lost.lose()
        assert [(await watcher.message()).topic for _ in range(2)] == [
            "GID_Test_MQTT/connect",
            "GID_Test_MQTT/tcpclean",
        ]
        assert register.connections("GID_Test@@@1") == 0
        assert register.of_group("GID_Test") == (1, 0)


async def test_logins_are_forgotten_with_their_connections():
    async with world(aliyun_auth={"logins_maximum": 2}) as here:
        first, second = await here.signed("1"), await here.signed("2")
        refused = await here.broker.connect(
            "GID_Test@@@3",
            user_name=f"Signature|YYYYY|{INSTANCE}",
            password=sign(SECRET, "GID_Test@@@3").encode(),
            expect=0x89,
        )
        await refused.expect_closed()
        await first.lose()
        await here.signed("3")
        await second.expect_nothing()


async def test_logins_that_nobody_told_the_end_of_make_room():
    async with world(aliyun_auth={"logins_maximum": 2}) as here:
        auth = here.broker.plugins["aliyun_auth"]
        first, second = await here.signed("1"), await here.signed("2")
        kept = auth._live.by_client("GID_Test@@@1")
        await first.lose()
        auth._live.add(kept)  # as if the event had been dropped
        await here.signed("3")
        assert auth._live.by_client("GID_Test@@@1") is None
        await second.expect_nothing()


async def test_what_is_kept_is_measured():
    async with world() as here:
        await here.by_token("1", f"RW|{here.token()}")
        await here.signed("2")
        await here.broker.settle()
        metrics = here.broker.metrics()
        assert {
            name: metrics[f"plugin_aliyun_auth_{name}"] for name in ("logins", "deadlines", "groups", "topics")
        } == {
            "logins": 2,
            "deadlines": 2,
            "groups": 1,
            "topics": 2,
        }
        assert metrics["plugin_aliyun_auth_rules_cached"] == 1
        assert metrics["plugin_presence_clients"] == 2
        assert metrics["plugin_presence_is_complete"] == 1
