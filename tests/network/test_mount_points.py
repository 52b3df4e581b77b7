"""Mount points of listeners: through every kind of door, over restarts, and with clients that others wrote."""

import asyncio
import shutil
import socket
from pathlib import Path

import msgspec
import pytest
from mqttcore_plugins.sqlite import SqliteConfig, open_file

from certificates import Authority
from mqttcore import Broker, Config, Identity, Listener, PropertyId, ReasonCode
from mqttcore.client import Client, open_client
from mqttcore.codec import Connect, Subscription, Will
from mqttcore.config import Tls
from mqttcore.errors import ConnectionRefused, ProtocolError
from network.clients import until
from network.conftest import quiet_config
from network.http_api import WEB, Api
from network.tls import client_context

pytestmark = pytest.mark.usefixtures("driver")

DURABLE = {PropertyId.SESSION_EXPIRY_INTERVAL: 3600}


def config_with(**mount_points: str) -> Config:
    """Return a configuration with a listener for each name."""
    return quiet_config(*(Listener(name=name, port=0, mount_point=one) for name, one in mount_points.items()))


async def join(broker: Broker, client_id: str, door: str, *, will: Will | None = None, **connect: object) -> Client:
    """Connect our client to the listener of that name."""
    place = next((host, port) for name, host, port in broker.addresses if name == door)
    return await open_client(Connect(client_id, will=will, **connect), host=place[0], port=place[1])


async def test_every_door_has_one(tmp_path: Path):
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    tls = Tls(certificate_file=str(issued.certificate), key_file=str(issued.key))
    path = str(tmp_path / "mqtt.sock")
    config = quiet_config(
        Listener(name="tcp", port=0, mount_point="tcp/"),
        Listener(name="unix", path=path, mount_point="unix/${client_id}/"),
        Listener(name="tls", port=0, tls=tls, mount_point="tls/"),
        Listener(name="ws", port=0, protocol="http", mount_point="ws/"),
        Listener(name="wss", port=0, protocol="http", tls=tls, mount_point="wss/"),
    )
    async with Broker(config) as broker, broker.subscribe("#") as messages:
        ports = {name: port for name, _, port in broker.addresses}
        context = client_context(authority)
        doors = {
            "tcp/": {"port": ports["tcp"]},
            "unix/unix/": {"unix_path": path},
            "tls/": {"port": ports["tls"], "tls": context},
            "ws/": {"port": ports["ws"], "websocket_path": "/mqtt"},
            "wss/": {"port": ports["wss"], "tls": context, "websocket_path": "/mqtt"},
        }
        for mount_point, where in doors.items():
            client_id = mount_point.partition("/")[0]
            async with await open_client(Connect(client_id), host="localhost", **where) as client:  # type: ignore[arg-type]
                await client.subscribe([Subscription("#", 1)])
                await client.publish("a", b"up", qos=1)
                async with asyncio.timeout(5):
                    assert (await anext(messages)).topic == f"{mount_point}a"
                assert (await client.receive()).topic == "a"
                info = broker.client(client_id)
                assert info is not None
                assert (info.mount_point, info.subscriptions) == (mount_point, (f"{mount_point}#",))


async def test_embedder_gives_one(driver: str):
    async with Broker(quiet_config()) as broker, broker.subscribe("#") as messages:
        loop = asyncio.get_running_loop()
        served: asyncio.Future[None] = loop.create_future()

        class Handover(asyncio.Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                transport.pause_reading()
                tasks.append(loop.create_task(attach(transport)))

        async def attach(transport: asyncio.Transport) -> None:
            for wrong in ("t", "$SYS/"):
                with pytest.raises(ValueError, match=r"has to end|begins with"):
                    await broker.attach(transport, mount_point=wrong)
            await broker.attach(transport, allow_anonymous=True, mount_point="t/")
            served.set_result(None)

        tasks: list[asyncio.Task[None]] = []
        server = await loop.create_server(Handover, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with await open_client(Connect("c"), host=host, port=port) as client:
            await served
            await client.publish("a", b"", qos=1)
            assert (await anext(messages)).topic == "t/a"
        await asyncio.gather(*tasks)
        server.close()
        await server.wait_closed()
        if driver == "epoll":
            ours, theirs = socket.socketpair()
            with pytest.raises(ValueError, match="has to end"):
                broker.attach_socket(theirs, mount_point="t")
            broker.attach_socket(theirs, allow_anonymous=True, mount_point="t/")
            ours.setblocking(False)
            await loop.sock_sendall(ours, Connect("d", will=Will("w", b"x")).encode(5))
            assert await loop.sock_recv(ours, 100)
            ours.close()
            assert (await anext(messages)).topic == "t/w"


@pytest.mark.parametrize("kind", ["sqlite", "changed"])
async def test_session_keeps_its_mount_point_over_a_restart(kind: str, tmp_path: Path):
    def open_store():
        return open_file(SqliteConfig(path=str(tmp_path / "broker.db")))

    config = config_with(plain="", tenant="t/", other="u/")
    lasting = {"clean_start": False, "properties": DURABLE}
    async with Broker(config, store=open_store()) as broker:
        async with await join(broker, "sleeper", "tenant", **lasting) as client:
            await client.subscribe([Subscription("a/#", 2), Subscription("$share/g/s", 1)])
            await client.publish("kept", b"r", qos=1, retain=True)
        delayed = Will("gone", b"w", qos=1, properties={PropertyId.WILL_DELAY_INTERVAL: 600})
        dying = await join(broker, "dying", "tenant", will=delayed, properties=DURABLE)
        await dying.close(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE)
        async with await join(broker, "writer", "tenant") as writer:
            for qos in (1, 2):
                await writer.publish("a/b", b"%d" % qos, qos=qos)
            await writer.publish("s", b"shared", qos=1)
        await broker.publish("t/a/$x", b"whole", qos=1)
        await broker.publish("t/a", b"3", qos=1)
    if kind == "changed":
        config = config_with(plain="", tenant="new/", other="t/")
    async with Broker(config, store=open_store()) as broker:
        info = broker.client("sleeper")
        assert info is not None
        assert (info.mount_point, info.queued) == ("t/", 5)  # with `t/a/$x`: its rest begins with `a`
        assert set(info.subscriptions) == {"t/a/#", "$share/g/t/s"}
        assert [message.topic for message in broker.retained()] == ["t/kept"]
        await broker.publish("t/a/c", b"4", qos=1)
        right, wrong = ("tenant", "other") if kind == "sqlite" else ("other", "tenant")
        for door in (wrong, "plain"):
            for clean_start in (True, False):
                with pytest.raises(ConnectionRefused) as caught:
                    await join(broker, "sleeper", door, clean_start=clean_start)
                assert caught.value.reason_code == ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
        async with await join(broker, "sleeper", right, **lasting) as client:
            assert client.connack.session_present
            found = [await client.receive() for _ in range(6)]
            assert {(one.topic, one.payload) for one in found} == {
                ("a/b", b"1"),
                ("a/b", b"2"),
                ("s", b"shared"),
                ("a/$x", b"whole"),
                ("a", b"3"),
                ("a/c", b"4"),
            }
        assert broker.client("dying").mount_point == "t/"  # type: ignore[union-attr]
        async with broker.subscribe("#") as messages:
            assert broker.discard_session("dying")
            async with asyncio.timeout(5):
                assert (await anext(messages)).topic == "t/gone"


async def test_mount_point_changes_for_who_comes_after_a_reload():
    config = config_with(tenant="t/")
    async with Broker(config) as broker, await join(broker, "early", "tenant") as early:
        changed = msgspec.structs.replace(
            config, listeners=[msgspec.structs.replace(config.listeners[0], mount_point="u/")]
        )
        assert await broker.reload(changed) == []
        async with await join(broker, "late", "tenant") as late, broker.subscribe("#") as messages:
            for client, topic in ((early, "t/a"), (late, "u/a")):
                await client.publish("a", b"", qos=1)
                async with asyncio.timeout(5):
                    assert (await anext(messages)).topic == topic
            with pytest.raises(ConnectionRefused):
                await join(broker, "early", "tenant")


async def test_services_speak_whole_topics():
    async with Broker(config_with(tenant="t/")) as broker, await join(broker, "c", "tenant") as client:
        assert broker.deliver("c", "t/a", b"1", qos=1)
        assert (await client.receive()).topic == "a"
        for topic in ("a", "u/a", "$SYS/a", "t/$a", "t"):
            assert not broker.deliver("c", topic, b"no", qos=1)
        assert broker.subscribe_client("c", "t/+") == 2
        assert broker.subscribe_client("c", "+/a") == ReasonCode.NOT_AUTHORIZED
        assert [one.topic_filter for one in broker.subscriptions(client_id="c")] == ["t/+"]
        await broker.publish("t/b", b"2")
        assert (await client.receive()).topic == "b"
        for wrong in ("u/", ""):
            with pytest.raises(ProtocolError, match="another mount point"):
                broker.set_identity("c", Identity("c", mount_point=wrong))
        assert broker.set_identity("c", Identity("c", mount_point="t/"))
        assert broker.unsubscribe_client("c", "t/+")


async def test_http_api_speaks_whole_topics():
    config = quiet_config(WEB, Listener(name="tenant", port=0, mount_point="t/"))
    async with Broker(config) as broker, Api(broker) as api, await join(broker, "c", "tenant") as client:
        assert (await api.ask("GET", "/clients/c"))["mount_point"] == "t/"
        for topic_filter, answer in (("t/+", 1), ("a", ReasonCode.NOT_AUTHORIZED)):
            wanted = {"topic_filter": topic_filter, "qos": 1}
            assert (await api.ask("POST", "/clients/c/subscriptions", json=wanted))["reason_code"] == answer
        await client.subscribe([Subscription("b/#", 1)])
        found = (await api.ask("GET", "/clients/c/subscriptions"))["subscriptions"]
        assert [one["topic_filter"] for one in found] == ["t/+", "t/b/#"]
        await api.ask("POST", "/publish", json={"topic": "t/a", "payload": "x", "qos": 1})
        assert (await client.receive()).topic == "a"


# --- mosquitto's clients


async def run(*arguments: str) -> tuple[int, str]:
    """Run a command to its end; exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="needs mosquitto_sub")
@pytest.mark.parametrize("version", ["311", "5"])
async def test_mosquitto_clients_live_in_their_mount_point(version: str):
    async with Broker(config_with(plain="", tenant="t/")) as broker:
        ports = {name: str(port) for name, _, port in broker.addresses}
        for qos in "012":
            told = ["-h", "127.0.0.1", "-V", version, "-q", qos]
            subscriber = asyncio.create_task(
                run(
                    "mosquitto_sub",
                    *told,
                    "-p",
                    ports["tenant"],
                    "-t",
                    "#",
                    "-t",
                    "$SYS/#",
                    "-v",
                    "-C",
                    "2",
                    "-i",
                    f"s{qos}",
                )
            )
            await until(lambda qos=qos: (found := broker.client(f"s{qos}")) is not None and found.subscriptions)
            code, output = await run("mosquitto_pub", *told, "-p", ports["tenant"], "-t", "in/side", "-m", "one")
            assert (code, output) == (0, "")
            for topic in ("out/side", "t", "t/$SYS/x", "t/out/side"):
                code, output = await run("mosquitto_pub", *told, "-p", ports["plain"], "-t", topic, "-m", "two")
                assert (code, output) == (0, "")
            code, output = await subscriber
            assert code == 0
            assert [line for line in output.splitlines() if line[:2] in ("in", "ou", "t ", "t/", "$S")] == [
                "in/side one",
                "out/side two",
            ]
        told = ["-h", "127.0.0.1", "-V", version, "-p", ports["tenant"]]
        code, _ = await run("mosquitto_pub", *told, "-q", "1", "-r", "-t", "kept", "-m", "retained")
        assert code == 0
        assert await run("mosquitto_sub", *told, "-t", "+", "-v", "-C", "1") == (0, "kept retained\n")
        assert [message.topic for message in broker.retained()] == ["t/kept"]
