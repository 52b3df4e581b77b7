"""What stands before HTTP: PROXY headers and TLS handshakes, with their deadlines and bounds (HARDENING 4, 56)."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from certificates import Authority
from mqttcore import (
    Broker,
    ClientView,
    Config,
    Identity,
    Listener,
    PropertyId,
    ReasonCode,
    Refusal,
    hookimpl,
)
from mqttcore.codec import ConnAck, Connect, Decoder
from mqttcore.config import Tls
from network.clients import address_of, until
from network.conftest import quiet_config
from network.test_half_open import HELLO_BEGUN, half_open
from network.test_proxy import HAPROXY, TRUSTED, V1, V2, haproxy, of_certificate
from network.tls import client_context
from websocket_wire import RawWebSocket, frame, upgrade_request

pytestmark = pytest.mark.usefixtures("driver")

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def http_config(authority: Authority | None = None, *, tls: dict[str, Any] | None = None, **listener: Any) -> Config:
    if authority is not None:
        own = authority.server("localhost")
        settings = Tls(certificate_file=str(own.certificate), key_file=str(own.key), **(tls or {}))
        listener["tls"] = settings
    return quiet_config(Listener(**({"port": 0, "protocol": "http"} | listener)))


async def join(client: RawWebSocket, client_id: str = "c1") -> ConnAck:
    """Upgrade and connect."""
    await client.send(upgrade_request())
    assert (await client.answer()).status == 101
    return await connect(client, client_id)


async def connect(client: RawWebSocket, client_id: str = "c1") -> ConnAck:
    await client.send(frame(Connect(client_id).encode(5)))
    connack = Decoder(5, sender="server").feed((await client.frame()).payload)[0]
    assert isinstance(connack, ConnAck)
    return connack


async def said_nothing_more(client: RawWebSocket) -> bool:
    async with asyncio.timeout(8):  # the default of what may be waited for is ten
        try:
            return await client.reader.read() == b""
        except ConnectionResetError:
            return True


@contextlib.asynccontextmanager
async def begun(broker: Broker, header: bytes, context: ssl.SSLContext) -> AsyncIterator[RawWebSocket]:
    """Send *header* and the ClientHello behind it in one segment, and end the handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    reader, writer = await asyncio.open_connection(*address_of(broker))
    writer.write(header + outgoing.read())
    client = _Tunnel(reader, writer, session, incoming, outgoing)
    await client.shake_hands()
    try:
        yield client  # type: ignore[misc]
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


class _Tunnel:
    """A TLS client whose every byte is ours to place."""

    def __init__(self, reader: Any, writer: Any, session: ssl.SSLObject, incoming: Any, outgoing: Any) -> None:
        self.reader, self.writer, self.session = reader, writer, session
        self.incoming, self.outgoing = incoming, outgoing

    async def shake_hands(self) -> None:
        while True:
            self.incoming.write(await self.reader.read(65536))
            try:
                self.session.do_handshake()
            except ssl.SSLWantReadError:
                continue
            return

    async def ask(self, said: bytes) -> bytes:
        self.session.write(said)
        self.writer.write(self.outgoing.read())
        while True:
            try:
                return self.session.read(65536)
            except ssl.SSLWantReadError:
                self.incoming.write(await self.reader.read(65536))


@pytest.mark.parametrize(("header", "address"), [(V1, ("192.0.2.7", 40000)), (V2, ("192.0.2.8", 40001))])
@pytest.mark.parametrize("is_torn", [False, True])
async def test_clients_address_reaches_mqtt_in_websocket(header: bytes, address: tuple[str, int], is_torn: bool):
    config = http_config(**TRUSTED)
    async with Broker(config) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        said = header + upgrade_request()
        for part in [said[at : at + 1] for at in range(len(said))] if is_torn else [said]:
            await client.send(part)
        assert (await client.answer()).status == 101
        assert (await connect(client)).reason_code == 0
        assert broker.client("c1").address == address
        assert broker.client("c1").proxy.source == address
        assert broker.metrics()["connections"] == 1


async def through_proxy(broker: Broker, header: bytes, client_id: str) -> ConnAck:
    """Connect in WebSocket behind *header*; the connection is gone afterwards, the session not."""
    async with await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(header + upgrade_request())
        assert (await client.answer()).status == 101
        await client.send(frame(Connect(client_id, properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60}).encode(5)))
        connack = Decoder(5, sender="server").feed((await client.frame()).payload)[0]
        assert isinstance(connack, ConnAck)
        return connack


async def test_certificate_that_the_proxy_verified_authenticates_in_websocket():
    config = http_config(**(TRUSTED | {"proxy_identity_is_user_name": True, "allow_anonymous": False}))
    async with Broker(config) as broker:
        assert (await through_proxy(broker, of_certificate(b"sensor-7"), "c1")).reason_code == 0
        assert broker.client("c1").user_name == "sensor-7"
        for number, header in enumerate(
            (
                V1,
                V2,  # without a word of TLS
                of_certificate(b"sensor-7", client=0x01),  # no certificate
                of_certificate(b"sensor-7", verify=10),  # one that has expired
                of_certificate(b""),  # one that names nobody
            )
        ):
            refused = await through_proxy(broker, header, f"refused-{number}")
            assert refused.reason_code == ReasonCode.NOT_AUTHORIZED
        assert broker.client_ids() == ["c1"]


class NoOpinion:
    """A plugin that knows nobody."""

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> None:
        return None


async def test_certificate_is_no_authentication_where_that_is_not_said():
    config = http_config(**(TRUSTED | {"allow_anonymous": False}))
    async with Broker(config, plugins=[NoOpinion()]) as broker:
        answer = await through_proxy(broker, of_certificate(b"sensor-7"), "c1")
        assert answer.reason_code == ReasonCode.NOT_AUTHORIZED


class ByCertificate:
    """A plugin that lets in whom the proxy's certificate names, by the name and the address."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, object]] = []

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal:
        self.seen.append((client.address, client.tls))
        if client.tls is None or not client.tls.is_verified:
            return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        return Identity(client.tls.common_name)


async def test_plugin_is_told_what_the_proxy_says_of_tls():
    plugin = ByCertificate()
    async with Broker(http_config(**TRUSTED), plugins=[plugin]) as broker:
        assert (await through_proxy(broker, of_certificate(b"sensor-7"), "c1")).reason_code == 0
        refused = await through_proxy(broker, of_certificate(b"sensor-7", verify=10), "c2")
        assert refused.reason_code == ReasonCode.BAD_USER_NAME_OR_PASSWORD
        identity = broker.identity("c1")
        assert identity is not None
        assert identity.name == "sensor-7"
    (address, tls), (_, unverified) = plugin.seen
    assert address == ("192.0.2.8", 40001)
    assert (tls.common_name, tls.is_verified) == ("sensor-7", True)
    assert (unverified.common_name, unverified.is_verified) == (None, False)  # what was not verified is not told


class WhoAsks:
    """A plugin that answers with what a request says of its client."""

    @hookimpl
    def http_routes(self, broker: Broker) -> list[web.RouteDef]:
        async def answer(request: web.Request) -> web.Response:
            body = (await request.read()).decode()
            return web.json_response([request.remote, request.scheme, request.match_info["name"], body])

        return [web.post("/who/{name}", answer)]


async def test_clients_address_reaches_http_handlers():
    async with (
        Broker(http_config(**TRUSTED), plugins=[WhoAsks()]) as broker,
        await RawWebSocket.connect(*address_of(broker)) as client,
    ):
        await client.send(V1)
        for _ in range(2):  # the header is of the connection, not of a request
            await client.send(b"POST /who/me HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello")
            length = int((await client.answer()).headers["content-length"])
            assert json.loads(await client.reader.readexactly(length)) == ["192.0.2.7", "http", "me", "hello"]


async def test_tls_follows_the_header_in_the_same_segment(authority: Authority):
    config = http_config(authority, **TRUSTED)
    async with Broker(config) as broker, begun(broker, V1, client_context(authority)) as client:
        assert (await client.ask(GET)).startswith(b"HTTP/1.1 200")
        assert broker.metrics()["tls_handshakes"] == 1
        assert broker.metrics()["handshakes_under_way"] == 0


@pytest.mark.parametrize(
    "said",
    [GET, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 1883" + bytes(100), V2[:14] + b"\xff\xff" + bytes(64)],
)
async def test_without_a_good_header_nothing_is_answered(said: bytes):
    config = http_config(**TRUSTED)
    async with Broker(config) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(said)
        assert await said_nothing_more(client)
        assert broker.metrics()["proxy_headers_rejected"] == 1


async def test_header_of_somebody_not_trusted_is_not_believed():
    config = http_config(**(TRUSTED | {"proxy_trusted": ["192.0.2.0/24"]}))
    async with Broker(config) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        with contextlib.suppress(ConnectionError):
            await client.send(V1 + GET)
        assert await said_nothing_more(client)
        assert broker.metrics()["proxy_headers_rejected"] == 1


async def test_header_that_does_not_come_is_waited_for_until_its_deadline():
    config = http_config(**TRUSTED, handshake_timeout_s=0.3)
    async with Broker(config) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(V1[:10])
        assert await said_nothing_more(client)
        await until(lambda: broker.metrics()["handshakes_under_way"] == 0)


async def test_limits_count_the_client_and_not_the_proxy():
    async with (
        Broker(http_config(**TRUSTED, connections_per_address=1)) as broker,
        await RawWebSocket.connect(*address_of(broker)) as one,
        await RawWebSocket.connect(*address_of(broker)) as two,
        await RawWebSocket.connect(*address_of(broker)) as three,
    ):
        await one.send(V1)
        assert (await join(one, "c1")).reason_code == 0
        await two.send(V2)
        assert (await join(two, "c2")).reason_code == 0
        await three.send(V1 + GET)
        assert await said_nothing_more(three)
        assert broker.metrics()["connections_refused_address"] == 1
        await one.close()
        await until(lambda: broker.client("c1") is None)
        async with await RawWebSocket.connect(*address_of(broker)) as four:
            await four.send(V1)
            assert (await join(four, "c4")).reason_code == 0


@pytest.mark.parametrize("said", [b"", HELLO_BEGUN])
async def test_handshakes_that_stall_are_ended_by_their_deadline(authority: Authority, said: bytes):
    config = http_config(authority, handshake_timeout_s=0.3)
    async with Broker(config) as broker, half_open(broker, 3, said) as sockets:
        async with asyncio.timeout(8):  # the default is ten
            for sock in sockets:
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(sock, 100) == b""
        await until(lambda: broker.metrics()["tls_handshakes_failed"] == 3)
        assert broker.metrics()["handshakes_under_way"] == 0


async def test_handshakes_under_way_have_a_place_and_a_bound(authority: Authority):
    config = http_config(authority, handshakes_maximum=3, max_connections=100, handshake_timeout_s=100)
    async with Broker(config) as broker, half_open(broker, 20) as sockets:
        assert len(sockets) == 20
        await until(lambda: broker.metrics()["connections_refused_full"] == 17)
        assert broker.metrics()["handshakes_under_way"] == 3


async def test_silent_handshakes_make_room(authority: Authority):
    config = http_config(authority, handshakes_maximum=3, handshake_timeout_s=100)
    async with Broker(config) as broker, half_open(broker, 3):
        await until(lambda: broker.metrics()["handshakes_under_way"] == 3)
        await asyncio.sleep(1.1)  # what a handshake may be silent for
        context = client_context(authority)
        reader, writer = await asyncio.open_connection(*address_of(broker), ssl=context, server_hostname="localhost")
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert broker.metrics()["handshakes_evicted"] == 1
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_handshakes_count_among_the_connections(authority: Authority):
    config = http_config(authority, max_connections=2, handshake_timeout_s=100)
    async with Broker(config) as broker, half_open(broker, 2):
        await until(lambda: broker.metrics()["handshakes_under_way"] == 2)
        async with await RawWebSocket.connect(*address_of(broker)) as third:
            assert await said_nothing_more(third)
        assert broker.metrics()["connections_refused_full"] == 1


async def test_stop_does_not_wait_for_handshakes(authority: Authority):
    config = msgspec.structs.replace(http_config(authority, handshake_timeout_s=200), shutdown_timeout_s=100)
    with contextlib.ExitStack() as stack:
        async with asyncio.timeout(60), Broker(config) as broker:
            for _ in range(3):
                stack.enter_context(socket.create_connection(address_of(broker)))
            await until(lambda: broker.metrics()["handshakes_under_way"] == 3)


async def test_certificate_of_a_websocket_authenticates(authority: Authority):
    tls = {"client_certificate": "required", "client_ca_file": str(authority.file), "identity_is_user_name": True}
    config = http_config(authority, tls=tls, allow_anonymous=False)
    context = client_context(authority, authority.issue("thing-7"))
    async with Broker(config) as broker:
        reader, writer = await asyncio.open_connection(*address_of(broker), ssl=context, server_hostname="localhost")
        async with RawWebSocket(reader, writer) as client:
            assert (await join(client)).reason_code == 0
            assert broker.client("c1").user_name == "thing-7"


@pytest.mark.interop
@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
async def test_haproxy_in_front_of_websocket(tmp_path: Path, option: str):
    async with (
        Broker(http_config(**TRUSTED)) as broker,
        haproxy(tmp_path, broker, option=option) as port,
        await RawWebSocket.connect("127.0.0.1", port) as client,
    ):
        assert (await join(client)).reason_code == 0
        assert broker.client("c1").address == client.writer.get_extra_info("sockname")


@pytest.mark.interop
@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
async def test_haproxy_passes_websocket_in_tls_through(tmp_path: Path, authority: Authority):
    async with (
        Broker(http_config(authority, **TRUSTED)) as broker,
        haproxy(tmp_path, broker, option="send-proxy-v2") as port,
    ):
        context = client_context(authority)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        async with RawWebSocket(reader, writer) as client:
            assert (await join(client)).reason_code == 0
            assert broker.client("c1").address == writer.get_extra_info("sockname")
            assert broker.client("c1").tls.version == "TLSv1.3"
