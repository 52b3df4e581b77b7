"""SIGTERM with many clients: each is told, none can hold the broker up (HARDENING 58)."""

from __future__ import annotations

import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_process import running_broker
from mqttcore.codec import Connect, Decoder, Disconnect, Publish, Subscribe, Subscription

SHUTDOWN_TIMEOUT_S = 4
BUSY_S = 40  # what a busy machine may add
SHUTTING_DOWN = 0x8B
DEAF = 20  # clients with much to read that read nothing
CONFIG = f"""\
shutdown_timeout_s = {SHUTDOWN_TIMEOUT_S}
overload_lag_ms = 0
[[listeners]]
port = 0
"""


@pytest.fixture(autouse=True)
def all_descriptors() -> Iterator[None]:
    """Raise RLIMIT_NOFILE, for the broker as well, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(host: str, port: int, client_id: str, *, receive_buffer_bytes: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(60)
    if receive_buffer_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    sock.connect((host, port))
    sock.sendall(Connect(client_id).encode(5))
    return sock


def last_words(sock: socket.socket) -> Disconnect | None:
    """Read to the end; return the DISCONNECT that was there."""
    decoder, found = Decoder(5, sender="server"), None
    while data := sock.recv(65536):
        for packet in decoder.feed(data):
            assert found is None, "a packet behind DISCONNECT"
            found = packet if isinstance(packet, Disconnect) else None
    return found


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_sigterm_tells_everybody_and_waits_for_nobody(tmp_path: Path, count: int) -> None:
    with running_broker(tmp_path, CONFIG, kind="mqttcore") as broker:
        readers = [connected(broker.host, broker.port, f"c{number}") for number in range(count)]
        deaf = [connected(broker.host, broker.port, f"d{number}", receive_buffer_bytes=4096) for number in range(DEAF)]
        for sock in deaf:
            sock.sendall(Subscribe(1, [Subscription("t")]).encode(5))
        for sock in (*readers, *deaf):
            assert sock.recv(1024)[:1] == b"\x20"  # CONNACK: all are there
        flood = connected(broker.host, broker.port, "flood")
        flood.sendall(Publish("t", bytes(60_000)).encode(5) * 100)
        flood.sendall(b"\xc0\x00")
        while flood.recv(65536)[-2:] != b"\xd0\x00":
            pass
        began_s = time.monotonic()
        broker.process.send_signal(signal.SIGTERM)
        codes = [None if words is None else words.reason_code for words in map(last_words, (*readers, flood))]
        assert broker.process.wait(SHUTDOWN_TIMEOUT_S + BUSY_S) == 0
        # one after another, the deaf ones would take 80 s
        assert time.monotonic() - began_s < SHUTDOWN_TIMEOUT_S + BUSY_S
        assert codes == [SHUTTING_DOWN] * (count + 1)
        for sock in (*readers, *deaf, flood):
            sock.close()
