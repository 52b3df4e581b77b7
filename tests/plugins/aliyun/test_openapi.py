"""The RPC endpoint in a whole broker: who may do what, what is refused and how it is said."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from mqttcore_plugins.aliyun.openapi.endpoint import AliyunOpenApi
from mqttcore_plugins.aliyun.presence import REGISTER
from mqttcore_plugins.aliyun.profile import PROFILE
from mqttcore_plugins.aliyun.rates import Rates
from mqttcore_plugins.aliyun.settings import OpenApiConfig
from mqttcore_plugins.aliyun.signatures import sign

from mqttcore import Broker, Client, Config, Connect, Listener, MqttCoreError, QuotaExceeded, StoreError, open_client
from mqttcore.codec import Subscription

from .doubles import BrokerDouble

INSTANCE, OTHER = "mqtt-xxxxx", "mqtt-other"
CLIENT = "GID_Test@@@1"
SECRET = "XXXXX"
KEYS = [
    {"id": "FULL"},
    {"id": "PUB", "rights": "publish"},
    {"id": "SUB", "rights": "subscribe"},
    {"id": "TOPIC", "topics": ["parent"]},
    {"id": "GROUP", "groups": ["GID_Test"]},
    {"id": "ONE", "instances": [OTHER]},
]


class World:
    def __init__(self, broker: Broker, http: aiohttp.ClientSession) -> None:
        self.broker = broker
        self.registry = broker.service(PROFILE).registry
        self.http = http
        (self.url,) = [f"http://{host}:{port}" for name, host, port in broker.addresses if name == "web"]

    def signed(self, action: str, key: str, method: str, given: dict[str, str]) -> dict[str, str]:
        """Sign as the documentation of RPC 1.0 says, with nothing of ours."""
        common = {
            "AccessKeyId": key,
            "Action": action,
            "Format": "JSON",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": str(uuid.uuid4()),
            "SignatureVersion": "1.0",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "Version": "2020-04-20",
        }
        whole = common | given
        pairs = [f"{quote(name, safe='~')}={quote(whole[name], safe='~')}" for name in sorted(whole)]
        text = f"{method}&%2F&{quote('&'.join(pairs), safe='~')}"
        digest = hmac.new(f"{SECRET}&".encode(), text.encode(), hashlib.sha1).digest()
        return whole | {"Signature": base64.b64encode(digest).decode()}

    async def send(self, parameters: dict[str, str], *, method: str = "POST") -> tuple[int, dict[str, Any]]:
        async with self.http.request(method, f"{self.url}/", params=parameters) as answer:
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()

    async def call(self, action: str, key: str = "FULL", **given: str) -> tuple[int, dict[str, Any]]:
        return await self.send(self.signed(action, key, "POST", {"InstanceId": INSTANCE} | given))

    async def done(self, action: str, key: str = "FULL", **given: str) -> dict[str, Any]:
        status, said = await self.call(action, key, **given)
        assert status == 200, said
        return said

    async def refused(self, action: str, key: str = "FULL", **given: str) -> str:
        status, said = await self.call(action, key, **given)
        assert status == 400, said
        return said["Code"]

    def gauges(self) -> dict[str, int]:
        return dict(self.broker.plugin_section("aliyun_openapi").values())

    async def connect(self, client_id: str = CLIENT, instance_id: str = INSTANCE) -> Client:
        ((host, port),) = [address for name, *address in self.broker.addresses if name == "mqtt"]
        password = sign(SECRET, client_id).encode()
        connect = Connect(client_id, user_name=f"Signature|FULL|{instance_id}", password=password)
        return await open_client(connect, host=host, port=port)


@asynccontextmanager
async def world_of(*, presence: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[World]:
    tables: dict[str, dict[str, Any]] = {
        "aliyun_auth": {
            "instances": [
                {"id": INSTANCE, "groups": ["GID_Test", "GID_Else"], "topics": ["parent", "second"]},
                {"id": OTHER, "groups": ["GID_Test"], "topics": ["parent"]},
            ],
            "access_keys": [one | {"secret": SECRET} for one in KEYS],
        },
        "aliyun_openapi": settings,
    }
    if presence is not None:
        tables["presence"] = presence
    listeners = [Listener(name="mqtt", port=0), Listener(name="web", port=0, protocol="http")]
    async with (
        Broker(Config(listeners=listeners, sys_interval_s=0, overload_lag_ms=0, plugins=tables)) as broker,
        aiohttp.ClientSession() as http,
    ):
        yield World(broker, http)


async def test_host_that_is_no_text_is_answered():
    async with world_of() as world:
        host, port = world.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /?Action=x HTTP/1.1\r\nHost: a\xffb\r\nConnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["HostId"] == "a?b"


async def test_error_has_the_service_form():
    async with world_of() as world:
        status, said = await world.call("QuerySessionByClientId", InstanceId="none", ClientId=CLIENT)
    assert status == 400
    assert re.fullmatch(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", said.pop("RequestId"))
    assert said == {
        "Code": "InstancePermissionCheckFailed",
        "Message": "the access key is not good for this instance",
        "HostId": world.url.removeprefix("http://"),
    }


async def test_get_is_as_good_as_post_and_a_form_as_a_query():
    async with world_of() as world:
        given = {"InstanceId": INSTANCE, "ClientId": CLIENT}
        signed = world.signed("QuerySessionByClientId", "FULL", "GET", given)
        assert (await world.send(signed, method="GET"))[1]["OnlineStatus"] is False
        signed = world.signed("QuerySessionByClientId", "FULL", "POST", given)
        async with world.http.post(f"{world.url}/", data=signed) as answer:
            assert (await answer.json())["OnlineStatus"] is False


async def test_other_paths_are_where_they_were():
    async with world_of() as world:
        async with world.http.get(f"{world.url}/healthz") as answer:
            assert answer.status == 200
        async with world.http.get(f"{world.url}/mqtt") as answer:
            assert answer.status != 404
        async with world.http.get(f"{world.url}/nothing") as answer:
            assert answer.status == 404
        async with world.http.get(f"{world.url}/") as answer:
            assert (answer.status, (await answer.json())["Code"]) == (400, "MissingAccessKeyId")


async def test_path_is_a_setting():
    async with world_of(path="/openapi") as world, world.http.post(f"{world.url}/openapi") as answer:
        assert (await answer.json())["Code"] == "MissingAccessKeyId"


async def test_request_counts_once():
    async with world_of() as world:
        signed = world.signed("ListGroupId", "FULL", "POST", {"InstanceId": INSTANCE})
        assert (await world.send(signed))[0] == 200
        assert (await world.send(signed))[1]["Code"] == "SignatureNonceUsed"


async def test_request_that_was_not_signed_well_uses_no_nonce():
    async with world_of() as world:
        signed = world.signed("ListGroupId", "FULL", "POST", {"InstanceId": INSTANCE})
        assert (await world.send(signed | {"Signature": "x"}))[1]["Code"] == "SignatureDoesNotMatch"
        assert (await world.send(signed))[0] == 200


@pytest.mark.parametrize("off_s", [-901, 902])
async def test_time_must_be_near_ours(off_s: int):
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + off_s))
    async with world_of() as world:
        assert await world.refused("ListGroupId", Timestamp=timestamp) == "InvalidTimeStamp.Expired"


async def test_full_memory_of_requests_lets_none_through():
    async with world_of(nonces_maximum=2) as world:
        await world.done("ListGroupId")
        await world.done("ListGroupId", "SUB")
        assert await world.refused("ListGroupId", "PUB") == "Throttling"
        assert (world.gauges()["nonces"], world.gauges()["calls_throttled"]) == (2, 1)


async def test_one_key_does_not_fill_the_memory_of_requests_for_others():
    async with world_of(nonces_maximum=8) as world:
        for _ in range(4):
            await world.done("ListGroupId")
        assert await world.refused("ListGroupId") == "Throttling.User"
        for _ in range(2):
            await world.done("ListGroupId", "SUB")
        gauges = world.gauges()
        assert (gauges["nonces"], gauges["nonces_largest_share"], gauges["calls_throttled"]) == (6, 4, 1)


async def test_all_calls_of_a_key_have_a_rate():
    async with world_of(calls_per_s=0.001) as world:
        assert await world.refused("Nothing") == "InvalidAction.NotFound"
        assert await world.refused("ListGroupId") == "Throttling.User"
        await world.done("ListGroupId", "SUB")


async def test_throttled_request_takes_no_room_and_may_come_again():
    async with world_of(old_calls_per_minute=1) as world:
        given = {"InstanceId": INSTANCE, "Version": "2019-02-14"}
        assert (await world.call("OnsMqttGroupIdList", **given))[0] == 200
        signed = world.signed("OnsMqttGroupIdList", "FULL", "POST", given)
        for _ in range(2):
            assert (await world.send(signed))[1]["Code"] == "Throttling.User"
        assert world.gauges()["nonces"] == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"Version": "2019-12-11"}, "InvalidVersion"),
        ({"Action": "Nothing"}, "InvalidAction.NotFound"),
        ({"Format": "XML"}, "InvalidParameter.Format"),
        ({"AccessKeyId": "unknown"}, "SignatureDoesNotMatch"),
    ],
)
async def test_calls_of_what_is_not_there(given: dict[str, str], code: str):
    async with world_of() as world:
        assert await world.refused("ListGroupId", **given) == code


async def test_rate_of_an_action_is_its_own_and_the_keys():
    async with world_of(session_queries_per_s=0.001) as world:
        await world.done("QuerySessionByClientId", ClientId=CLIENT)
        assert await world.refused("QuerySessionByClientId", ClientId=CLIENT) == "Throttling.User"
        await world.done("QuerySessionByClientId", "SUB", ClientId=CLIENT)
        await world.done("ListGroupId")
        assert (world.gauges()["calls"], world.gauges()["calls_refused"]) == (4, 1)


def test_bucket_fills_again():
    now_s = 0.0
    rates = Rates(2, now_s=lambda: now_s)
    assert [rates.take("key") for _ in range(3)] == [True, True, False]
    now_s = 0.5
    assert [rates.take("key") for _ in range(2)] == [True, False]


MANAGING: list[tuple[str, dict[str, str]]] = [
    ("CreateGroupId", {"GroupId": "GID_Test"}),
    ("DeleteGroupId", {"GroupId": "GID_Test"}),
    ("CloseConnection", {"ClientId": CLIENT}),
    ("RegisterDeviceCredential", {"ClientId": CLIENT}),
    ("GetDeviceCredential", {"ClientId": CLIENT}),
    ("RefreshDeviceCredential", {"ClientId": CLIENT}),
    ("UnRegisterDeviceCredential", {"ClientId": CLIENT}),
    ("ListDeviceCredentialClientId", {"GroupId": "GID_Test"}),
    *[
        (f"{verb}CustomAuth{what}", {})
        for verb, what in [
            ("Add", "Identity"),
            ("Update", "Identity"),
            ("Delete", "Identity"),
            ("Query", "Identity"),
            ("Add", "Permission"),
            ("Update", "Permission"),
            ("Delete", "Permission"),
            ("Query", "Permission"),
            ("Add", "ConnectBlack"),
            ("Delete", "ConnectBlack"),
            ("Query", "ConnectBlack"),
        ]
    ],
]


async def test_only_full_keys_of_all_topics_manage():
    async with world_of() as world:
        for action, given in MANAGING:
            for key in ("PUB", "SUB", "TOPIC"):
                assert await world.refused(action, key, **given) == "PermissionCheckFailed", (action, key)
            assert await world.refused(action, "ONE", **given) == "InstancePermissionCheckFailed", action


async def test_managers_are_those_that_are_named():
    async with world_of(managers=["GROUP"]) as world:
        for action, given in MANAGING:
            assert await world.refused(action, **given) == "PermissionCheckFailed", action
        await world.done("RegisterDeviceCredential", "GROUP", ClientId=CLIENT)


async def test_key_of_one_group_sees_and_does_nothing_in_others():
    async with world_of() as world:
        groups = (await world.done("ListGroupId", "GROUP"))["Data"]
        assert [one["GroupId"] for one in groups] == ["GID_Test"]
        for action in ("QuerySessionByClientId", "RegisterDeviceCredential", "CloseConnection"):
            for client_id in ("GID_Else@@@1", "free"):
                assert await world.refused(action, "GROUP", ClientId=client_id) == "PermissionCheckFailed"
        batch = {"ClientIdList.1": CLIENT, "ClientIdList.2": "GID_Else@@@1"}
        assert await world.refused("BatchQuerySessionByClientIds", "GROUP", **batch) == "PermissionCheckFailed"
        for action in ("CreateGroupId", "DeleteGroupId", "ListDeviceCredentialClientId"):
            assert await world.refused(action, "GROUP", GroupId="GID_Else") == "PermissionCheckFailed"
        assert await world.refused("QueryCustomAuthIdentity", "GROUP") == "PermissionCheckFailed"


async def test_client_is_online_and_can_be_closed_in_its_own_instance_only():
    async with world_of() as world, await world.connect():
        assert (await world.done("QuerySessionByClientId", ClientId=CLIENT))["OnlineStatus"] is True
        said = await world.done("QuerySessionByClientId", InstanceId=OTHER, ClientId=CLIENT)
        assert said["OnlineStatus"] is False
        await world.done("CloseConnection", InstanceId=OTHER, ClientId=CLIENT)
        client = world.broker.client(CLIENT)
        assert client is not None
        assert client.is_connected


async def test_instances_that_a_key_is_good_for_are_listed():
    async with world_of() as world:
        found = (await world.done("ListInstances", "ONE"))["Instances"]
        assert [one["InstanceId"] for one in found] == [OTHER]
        assert len((await world.done("ListInstances"))["Instances"]) == 2


@pytest.mark.parametrize(
    ("key", "given", "code"),
    [
        ("SUB", {}, "PermissionCheckFailed"),
        ("TOPIC", {"MqttTopic": "second/a"}, "PermissionCheckFailed"),
        ("FULL", {"MqttTopic": "none/a"}, "PermissionCheckFailed"),
        ("FULL", {"MqttTopic": "parent/+"}, "InvalidParameter.MqttTopic"),
        ("FULL", {"MqttTopic": "parent/#"}, "InvalidParameter.MqttTopic"),
        ("FULL", {"MqttTopic": "$SYS/tokenInvalidNotice"}, "InvalidParameter.MqttTopic"),
        ("FULL", {"MqttTopic": "/parent"}, "InvalidParameter.MqttTopic"),
        ("FULL", {"MqttTopic": "parent/\0"}, "InvalidParameter.MqttTopic"),
        ("FULL", {"MqttTopic": "parent/" + "a" * 122}, "InvalidParameter.MqttTopic"),
        ("FULL", {"MqttTopic": ""}, "InvalidParameter.MqttTopic"),
        ("FULL", {"Payload": "12345"}, "InvalidParameter.Payload"),
    ],
)
async def test_messages_that_are_not_sent(key: str, given: dict[str, str], code: str):
    async with world_of(payload_bytes_maximum=4) as world:
        assert await world.refused("SendMessage", key, **({"MqttTopic": "parent/a", "Payload": "x"} | given)) == code


async def test_message_without_payload_is_refused_and_an_empty_one_sent():
    async with world_of() as world:
        assert await world.refused("SendMessage", MqttTopic="parent/a") == "InvalidParameter.Payload"
        await world.done("SendMessage", MqttTopic="parent/a", Payload="")


async def test_payload_is_decoded_where_that_is_wanted():
    async with world_of(decodes_base64=True, message_qos=0) as world, await world.connect() as client:
        await client.subscribe([Subscription("parent/a", 1)])
        await world.done("SendMessage", "TOPIC", MqttTopic="parent/a", Payload="AP8=")
        message = await client.receive()
        assert (message.payload, message.qos) == (b"\x00\xff", 0)
        assert await world.refused("SendMessage", MqttTopic="parent/a", Payload="é") == "InvalidParameter.Payload"
        assert await world.refused("SendMessage", MqttTopic="parent/a", Payload="AP8") == "InvalidParameter.Payload"


async def test_message_that_a_full_queue_refuses(monkeypatch: pytest.MonkeyPatch):
    async def refuse(*arguments: object, **named: object) -> int:
        raise QuotaExceeded(0x97, "§4.3.2", "full")

    async with world_of() as world:
        monkeypatch.setattr(Broker, "publish", refuse)
        assert await world.refused("SendMessage", MqttTopic="parent/a", Payload="x") == "Throttling"


async def test_what_cannot_be_written_is_our_fault(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    async def fail() -> None:
        raise StoreError("io", "the disk is gone")

    async with world_of() as world:
        monkeypatch.setattr(world.registry, "saved", fail)
        with caplog.at_level(logging.ERROR, "mqttcore.plugins.aliyun"):
            status, said = await world.call("CreateGroupId", GroupId="GID_New")
        monkeypatch.undo()
    assert (status, said["Code"], said["Message"]) == (500, "InternalError", "internal error")
    assert "the disk is gone" in caplog.text


@pytest.mark.parametrize(
    ("action", "given", "code"),
    [
        ("QuerySessionByClientId", {}, "InvalidParameter.ClientId"),
        ("BatchQuerySessionByClientIds", {}, "InvalidParameter.ClientIdList"),
        ("BatchQuerySessionByClientIds", {"ClientIdList.2": CLIENT}, "InvalidParameter.ClientIdList"),
        ("BatchQuerySessionByClientIds", {"ClientIdList.x": CLIENT}, "InvalidParameter.ClientIdList"),
        ("ApplyToken", {"Actions": "R", "Resources": "parent", "ExpireTime": "-1"}, "InvalidParameter.ExpireTime"),
        ("ApplyToken", {"Actions": "R", "Resources": "parent", "ExpireTime": "9" * 19}, "InvalidParameter.ExpireTime"),
        ("RevokeToken", {"Token": "forged"}, "InvalidParameter.Token"),
        ("ListDeviceCredentialClientId", {"GroupId": "GID_Test", "PageSize": "101"}, "InvalidParameter.PageSize"),
        ("ListDeviceCredentialClientId", {"GroupId": "GID_Test", "PageNo": "0"}, "InvalidParameter.PageNo"),
        ("ListDeviceCredentialClientId", {"GroupId": "GID_Test", "NextToken": "x"}, "InvalidParameter.NextToken"),
        ("AddCustomAuthIdentity", {"IdentityType": "X"}, "InvalidParameter.IdentityType"),
        ("QueryCustomAuthConnectBlack", {"Size": "0"}, "InvalidParameter.Size"),
    ],
)
async def test_parameters_that_cannot_be(action: str, given: dict[str, str], code: str):
    async with world_of() as world:
        assert await world.refused(action, **given) == code


async def test_answers_hold_no_secret_of_an_identity():
    given = {"IdentityType": "USER", "Username": "someone", "Secret": "do not tell", "SignMode": "SIGNED"}
    async with world_of() as world:
        said = [await world.done("AddCustomAuthIdentity", **given), await world.done("QueryCustomAuthIdentity")]
        said.append((await world.call("AddCustomAuthIdentity", **given))[1])
    assert "do not tell" not in json.dumps(said)


async def test_token_is_that_of_its_key_and_instance():
    async with world_of() as world:
        expires = str(round((time.time() + 3600) * 1000))
        asked = {"Actions": "R", "Resources": "parent/#", "ExpireTime": expires}
        token = (await world.done("ApplyToken", **asked))["Token"]
        assert (await world.done("QueryToken", Token=token))["TokenStatus"] is True
        assert (await world.done("QueryToken", InstanceId=OTHER, Token=token))["TokenStatus"] is False
        assert (await world.done("QueryToken", "SUB", Token=token))["TokenStatus"] is False
        assert await world.refused("RevokeToken", InstanceId=OTHER, Token=token) == "InvalidParameter.Token"
        assert await world.refused("RevokeToken", "SUB", Token=token) == "InvalidParameter.Token"
        assert (await world.done("QueryToken", Token=token))["TokenStatus"] is True


OLD = {"Version": "2019-02-14"}


async def test_versions_have_actions_of_their_own():
    async with world_of() as world:
        assert await world.refused("ListGroupId", **OLD) == "InvalidAction.NotFound"
        assert await world.refused("OnsMqttGroupIdList") == "InvalidAction.NotFound"


async def test_old_action_without_instance_means_the_only_one_of_the_key():
    async with world_of() as world:
        found = (await world.done("OnsMqttGroupIdList", "ONE", InstanceId="", **OLD))["Data"]["MqttGroupIdDo"]
        assert [(one["GroupId"], one["InstanceId"]) for one in found] == [("GID_Test", OTHER)]
        assert await world.refused("OnsMqttGroupIdList", InstanceId="", **OLD) == "InvalidParameter.InstanceId"


async def test_old_actions_ask_for_rights():
    async with world_of(presence={}) as world:
        for action in ("OnsMqttGroupIdCreate", "OnsMqttGroupIdDelete"):
            assert await world.refused(action, "SUB", GroupId="GID_Test", **OLD) == "PermissionCheckFailed"
        for action in ("OnsMqttGroupIdCreate", "OnsMqttGroupIdDelete", "OnsMqttQueryClientByGroupId"):
            assert await world.refused(action, "GROUP", GroupId="GID_Else", **OLD) == "PermissionCheckFailed"
        topic = {"ParentTopic": "second", "SubTopic": "/a"}
        assert await world.refused("OnsMqttQueryClientByTopic", "TOPIC", **topic, **OLD) == "BIZ_TOPIC_NOT_FOUND"
        client_id = "GID_Else@@@1"
        refused = await world.refused("OnsMqttQueryClientByClientId", "GROUP", ClientId=client_id, **OLD)
        assert refused == "PermissionCheckFailed"


async def test_client_is_told_of_in_its_own_instance_only():
    async with world_of() as world, await world.connect() as client:
        await client.subscribe([Subscription("$share/s/parent/+", 0), Subscription("parent", 1)])
        found = (await world.done("OnsMqttQueryClientByClientId", ClientId=CLIENT, **OLD))["MqttClientInfoDo"]
        assert sorted(found["SubScriptonData"]["SubscriptionDo"], key=lambda one: one["Qos"]) == [
            {"ParentTopic": "parent", "SubTopic": "/+", "Qos": 0},
            {"ParentTopic": "parent", "SubTopic": "", "Qos": 1},
        ]
        asked = {"InstanceId": OTHER, "ClientId": CLIENT}
        found = (await world.done("OnsMqttQueryClientByClientId", **asked, **OLD))["MqttClientInfoDo"]
        nothing = {"SubscriptionDo": []}
        assert found == {
            "ClientId": CLIENT,
            "Online": False,
            "SocketChannel": "",
            "LastTouch": 0,
            "SubScriptonData": nothing,
        }


async def test_counts_need_presence_and_its_bounds():
    asked = {"GroupId": "GID_Test"} | OLD
    async with world_of() as world:
        assert await world.refused("OnsMqttQueryClientByGroupId", **asked) == "ONS_INVOKE_ERROR"
    async with world_of(presence={"clients_maximum": 1}) as world, await world.connect():
        assert (await world.done("OnsMqttQueryClientByGroupId", **asked))["MqttClientSetDo"]["OnlineCount"] == 1
        world.broker.service(REGISTER).connected("GID_Else@@@1", "2", is_persistent=False, is_resumed=False)
        asked["GroupId"] = "GID_Else"
        assert await world.refused("OnsMqttQueryClientByGroupId", **asked) == "ONS_SYSTEM_ERROR"


async def test_old_actions_are_counted_by_the_minute():
    async with world_of(old_calls_per_minute=3) as world:
        for _ in range(3):
            await world.done("OnsMqttGroupIdList", **OLD)
        assert await world.refused("OnsMqttGroupIdList", **OLD) == "Throttling.User"


def test_without_the_registry_it_does_not_start():
    with pytest.raises(MqttCoreError, match="aliyun_auth"):
        AliyunOpenApi(OpenApiConfig()).startup(BrokerDouble())  # type: ignore[arg-type]
