"""TLS clients that mean harm once their handshake is through; tlslite-ng says what others would not."""

import asyncio
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from certificates import Authority
from mqttcore import Broker
from mqttcore.codec import Connect
from network.tls import tls_config

with warnings.catch_warnings():  # of its faces to asyncore
    warnings.simplefilter("ignore", DeprecationWarning)
    from tlslite.api import HandshakeSettings, TLSConnection
    from tlslite.constants import ContentType, KeyUpdateMessageType
    from tlslite.errors import TLSClosedConnectionError
    from tlslite.messages import Message

pytestmark = pytest.mark.usefixtures("driver")

MOST = 6_000  # records; each is answered with about thirty bytes
HIGH_WATER_BYTES = 1024


def renegotiation(client: TLSConnection) -> None:
    """Ask for another handshake; the answer is an alert that there will be none (RFC 5246 §7.4.1.1)."""
    for _ in client._recordLayer.sendRecord(Message(ContentType.handshake, bytearray(b"\x01\0\0\0"))):
        pass


def key_update(client: TLSConnection) -> None:
    """Take new keys and ask for new ones, which are announced (RFC 8446 §4.6.3)."""
    for _ in client.send_keyupdate_request(KeyUpdateMessageType.update_requested):
        pass


def records_taken(sock: socket.socket, version: tuple[int, int], flood: Callable[[TLSConnection], None]) -> int:
    """Connect, then send records and read nothing, until no more are taken; return how many were."""
    sock.settimeout(10)
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = version
    client = TLSConnection(sock)
    client.handshakeClientCert(settings=settings)
    client.sendall(Connect("deaf").encode(5))
    client.closeSocket = False
    sock.settimeout(0.5)
    for number in range(MOST):
        try:
            flood(client)
        except (TimeoutError, TLSClosedConnectionError):  # the second: tlslite's way to say the first
            return number
    return MOST


@pytest.mark.parametrize(("version", "flood"), [((3, 3), renegotiation), ((3, 4), key_update)])
async def test_who_makes_us_answer_and_does_not_read_is_not_read(
    authority: Authority, tmp_path: Path, version: tuple[int, int], flood: Callable[[TLSConnection], None]
):
    path = tmp_path / "mqtt.sock"
    config = tls_config(
        authority.server(), listener={"path": str(path)}, limits={"output_high_water_bytes": HIGH_WATER_BYTES}
    )
    async with Broker(config) as broker:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            assert await asyncio.to_thread(records_taken, sock, version, flood) < MOST
            assert broker.client("deaf").is_connected  # it waits, as it would on TCP


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
