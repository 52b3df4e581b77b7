"""Who may use the management API: keys and their roles, and without any, this machine alone."""

import asyncio
import hashlib
import os
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from mqttcore import Broker, ConfigError, Listener
from mqttcore.config import HttpApi
from mqttcore.http import access, make_app
from mqttcore.http.api.routes import operations
from mqttcore.http.keys import Role, make_key, read_keys, write_keys
from mqttcore.net.listeners import BoundListener

from .clients import address_of
from .conftest import quiet_config
from .http_api import WEB, Api, api_config


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, dict[Role, str]]:
    """A file with one key for each role, and their texts."""
    path, made, texts = str(tmp_path / "keys"), {}, {}
    for role in Role:
        key, texts[role] = make_key(role.name.lower(), role)
        made[key.name] = key
    write_keys(path, made)
    return path, texts


def test_file_of_keys_is_private_and_has_no_key_in_it(keys):
    path, texts = keys
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert not [text for text in texts.values() if text.partition(".")[2] in Path(path).read_text()]
    found = read_keys(path)
    assert {name: key.role for name, key in found.items()} == {
        "viewer": Role.VIEWER,
        "operator": Role.OPERATOR,
        "admin": Role.ADMIN,
    }
    assert found["viewer"].digest == hashlib.sha256(texts[Role.VIEWER].partition(".")[2].encode()).digest()
    with pytest.raises(ValueError, match="no name of a key"):
        make_key("a b", Role.VIEWER)


@pytest.mark.parametrize("text", ["a viewer", f"a king {'0' * 64}", f"a viewer {'0' * 63}", "a viewer " + "g" * 64])
def test_file_that_is_none_is_refused_with_the_line(tmp_path: Path, text: str):
    path = tmp_path / "keys"
    path.write_text(f"# keys\n{text}\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="line 2"):
        read_keys(str(path))


async def test_roles_may_what_they_may(keys):
    path, texts = keys
    async with Broker(api_config(keys_file=path)) as broker:
        for role, statuses in (
            (Role.VIEWER, (200, 403, 403)),
            (Role.OPERATOR, (200, 200, 403)),
            (Role.ADMIN, (200, 200, 200)),
        ):
            async with Api(broker, texts[role]) as api:
                await api.ask("GET", "/clients", expect=statuses[0])
                await api.ask("POST", "/publish", json={"topic": "a"}, expect=statuses[1])
                await api.ask("GET", "/configuration", expect=statuses[2])
        shown = await _configuration(broker, texts[Role.ADMIN])
        assert not [text for text in texts.values() if text in shown]


LEAST = {
    Role.VIEWER: """
        GET /clients, GET /clients/{client_id}, GET /clients/{client_id}/subscriptions, GET /clients/{client_id}/queue,
        GET /clients/{client_id}/in-flight, GET /sessions, GET /subscriptions, GET /topics, GET /retained,
        GET /retained/message, GET /bans, GET /broker, GET /listeners, GET /listeners/{name}, GET /plugins,
        GET /plugins/{name}, GET /metrics, GET /alarms, GET /log-level, GET /traces, GET /traces/{name}
    """,
    Role.OPERATOR: """
        POST /clients/{client_id}/kick, POST /kick, POST /clients/{client_id}/subscriptions,
        DELETE /clients/{client_id}/subscriptions, DELETE /sessions/{client_id}, PUT /retained/message,
        DELETE /retained/message, POST /publish, POST /publish/bulk, POST /bans, DELETE /bans, POST /traces,
        GET /traces/{name}/entries, GET /traces/{name}/download, POST /traces/{name}/stop, DELETE /traces/{name}
    """,
    Role.ADMIN: """
        POST /listeners/{name}/stop, POST /listeners/{name}/start, POST /plugins/{name}/reload,
        GET /configuration, POST /configuration/reload, PUT /log-level
    """,
}


def test_every_operation_has_its_least_role_here():
    written = {text.strip(): role for role, texts in LEAST.items() for text in texts.split(",")}
    assert written == {f"{one.method} {one.path}": one.role for one in operations(Broker())}


async def test_payloads_of_a_queue_are_for_operators(keys):
    path, texts = keys
    async with Broker(api_config(keys_file=path)) as broker:
        for role, status in ((Role.VIEWER, 403), (Role.OPERATOR, 404), (Role.ADMIN, 404)):
            async with Api(broker, texts[role]) as api:
                for noun in ("queue", "in-flight"):
                    await api.ask("GET", f"/clients/nobody/{noun}", expect=404)
                    await api.ask("GET", f"/clients/nobody/{noun}", params={"payloads": "true"}, expect=status)


async def test_roles_are_asked_for_at_every_operation(keys):
    path, texts = keys
    async with Broker(api_config(keys_file=path)) as broker:
        for one in operations(broker):
            place = one.path.replace("{client_id}", "nobody").replace("{name}", "nobody")
            for role in Role:
                async with Api(broker, texts[role]) as api:
                    # What may be asked is asked wrongly: nothing is to happen.
                    answer = await api.status(one.method, place, params={"no": "such"}, data=b"?")
                    assert (answer == 403) == (role < one.role), f"{one.method} {one.path} as {role.name}"
                    assert answer not in (401, 500)


async def _configuration(broker: Broker, key: str) -> str:
    async with Api(broker, key) as api:
        return str(await api.ask("GET", "/configuration"))


async def test_wrong_keys_are_refused_and_counted(keys):
    path, texts = keys
    good = texts[Role.VIEWER]
    name, _, secret = good.partition(".")
    wrong = [None, "", "x", name, f"{name}.", f"{name}.{secret}x", f"nobody.{secret}", f"operator.{secret}"]
    config = api_config(keys_file=path, failures_per_minute=len(wrong))
    async with Broker(config) as broker:
        for key in wrong:
            async with Api(broker, key) as api:
                await api.ask("GET", "/clients", expect=401)
        async with Api(broker, good) as api:  # too many from this address by now
            await api.ask("GET", "/clients", expect=429)
        metrics = broker.metrics()
        assert metrics["http_keys_refused"] == len(wrong)
        assert (metrics["http_keys_throttled"], metrics["http_key_addresses"]) == (1, 1)
    async with Broker(config) as broker, Api(broker) as api, aiohttp.ClientSession() as session:
        async with session.get(f"{api.url}/metrics") as answer:
            assert answer.status == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
        async with session.get(f"{api.url}/healthz") as answer:  # load balancers have no key
            assert answer.status == 200


async def test_keys_count_from_when_they_are_written_and_no_longer_when_they_are_taken_away(tmp_path: Path):
    path = str(tmp_path / "keys")
    key, text = make_key("a", Role.VIEWER)
    async with Broker(api_config(keys_file=path)) as broker, Api(broker) as anybody, Api(broker, text) as api:
        await anybody.ask("GET", "/clients")  # none yet, and this is loopback
        write_keys(path, {"a": key})
        await anybody.ask("GET", "/clients", expect=401)
        await api.ask("GET", "/clients")
        other, _ = make_key("b", Role.VIEWER)
        write_keys(path, {"b": other})
        await api.ask("GET", "/clients", expect=401)
        write_keys(path, {"a": key})
        await api.ask("GET", "/clients")
        os.chmod(path, 0o644)  # noqa: PTH101  others can read it: nobody is let in
        await api.ask("GET", "/clients", expect=503)
        await anybody.ask("GET", "/clients", expect=503)


@pytest.mark.parametrize("left", ["", "\n \n", "# viewer\n", None], ids=["empty", "blank", "comment", "gone"])
async def test_keys_that_get_lost_do_not_open_the_door(keys, left: str | None):
    path, texts = keys
    async with Broker(api_config(keys_file=path)) as broker, Api(broker) as anybody, Api(broker, texts[1]) as api:
        await api.ask("GET", "/clients")
        lost = Path(path).rename(f"{path}.old")
        if left is not None:
            Path(path).write_text(left)
            Path(path).chmod(0o600)
        await anybody.ask("GET", "/clients", expect=503)
        await api.ask("GET", "/clients", expect=503)
        lost.rename(path)
        await anybody.ask("GET", "/clients", expect=401)
        await api.ask("GET", "/clients")


async def test_file_without_keys_does_not_open_the_door(tmp_path: Path):
    path = tmp_path / "keys"
    path.touch(0o600)
    async with Broker(api_config(keys_file=str(path))) as broker, Api(broker) as anybody:
        await anybody.ask("GET", "/clients", expect=503)


async def test_without_keys_clients_behind_a_proxy_protocol_are_refused():
    """The proxy is on this machine, its clients are not."""
    web = Listener(port=0, protocol="http", proxy_protocol="any", proxy_trusted=["127.0.0.0/8"], allow_anonymous=True)
    async with Broker(quiet_config(web)) as broker:
        for source in (b"TCP4 192.0.2.7 127.0.0.1 40000 80", b"TCP4 127.0.0.1 127.0.0.1 40000 80", b"UNKNOWN"):
            reader, writer = await asyncio.open_connection(*address_of(broker))
            request = b"GET /api/v1/clients HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            writer.write(b"PROXY " + source + b"\r\n" + request)
            assert (await reader.read()).startswith(b"HTTP/1.1 403 ")
            writer.close()
            await writer.wait_closed()


async def test_wrong_keys_of_one_client_behind_a_proxy_leave_others_alone(keys):
    path, texts = keys
    web = Listener(port=0, protocol="http", proxy_protocol="any", proxy_trusted=["127.0.0.0/8"], allow_anonymous=True)
    config = msgspec.structs.replace(quiet_config(web), http_api=HttpApi(keys_file=path, failures_per_minute=1))
    async with Broker(config) as broker:
        for source, key, status in (
            (b"192.0.2.7", "wrong", b"401"),
            (b"192.0.2.7", texts[1], b"429"),
            (b"192.0.2.8", texts[1], b"200"),
        ):
            reader, writer = await asyncio.open_connection(*address_of(broker))
            header = b"PROXY TCP4 " + source + b" 127.0.0.1 40000 80\r\n"
            request = "GET /api/v1/clients HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            writer.write(header + f"{request}Authorization: Bearer {key}\r\n\r\n".encode())
            assert (await reader.read()).startswith(b"HTTP/1.1 " + status)
            writer.close()
            await writer.wait_closed()


def test_addresses_with_wrong_keys_are_not_remembered_endlessly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(access, "_ADDRESSES_MAXIMUM", 3)
    listener = BoundListener("web", False, 0, 1, 1)
    checked = access.Access(HttpApi(failures_per_minute=1), listener, is_local=False)
    for number in range(5):
        checked._count(f"192.0.2.{number}")
    assert listener.key_addresses == 3
    checked._throttle("192.0.2.1")  # made room
    with pytest.raises(access.Denied):
        checked._throttle("192.0.2.4")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://example.com"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"host": "example.com"},  # a name that somebody else made point here
        {"host": "127.0.0.1.example.com:80"},
        {"host": "[127.0.0.1]example.com"},
        {"host": "localhost@example.com"},
        {"host": "localhost:80:80"},
        {"x-forwarded-for": "192.0.2.1"},
        {"X-Forwarded-Proto": "https"},
        {"forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_without_keys_pages_and_proxies_are_refused(headers):
    async with Broker(api_config()) as broker, Api(broker) as api:
        await api.ask("GET", "/clients", headers=headers, expect=403)
        await api.ask("POST", "/publish", json={"topic": "a"}, headers=headers, expect=403)
        await api.ask("GET", "/clients", headers={"host": "localhost"})
        await api.ask("GET", "/clients", headers={"host": "[::1]:80"})


async def test_without_keys_only_the_brokers_own_local_listeners_answer():
    """An application of one's own may be reached from anywhere."""
    broker = Broker(quiet_config(WEB))
    runner = web.AppRunner(make_app(broker, WEB), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    async with broker, aiohttp.ClientSession() as session:
        for path in ("/metrics", "/api/v1/clients"):
            async with session.get(f"http://{host}:{port}{path}") as answer:
                assert answer.status == 403
    await runner.cleanup()


async def test_no_other_page_is_let_in_by_a_preflight():
    async with Broker(api_config()) as broker, Api(broker) as api, aiohttp.ClientSession() as session:
        headers = {"origin": "https://example.com", "access-control-request-method": "POST"}
        async with session.options(f"{api.url}/api/v1/publish", headers=headers) as answer:
            assert answer.status == 405
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
