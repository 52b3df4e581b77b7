"""PROXY protocol at the listeners, from bare sockets and from a real HAProxy."""

import asyncio
import logging
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from certificates import Authority
from mqttcore import Broker, Config, Listener
from mqttcore.codec import ConnAck, Connect
from mqttcore.config import from_mapping
from mqttcore.errors import ConfigError
from network.clients import Raw, until
from network.conftest import quiet_config
from network.test_tls import Client
from network.tls import client_context, tls_config

pytestmark = pytest.mark.usefixtures("driver")

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 1883\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12)
    + bytes([192, 0, 2, 8, 198, 51, 100, 1])
    + struct.pack("!HH", 40001, 1883)
)
TRUSTED = {"proxy_protocol": "any", "proxy_trusted": ["127.0.0.0/8"], "allow_anonymous": True}


def proxy_config(**listener: object) -> Config:
    return quiet_config(Listener(**({"port": 0} | TRUSTED | listener)))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize(("header", "address"), [(V1, ("192.0.2.7", 40000)), (V2, ("192.0.2.8", 40001))])
@pytest.mark.parametrize("is_torn", [False, True])
async def test_address_of_the_client_replaces_the_proxys(header: bytes, address: tuple[str, int], is_torn: bool):
    async with Broker(proxy_config()) as broker, await Raw.open(broker) as raw:
        said = header + Connect("c1").encode(5)
        for part in [said[at : at + 1] for at in range(len(said))] if is_torn else [said]:
            await raw.send_bytes(part)
        assert isinstance(await raw.receive(), ConnAck)
        assert broker.client("c1").address == address
        assert broker.client("c1").proxy.source == address


async def test_health_check_of_the_proxy_keeps_its_own_address():
    local = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
    async with Broker(proxy_config()) as broker, await Raw.open(broker) as raw:
        await raw.send_bytes(local + Connect("c1").encode(5))
        assert isinstance(await raw.receive(), ConnAck)
        assert broker.client("c1").address[0] == "127.0.0.1"


async def test_tls_follows_the_header_in_the_same_segment(authority: Authority):
    async with Broker(tls_config(authority.server(), listener=TRUSTED)) as broker:
        _, host, port = broker.addresses[0]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(V1)
        await writer.start_tls(client_context(authority), server_hostname="localhost")
        client = Client(reader, writer)
        assert (await client.connect()).reason_code == 0
        assert broker.client("c1").address == ("192.0.2.7", 40000)
        assert broker.client("c1").tls.version == "TLSv1.3"
        writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "said",
    [
        Connect("c1").encode(5),
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 1883" + bytes(100),
        V2[:14] + b"\xff\xff" + bytes(64),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_without_a_good_header_the_connection_is_closed(said: bytes):
    async with Broker(proxy_config()) as broker, await Raw.open(broker) as raw:
        await raw.send_bytes(said)
        assert await raw.receive() is None
        await until(lambda: broker.metrics()["connections"] == 0)
        assert broker.metrics()["proxy_headers_rejected"] == 1
        assert broker.metrics()["connects_accepted"] == 0


async def test_header_of_somebody_not_trusted_is_not_believed(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    async with Broker(proxy_config(proxy_trusted=["192.0.2.0/24"])) as broker, await Raw.open(broker) as raw:
        with suppress(ConnectionError):
            await raw.send_bytes(V1 + Connect("c1").encode(5))
        assert await raw.receive() is None
        assert broker.metrics()["proxy_headers_rejected"] == 1
        assert "is not among proxy_trusted" in caplog.text


async def test_header_that_does_not_come_is_waited_for_until_its_deadline():
    async with Broker(proxy_config(handshake_timeout_s=0.3)) as broker, await Raw.open(broker) as raw:
        await raw.send_bytes(V1[:10])
        assert await raw.receive() is None
        await until(lambda: broker.metrics()["handshakes_under_way"] == 0)


async def test_limits_count_the_client_and_not_the_proxy():
    async with (
        Broker(proxy_config(connections_per_address=1)) as broker,
        await Raw.open(broker) as one,
        await Raw.open(broker) as two,
        await Raw.open(broker) as three,
    ):
        await one.send_bytes(V1 + Connect("c1").encode(5))
        assert isinstance(await one.receive(), ConnAck)
        await two.send_bytes(V2 + Connect("c2").encode(5))
        assert isinstance(await two.receive(), ConnAck)
        await three.send_bytes(V1 + Connect("c3").encode(5))
        assert await three.receive() is None
        assert broker.metrics()["connections_refused_address"] == 1


def of_certificate(name: bytes, *, client: int = 0x07, verify: int = 0) -> bytes:
    """Return V2 with what a proxy says of a client's certificate. client, verify: as the protocol has them."""
    ssl_tlv = struct.pack("!BIBH", client, verify, 0x22, len(name)) + name
    body = V2[16:] + struct.pack("!BH", 0x20, len(ssl_tlv)) + ssl_tlv
    return V2[:14] + struct.pack("!H", len(body)) + body


async def test_certificate_that_the_proxy_verified_authenticates():
    header = of_certificate(b"sensor-7")
    config = proxy_config(proxy_identity_is_user_name=True, allow_anonymous=False)
    async with Broker(config) as broker:
        async with await Raw.open(broker) as raw:
            await raw.send_bytes(header + Connect("c1").encode(5))
            assert (await raw.receive()).reason_code == 0
            assert broker.client("c1").user_name == "sensor-7"
        async with await Raw.open(broker) as raw:
            await raw.send_bytes(V2 + Connect("c2").encode(5))
            assert (await raw.receive()).reason_code == 0x87


def test_whom_to_trust_must_be_said():
    for listener, path in (
        ({"proxy_protocol": "v2"}, "proxy_trusted"),
        ({"proxy_trusted": ["10.0.0.0/8"]}, "proxy_trusted"),
        ({"proxy_protocol": "v2", "proxy_trusted": ["10.0.0.0/33"]}, "proxy_trusted[0]"),
    ):
        with pytest.raises(ConfigError) as caught:
            from_mapping({"listeners": [listener]})
        assert caught.value.path == f"listeners[0].{path}"


# --- HAProxy ----------------------------------------------------------------------------------------------------------

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")


@asynccontextmanager
async def haproxy(folder: Path, broker: Broker, *, option: str, bind: str = "") -> AsyncIterator[int]:
    """Run HAProxy in front of the broker; yields its port. option: of the server line, bind: of the bind line."""
    _, host, port = broker.addresses[0]
    config = folder / "haproxy.cfg"
    # It takes a bound socket over, so no port has to be guessed.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        config.write_text(f"""\
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend mqtt
    bind fd@{listening.fileno()} {bind}
    default_backend brokers
backend brokers
    server one {host}:{port} {option}
""")
        process = await asyncio.create_subprocess_exec(
            *(str(HAPROXY), "-db", "-q", "-f", str(config)), pass_fds=[listening.fileno()], stderr=subprocess.PIPE
        )
        try:
            yield listening.getsockname()[1]
        finally:
            process.terminate()
            await process.communicate()


async def through(port: int, context: object = None) -> Client:
    name = "localhost" if context is not None else None
    return Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name))


@pytest.mark.interop
@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
async def test_haproxy_tells_the_clients_address(tmp_path: Path, option: str):
    async with (
        Broker(proxy_config()) as broker,
        haproxy(tmp_path, broker, option=option) as port,
        await through(port) as client,
    ):
        assert (await client.connect()).reason_code == 0
        assert broker.client("c1").address == client.writer.get_extra_info("sockname")


@pytest.mark.interop
@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
async def test_haproxy_passes_tls_through_behind_its_header(tmp_path: Path, authority: Authority):
    config = tls_config(authority.server(), listener=TRUSTED)
    async with (
        Broker(config) as broker,
        haproxy(tmp_path, broker, option="send-proxy-v2") as port,
        await through(port, client_context(authority)) as client,
    ):
        assert (await client.connect()).reason_code == 0
        assert broker.client("c1").address == client.writer.get_extra_info("sockname")


@pytest.mark.interop
@pytest.mark.skipif(HAPROXY is None, reason="needs haproxy")
async def test_haproxy_ends_tls_and_tells_of_the_certificate(tmp_path: Path, authority: Authority):
    server, own = authority.server(), authority.issue("sensor-7")
    both = tmp_path / "both.pem"
    both.write_bytes(server.certificate.read_bytes() + server.key.read_bytes())
    bind = f"ssl crt {both} ca-file {authority.file} verify optional"
    option = "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,authority"
    config = proxy_config(proxy_identity_is_user_name=True)
    async with Broker(config) as broker, haproxy(tmp_path, broker, option=option, bind=bind) as port:
        async with await through(port, client_context(authority, own)) as client:
            assert (await client.connect()).reason_code == 0
            tls = broker.client("c1").tls
            assert broker.client("c1").user_name == "sensor-7"
            assert (tls.version, tls.common_name, tls.is_verified) == ("TLSv1.3", "sensor-7", True)
            assert tls.server_name == "localhost"
        async with await through(port, client_context(authority)) as client:
            assert (await client.connect("c2")).reason_code == 0
            assert broker.client("c2").user_name is None
            assert not broker.client("c2").tls.is_verified
