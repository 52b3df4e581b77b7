"""`GET /route/clientId/get` by the documentation: signature, window, codes and statuses."""

from typing import Any

import pytest
from mqttcore_plugins.aliyun.online import OnlineRegister
from mqttcore_plugins.aliyun.records import AccessKey, Group, Instance
from mqttcore_plugins.aliyun.registry import Registry
from mqttcore_plugins.aliyun.signatures import sign, string_to_sign
from mqttcore_plugins.aliyun.status_route import status_route
from mqttcore_plugins.aliyun.storage import MemoryStorage

from .doubles import http_server

NOW = 1_609_434_061_000
SECRET = "XXXXX"
CLIENT = "GID_Test@@@0001"


def question(**changes: str) -> dict[str, str]:
    given = {
        "accessKey": "YYYYY",
        "instanceId": "mqtt-xxxxx",
        "resource": CLIENT,
        "timestamp": str(NOW),
    } | changes
    return given | {"signature": sign(SECRET, string_to_sign(given))}


async def ask(*questions: dict[str, str], online: int = 0, clients_maximum: int = 10) -> list[tuple[int, Any]]:
    registry = Registry(MemoryStorage(), now_ms=lambda: NOW)
    registry.load(
        instances=[Instance(instance_id="mqtt-xxxxx")],
        access_keys=[
            AccessKey(access_key_id="YYYYY", secret=SECRET),
            AccessKey(access_key_id="OTHER", secret=SECRET, groups=("GID_Other",)),
        ],
        groups=[Group(group_id="GID_Test", instance_id="mqtt-xxxxx")],
    )
    register = OnlineRegister(clients_maximum=clients_maximum, filters_maximum=10)
    for number in range(online):
        register.connected(CLIENT, str(number), is_persistent=False, is_resumed=False)
    answers = []
    async with http_server([status_route(registry, register, window_s=300)]) as (client, url):
        for one in questions:
            async with client.get(f"{url}/route/clientId/get", params=one) as response:
                answers.append((response.status, await response.json()))
    return answers


async def test_question_of_the_documentation_is_answered():
    assert question()["signature"] == "mjLLOccBF16/P/jvZ13wUU5NDZc="
    ((status, said),) = await ask(question(), online=2)
    assert status == 200
    assert said == {"code": 0, "success": True, "online": 2, "message": "operation success"}


async def test_client_that_is_away_is_0_and_one_beyond_the_register_unknown():
    assert [said["online"] for _, said in await ask(question())] == [0]
    other = question(resource="GID_Test@@@0002")
    answers = await ask(other, clients_maximum=1, online=1)
    assert [said["online"] for _, said in answers] == [0]
    register = OnlineRegister(clients_maximum=1, filters_maximum=1)
    for client_id in ("a", "b"):
        register.connected(client_id, "1", is_persistent=False, is_resumed=False)
    assert (register.connections("a"), register.connections("b"), register.connections("c")) == (1, -1, -1)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"accessKey": "NONE"}, 403, 2),
        ({"accessKey": "OTHER"}, 403, 3),
        ({"resource": "GID_None@@@1"}, 403, 3),
        ({"resource": "plain"}, 403, 3),
        ({"instanceId": "mqtt-none"}, 403, 3),
        ({"timestamp": str(NOW - 300_001)}, 403, 4),
        ({"timestamp": str(NOW + 300_001)}, 403, 4),
        ({"timestamp": "now"}, 400, 1),
        ({"timestamp": str(NOW - 300_000)}, 200, 0),
    ],
)
async def test_codes(changes: dict[str, str], status: int, code: int):
    ((answered, said),) = await ask(question(**changes))
    assert (answered, said["code"], said["success"]) == (status, code, code == 0)
    if code:
        assert said["online"] == -1


async def test_wrong_signature_and_missing_parameters():
    incomplete = []
    for name in question():
        one = question()
        del one[name]
        incomplete.append(one)
    answers = await ask(question() | {"signature": "wrong"}, *incomplete)
    assert [(status, said["code"]) for status, said in answers] == [(403, 2)] + [(400, 1)] * 5
