"""MQTT in WebSocket: §6 of both versions, chapter 7 of 3.1.1, and what HARDENING asks of the upgrade and the frames."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from broker_process import BrokerProcess, running_broker
from mqttcore import Broker, Config, Limits, Listener
from mqttcore.codec import ConnAck, Connect, Decoder, PingReq, PingResp, Publish, SubAck, Subscribe, Subscription
from websocket_wire import (
    BINARY,
    BROKEN_FRAMING,
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    RawWebSocket,
    frame,
    upgrade_request,
)

HTTP_LISTENER = '[[listeners]]\nport = 0\nprotocol = "http"\n'


def config_with(patience_s: float) -> Config:
    """Return the configuration of a broker that waits so long for a request, and for CONNECT."""
    return Config(
        listeners=[Listener(port=0, protocol="http", http_header_timeout_s=patience_s)],
        limits=Limits(connect_timeout_s=patience_s),
        sys_interval_s=0,
        shutdown_timeout_s=1,
        overload_lag_ms=0,  # a busy machine is no reason to refuse a client
    )


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[Broker]:
    """A broker that waits for slow machines."""
    async with Broker(config_with(100)) as running:
        yield running


@pytest_asyncio.fixture
async def impatient_broker() -> AsyncIterator[Broker]:
    """A broker that waits a fraction of a second."""
    async with Broker(config_with(0.4)) as running:
        yield running


def place(broker: Broker) -> tuple[str, int]:
    _, host, port = broker.addresses[0]
    return host, port


@pytest.fixture
def broker_process_on_http(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker in a process of its own."""
    with running_broker(tmp_path, HTTP_LISTENER, "mqttcore") as running:
        yield running


@pytest.mark.mqtt3("6.0.0-1")
@pytest.mark.mqtt5("6.0.0-1")
@pytest.mark.parametrize("version", [4, 5])
async def test_data_that_is_not_binary_closes_the_connection(broker: Broker, version: int):
    async with await RawWebSocket.open(*place(broker)) as client:
        await client.send(frame(Connect("c", protocol_version=version).encode(version)))
        assert (await client.frame()).opcode == BINARY
        await client.send(frame(PingReq().encode(version), TEXT))
        assert [one.close_code for one in await client.end()] == [1003]


@pytest.mark.mqtt3("6.0.0-2")
@pytest.mark.mqtt5("6.0.0-2")
@pytest.mark.parametrize("version", [4, 5])
async def test_packets_need_not_be_aligned_on_frames(broker: Broker, version: int):
    packets = [
        Connect("c", protocol_version=version),
        Subscribe(1, [Subscription("t")]),
        Publish("t", b"x" * 200),
        PingReq(),
    ]
    stream = b"".join(packet.encode(version) for packet in packets)
    for size in (1, 3, 7, 64, len(stream)):
        async with await RawWebSocket.open(*place(broker)) as client:
            pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
            # Messages of one frame and of two fragments in turn.
            await client.send(
                b"".join(
                    frame(piece)
                    if number % 2
                    else frame(piece[:1], fin=False) + frame(b"", PING) + frame(piece[1:], CONTINUATION)
                    for number, piece in enumerate(pieces[:40])
                )
                + frame(b"".join(pieces[40:]))
            )
            decoder, came = Decoder(version, sender="server"), []
            while len(came) < 4:
                one = await client.frame()
                came += decoder.feed(one.payload) if one.opcode == BINARY else []
            assert [type(packet) for packet in came] == [ConnAck, SubAck, Publish, PingResp]


@pytest.mark.mqtt3("6.0.0-4")
@pytest.mark.mqtt5("6.0.0-4")
@pytest.mark.parametrize("offered", ["mqtt", "chat, mqtt", "mqtt, mqttv3.1"])
async def test_agreed_subprotocol_is_mqtt(broker: Broker, offered: str):
    async with await RawWebSocket.connect(*place(broker)) as client:
        await client.send(upgrade_request(protocols=offered))
        answer = await client.answer()
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "mqtt")


@pytest.mark.mqtt3("6.0.0-4")
@pytest.mark.mqtt5("6.0.0-4")
async def test_no_other_subprotocol_is_agreed_on(broker: Broker):
    async with await RawWebSocket.connect(*place(broker)) as client:
        await client.send(upgrade_request(protocols="chat, superchat"))
        assert (await client.answer()).status == 400


@pytest.mark.mqtt3("7.0.0-1")
async def test_broker_opens_no_connections(broker_process_on_http: BrokerProcess):
    host, port = broker_process_on_http.host, broker_process_on_http.port
    async with await RawWebSocket.open(host, port) as client:
        await client.send(frame(Connect("c", protocol_version=4).encode(4)))
        assert (await client.frame()).opcode == BINARY
        found = [one.laddr.port for one in psutil.Process(broker_process_on_http.pid).net_connections("inet")]
        assert found
        assert set(found) == {port}


# --- hardening --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [b"", b"G", upgrade_request()[:-2], upgrade_request()], ids=["nothing", "byte", "no end", "no CONNECT"]
)
async def test_upgrade_that_stalls_frees_its_place(impatient_broker: Broker, sent: bytes):
    """HARDENING 4: each step has a deadline; the last one is that of CONNECT."""
    async with asyncio.timeout(8):  # the defaults are ten
        async with await RawWebSocket.connect(*place(impatient_broker)) as client:
            await client.send(sent)
            while await client.reader.read(1000):
                pass
            while impatient_broker.listeners[0].connections:  # noqa: ASYNC110  counters have no event
                await asyncio.sleep(0.005)
    assert impatient_broker.metrics()["connections"] == 0


async def test_a_thousand_stalled_upgrades_leave_others_alone(broker: Broker):
    """HARDENING 4."""
    stalled = [await RawWebSocket.connect(*place(broker)) for _ in range(1000)]
    for number, client in enumerate(stalled):
        await client.send(upgrade_request()[: number % 100])
    async with await RawWebSocket.open(*place(broker)) as client, asyncio.timeout(60):
        await client.send(frame(Connect("c").encode(5)))
        assert (await client.frame()).opcode == BINARY
    for client in stalled:
        await client.close()


@pytest.mark.parametrize(("sent", "code"), BROKEN_FRAMING.values(), ids=BROKEN_FRAMING)
async def test_broken_frames_close_a_connected_client(broker: Broker, sent: bytes, code: int):
    """HARDENING 55."""
    async with await RawWebSocket.open(*place(broker)) as client:
        await client.send(frame(Connect("c").encode(5)))
        await client.frame()
        await client.send(sent)
        assert [(one.opcode, one.close_code) for one in await client.end()] == [(CLOSE, code)]
        assert not broker.clients()


async def test_declared_length_takes_no_memory(broker_process_on_http: BrokerProcess):
    """The CVE class "memory from declared length": frames and packets of 16 MB and 2 MB of which one byte comes."""
    host, port = broker_process_on_http.host, broker_process_on_http.port
    big = frame(b"", length=b"\x7f" + (16_000_000).to_bytes(8, "big"))
    clients = [await RawWebSocket.open(host, port) for _ in range(20)]
    before = broker_process_on_http.rss_bytes()
    for _ in range(200):
        client = await RawWebSocket.open(host, port)
        await client.send(big + bytes([0x10 ^ 0x11]))  # CONNECT's first byte, masked
        clients.append(client)
    assert broker_process_on_http.rss_bytes() - before < 8_000_000
    for client in clients:
        await client.close()
