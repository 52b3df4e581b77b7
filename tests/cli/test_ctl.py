"""`mqttcore ctl` against a running broker."""

import asyncio
import base64
import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from certificates import Authority
from mqttcore import Broker, Config, Listener
from mqttcore.cli import main
from mqttcore.client import open_client
from mqttcore.codec import Connect, Subscription
from mqttcore.config import HttpApi, Tls


class Ctl:
    """Runs `ctl` beside the broker. arguments: before every command."""

    def __init__(self, broker: Broker, *arguments: str) -> None:
        _, host, port = broker.addresses[0]
        self._arguments = ["ctl", "--url", f"http://{host}:{port}", *arguments]

    async def run(self, *arguments: str, exit_code: int = 0) -> Result:
        given = [*self._arguments, *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, main, given)
        assert result.exit_code == exit_code, result.output
        return result

    async def json(self, *arguments: str):
        return json.loads((await self.run("--json", *arguments)).stdout)


def config(**http_api: str) -> Config:
    listeners = [Listener(name="web", port=0, protocol="http"), Listener(name="tcp", port=0)]
    return Config(listeners=listeners, sys_interval_s=0, overload_lag_ms=0, http_api=HttpApi(**http_api))


async def test_clients_are_shown_subscribed_kicked_and_banned():
    async with Broker(config()) as broker:
        ctl = Ctl(broker)
        _, host, port = broker.addresses[1]
        client = await open_client(Connect("a/b"), host=host, port=port)
        assert [one["client_id"] for one in await ctl.json("clients")] == ["a/b"]
        assert await ctl.json("clients", "--disconnected") == []
        lines = (await ctl.run("clients", "--connected")).stdout.splitlines()
        assert lines[0].split()[:2] == ["client_id", "is_connected"]
        assert lines[1].split()[:2] == ["a/b", "yes"]
        assert (await ctl.json("client", "a/b"))["protocol_version"] == 5
        assert await ctl.json("subscribe", "a/b", "t", "--qos", "1") == {"reason_code": 1}
        assert [one["topic_filter"] for one in await ctl.json("subscriptions", "a/b")] == ["t"]
        assert await ctl.json("publish", "t", "hello") == {"reached": 1}
        await ctl.run("unsubscribe", "a/b", "t")
        assert await ctl.json("kick", "a/b", "nobody", "--reason", "go") == {"count": 1}
        await client.close()
        assert (await ctl.json("bans", "add", "address", "192.0.2.1", "--for", "60"))["value"] == "192.0.2.1/32"
        assert [one["kind"] for one in await ctl.json("bans", "list")] == ["address"]
        await ctl.run("bans", "remove", "address", "192.0.2.1")
        assert await ctl.json("bans", "list") == []
        result = await ctl.run("client", "nobody", exit_code=1)
        assert "there is no such client" in result.stderr


async def test_retained_messages_and_state():
    async with Broker(config()) as broker:
        ctl = Ctl(broker)
        await ctl.run("retained", "set", "a", "x\x1b[2J")
        assert [one["topic"] for one in await ctl.json("retained", "list")] == ["a"]
        assert "\x1b" not in (await ctl.run("retained", "list")).stdout
        await ctl.run("retained", "delete", "a")
        assert (await ctl.run("retained", "list", "a/#")).stdout.split() == ["topic", "qos", "payload"]
        assert (await ctl.json("metrics"))["retained"] == 0
        assert [one["name"] for one in await ctl.json("listeners", "list")] == ["web", "tcp"]
        assert await ctl.json("alarms") == await ctl.json("plugins", "list") == []
        assert json.loads((await ctl.run("config")).stdout)["limits"]["maximum_qos"] == 2
        assert [*await ctl.json("log-level")] == ["level"]


async def test_listeners_are_stopped_and_started():
    async with Broker(config()) as broker:
        ctl = Ctl(broker)
        client = await open_client(Connect("a"), host=broker.addresses[1][1], port=broker.addresses[1][2])
        stopped = await ctl.json("listeners", "stop", "tcp", "--close-connections")
        assert (stopped["is_listening"], stopped["disconnected"]) == (False, 1)
        await client.close()
        rows = (await ctl.run("listeners", "list")).stdout.splitlines()
        assert rows[0].split()[:3] == ["name", "protocol", "is_listening"]
        assert rows[2].split()[:3] == ["tcp", "mqtt", "no"]
        assert "last listener" in (await ctl.run("listeners", "stop", "web", exit_code=1)).stderr
        assert (await ctl.json("listeners", "start", "tcp"))["is_listening"] is True
        assert "no such listener" in (await ctl.run("listeners", "start", "x", exit_code=1)).stderr


async def test_queues_and_filters_are_listed():
    async with Broker(config()) as broker:
        ctl = Ctl(broker)
        _, host, port = broker.addresses[1]
        connect = Connect("a/b", protocol_version=4, clean_start=False)
        async with await open_client(connect, host=host, port=port) as client:
            await client.subscribe([Subscription("t/+", 1)])
        for number in range(120):
            await broker.publish("t/x", b"%d" % number, qos=1)
        rows = await ctl.json("queue", "a/b", "--payloads")
        assert [base64.b64decode(row["payload_base64"]) for row in rows] == [b"%d" % number for number in range(120)]
        assert len(await ctl.json("queue", "a/b", "--limit", "7")) == 7
        lines = (await ctl.run("queue", "a/b", "--limit", "1")).stdout.splitlines()
        assert lines[0].split()[:3] == ["topic", "qos", "retain"]
        assert lines[1].split()[:3] == ["t/x", "1", "no"]
        assert await ctl.json("in-flight", "a/b") == []
        assert (await ctl.run("in-flight", "a/b")).stdout.split()[:2] == ["packet_id", "awaits"]
        assert [(one["topic_filter"], one["subscribers"]) for one in await ctl.json("topics")] == [("t/+", 1)]
        assert await ctl.json("topics", "--prefix", "x") == []
        assert "no such client" in (await ctl.run("queue", "nobody", exit_code=1)).stderr


async def test_plugins_and_configuration_are_reloaded(tmp_path: Path):
    path = tmp_path / "users.toml"
    path.write_text("users = []\n")
    path.chmod(0o600)
    with_users = msgspec.structs.replace(config(), plugins={"users": {"file": str(path)}})
    async with Broker(with_users) as broker:
        ctl = Ctl(broker)
        (one,) = await ctl.json("plugins", "list")
        assert (one["name"], one["is_enabled"], one["reloaded_s"]) == ("users", True, None)
        assert {one["name"] for one in await ctl.json("plugins", "list", "--installed")} >= {"users", "sqlite"}
        assert (await ctl.json("plugins", "reload", "users"))["reloaded_s"] is not None
        path.write_text("nonsense")
        assert "former settings stay" in (await ctl.run("plugins", "reload", "users", exit_code=1)).stderr
        assert (await ctl.json("plugins", "show", "users"))["reload_failed"] is True
        assert "name" in (await ctl.run("plugins", "list")).stdout
        assert "did not come from a file" in (await ctl.run("reload", exit_code=1)).stderr

        async def reread() -> list[str]:
            return ["listeners"]

        broker.set_rereading(reread)
        assert await ctl.json("reload") == [{"needs_restart": "listeners"}]


async def test_unix_socket_is_asked(tmp_path: Path):
    path = tmp_path / "http.sock"
    listeners = [Listener(name="web", path=str(path), protocol="http")]
    async with Broker(msgspec.structs.replace(config(), listeners=listeners)) as broker:
        by_path = Ctl(broker, "--url", f"unix://{path}")
        assert [one["addresses"] for one in await by_path.json("listeners", "list")] == [[str(path)]]
    result = await by_path.run("clients", exit_code=1)
    assert str(path) in result.stderr


async def test_certificate_is_shown(tmp_path: Path):
    authority = Authority(tmp_path)
    own, other = authority.server("localhost"), Authority(tmp_path, "other")
    client = authority.issue("ann")
    settings = Tls(
        certificate_file=str(own.certificate),
        key_file=str(own.key),
        client_certificate="required",
        client_ca_file=str(authority.file),
    )
    listeners = [Listener(name="web", port=0, protocol="http", tls=settings)]
    async with Broker(msgspec.structs.replace(config(), listeners=listeners)) as broker:
        url = f"https://localhost:{broker.addresses[0][2]}"
        certificate = ("--cert", str(client.certificate), "--key", str(client.key))
        asking = Ctl(broker, "--url", url, "--cafile", str(authority.file), *certificate)
        assert await asking.json("clients") == []
        await Ctl(broker, "--url", url, "--insecure", *certificate).run("clients")
        for missing in (
            Ctl(broker, "--url", url, "--cafile", str(authority.file)),
            Ctl(broker, "--url", url, "--cafile", str(other.file), *certificate),
        ):
            await missing.run("clients", exit_code=1)
        half = Ctl(broker, "--url", url, "--cert", str(client.certificate))
        assert "belong together" in (await half.run("clients", exit_code=2)).stderr


async def test_keys_are_made_used_and_taken_away(tmp_path: Path):
    path, key_file = str(tmp_path / "keys"), tmp_path / "key"
    async with Broker(config(keys_file=path)) as broker:
        text = (await Ctl(broker).run("keys", "add", "ann", "--role", "viewer", "--keys-file", path)).stdout
        assert text.startswith("ann.")
        assert text.strip().partition(".")[2] not in Path(path).read_text()
        key_file.write_text(text)
        with_key = Ctl(broker, "--key-file", str(key_file))
        await with_key.run("clients")
        assert "a good API key" in (await Ctl(broker).run("clients", exit_code=1)).stderr
        assert "takes operator" in (await with_key.run("publish", "a", "b", exit_code=1)).stderr
        assert await Ctl(broker).json("keys", "list", "--keys-file", path) == [{"name": "ann", "role": "viewer"}]
        again = await Ctl(broker).run("keys", "add", "ann", "--keys-file", path, exit_code=1)
        assert "already" in again.stderr
        await Ctl(broker).run("keys", "remove", "ann", "--keys-file", path)
        assert "no key ann" in (await Ctl(broker).run("keys", "remove", "ann", "--keys-file", path, exit_code=1)).stderr


@pytest.mark.parametrize("url", ["ftp://localhost", "127.0.0.1:80", "http://", "unix://host/path", "unix:"])
def test_url_that_is_none_is_named(url: str):
    result = CliRunner().invoke(main, ["ctl", "--url", url, "clients"])
    assert result.exit_code == 1
    assert url in result.stderr


@pytest.mark.parametrize(
    ("has_tls", "scheme", "told"),
    [
        (True, "https", "--cafile names the authorities"),
        (True, "http", "perhaps it is https://"),
        (False, "https", "TLS: "),
    ],
)
async def test_wrong_door_is_told_of(tmp_path: Path, has_tls: bool, scheme: str, told: str):
    server = Authority(tmp_path).issue("localhost")
    tls = Tls(certificate_file=str(server.certificate), key_file=str(server.key)) if has_tls else None
    listener = Listener(name="web", port=0, protocol="http", tls=tls)
    async with Broker(Config(listeners=[listener], sys_interval_s=0, overload_lag_ms=0)) as broker:
        url = f"{scheme}://localhost:{broker.addresses[0][2]}"
        result = await asyncio.to_thread(CliRunner().invoke, main, ["ctl", "--url", url, "clients"])
    assert result.exit_code == 1
    assert told in result.stderr
    assert "[" not in result.stderr  # neither [Errno] nor [SSL]


def when_a_trace_begins(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    begun = asyncio.Event()
    start = broker.traces.start

    def start_and_tell(*given, **more):
        begun.set()
        return start(*given, **more)

    monkeypatch.setattr(broker.traces, "start", start_and_tell)
    return begun


async def test_trace_is_followed_until_it_ends(monkeypatch: pytest.MonkeyPatch):
    async with Broker(config()) as broker:
        ctl = Ctl(broker)
        _, host, port = broker.addresses[1]
        begun = when_a_trace_begins(broker, monkeypatch)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            follows = group.create_task(ctl.run("trace", "client", "a", "--for", "30", "--payload-bytes", "3"))
            await begun.wait()
            client = await open_client(Connect("a", user_name="ann\x1b"), host=host, port=port)
            await client.publish("t/1", b"hello", qos=1)
            await client.close()
            assert broker.traces.stop("trace-1")
        result = follows.result()
        assert "trace trace-1 of client_id a, for 30 s" in result.stderr
        assert "trace trace-1 ended: stopped, 10 entries" in result.stderr
        words = [line.split(None, 3)[1:] for line in result.stdout.splitlines()]
        assert [tuple(word[:2]) for word in words] == [("#1", "a")] * 9 + [("-", "a")]
        assert [text.partition("(")[0].rstrip() for _, _, text in words] == [
            words[0][2],
            "--> CONNECT MQTT 5 user 'ann\\x1b' no password clean start keep alive 60 s",
            "accepted anonymous, new session, expiry 0 s, 0 queued",
            "<-- CONNACK 0x00 success [receive_maximum, maximum_packet_size, topic_alias_maximum]",
            "--> PUBLISH id 1 't/1' qos 1 5 B b'hel'",
            "published 't/1' qos 1 5 B recipients 0 b'hel'",
            "<-- PUBACK id 1 0x10 no matching subscribers",
            "--> DISCONNECT 0x00 success",
            "connection closed: disconnected by client",
            "session ended",
        ]
        assert words[0][2].startswith("connection from 127.0.0.1:")
        assert len(broker.traces) == 0


async def test_trace_is_followed_as_json_and_kept(monkeypatch: pytest.MonkeyPatch):
    async with Broker(config()) as broker:
        ctl = Ctl(broker)
        begun = when_a_trace_begins(broker, monkeypatch)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            follows = group.create_task(ctl.run("trace", "topic", "t/#", "--name", "mine", "--keep", "--json"))
            await begun.wait()
            await broker.publish("t/1", b"hello")
            assert broker.traces.stop("mine")
        [entry] = [json.loads(line) for line in follows.result().stdout.splitlines()]
        assert (entry["kind"], entry["topic"], entry["payload_bytes"]) == ("published", "t/1", 5)
        assert [trace.name for trace in broker.traces] == ["mine"]


async def test_traces_are_listed_shown_downloaded_stopped_and_deleted(tmp_path: Path):
    async with Broker(config()) as broker:
        ctl = Ctl(broker)
        begun = await ctl.json("trace", "topic", "t", "--detach", "--name", "mine")
        assert begun["is_running"] is True
        await broker.publish("t", b"x")
        assert [one["entries"] for one in await ctl.json("trace", "list")] == [1]
        assert "published 't' qos 0 1 B recipients 0" in (await ctl.run("trace", "show", "mine")).stdout
        await ctl.run("trace", "download", "mine", str(tmp_path / "file"))
        assert json.loads((tmp_path / "file").read_bytes())["topic"] == "t"
        assert json.loads((await ctl.run("trace", "download", "mine")).stdout)["topic"] == "t"
        assert (await ctl.json("trace", "stop", "mine"))["end_reason"] == "stopped"
        assert (await ctl.run("trace", "show", "mine", "--follow")).stdout.count("\n") == 1
        await ctl.run("trace", "delete", "mine")
        assert "no such trace" in (await ctl.run("trace", "show", "mine", exit_code=1)).stderr
        assert "no address" in (await ctl.run("trace", "address", "x", exit_code=1)).stderr
