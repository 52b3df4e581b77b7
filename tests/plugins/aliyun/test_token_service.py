"""The token service over HTTP: every encoding, both readings of the signature, every code."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from mqttcore_plugins.aliyun import storage
from mqttcore_plugins.aliyun.gate import TokenChecker
from mqttcore_plugins.aliyun.profile import PROFILE, Profile
from mqttcore_plugins.aliyun.records import AccessKey, Instance, ParentTopic
from mqttcore_plugins.aliyun.registry import Registry
from mqttcore_plugins.aliyun.settings import TokenConfig
from mqttcore_plugins.aliyun.signatures import sign, string_to_sign
from mqttcore_plugins.aliyun.storage import FileStorage
from mqttcore_plugins.aliyun.token_http import AliyunToken
from mqttcore_plugins.aliyun.tokens import TokenCodec

from mqttcore import MqttCoreError

from .doubles import BrokerDouble, http_server

INSTANCE = "mqtt-xxxxx"
SECRET = "XXXXX"
SIGNED = ("actions", "expireTime", "instanceId", "resources", "serviceName")


class World:
    def __init__(self, path: Path, **settings: Any) -> None:
        self.now = 1_609_434_000_000
        self.registry = Registry(FileStorage(path), now_ms=lambda: self.now)
        self.registry.load(
            instances=[Instance(instance_id=INSTANCE)],
            access_keys=[
                AccessKey(access_key_id="YYYYY", secret=SECRET),
                AccessKey(access_key_id="PUB", secret=SECRET, rights="publish"),
                AccessKey(access_key_id="ONLYA", secret=SECRET, topics=("TopicA",)),
                AccessKey(access_key_id="OFF", secret=SECRET, is_enabled=False),
            ],
            topics=[ParentTopic(topic=topic, instance_id=INSTANCE) for topic in ("TopicA", "TopicB")],
        )
        self.codec = TokenCodec([self.registry.token_key])
        broker = BrokerDouble()
        broker.provide(PROFILE, Profile(self.registry, TokenChecker(self.registry, self.codec), lambda _: False))
        settings.setdefault("revocations_per_minute", 6000)
        self.plugin = AliyunToken(TokenConfig(**settings))
        self.plugin.startup(broker)
        self.routes = self.plugin.http_routes(broker)
        self.client: aiohttp.ClientSession
        self.url = ""

    async def post(self, name: str, form: dict[str, Any], **more: Any) -> dict[str, Any]:
        async with self.client.post(f"{self.url}/token/{name}", data=form, **more) as response:
            assert response.status == 200
            assert response.content_type == "application/json"
            return await response.json()

    def application(self, **changes: str) -> dict[str, str]:
        form = {
            "actions": "R,W",
            "resources": "TopicA/#,TopicB/+",
            "expireTime": "1609434121000",
            "proxyType": "MQTT",
            "serviceName": "mq",
            "instanceId": INSTANCE,
            "accessKey": "YYYYY",
        } | changes
        form["signature"] = sign(SECRET, string_to_sign({name: form[name] for name in SIGNED if name in form}))
        return form

    async def token(self, **changes: str) -> str:
        said = await self.post("apply", self.application(**changes))
        assert said["code"] == 200, said
        return said["tokenData"]

    def about(self, token: str, access_key: str = "YYYYY") -> dict[str, str]:
        return {"token": token, "accessKey": access_key, "signature": sign(SECRET, f"token={token}")}


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "registry.json")
    async with http_server(made.routes) as (made.client, made.url):
        yield made


async def test_application_of_the_documentation_gives_a_token(world: World):
    form = world.application()
    assert form["signature"] == "7FOIgW8FkjaaDCyZYBUWPk19VOg="
    said = await world.post("apply", form)
    assert (said["success"], said["code"], said["message"]) == (True, 200, "operation success")
    token = world.codec.read(said["tokenData"])
    assert (token.actions, token.resources) == ("RW", ("TopicA/#", "TopicB/+"))
    assert token.expires_ms == 1_609_434_121_000
    assert (token.access_key_id, token.instance_id) == ("YYYYY", INSTANCE)


async def test_form_may_be_multipart_or_in_the_query(world: World):
    form = world.application()
    with aiohttp.MultipartWriter("form-data") as multipart:
        for name, value in form.items():
            multipart.append(value).set_content_disposition("form-data", name=name)
        assert (await world.post("apply", multipart))["code"] == 200
    for ask in (world.client.get, world.client.post):
        async with ask(f"{world.url}/token/apply", params=form) as response:
            assert (await response.json())["code"] == 200


async def test_signature_may_be_over_values_in_order(world: World):
    form = world.application(actions="W,R", resources="TopicB/+,TopicA/#")
    assert (await world.post("apply", form))["code"] == 200
    form["signature"] = "7FOIgW8FkjaaDCyZYBUWPk19VOg="
    assert (await world.post("apply", form))["code"] == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expireTime": str(1_609_434_000_000 + 59_999)}, 400),
        ({"expireTime": "soon"}, 400),
        ({"expireTime": "-1"}, 400),
        ({"expireTime": "9" * 30}, 400),
        ({"actions": "X"}, 400),
        ({"actions": "R,"}, 400),
        ({"resources": "#"}, 400),
        ({"resources": "TopicA/#,"}, 400),
        ({"resources": ",".join(f"TopicA/{number}" for number in range(101))}, 400),
        ({"resources": "TopicA/" + "x" * 130}, 400),
        ({"serviceName": "other"}, 400),
        ({"proxyType": "AMQP"}, 400),
        ({"accessKey": "NONE"}, 407),
        ({"accessKey": "OFF"}, 407),
        ({"instanceId": "mqtt-none"}, 409),
        ({"resources": "TopicC/#"}, 409),
        ({"accessKey": "ONLYA"}, 409),
        ({"accessKey": "PUB"}, 409),
    ],
)
async def test_applications_that_are_refused(world: World, changes: dict[str, str], code: int):
    said = await world.post("apply", world.application(**changes))
    assert (said["success"], said["code"]) == (False, code), said
    assert "tokenData" not in said
    assert said["message"]
    assert SECRET not in said["message"]


@pytest.mark.parametrize("name", [*SIGNED, "accessKey", "signature"])
async def test_parameter_that_is_missing_is_named(world: World, name: str):
    form = world.application()
    del form[name]
    said = await world.post("apply", form)
    assert (said["code"], said["message"]) == (400, f"missing: {name}")


async def test_wrong_signature_is_407_on_every_path(world: World):
    for name, form in (("apply", world.application()), ("query", world.about("abc")), ("revoke", world.about("abc"))):
        said = await world.post(name, form | {"signature": "wrong"})
        assert (said["success"], said["code"]) == (False, 407)


async def test_time_beyond_the_longest_is_cut_to_it(world: World):
    token = await world.token(expireTime=str(2 * world.now))
    assert world.codec.read(token).expires_ms == world.now + 30 * 86_400_000


async def test_hundred_resources_are_taken(world: World):
    token = await world.token(resources=",".join(f"TopicA/{number}" for number in range(100)))
    assert len(world.codec.read(token).resources) == 100


async def test_query_tells_good_expired_revoked_and_forged(world: World):
    token = await world.token()
    assert await world.post("query", world.about(token)) == {
        "success": True,
        "message": "operation success",
        "code": 200,
    }
    assert (await world.post("query", world.about("abc")))["code"] == 1
    assert (await world.post("query", world.about(token, "PUB")))["code"] == 400
    assert (await world.post("revoke", world.about(token)))["code"] == 200
    said = await world.post("query", world.about(token))
    assert (said["success"], said["code"]) == (False, 3)
    world.now += 200_000
    assert (await world.post("query", world.about(token)))["code"] == 2


async def test_signature_of_a_query_is_that_of_the_documentation(world: World):
    assert world.about("abc")["signature"] == "MYpb3ziEMErscBBzwUP0XVWUs/s="


async def test_revocation_is_kept_over_a_restart(world: World, tmp_path: Path):
    token = await world.token()
    assert (await world.post("revoke", world.about(token)))["success"] is True
    again = World(tmp_path / "registry.json")
    assert again.codec.read(token).token_id in again.registry.revocations
    assert (await world.post("revoke", world.about(token)))["success"] is True  # twice does no harm


async def test_revocations_that_fail(world: World):
    token = await world.token()
    assert (await world.post("revoke", world.about(token, "PUB")))["code"] == 410
    assert (await world.post("revoke", world.about("abc")))["code"] == 1
    world.now += 200_000
    assert (await world.post("revoke", world.about(token)))["code"] == 2


async def test_revocation_that_cannot_be_written_is_not_a_success(world: World, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    token = await world.token()
    monkeypatch.setattr(storage, "write_private_file", fail)
    said = await world.post("revoke", world.about(token))
    assert (said["success"], said["code"], said["message"]) == (False, 410, "internal error")


async def test_rates_are_limited_by_key(tmp_path: Path):
    world = World(tmp_path / "registry.json", revocations_per_minute=1)
    async with http_server(world.routes) as (world.client, world.url):
        first, second = await world.token(), await world.token()
        assert (await world.post("revoke", world.about(first)))["code"] == 200
        said = await world.post("revoke", world.about(second))
        assert (said["success"], said["code"], said["message"]) == (False, 410, "too many requests, try again later")
        unsigned = world.about(second) | {"signature": "wrong"}
        assert (await world.post("revoke", unsigned))["code"] == 407  # strangers take nothing from the key's share


async def test_bodies_are_bounded_and_plain(tmp_path: Path):
    world = World(tmp_path / "registry.json", body_bytes_maximum=1024)
    async with http_server(world.routes) as (world.client, world.url):
        said = await world.post("apply", world.application() | {"more": "x" * 2000})
        assert said["code"] == 400
        form = aiohttp.FormData(world.application())
        form.add_field("file", b"x", filename="x")
        assert (await world.post("apply", form))["code"] == 400
        said = await world.post("apply", world.application(), params={"actions": "R"})
        assert said["code"] == 400  # given twice


def test_without_the_registry_it_does_not_start():
    with pytest.raises(MqttCoreError, match=r"needs \[plugins.aliyun_auth\]"):
        AliyunToken(TokenConfig()).startup(BrokerDouble())
