"""Programs that call the service by Alibaba's own SDKs, the present one and the old core SDK, are answered here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mqttcore_plugins.aliyun.signatures import sign

from interop.clients import BUILD, DRIVERS
from mqttcore import Broker, Client, ClientError, Config, Connect, ConnectionRefused, Listener, open_client
from mqttcore.codec import Subscription

INSTANCE = "mqtt-xxxxx"
DEADLINE_S = 100
ID = r"[0-9A-F]{8}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{4}-[0-9A-F]{12}"


class Sdk:
    """An SDK in its own process, and the broker that it calls."""

    def __init__(self, broker: Broker, process: asyncio.subprocess.Process) -> None:
        self.broker = broker
        self._process = process

    async def call(self, action: str, **parameters: Any) -> dict[str, Any]:
        """Call an action of the instance; what the SDK made of the answer, or of the error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps([action, {"InstanceId": INSTANCE} | parameters])
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(DEADLINE_S):
            said = await self._process.stdout.readline()
        if not said:
            pytest.fail((await self._process.communicate())[1].decode())
        return json.loads(said)

    async def done(self, action: str, **parameters: Any) -> dict[str, Any]:
        """Call an action that must succeed; its answer without RequestId."""
        said = await self.call(action, **parameters)
        assert re.fullmatch(ID, said.pop("RequestId", "")), said
        return said

    async def refused(self, action: str, **parameters: Any) -> str:
        """Call an action that must fail; the code."""
        said = await self.call(action, **parameters)
        assert said.get("status") == 400, said
        return said["Code"]

    async def connect(self, client_id: str, *, user_name: str = "", password: str = "") -> Client:
        ((host, port),) = [address for name, *address in self.broker.addresses if name == "mqtt"]
        connect = Connect(
            client_id,
            user_name=user_name or f"Signature|YYYYY|{INSTANCE}",
            password=(password or sign("XXXXX", client_id)).encode(),
        )
        return await open_client(connect, host=host, port=port)

    @asynccontextmanager
    async def client(self, client_id: str, **login: str) -> AsyncIterator[Client]:
        async with await self.connect(client_id, **login) as client:
            yield client


@asynccontextmanager
async def sdk_of(driver: str, access_key: str = "YYYYY", secret: str = "XXXXX", **settings: Any) -> AsyncIterator[Sdk]:
    if not (BUILD / "aliyun" / "alibabacloud_onsmqtt20200420").exists():
        pytest.skip("no SDKs of Alibaba; see tests/interop/setup.sh")
    tables = {
        "aliyun_auth": {
            "instances": [{"id": INSTANCE, "groups": ["GID_Test"], "topics": ["parent"]}],
            "access_keys": [
                {"id": "YYYYY", "secret": "XXXXX"},
                {"id": "SUB", "secret": "XXXXX", "rights": "subscribe"},
            ],
        },
        "p2p": {},
        "presence": {},
        "aliyun_openapi": settings,
    }
    listeners = [Listener(name="mqtt", port=0), Listener(name="web", port=0, protocol="http")]
    async with Broker(Config(listeners=listeners, sys_interval_s=0, overload_lag_ms=0, plugins=tables)) as broker:
        (endpoint,) = [f"{host}:{port}" for name, host, port in broker.addresses if name == "web"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(DRIVERS / "aliyun" / driver),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ
            | {
                "PYTHONPATH": str(BUILD / "aliyun"),
                "PYTHONWARNINGS": "ignore",
                "MQTT_ENDPOINT": "",
                "MQTT_PORT": "0",
                "MQTT_OPENAPI": endpoint,
                "MQTT_INSTANCE_ID": INSTANCE,
                "MQTT_ACCESS_KEY": access_key,
                "MQTT_SECRET_KEY": secret,
                "MQTT_GROUP_ID": "GID_Test",
                "MQTT_TOPIC": "parent/x",
            },
        )
        try:
            yield Sdk(broker, process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    _, errors = await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()
                raise
        assert (process.returncode, errors.decode()) == (0, "")


both = pytest.mark.parametrize("driver", ["openapi.py", "openapi_core.py"])


def after(seconds: float) -> int:
    return round((time.time() + seconds) * 1000)


@both
async def test_sessions(driver: str):
    one, two = "GID_Test@@@1", "GID_Test@@@2"
    async with sdk_of(driver) as sdk:
        assert await sdk.done("QuerySessionByClientId", ClientId=one) == {"OnlineStatus": False}
        async with sdk.client(one):
            assert await sdk.done("QuerySessionByClientId", ClientId=one) == {"OnlineStatus": True}
            assert await sdk.done("BatchQuerySessionByClientIds", ClientIdList=[one, two]) == {
                "OnlineStatusList": [
                    {"ClientId": one, "OnlineStatus": True},
                    {"ClientId": two, "OnlineStatus": False},
                ]
            }
        assert await sdk.refused("QuerySessionByClientId", ClientId=one, InstanceId="other") == (
            "InstancePermissionCheckFailed"
        )
        eleven = [f"GID_Test@@@{number}" for number in range(11)]
        assert await sdk.refused("BatchQuerySessionByClientIds", ClientIdList=eleven) == "InvalidParameter.ClientIdList"


@both
async def test_messages_reach_subscribers_and_single_clients(driver: str):
    async with sdk_of(driver) as sdk, sdk.client("GID_Test@@@1") as client:
        await client.subscribe([Subscription("parent/#", 1)])
        said = await sdk.done("SendMessage", MqttTopic="parent/a", Payload="ü & *~+ =%")
        assert re.fullmatch("[0-9A-F]{32}", said["MsgId"])
        async with asyncio.timeout(DEADLINE_S):
            message = await client.receive()
        assert (message.topic, message.payload.decode(), message.qos) == ("parent/a", "ü & *~+ =%", 1)
        await sdk.done("SendMessage", MqttTopic="parent/p2p/GID_Test@@@1", Payload="eA==")
        async with asyncio.timeout(DEADLINE_S):
            peer = await client.receive()
        assert (peer.topic, peer.payload, peer.qos) == ("parent/p2p/GID_Test@@@1", b"eA==", 1)


@both
async def test_tokens(driver: str):
    async with sdk_of(driver) as sdk:
        token = (await sdk.done("ApplyToken", Resources="parent/#", Actions="R,W", ExpireTime=after(3600)))["Token"]
        assert await sdk.done("QueryToken", Token=token) == {"TokenStatus": True}
        login = {"user_name": f"Token|YYYYY|{INSTANCE}", "password": f"RW|{token}"}
        async with sdk.client("GID_Test@@@1", **login) as client:
            assert await sdk.done("RevokeToken", Token=token) == {}
            async with asyncio.timeout(DEADLINE_S):
                assert (await client.receive()).topic == "$SYS/tokenInvalidNotice"
                with pytest.raises(ClientError):
                    await client.receive()
        assert await sdk.done("QueryToken", Token=token) == {"TokenStatus": False}
        assert await sdk.done("QueryToken", Token="forged") == {"TokenStatus": False}
        assert await sdk.refused("ApplyToken", Resources="parent/#", Actions="X", ExpireTime=after(3600)) == (
            "ParameterCheckFailed"
        )
        assert await sdk.refused("ApplyToken", Resources="other/#", Actions="R", ExpireTime=after(3600)) == (
            "PermissionCheckFailed"
        )


@both
async def test_device_credentials(driver: str):
    one = "GID_Test@@@1"
    async with sdk_of(driver) as sdk:
        first = (await sdk.done("RegisterDeviceCredential", ClientId=one))["DeviceCredential"]
        assert first["DeviceAccessKeyId"].startswith("DC.")
        assert (await sdk.done("GetDeviceCredential", ClientId=one))["DeviceCredential"] == first
        second = (await sdk.done("RefreshDeviceCredential", ClientId=one))["DeviceCredential"]

        def login(credential: dict[str, Any]) -> dict[str, str]:
            return {
                "user_name": f"DeviceCredential|{credential['DeviceAccessKeyId']}|{INSTANCE}",
                "password": sign(credential["DeviceAccessKeySecret"], one),
            }

        with pytest.raises(ConnectionRefused):
            await sdk.connect(one, **login(first))
        async with sdk.client(one, **login(second)):
            assert await sdk.done("QuerySessionByClientId", ClientId=one) == {"OnlineStatus": True}
        assert await sdk.done("UnRegisterDeviceCredential", ClientId=one) == {}
        assert await sdk.refused("GetDeviceCredential", ClientId=one) == "InvalidParameter.ClientId"
        with pytest.raises(ConnectionRefused):
            await sdk.connect(one, **login(second))


@both
async def test_groups(driver: str):
    async with sdk_of(driver) as sdk:
        assert await sdk.done("CreateGroupId", GroupId="GID_Made") == {}
        groups = (await sdk.done("ListGroupId"))["Data"]
        assert [(one["GroupId"], one["InstanceId"]) for one in groups] == [
            ("GID_Test", INSTANCE),
            ("GID_Made", INSTANCE),
        ]
        async with sdk.client("GID_Made@@@1"):
            assert await sdk.done("QuerySessionByClientId", ClientId="GID_Made@@@1") == {"OnlineStatus": True}
        assert await sdk.done("DeleteGroupId", GroupId="GID_Made") == {}
        with pytest.raises(ConnectionRefused):
            await sdk.connect("GID_Made@@@1")
        assert await sdk.refused("CreateGroupId", GroupId="nothing") == "InvalidParameter.GroupId"


@both
async def test_keys_that_may_not(driver: str):
    async with sdk_of(driver, "SUB") as sdk:
        assert await sdk.refused("CreateGroupId", GroupId="GID_Made") == "PermissionCheckFailed"
        assert await sdk.refused("SendMessage", MqttTopic="parent/x", Payload="x") == "PermissionCheckFailed"
        assert await sdk.refused("RegisterDeviceCredential", ClientId="GID_Test@@@1") == "PermissionCheckFailed"
        assert await sdk.done("QuerySessionByClientId", ClientId="GID_Test@@@1") == {"OnlineStatus": False}
    async with sdk_of(driver, secret="wrong") as sdk:
        assert await sdk.refused("ListGroupId") == "SignatureDoesNotMatch"
    async with sdk_of(driver, "unknown") as sdk:
        assert await sdk.refused("ListGroupId") == "SignatureDoesNotMatch"


async def test_connection_is_closed():
    async with sdk_of("openapi.py") as sdk, sdk.client("GID_Test@@@1") as client:
        closed = {"Code": 200, "Message": "success", "Success": True}
        assert await sdk.done("CloseConnection", ClientId="GID_Test@@@1") == closed
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(ClientError):
                await client.receive()
        assert await sdk.done("CloseConnection", ClientId="GID_Test@@@2") == closed


async def test_instances_and_clients_with_credentials_are_listed():
    async with sdk_of("openapi.py") as sdk:
        (instance,) = (await sdk.done("ListInstances"))["Instances"]
        assert (instance["InstanceId"], instance["InstanceStatus"]) == (INSTANCE, 5)
        for number in range(3):
            await sdk.done("RegisterDeviceCredential", ClientId=f"GID_Test@@@{number}")
        asked = {"GroupId": "GID_Test", "PageSize": "2"}
        first = (await sdk.done("ListDeviceCredentialClientId", **asked))["DeviceCredentialClientIdList"]
        assert (first["ClientIdList"], first["Total"]) == (["GID_Test@@@0", "GID_Test@@@1"], 3)
        asked["NextToken"] = first["NextToken"]
        rest = (await sdk.done("ListDeviceCredentialClientId", **asked))["DeviceCredentialClientIdList"]
        assert (rest["ClientIdList"], rest["NextToken"]) == (["GID_Test@@@2"], "")


async def test_custom_authentication():
    user = {"IdentityType": "USER", "Username": "someone"}
    rule = {"IdentityType": "USER", "Identity": "someone", "Topic": "parent/#"}
    async with sdk_of("openapi.py") as sdk:
        await sdk.done("AddCustomAuthIdentity", **user, Secret="first", SignMode="ORIGIN")
        assert await sdk.refused("AddCustomAuthIdentity", **user, Secret="x", SignMode="ORIGIN") == (
            "ParameterCheckFailed"
        )
        await sdk.done("UpdateCustomAuthIdentity", **user, Secret="second", SignMode="ORIGIN")
        (found,) = (await sdk.done("QueryCustomAuthIdentity", Size=10, **user))["Data"]["Results"]
        assert found["Username"] == "someone"
        assert "Secret" not in found
        await sdk.done("AddCustomAuthPermission", **rule, PermitAction="PUB", Effect="ALLOW")
        await sdk.done("UpdateCustomAuthPermission", **rule, PermitAction="PUB_SUB", Effect="ALLOW")
        (found,) = (await sdk.done("QueryCustomAuthPermission", Size=10, **rule))["Data"]["Results"]
        assert found["PermitAction"] == "PUB_SUB"
        login = {"user_name": "someone", "password": "second"}
        async with sdk.client("free", **login) as client:
            assert (await client.subscribe([Subscription("parent/a", 1)]))[0] == 1
            assert await sdk.done("QuerySessionByClientId", ClientId="free") == {"OnlineStatus": True}
            await sdk.done("AddCustomAuthConnectBlack", ClientId="free")
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises(ClientError):
                    await client.receive()
        (found,) = (await sdk.done("QueryCustomAuthConnectBlack", Size=10))["Data"]["Results"]
        assert found == {"ClientId": "free", "PermitAction": "CONNECT", "Effect": "DENY"}
        with pytest.raises(ConnectionRefused):
            await sdk.connect("free", **login)
        await sdk.done("DeleteCustomAuthConnectBlack", ClientId="free")
        async with sdk.client("free", **login):
            pass
        await sdk.done("DeleteCustomAuthPermission", **rule)
        await sdk.done("DeleteCustomAuthIdentity", **user)
        assert (await sdk.done("QueryCustomAuthIdentity", Size=10))["Data"]["Results"] == []
        with pytest.raises(ConnectionRefused):
            await sdk.connect("free", **login)


async def test_clients_and_counts_of_the_product_before():
    one = "GID_Test@@@1"
    async with sdk_of("openapi_core.py") as sdk, sdk.client(one) as client:
        await client.subscribe([Subscription("parent/a/b", 1)])
        found = (await sdk.done("OnsMqttQueryClientByClientId", ClientId=one, PreventCache=after(0)))[
            "MqttClientInfoDo"
        ]
        assert (found["Online"], found["ClientId"]) == (True, one)
        assert re.fullmatch(r"127\.0\.0\.1:\d+", found["SocketChannel"])
        assert abs(found["LastTouch"] - after(0)) < DEADLINE_S * 1000
        assert found["SubScriptonData"]["SubscriptionDo"] == [{"ParentTopic": "parent", "SubTopic": "/a/b", "Qos": 1}]
        of_group = await sdk.done("OnsMqttQueryClientByGroupId", GroupId="GID_Test")
        assert of_group["MqttClientSetDo"] == {"OnlineCount": 1, "PersistCount": 0}
        of_topic = await sdk.done("OnsMqttQueryClientByTopic", ParentTopic="parent", SubTopic="/a/b")
        assert of_topic["MqttClientSetDo"] == {"OnlineCount": 1, "PersistCount": 0}
        other = await sdk.done("OnsMqttQueryClientByTopic", ParentTopic="parent", SubTopic="/a")
        assert other["MqttClientSetDo"] == {"OnlineCount": 0, "PersistCount": 0}
        assert await sdk.refused("OnsMqttQueryClientByTopic", ParentTopic="other", SubTopic="/a") == (
            "BIZ_TOPIC_NOT_FOUND"
        )


async def test_groups_of_the_product_before():
    async with sdk_of("openapi_core.py") as sdk:
        await sdk.done("OnsMqttGroupIdCreate", GroupId="GID_Made", Topic="parent")
        groups = (await sdk.done("OnsMqttGroupIdList"))["Data"]["MqttGroupIdDo"]
        assert [one["GroupId"] for one in groups] == ["GID_Test", "GID_Made"]
        await sdk.done("OnsMqttGroupIdDelete", GroupId="GID_Made")
        assert await sdk.refused("OnsMqttQueryClientByGroupId", GroupId="GID_Made") == "BIZ_FIELD_CHECK_INVALID"
