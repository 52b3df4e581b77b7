"""MQTT in WebSocket: the upgrade, frames in every form, the end; over epoll and over transports."""

import asyncio

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from mqttcore import Broker, Listener
from mqttcore.codec import (
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Will,
)
from mqttcore.http import websocket_handler
from websocket_wire import (
    ACCEPT,
    BINARY,
    BROKEN_FRAMING,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    close_frame,
    frame,
    upgrade_request,
)

from .clients import address_of, until
from .conftest import quiet_config

CONNECT = Connect("ws").encode(5)


def http(**settings) -> Listener:
    return Listener(port=0, protocol="http", **settings)


async def join(broker: Broker, connect: Connect | None = None) -> RawWebSocket:
    """Open a WebSocket and connect in it."""
    client = await RawWebSocket.open(*address_of(broker))
    await client.send(frame((connect or Connect("ws")).encode(5)))
    connack = await client.frame()
    assert connack.opcode == BINARY
    assert isinstance(Decoder(5).feed(connack.payload)[0], ConnAck)
    return client


async def receive(client: RawWebSocket, decoder: Decoder) -> list:
    """Return the packets of the next frame that completes any."""
    while True:
        one = await client.frame()
        assert one.opcode == BINARY
        if packets := list(decoder.feed(one.payload)):
            return packets


# --- the upgrade ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [("mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1"), ("chat, mqtt", "mqtt"), ("mqttv3.1,mqtt", "mqttv3.1"), (None, None)],
)
async def test_upgrade_agrees_on_a_subprotocol(driver, offered, agreed):
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(upgrade_request(protocols=offered))
        answer = await client.answer()
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == ACCEPT
        assert answer.headers.get("sec-websocket-protocol") == agreed
        assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (upgrade_request(protocols="chat"), 400),
        (upgrade_request(sec_websocket_key="c2hvcnQ="), 400),
        (upgrade_request(sec_websocket_key="not base64"), 400),
        (upgrade_request(leave_out="sec-websocket-key"), 400),
        (upgrade_request(sec_websocket_version="8"), 426),
        (upgrade_request(leave_out="sec-websocket-version"), 426),
        (upgrade_request(leave_out="upgrade"), 426),
        (upgrade_request(connection="keep-alive"), 426),
        (upgrade_request(path="/other"), 404),
        (upgrade_request().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (upgrade_request().replace(b"GET", b"POST"), 405),
        (upgrade_request(content_length="2") + b"\x82\x80", 400),
        (upgrade_request(transfer_encoding="chunked") + b"0\r\n\r\n", 400),
        (upgrade_request()[:-2] + upgrade_request().split(b"\r\n")[4] + b"\r\n\r\n", 400),
    ],
)
async def test_what_is_no_upgrade_to_mqtt_is_refused(request_bytes, status):
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(request_bytes)
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        if answer.status == 426 and "sec-websocket-version" in answer.headers:
            assert answer.headers["sec-websocket-version"] == "13"


async def test_connection_goes_on_with_http_after_a_refusal():
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(upgrade_request(protocols="chat"))
        answer = await client.answer()
        await client.reader.readexactly(int(answer.headers["content-length"]))
        await client.send(upgrade_request())
        assert (await client.answer()).status == 101


async def test_subprotocol_can_be_required():
    listener = http(websocket_subprotocol_required=True)
    async with Broker(quiet_config(listener)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(upgrade_request(protocols=None))
        assert (await client.answer()).status == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://shop.example", 101), ("https://SHOP.example", 101), ("https://evil.example", 403), ("null", 403)],
)
async def test_origins_are_an_allow_list(origin, status):
    listener = http(websocket_origins=["https://shop.example"])
    async with Broker(quiet_config(listener)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(upgrade_request(origin=origin))
        assert (await client.answer()).status == status


LOCAL = ["http://localhost:8000", "https://127.0.0.1", "http://[::1]:80", "http://chat.localhost", "file://"]
FOREIGN = [
    "https://evil.example",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "null",
    "http://[",
    "",
]


@pytest.mark.parametrize("origin", [*LOCAL, *FOREIGN])
async def test_pages_from_elsewhere_are_not_this_machine(origin):
    """Without a word about anonymous clients, those on this machine may come in: a browser, not what it shows."""
    for listener, status in (
        (http(), 101 if origin in LOCAL else 403),
        (http(allow_anonymous=True), 101),
        (http(allow_anonymous=False), 101),  # they have to authenticate
    ):
        async with Broker(quiet_config(listener)) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
            await client.send(upgrade_request(origin=origin))
            assert (await client.answer()).status == status


async def test_clients_that_are_no_pages_have_no_origin():
    async with Broker(quiet_config(http(websocket_origins=["https://shop.example"]))) as broker:
        await (await join(broker)).close()


async def test_path_is_a_setting_and_can_be_off():
    listeners = [http(name="a", websocket_path="/ws/v1"), http(name="b", websocket_path="")]
    async with Broker(quiet_config(*listeners)) as broker:
        (_, host, port), (_, off_host, off_port) = broker.addresses
        await (await RawWebSocket.open(host, port, path="/ws/v1")).close()
        async with await RawWebSocket.connect(off_host, off_port) as client:
            await client.send(upgrade_request())
            assert (await client.answer()).status == 404


async def test_what_comes_with_the_upgrade_is_not_lost(driver):
    """CONNECT and a torn SUBSCRIBE in the same segment as the request."""
    packets = frame(CONNECT) + frame(Subscribe(1, [Subscription("a")]).encode(5))
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.connect(*address_of(broker)) as client:
        await client.send(upgrade_request() + packets[:-3])
        assert (await client.answer()).status == 101
        decoder = Decoder(5)
        assert isinstance((await receive(client, decoder))[0], ConnAck)
        await client.send(packets[-3:])
        assert isinstance((await receive(client, decoder))[0], SubAck)


# --- frames in --------------------------------------------------------------------------------------------------------


async def test_packets_and_frames_have_nothing_to_do_with_each_other(driver):
    """Several packets in a frame, one over several frames and fragments, control frames between [MQTT-6.0.0-2]."""
    async with Broker(quiet_config(http())) as broker, await join(broker) as client:
        decoder = Decoder(5)
        stream = Subscribe(1, [Subscription("a")]).encode(5) + Publish("a", b"x" * 300).encode(5) + PingReq().encode(5)
        pieces = [stream[:1], stream[1:7], b"", stream[7:200], stream[200:]]
        sent = frame(pieces[0]) + frame(pieces[1], fin=False) + frame(b"beat", PING)
        sent += frame(pieces[2], CONTINUATION, fin=False) + frame(pieces[3], CONTINUATION) + frame(pieces[4])
        await client.send(sent)
        packets, pongs = [], []
        while len(packets) < 3:
            one = await client.frame()
            if one.opcode == PONG:
                pongs.append(one.payload)
            else:
                packets += decoder.feed(one.payload)
        assert [type(packet) for packet in packets] == [SubAck, Publish, PingResp]
        assert packets[1].payload == b"x" * 300
        assert pongs == [b"beat"]


async def test_frames_can_be_torn_at_every_byte(driver):
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.open(*address_of(broker)) as client:
        for byte in frame(CONNECT) + frame(b"?", PING):
            await client.send(bytes([byte]))
        # what comes in one read is answered in any order: a PONG goes at once, packets at the end of the turn
        answers = [await client.frame() for _ in range(2)]
        assert sorted(one.opcode for one in answers) == [BINARY, PONG]
        assert b"?" in [one.payload for one in answers]


@pytest.mark.parametrize("size", [125, 126, 127, 65535, 65536, 300_000])
async def test_every_length_of_frames_both_ways(driver, size):
    async with Broker(quiet_config(http())) as broker, await join(broker) as client:
        decoder = Decoder(5)
        await client.send(frame(Subscribe(1, [Subscription("a")]).encode(5)))
        await receive(client, decoder)
        packet = Publish("a", b"").encode(5)
        payload = bytes(i * 7 & 0xFF for i in range(size - len(packet)))
        await client.send(frame(Publish("a", payload).encode(5)))
        assert [one.payload for one in await receive(client, decoder)] == [payload]


@pytest.mark.parametrize(("sent", "code"), BROKEN_FRAMING.values(), ids=BROKEN_FRAMING)
async def test_broken_framing_closes_with_its_code(driver, sent, code):
    async with Broker(quiet_config(http())) as broker, await RawWebSocket.open(*address_of(broker)) as client:
        await client.send(sent)
        frames = await client.end()
        assert [one.close_code for one in frames] == [code]
        await until(lambda: broker.metrics()["connections"] == 0)
        assert broker.metrics()["protocol_errors"] == 1


async def test_broken_framing_publishes_the_will(driver):
    async with Broker(quiet_config(http())) as broker, broker.subscribe("gone") as messages:
        async with await join(broker, Connect("ws", will=Will("gone", b"!"))) as client:
            await client.send(frame(b"hello", TEXT))
            assert (await client.end())[-1].close_code == 1003
        async with asyncio.timeout(60):
            assert (await anext(messages)).payload == b"!"


async def test_fragments_count_together(driver):
    listener = http(websocket_message_bytes_maximum=200)
    async with Broker(quiet_config(listener)) as broker, await join(broker) as client:
        piece = Publish("a", b"x" * 90).encode(5)
        await client.send(frame(piece) * 5)  # messages of their own: fine
        await client.send(frame(piece, fin=False) + frame(piece, CONTINUATION, fin=False) + frame(piece, CONTINUATION))
        assert [one.close_code for one in await client.end()] == [1009]


async def test_ping_flood_is_cut_off(driver):
    async with Broker(quiet_config(http(websocket_pings_per_s_maximum=5))) as broker, await join(broker) as client:
        await client.send(frame(b"", PING) * 100)
        frames = await client.end()
        assert frames[-1].close_code == 1008
        assert len(frames) <= 7


async def test_only_the_last_ping_has_to_be_answered(driver):
    """So pings that come together cost one answer, and none is kept for long."""
    async with Broker(quiet_config(http())) as broker, await join(broker) as client:
        await client.send(b"".join(frame(bytes([number]), PING) for number in range(20)))
        while (one := await client.frame()).payload != bytes([19]):
            assert one.opcode == PONG


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_close_is_answered_with_its_code_and_the_connection_ended(driver):
    async with Broker(quiet_config(http())) as broker, broker.subscribe("gone") as messages:
        async with await join(broker, Connect("ws", will=Will("gone", b"!"))) as client:
            await client.send(close_frame(3001, "bye"))
            assert [one.close_code for one in await client.end()] == [3001]
        async with asyncio.timeout(60):  # there was no DISCONNECT [MQTT-3.1.2-8]
            assert (await anext(messages)).payload == b"!"


async def test_disconnect_is_followed_by_close(driver):
    async with Broker(quiet_config(http())) as broker, await join(broker) as client:
        await client.send(frame(Disconnect().encode(5)) + close_frame(1000))
        assert [one.close_code for one in await client.end()] == [1000]
        await until(lambda: broker.metrics()["connections"] == 0)


async def test_stopping_broker_says_so_in_both_protocols(driver):
    broker = Broker(quiet_config(http()))
    await broker.start()
    async with await join(broker) as client:
        stopping = asyncio.create_task(broker.stop())
        farewell, close = await client.end()
        assert Decoder(5).feed(farewell.payload)[0].reason_code == 0x8B
        assert close.close_code == 1001
        await client.close()
        await stopping


async def test_takeover_closes_the_older_connection(driver):
    async with Broker(quiet_config(http())) as broker, await join(broker) as old, await join(broker):
        farewell, close = await old.end()
        assert Decoder(5).feed(farewell.payload)[0].reason_code == 0x8E
        assert close.close_code == 1008


async def test_upgrade_without_connect_is_cut_off(driver):
    config = quiet_config(http(), connect_timeout_s=0.2)
    async with Broker(config) as broker, await RawWebSocket.open(*address_of(broker)) as client:
        assert [one.opcode for one in await client.end()] == [CLOSE]


async def test_places_of_the_listener_pass_on_with_the_connection(driver):
    async with Broker(quiet_config(http(max_connections=2))) as broker:
        clients = [await RawWebSocket.open(*address_of(broker)) for _ in range(2)]
        third = await RawWebSocket.connect(*address_of(broker))
        assert await third.frame() is None
        await clients.pop().close()
        await until(lambda: broker.metrics()["connections"] == 1)
        again = await RawWebSocket.open(*address_of(broker))
        for client in (*clients, third, again):
            await client.close()


# --- beside others ----------------------------------------------------------------------------------------------------


async def test_aiohttp_client_speaks_with_a_client_on_tcp(driver):
    """Framing by somebody else's client; a slow reader gets everything."""
    config = quiet_config(Listener(name="tcp", port=0), http(name="http"))
    async with Broker(config) as broker, aiohttp.ClientSession() as session:
        _, host, port = broker.addresses[1]
        async with session.ws_connect(f"http://{host}:{port}/mqtt", protocols=("mqtt",), max_msg_size=0) as ws:
            assert ws.protocol == "mqtt"
            await ws.send_bytes(Connect("aio").encode(5) + Subscribe(1, [Subscription("big/#")]).encode(5))
            decoder, packets = Decoder(5), []
            while len(packets) < 2:
                packets += decoder.feed((await ws.receive(60)).data)
            for number in range(40):
                broker.publish_nowait(f"big/{number}", bytes([number]) * 50_000)
            while len(packets) < 42:
                message = await ws.receive(60)
                assert message.type is WSMsgType.BINARY
                packets += decoder.feed(message.data)
            assert [packet.payload[:1] for packet in packets[2:]] == [bytes([number]) for number in range(40)]


async def test_handler_serves_an_application_of_ones_own(driver):
    async with Broker(quiet_config()) as broker:
        app = web.Application()
        app.router.add_get("/things", websocket_handler(broker, allow_anonymous=True), allow_head=False)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        client = await RawWebSocket.open(*runner.addresses[0], path="/things")
        await client.send(frame(CONNECT))
        assert isinstance(Decoder(5).feed((await client.frame()).payload)[0], ConnAck)
        assert broker.client("ws").is_connected
        await runner.cleanup()  # the application's end is not the connection's: it is the broker's
        await client.send(frame(PingReq().encode(5)))
        assert isinstance(Decoder(5).feed((await client.frame()).payload)[0], PingResp)
        await client.close()
