"""The client against a scripted server: what it acknowledges and when, its limits, and how it ends."""

import asyncio
import socket

import pytest

from mqttcore.client import open_client, reason_text
from mqttcore.codec import (
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
)
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.errors import ClientError, ConnectionLost, ConnectionRefused

DEADLINE_S = 60.0


async def connected(server, version=5, connack=None, queue_maximum=1000, in_flight_maximum=20, **connect):
    """Return a connected client and the server's end."""
    opening = asyncio.ensure_future(
        open_client(
            Connect("c", protocol_version=version, **connect),
            host="127.0.0.1",
            port=server.port,
            queue_maximum=queue_maximum,
            in_flight_maximum=in_flight_maximum,
        )
    )
    peer = await server.peer()
    await peer.accept(properties=connack or {})
    return await opening, peer


async def closed(client, peer):
    """Close and see DISCONNECT as the last packet."""
    closing = asyncio.ensure_future(client.close())
    await peer.expect(Disconnect)
    await peer.close()
    await closing


@pytest.mark.parametrize("version", [3, 4, 5])
async def test_publish_at_every_qos_and_close(server, version):
    client, peer = await connected(server, version)
    assert await client.publish("a", b"0") == 0
    first = asyncio.ensure_future(client.publish("a", b"1", qos=1))
    second = asyncio.ensure_future(client.publish("a", b"2", qos=2, retain=True))
    assert await peer.expect(Publish) == Publish("a", b"0")
    assert await peer.expect(Publish) == Publish("a", b"1", qos=1, packet_id=1)
    assert await peer.expect(Publish) == Publish("a", b"2", qos=2, packet_id=2, retain=True)
    await peer.send(PubRec(2), PubAck(1))
    assert await peer.expect(PubRel) == PubRel(2)
    await peer.send(PubComp(2))
    assert [await first, await second] == [0, 0]
    await closed(client, peer)


async def test_reason_codes_of_acknowledgements_are_returned(server):
    client, peer = await connected(server)
    first = asyncio.ensure_future(client.publish("a", qos=1))
    second = asyncio.ensure_future(client.publish("a", qos=2))
    await peer.expect(Publish)
    await peer.expect(Publish)
    await peer.send(PubAck(1, ReasonCode.NO_MATCHING_SUBSCRIBERS), PubRec(2, ReasonCode.QUOTA_EXCEEDED))
    assert await first == ReasonCode.NO_MATCHING_SUBSCRIBERS
    assert await second == ReasonCode.QUOTA_EXCEEDED
    await closed(client, peer)


async def test_subscribe_and_unsubscribe_return_reason_codes(server):
    client, peer = await connected(server)
    subscribing = asyncio.ensure_future(client.subscribe([Subscription("a", 1), Subscription("b/#", 2)]))
    packet = await peer.expect(Subscribe)
    await peer.send(SubAck(packet.packet_id, [1, ReasonCode.NOT_AUTHORIZED]))
    assert await subscribing == (1, ReasonCode.NOT_AUTHORIZED)
    unsubscribing = asyncio.ensure_future(client.unsubscribe(["a"]))
    packet = await peer.expect(Unsubscribe)
    await peer.send(UnsubAck(packet.packet_id, [ReasonCode.NO_SUBSCRIPTION_EXISTED]))
    assert await unsubscribing == (ReasonCode.NO_SUBSCRIPTION_EXISTED,)
    await closed(client, peer)


async def test_message_is_acknowledged_when_it_is_received_not_before(server):
    client, peer = await connected(server)
    await peer.send(Publish("a", b"1", qos=1, packet_id=7), Publish("a", b"2", qos=2, packet_id=8))
    publishing = asyncio.ensure_future(client.publish("fence", qos=1))
    fence = await peer.expect(Publish)  # nothing but the fence
    await peer.send(PubAck(fence.packet_id))
    await publishing
    assert client.waiting == 2
    assert (await client.receive()).payload == b"1"
    assert await peer.expect(PubAck) == PubAck(7)
    assert (await client.receive()).payload == b"2"
    assert await peer.expect(PubRec) == PubRec(8)
    await peer.send(PubRel(8))
    assert await peer.expect(PubComp) == PubComp(8)
    await closed(client, peer)


async def test_repeated_qos_2_message_is_received_once(server):
    client, peer = await connected(server)
    first = Publish("a", b"x", qos=2, packet_id=8)
    again = Publish("a", b"x", qos=2, packet_id=8, dup=True)
    await peer.send(first, again)
    await client.receive()
    await peer.expect(PubRec)
    await peer.send(again)
    await peer.expect(PubRec)
    await peer.send(PubRel(8), first)
    await peer.expect(PubComp)
    assert (await client.receive()).payload == b"x"
    assert client.waiting == 0
    await peer.expect(PubRec)
    await peer.send(PubRel(9))
    assert await peer.expect(PubComp) == PubComp(9, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND)
    await closed(client, peer)


@pytest.mark.parametrize(("in_flight_maximum", "receive_maximum"), [(2, 10), (10, 2)])
async def test_no_more_under_way_than_both_sides_allow(server, in_flight_maximum, receive_maximum):
    client, peer = await connected(
        server, connack={PropertyId.RECEIVE_MAXIMUM: receive_maximum}, in_flight_maximum=in_flight_maximum
    )
    publishing = [asyncio.ensure_future(client.publish("a", b"%d" % number, qos=1)) for number in range(3)]
    await asyncio.sleep(0)  # let them start, so that the fence comes after what may be sent
    await client.publish("fence")
    assert [(await peer.expect(Publish)).payload for _ in range(3)] == [b"0", b"1", b""]
    await peer.send(PubAck(2))
    assert (await peer.expect(Publish)).payload == b"2"
    await peer.send(PubAck(1), PubAck(3))
    assert await asyncio.gather(*publishing) == [0, 0, 0]
    await closed(client, peer)


async def test_full_queue_stops_reading_until_messages_are_received(server):
    client, peer = await connected(server, queue_maximum=10)
    payload = b"x" * 50_000
    count = 400  # more than the socket buffers of both ends hold

    async def flood():
        for number in range(count):
            await peer.send(Publish("a", b"%d " % number + payload))

    flooding = asyncio.ensure_future(flood())
    assert not (await asyncio.wait({flooding}, timeout=0.3))[0]
    for number in range(count):
        # One read takes 256 KiB at most, and that is what can come beyond the ten.
        assert client.waiting <= 20
        async with asyncio.timeout(DEADLINE_S):
            assert (await client.receive()).payload.startswith(b"%d " % number)
    await flooding
    await closed(client, peer)


@pytest.mark.parametrize(
    ("version", "reason_code", "text"),
    [
        (5, ReasonCode.NOT_AUTHORIZED, "Not authorized: go away"),
        (4, ReasonCode.BAD_USER_NAME_OR_PASSWORD, "Bad user name or password"),
        (3, ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, "Client identifier not valid"),
    ],
)
async def test_refused_connection_says_why(server, version, reason_code, text):
    connect = Connect("c", protocol_version=version)
    opening = asyncio.ensure_future(open_client(connect, host="127.0.0.1", port=server.port))
    peer = await server.peer()
    await peer.expect(Connect)
    properties = {PropertyId.REASON_STRING: "go away"} if version == 5 else {}
    await peer.send(ConnAck(False, reason_code, properties))
    with pytest.raises(ConnectionRefused) as caught:
        await opening
    assert (caught.value.reason_code, caught.value.text) == (reason_code, text)


async def test_no_connack_in_time_is_an_error(server):
    with pytest.raises(ClientError, match=r"no answer within 1 s"):
        await open_client(Connect("c"), host="127.0.0.1", port=server.port, timeout_s=1)
    peer = await server.peer()
    await peer.expect(Connect)
    assert await peer.receive() is None


async def test_nobody_listening_is_an_error():
    with socket.socket() as bound:  # bound, not listening: nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(ClientError, match=f"cannot connect to 127.0.0.1:{port}: Connection refused"):
            await open_client(Connect("c"), host="127.0.0.1", port=port)


async def test_lost_connection_ends_every_wait(server):
    client, peer = await connected(server, in_flight_maximum=1)
    waits = [
        asyncio.ensure_future(wait)
        for wait in (
            client.publish("a", qos=1),
            client.publish("b", qos=1),  # waits for the window
            client.subscribe([Subscription("a")]),
            client.receive(),
            client.wait_closed(),
        )
    ]
    await peer.expect(Publish)
    await peer.expect(Subscribe)
    peer.cut()
    async with asyncio.timeout(DEADLINE_S):
        results = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionLost] * len(waits)
    with pytest.raises(ConnectionLost):
        await client.publish("c")
    await client.close()


async def test_disconnect_of_the_server_says_why(server):
    client, peer = await connected(server)
    await peer.send(Publish("a", b"last"), Disconnect(ReasonCode.SERVER_SHUTTING_DOWN))
    with pytest.raises(ConnectionLost, match="Server shutting down") as caught:
        await client.wait_closed()
    assert caught.value.reason_code == ReasonCode.SERVER_SHUTTING_DOWN
    assert (await client.receive()).payload == b"last"
    with pytest.raises(ConnectionLost):
        await client.receive()


@pytest.mark.parametrize(
    ("answer", "reason_code"),
    [
        (b"\x00\x00", ReasonCode.MALFORMED_PACKET),
        (PingReq().encode(5), ReasonCode.PROTOCOL_ERROR),
        (ConnAck().encode(5), ReasonCode.PROTOCOL_ERROR),
        (Publish("", b"x", properties={PropertyId.TOPIC_ALIAS: 1}).encode(5), ReasonCode.TOPIC_ALIAS_INVALID),
        (
            Auth(ReasonCode.CONTINUE_AUTHENTICATION, {PropertyId.AUTHENTICATION_METHOD: "m"}).encode(5),
            ReasonCode.BAD_AUTHENTICATION_METHOD,
        ),
    ],
)
async def test_server_that_breaks_the_protocol_is_told_and_left(server, answer, reason_code):
    client, peer = await connected(server)
    await peer.send_bytes(answer)
    with pytest.raises(ConnectionLost, match="broke the protocol"):
        await client.wait_closed()
    assert (await peer.expect(Disconnect)).reason_code == reason_code
    assert await peer.receive() is None


async def test_packet_larger_than_ours_to_take_is_refused(server):
    client, peer = await connected(server, properties={PropertyId.MAXIMUM_PACKET_SIZE: 100})
    await peer.send(Publish("a", b"x" * 100))
    with pytest.raises(ConnectionLost):
        await client.wait_closed()
    assert (await peer.expect(Disconnect)).reason_code == ReasonCode.PACKET_TOO_LARGE


async def test_topic_aliases_of_the_server_are_resolved(server):
    client, peer = await connected(server, properties={PropertyId.TOPIC_ALIAS_MAXIMUM: 2})
    alias = {PropertyId.TOPIC_ALIAS: 2}
    await peer.send(Publish("a/b", b"1", properties=alias), Publish("", b"2", properties=alias))
    assert [(await client.receive()).topic for _ in range(2)] == ["a/b", "a/b"]
    await closed(client, peer)


@pytest.mark.parametrize(
    ("connack", "publish", "text"),
    [
        ({PropertyId.MAXIMUM_QOS: 1}, {"qos": 2}, "QoS 1 at most"),
        ({PropertyId.RETAIN_AVAILABLE: 0}, {"retain": True}, "does not retain"),
        ({PropertyId.MAXIMUM_PACKET_SIZE: 50}, {"payload": b"x" * 50}, "50 bytes at most"),
        ({PropertyId.MAXIMUM_PACKET_SIZE: 50}, {"payload": b"x" * 50, "qos": 1}, "50 bytes at most"),
    ],
)
async def test_what_the_server_does_not_take_is_not_sent(server, connack, publish, text):
    client, peer = await connected(server, connack=connack, in_flight_maximum=1)
    with pytest.raises(ClientError, match=text):
        await client.publish("a", **publish)
    publishing = asyncio.ensure_future(client.publish("b", qos=1))  # the window is as wide as before
    packet = await peer.expect(Publish)
    assert packet.topic == "b"
    await peer.send(PubAck(packet.packet_id))
    assert await publishing == 0
    await closed(client, peer)


async def test_silence_is_broken_by_pings_and_a_dead_server_is_noticed(server):
    client, peer = await connected(server, connack={PropertyId.SERVER_KEEP_ALIVE: 1}, keep_alive_s=600)
    await peer.expect(PingReq)
    await peer.send(PingResp())
    await peer.expect(PingReq)
    with pytest.raises(ConnectionLost, match="PINGRESP"):
        await client.wait_closed()


async def test_assigned_client_identifier_is_the_client_id(server):
    client, peer = await connected(server, connack={PropertyId.ASSIGNED_CLIENT_IDENTIFIER: "given"})
    assert client.client_id == "given"
    await closed(client, peer)


async def test_leaving_the_block_disconnects_and_unread_messages_do_not_matter(server):
    client, peer = await connected(server, queue_maximum=1)
    await peer.send(*[Publish("a", b"x" * 1000, qos=1, packet_id=number) for number in range(1, 100)])
    async with client:
        await client.receive()
    assert await peer.expect(PubAck) == PubAck(1)
    await peer.expect(Disconnect)
    with pytest.raises(ClientError, match="closed"):
        await client.publish("a")
    await client.wait_closed()


def test_reason_texts():
    assert reason_text(0x87) == "Not authorized"
    assert reason_text(0x9B) == "QoS not supported"
    assert reason_text(0x9B, {PropertyId.REASON_STRING: "never"}) == "QoS not supported: never"
    assert reason_text(0x77) == "Unknown reason code 0x77"
