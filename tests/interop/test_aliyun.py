"""Clients written for Alibaba's service, with the libraries of its demos, find everything that they need here."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
from mqttcore_plugins.aliyun.signatures import sign, string_to_sign

from interop.clients import BUILD, DRIVERS
from mqttcore import Broker, Config, Connect, Listener, open_client

TOPIC = "parent/testMq4Iot"
DEADLINE_S = 100


@dataclass
class Service:
    """A broker with the whole profile, and its HTTP services."""

    broker: Broker
    token_server: str

    async def run(self, *command: str) -> list[str]:
        """Run a client to its end; returns what it printed. It must end well by itself."""
        ((host, port),) = [address for name, *address in self.broker.addresses if name == "mqtt"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ
            | {
                "PYTHONPATH": str(BUILD / "paho1"),
                "NODE_PATH": str(BUILD / "node" / "node_modules"),
                "MQTT_ENDPOINT": host,
                "MQTT_PORT": str(port),
                "MQTT_TOKEN_SERVER": self.token_server,
                "MQTT_INSTANCE_ID": "mqtt-xxxxx",
                "MQTT_ACCESS_KEY": "YYYYY",
                "MQTT_SECRET_KEY": "XXXXX",
                "MQTT_GROUP_ID": "GID_Test",
                "MQTT_TOPIC": TOPIC,
            },
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                output, errors = await process.communicate()
        except TimeoutError:
            process.kill()
            output, errors = await process.communicate()
            pytest.fail(f"still running after {DEADLINE_S} s\n{output.decode()}{errors.decode()}")
        assert (process.returncode, errors.decode()) == (0, ""), output.decode() + errors.decode()
        return output.decode().splitlines()


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    tables = {
        "aliyun_auth": {
            "instances": [{"id": "mqtt-xxxxx", "groups": ["GID_Test"], "topics": ["parent"]}],
            "access_keys": [{"id": "YYYYY", "secret": "XXXXX"}],
        },
        "aliyun_token": {},
        "p2p": {},
        "ordered": {},
        "presence": {},
    }
    listeners = [Listener(name="mqtt", port=0), Listener(name="web", port=0, protocol="http")]
    async with Broker(Config(listeners=listeners, sys_interval_s=0, overload_lag_ms=0, plugins=tables)) as broker:
        (url,) = [f"http://{host}:{port}" for name, host, port in broker.addresses if name == "web"]
        yield Service(broker, url)


def python(name: str) -> tuple[str, str]:
    if not (BUILD / "paho1" / "paho").exists():
        pytest.skip("no paho-mqtt 1.x; see tests/interop/setup.sh")
    return sys.executable, str(DRIVERS / "aliyun" / name)


def node(*arguments: str) -> tuple[str, ...]:
    if not (BUILD / "node" / "node_modules" / "mqtt").exists():
        pytest.skip("no MQTT.js; see tests/interop/setup.sh")
    return "node", str(DRIVERS / "aliyun" / "client.js"), *arguments


def echoes(client: str) -> list[str]:
    """What comes back of ten messages to the topic and ten to oneself."""
    peer = f"parent/p2p/GID_Test@@@{client}"
    return sorted([f"{TOPIC} {n}" for n in range(1, 11)] + [f"{peer} p2p {n}" for n in range(1, 11)])


async def test_paho_1_logs_in_by_signature_and_talks_in_one_burst(service: Service):
    said = await service.run(*python("signature.py"))
    assert said[0] == "connected 0"
    assert sorted(said[1:]) == echoes("python1")


async def test_paho_1_logs_in_by_a_token_that_it_applied_for(service: Service):
    said = await service.run(*python("token_login.py"))
    assert said[:2] == ["token 200 operation success", "connected 0"]
    assert sorted(said[2:]) == echoes("python2")


async def test_paho_1_switches_order_on(service: Service):
    async with service.broker.subscribe(TOPIC) as messages:
        said = await service.run(*python("ordered.py"))
        async with asyncio.timeout(DEADLINE_S):
            keys = [(await anext(messages)).ordering_key for _ in range(10)]
    assert said == ["connected 0", "ordered"] + [f"{TOPIC} {number}" for number in range(1, 11)]
    assert keys == ["GID_Test@@@python3"] * 10


async def test_status_of_a_client_is_asked_over_http(service: Service):
    now_ms = time.time_ns() // 1_000_000
    given = {
        "accessKey": "YYYYY",
        "instanceId": "mqtt-xxxxx",
        "resource": "GID_Test@@@1",
        "timestamp": str(now_ms),
    }
    given["signature"] = sign("XXXXX", string_to_sign(given))
    ((host, port),) = [address for name, *address in service.broker.addresses if name == "mqtt"]
    connect = Connect(
        "GID_Test@@@1",
        user_name="Signature|YYYYY|mqtt-xxxxx",
        password=sign("XXXXX", "GID_Test@@@1").encode(),
    )
    async with aiohttp.ClientSession() as http:

        async def online() -> int:
            async with http.get(f"{service.token_server}/route/clientId/get", params=given) as answer:
                assert answer.status == 200
                return (await answer.json())["online"]

        assert await online() == 0
        async with await open_client(connect, host=host, port=port):
            assert await online() == 1


@pytest.mark.parametrize("mode", ["signature", "token", "websocket"])
async def test_mqtt_js(service: Service, mode: str):
    said = await service.run(*node(mode))
    if mode == "token":
        assert said.pop(0) == "token 200 operation success"
    assert said[:2] == ["connected 0", "ordered"]
    assert sorted(said[2:]) == echoes("node1")
