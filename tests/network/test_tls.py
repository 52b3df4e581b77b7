"""TLS listeners over both drivers, against the TLS of Python's own library and of openssl's command."""

import asyncio
import logging
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from certificates import Authority, Issued
from mqttcore import Broker, ReasonCode
from mqttcore.codec import ConnAck, Connect, Decoder, PubAck, Publish, SubAck, Subscribe, Subscription
from mqttcore.config import KeyPair
from network.clients import DEADLINE_S, until
from network.tls import client_context, streams, tls_config

pytestmark = pytest.mark.usefixtures("driver")

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


class Client:
    """MQTT through asyncio's TLS, packet by packet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int = 5) -> None:
        self.reader = reader
        self.writer = writer
        self.version = version
        self.decoder = Decoder(version, sender="server")
        self.packets: list[object] = []

    @classmethod
    async def open(cls, broker: Broker, context: ssl.SSLContext | None, **more: str) -> "Client":
        return cls(*await streams(broker, context, **more))

    async def send(self, *packets: object) -> None:
        self.writer.write(b"".join(packet.encode(self.version) for packet in packets))
        await self.writer.drain()

    async def receive(self) -> object | None:
        async with asyncio.timeout(DEADLINE_S):
            while not self.packets:
                data = await self.reader.read(65536)
                if not data:
                    return None
                self.packets += self.decoder.feed(data)
        return self.packets.pop(0)

    async def connect(self, client_id: str = "c1", **fields: object) -> ConnAck:
        await self.send(Connect(client_id, **fields))
        answer = await self.receive()
        assert isinstance(answer, ConnAck)
        return answer

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)


async def refused_by_tls(broker: Broker, context: ssl.SSLContext) -> None:
    """Expect that no CONNECT gets through; in TLS 1.3 a client learns of it only by reading."""

    async def converse() -> object | None:
        async with await Client.open(broker, context) as client:
            await client.send(Connect("c1"))
            return await client.receive()

    try:
        assert await converse() is None
    except (ssl.SSLError, ConnectionError):
        return


@pytest.mark.parametrize("version", VERSIONS)
async def test_client_connects_and_hears_its_message(authority: Authority, version: ssl.TLSVersion):
    async with Broker(tls_config(authority.server())) as broker:
        async with await Client.open(broker, client_context(authority, version=version)) as client:
            assert (await client.connect()).reason_code == 0
            await client.send(Subscribe(1, [Subscription("a/#", qos=1)]), Publish("a/b", b"x" * 50, qos=1, packet_id=2))
            assert isinstance(await client.receive(), SubAck)
            kinds = {type(await client.receive()) for _ in range(2)}
            assert kinds == {Publish, PubAck}
        assert broker.metrics()["tls_handshakes"] == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_large_payloads_pass_whole_both_ways(authority: Authority, version: ssl.TLSVersion):
    payloads = [bytes([number]) * (300_000 + number) for number in range(4)]
    context = client_context(authority, version=version)
    async with Broker(tls_config(authority.server())) as broker, await Client.open(broker, context) as client:
        await client.connect()
        await client.send(Subscribe(1, [Subscription("big", qos=0)]))
        assert isinstance(await client.receive(), SubAck)
        await client.send(*(Publish("big", payload) for payload in payloads))
        for payload in payloads:
            assert (await client.receive()).payload == payload


async def test_records_torn_into_single_bytes_are_put_together(authority: Authority):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    loop = asyncio.get_running_loop()
    async with Broker(tls_config(authority.server())) as broker:
        _, host, port = broker.addresses[0]
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (host, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            async def dribble() -> None:
                for byte in outgoing.read():
                    await loop.sock_sendall(sock, bytes([byte]))

            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        session.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        await dribble()
                        incoming.write(await loop.sock_recv(sock, 65536))
                session.write(Connect("c1").encode(5))
                await dribble()
                while True:
                    try:
                        answer = session.read(4096)
                        break
                    except ssl.SSLWantReadError:
                        incoming.write(await loop.sock_recv(sock, 65536))
            assert isinstance(Decoder(5, sender="server").feed(answer)[0], ConnAck)


async def test_minimum_version_is_kept(authority: Authority):
    async with Broker(tls_config(authority.server(), minimum_version="1.3")) as broker:
        await refused_by_tls(broker, client_context(authority, version=ssl.TLSVersion.TLSv1_2))
        async with await Client.open(broker, client_context(authority)) as client:
            assert (await client.connect()).reason_code == 0
        await until(lambda: broker.metrics()["tls_handshakes_failed"] == 1)


@pytest.mark.parametrize("version", VERSIONS)
async def test_session_is_resumed(authority: Authority, version: ssl.TLSVersion):
    context = client_context(authority, version=version)
    loop = asyncio.get_running_loop()

    def visit(address: tuple[str, int], session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        plain = socket.create_connection(address, timeout=DEADLINE_S)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as sock:
            sock.sendall(Connect("c1").encode(5))
            assert sock.recv(4096)
            return sock.session, bool(sock.session_reused)

    async with Broker(tls_config(authority.server())) as broker:
        address = broker.addresses[0][1:]
        session, was_resumed = await loop.run_in_executor(None, visit, address, None)
        assert not was_resumed
        _, was_resumed = await loop.run_in_executor(None, visit, address, session)
        assert was_resumed
        assert broker.metrics()["tls_handshakes_resumed"] == 1


async def test_alpn_mqtt_is_agreed_on(authority: Authority):
    context = client_context(authority)
    context.set_alpn_protocols(["x-amzn-mqtt-ca", "mqtt"])
    async with Broker(tls_config(authority.server())) as broker, await Client.open(broker, context) as client:
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "mqtt"


async def test_certificate_is_chosen_by_the_name_asked_for(authority: Authority):
    other = authority.server("mqtt.example", "*.devices.example", file="other")
    config = tls_config(
        authority.server(), certificates=[KeyPair(certificate_file=str(other.certificate), key_file=str(other.key))]
    )
    async with Broker(config) as broker:
        for name in ("localhost", "mqtt.example", "MQTT.example", "a.devices.example"):
            async with await Client.open(broker, client_context(authority), server_hostname=name) as client:
                shown = client.writer.get_extra_info("peercert")["subjectAltName"][0][1]
                assert shown == ("localhost" if name == "localhost" else "mqtt.example")


async def test_peer_that_speaks_plain_mqtt_is_closed(authority: Authority, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    async with Broker(tls_config(authority.server())) as broker:
        async with await Client.open(broker, None) as client:
            client.writer.write(Connect("c1").encode(5) * 20)
            async with asyncio.timeout(DEADLINE_S):
                answer = await client.reader.read()
        assert answer[:1] in (b"", b"\x15")  # nothing, or an alert
        await until(lambda: broker.metrics()["connections"] == 0)
        assert broker.metrics()["tls_handshakes_failed"] == 1
        assert "TLS: " in caplog.text


async def test_failure_of_one_handshake_leaves_others_alone(authority: Authority):
    """All sessions share their memory BIOs: nothing of one may reach another."""
    good = client_context(authority)
    async with Broker(tls_config(authority.server())) as broker:

        async def bad() -> None:
            async with await Client.open(broker, None) as client:
                client.writer.write(bytes.fromhex("1603010200") + bytes(5))
                await client.writer.drain()

        async def one(number: int) -> None:
            async with await Client.open(broker, good) as client:
                await client.connect(f"c{number}")
                await client.send(Subscribe(1, [Subscription(f"t/{number}")]))
                await client.receive()
                for message in range(20):
                    await client.send(Publish(f"t/{number}", b"%d-%d" % (number, message)))
                    assert (await client.receive()).payload == b"%d-%d" % (number, message)

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(one(number))
                group.create_task(bad())
        assert broker.metrics()["tls_handshakes"] == 20


# --- client certificates ----------------------------------------------------------------------------------------------


async def test_good_client_certificate_is_known_to_the_broker(authority: Authority):
    own = authority.issue(
        "sensor-7", organization="ACME, Inc", dns=("s7.example",), email=("s7@acme.example",), uri=("urn:s:7",)
    )
    config = tls_config(authority.server(), client_ca_file=str(authority.file), client_certificate="required")
    async with Broker(config) as broker, await Client.open(broker, client_context(authority, own)) as client:
        await client.connect("c1", user_name="other")
        assert broker.client("c1").user_name == "other"
        tls = broker.client("c1").tls
        assert tls.is_verified
        assert (tls.version, tls.common_name, tls.identity) == ("TLSv1.3", "sensor-7", "sensor-7")
        assert tls.subject == r"CN=sensor-7,O=ACME\, Inc"
        assert ("DNS", "s7.example") in tls.alt_names
        assert ssl.DER_cert_to_PEM_cert(tls.certificate).split() == own.certificate.read_text().split()


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("cn", "sensor-7"),
        ("dn", "CN=sensor-7,O=ACME"),
        ("dns", "s7.example"),
        ("email", "s7@acme.example"),
        ("uri", "urn:s:7"),
    ],
)
async def test_certificate_authenticates_by_itself(authority: Authority, identity: str, name: str):
    own = authority.issue(
        "sensor-7", organization="ACME", dns=("s7.example",), email=("s7@acme.example",), uri=("urn:s:7",)
    )
    config = tls_config(
        authority.server(),
        listener={"allow_anonymous": False},
        client_ca_file=str(authority.file),
        client_certificate="required",
        identity=identity,
        identity_is_user_name=True,
    )
    async with Broker(config) as broker, await Client.open(broker, client_context(authority, own)) as client:
        assert (await client.connect("c1", user_name="root", password=b"wrong")).reason_code == 0
        assert broker.client("c1").user_name == name


async def test_certificate_without_the_name_wanted_is_refused(authority: Authority):
    config = tls_config(
        authority.server(),
        client_ca_file=str(authority.file),
        client_certificate="required",
        identity="email",
        identity_is_user_name=True,
    )
    context = client_context(authority, authority.issue("sensor-7"))
    async with Broker(config) as broker, await Client.open(broker, context) as client:
        assert (await client.connect()).reason_code == ReasonCode.NOT_AUTHORIZED


async def test_certificate_that_expired_since_it_was_verified_is_refused(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    # A resumed session brings what was verified when it began. Nobody is let in as anonymous instead.
    config = tls_config(
        authority.server(),
        client_ca_file=str(authority.file),
        client_certificate="required",
        identity_is_user_name=True,
    )
    context = client_context(authority, authority.issue("sensor-7"))
    async with Broker(config) as broker:
        async with await Client.open(broker, context) as client:
            assert (await client.connect("c1")).reason_code == 0
        monkeypatch.setattr("mqttcore.net.tls.ssl.cert_time_to_seconds", lambda text: 0)
        async with await Client.open(broker, context) as client:
            assert (await client.connect("c2")).reason_code == ReasonCode.NOT_AUTHORIZED


def nobody(authority: Authority) -> Issued | None:
    return None


def expired(authority: Authority) -> Issued:
    return authority.issue("old", begins=-3, ends=-1)


def not_yet_valid(authority: Authority) -> Issued:
    return authority.issue("young", begins=1)


def revoked(authority: Authority) -> Issued:
    issued = authority.issue("bad")
    authority.revoke(issued)
    return issued


def of_a_stranger(authority: Authority) -> Issued:
    return Authority(authority.folder, "stranger").issue("c1", file="strange")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("who", [nobody, expired, not_yet_valid, revoked, of_a_stranger])
async def test_bad_client_certificate_is_refused(authority: Authority, version: ssl.TLSVersion, who):
    own = who(authority)
    config = tls_config(
        authority.server(),
        client_ca_file=str(authority.file),
        client_certificate="required",
        crl_file=str(authority.crl_file),
    )
    async with Broker(config) as broker:
        await refused_by_tls(broker, client_context(authority, own, version=version))
        await until(lambda: broker.metrics()["tls_handshakes_failed"] == 1)
        assert broker.metrics()["connects_accepted"] == 0
        async with await Client.open(broker, client_context(authority, authority.issue("good"))) as client:
            assert (await client.connect()).reason_code == 0


async def test_optional_certificate_may_be_missing_but_not_bad(authority: Authority):
    config = tls_config(authority.server(), client_ca_file=str(authority.file), client_certificate="optional")
    async with Broker(config) as broker:
        async with await Client.open(broker, client_context(authority)) as client:
            assert (await client.connect()).reason_code == 0
            assert not broker.client("c1").tls.is_verified
        await refused_by_tls(broker, client_context(authority, expired(authority)))


# --- others' tools ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_s_client_verifies_and_is_answered(authority: Authority, version: str):
    async with Broker(tls_config(authority.server())) as broker:
        port = broker.addresses[0][2]
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", version, "-CAfile", str(authority.file)),
            *("-verify_return_error", "-verify_hostname", "localhost", "-servername", "localhost", "-alpn", "mqtt"),
            *("-quiet",),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin
        assert process.stdout
        process.stdin.write(Connect("c1", protocol_version=4).encode(4))
        async with asyncio.timeout(DEADLINE_S):
            assert await process.stdout.readexactly(4) == b"\x20\x02\x00\x00"
        process.terminate()
        await process.communicate()
