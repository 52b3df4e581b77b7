"""Clients written for Alibaba's service, with the libraries of its demos, find everything that they need here."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from interop.clients import BUILD, DRIVERS
from mqttcore import Broker, Config, Listener
from plugins.aliyun.doubles import http_server

TOPIC = "parent/testMq4Iot"
DEADLINE_S = 30


@dataclass
class Service:
    """A broker with the whole profile, and its HTTP services."""

    broker: Broker
    token_server: str

    async def run(self, *command: str) -> list[str]:
        """Run a client to its end; returns what it printed. It must end well by itself."""
        _, host, port = self.broker.addresses[0]
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
    async with Broker(Config(listeners=[Listener(port=0)], sys_interval_s=0, plugins=tables)) as broker:
        routes = [*broker.plugins["aliyun_token"].http_routes(broker), *broker.plugins["presence"].http_routes(broker)]
        async with http_server(routes) as (_, url):
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


@pytest.mark.parametrize("mode", ["signature", "token"])
async def test_mqtt_js(service: Service, mode: str):
    said = await service.run(*node(mode))
    if mode == "token":
        assert said.pop(0) == "token 200 operation success"
    assert said[:2] == ["connected 0", "ordered"]
    assert sorted(said[2:]) == echoes("node1")
