"""TLS clients that mean harm once their handshake is through; tlslite-ng says what others would not."""

import asyncio
import logging
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from certificates import Authority
from mqttcore import Broker
from mqttcore.codec import Connect, Publish
from network.clients import address_of, until
from network.tls import client_context, tls_config
from websocket_wire import frame, upgrade_request

with warnings.catch_warnings():  # of its faces to asyncore
    warnings.simplefilter("ignore", DeprecationWarning)
    from tlslite.api import HandshakeSettings, TLSConnection
    from tlslite.constants import KeyUpdateMessageType
    from tlslite.errors import TLSClosedConnectionError

pytestmark = pytest.mark.usefixtures("driver")

HIGH_WATER_BYTES = 1024
KEY_UPDATES = 8_000  # each is answered with another
RENEGOTIATIONS = 60_000  # each is answered with an alert of 31 bytes
DOORS = {
    "mqtt": ("mqtt", [Connect("deaf").encode(5)]),
    "websocket": ("http", [upgrade_request(), frame(Connect("deaf").encode(5))]),
    "http": ("http", []),
}


def shaken(sock: socket.socket, version: tuple[int, int], said: list[bytes]) -> TLSConnection:
    """Return a connection through which all was said that there is to say first."""
    sock.settimeout(60)
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = version
    settings.cipherNames = ["aes128gcm"]
    client = TLSConnection(sock)
    client.handshakeClientCert(settings=settings)
    for one in said:
        client.sendall(one)
        client.recv(1)
    client.closeSocket = False
    sock.settimeout(1)
    return client


def renegotiations(client: TLSConnection, count: int) -> bytes:
    """Return records that ask for another handshake; the answers are alerts that there is none (RFC 5246 §7.2.2)."""
    state = client._recordLayer._writeState
    seal = AESGCM(bytes(state.encContext.key)).encrypt
    records = []
    for number in range(state.seqnum, state.seqnum + count):
        sequence = number.to_bytes(8, "big")
        sealed = seal(bytes(state.fixedNonce) + sequence, b"\x01\0\0\0", sequence + b"\x16\x03\x03\x00\x04")
        body = sequence + sealed
        records.append(b"\x16\x03\x03" + len(body).to_bytes(2, "big") + body)
    return b"".join(records)


def flood_with_renegotiations(sock: socket.socket, said: list[bytes]) -> bool:
    """Read nothing; return whether all of it was taken."""
    data = renegotiations(shaken(sock, (3, 3), said), RENEGOTIATIONS)
    try:
        sock.settimeout(1.5)
        sock.sendall(data)
    except TimeoutError:
        return False
    return True


def flood_with_key_updates(sock: socket.socket, said: list[bytes]) -> bool:
    """Take new keys and ask for new ones (RFC 8446 §4.6.3), and read nothing; return whether all of it was taken."""
    client = shaken(sock, (3, 4), said)
    for _ in range(KEY_UPDATES):
        try:
            for _ in client.send_keyupdate_request(KeyUpdateMessageType.update_requested):
                pass
        except (TimeoutError, TLSClosedConnectionError):  # the second: tlslite's way to say the first
            return False
    return True


@pytest.mark.parametrize("is_known", [False, True])
async def test_spoilt_record_behind_good_ones_ends_the_connection(
    tmp_path: Path, is_known: bool, caplog: pytest.LogCaptureFixture
):
    """What was to be answered to the good ones cannot be: the session is broken, and that is the peer's fault.

    Whose certificate it was cannot be asked any more: a CONNECT among them is nobody's, the PUBLISH of a client counts.
    """
    authority = Authority(tmp_path)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context(authority).wrap_bio(incoming, outgoing, server_hostname="localhost")
    async with Broker(tls_config(authority.server())) as broker, broker.subscribe("#") as stream:
        reader, writer = await asyncio.open_connection(*address_of(broker))

        async def do(what: Callable[[], object]) -> object:
            while True:
                try:
                    return what()
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))

        await do(session.do_handshake)
        session.write(Connect("c1").encode(5))
        if is_known:
            assert await do(session.read)
            session.write(Publish("t", b"counts", qos=1, packet_id=1).encode(5))
        writer.write(outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        async with asyncio.timeout(5):
            assert (await reader.read())[:3] == b"\x17\x03\x03"  # an alert, sealed, and the end
            await until(lambda: broker.listeners[0].connections == 0)
            assert broker.metrics()["connects_accepted"] == is_known
            if is_known:
                assert (await anext(stream)).payload == b"counts"
        writer.close()
        await writer.wait_closed()
    assert not [one for one in caplog.records if one.levelno > logging.INFO]


@pytest.mark.parametrize(
    ("door", "flood"),
    [*((door, flood_with_renegotiations) for door in DOORS), ("mqtt", flood_with_key_updates)],
)
async def test_who_makes_us_answer_and_does_not_read_is_not_read(tmp_path: Path, door: str, flood):
    path = tmp_path / "mqtt.sock"
    protocol, said = DOORS[door]
    listener = {"path": str(path), "protocol": protocol, "http_header_timeout_s": 100}
    own = Authority(tmp_path).server()
    config = tls_config(own, listener=listener, limits={"output_high_water_bytes": HIGH_WATER_BYTES})
    async with Broker(config) as broker:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            assert not await asyncio.to_thread(flood, sock, said)
            assert broker.listeners[0].connections == 1  # it waits, as it would on TCP
