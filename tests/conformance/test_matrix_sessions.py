"""What a client finds again: every end of a connection, Clean Start of the next, session expiry and QoS crossed."""

from typing import Any

import pytest

from conversations.conftest import Start
from conversations.harness import NEVER_S, Peer, World
from mqttcore.codec import Connect, PubAck, PubComp, Publish, PubRec, PubRel
from mqttcore.constants import PropertyId, ReasonCode

ENDINGS = ["takeover", "cut", "disconnect"]
# version and session expiry; 3.1.1 has none or for ever
LIVES = [(5, 0), (5, 100), (5, NEVER_S), (4, 0), (4, NEVER_S)]
lives = pytest.mark.parametrize(("version", "expiry_s"), LIVES, ids=lambda value: str(value))
endings = pytest.mark.parametrize("ending", ENDINGS)
clean_starts = pytest.mark.parametrize("clean_start", [False, True], ids=["resume", "clean"])


def fields(version: int, expiry_s: int, *, clean_start: bool = False) -> dict[str, Any]:
    """Return CONNECT fields for a session of this life. In 3.1.1 one flag says both."""
    if version < 5:
        return {"clean_start": clean_start or expiry_s == 0}
    return {"clean_start": clean_start, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: expiry_s}}


async def end(peer: Peer, ending: str) -> None:
    """End a connection now, unless the next one is to take it over."""
    if ending == "cut":
        await peer.lose()
    elif ending == "disconnect":
        await peer.disconnect()


async def connect_again(
    world: World, first: Peer, ending: str, version: int, expiry_s: int, *, clean_start: bool
) -> tuple[Peer, bool]:
    """Connect the client `c` once more; its session survived when the standard says so, and CONNACK says the same."""
    survives = expiry_s > 0 and not clean_start
    second = await world.connect(
        "c", version, session_present=survives, **fields(version, expiry_s or 100, clean_start=clean_start)
    )
    if ending == "takeover":
        await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER if version == 5 else None)
        assert world.metrics["takeovers"] == 1
    return second, survives


@pytest.mark.mqtt5("3.1.2-4", "3.1.2-5", "3.1.2-6", "3.1.2-23", "3.1.4-3", "3.1.4-4", "3.2.2-2", "3.2.2-3", "3.3.1-1")
@lives
@endings
@clean_starts
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_to_the_client(
    start: Start, version: int, expiry_s: int, ending: str, clean_start: bool, qos: int
):
    world = await start(in_flight_maximum=1)
    first = await world.connect("c", version, **fields(version, expiry_s))
    await first.subscribe("t")
    writer = await world.connect("w", version)
    await writer.publish("t", b"in flight", qos=qos)
    in_flight = await first.receive()
    if qos:
        await writer.publish("t", b"queued", qos=qos)
    await end(first, ending)
    if ending != "takeover":
        await writer.publish("t", b"while away", qos=qos)
    second, survives = await connect_again(world, first, ending, version, expiry_s, clean_start=clean_start)
    if survives and qos:
        again = await second.receive_publish()
        assert again == Publish("t", b"in flight", qos=qos, packet_id=in_flight.packet_id, dup=True)
        for payload in (b"queued", b"while away")[: 1 + (ending != "takeover")]:
            message = await second.receive_publish()
            assert (message.payload, message.qos, message.dup) == (payload, qos, False)
    await second.expect_nothing()
    assert world.metrics["subscriptions"] == survives
    await writer.publish("t", b"new", qos=qos)
    if survives:
        assert (await second.receive_publish()).payload == b"new"
    await second.expect_nothing()
    assert (world.metrics["in_flight"], world.metrics["queued"]) == (0, 0)


@pytest.mark.mqtt5("3.1.2-4", "3.1.2-5", "3.1.2-23")
@lives
@endings
@clean_starts
async def test_qos_2_to_the_client_between_pubrec_and_pubcomp(
    start: Start, version: int, expiry_s: int, ending: str, clean_start: bool
):
    world = await start()
    first = await world.connect("c", version, **fields(version, expiry_s))
    await first.subscribe("t")
    writer = await world.connect("w", version)
    await writer.publish("t", b"once", qos=2)
    message = await first.receive()
    await first.send(PubRec(message.packet_id))
    await first.expect(PubRel(message.packet_id))
    await end(first, ending)
    second, survives = await connect_again(world, first, ending, version, expiry_s, clean_start=clean_start)
    if survives:
        await second.expect(PubRel(message.packet_id))  # not the message again
        await second.send(PubComp(message.packet_id))
    await second.expect_nothing()
    assert world.metrics["in_flight"] == 0


@pytest.mark.mqtt5("3.1.2-4", "3.1.2-5", "3.1.2-23")
@lives
@endings
@clean_starts
@pytest.mark.parametrize("released", [False, True], ids=["PUBREC", "PUBREL"])
async def test_qos_2_from_the_client(
    start: Start, version: int, expiry_s: int, ending: str, clean_start: bool, released: bool
):
    world = await start()
    reader = await world.connect("r", version)
    await reader.subscribe("t")
    first = await world.connect("c", version, **fields(version, expiry_s))
    await first.send(Publish("t", b"x", qos=2, packet_id=7))
    await first.expect(PubRec(7))
    if released:
        await first.send(PubRel(7))
        await first.expect(PubComp(7))
    assert (await reader.receive_publish()).payload == b"x"
    await end(first, ending)
    second, survives = await connect_again(world, first, ending, version, expiry_s, clean_start=clean_start)
    assert world.metrics["awaiting_release"] == (survives and not released)
    # The same identifier again: the open exchange, or a message of its own.
    await second.send(Publish("t", b"x", qos=2, packet_id=7, dup=True))
    await second.expect(PubRec(7))
    await second.send(PubRel(7))
    await second.expect(PubComp(7))
    if not survives or released:
        assert (await reader.receive_publish()).payload == b"x"
    await reader.expect_nothing()


@pytest.mark.mqtt5("3.1.2-4", "3.1.2-5", "3.1.2-23")
@lives
@endings
@clean_starts
async def test_subscriptions_and_their_options(
    start: Start, version: int, expiry_s: int, ending: str, clean_start: bool
):
    world = await start()
    first = await world.connect("c", version, **fields(version, expiry_s))
    await first.subscribe("a/+", qos=1, subscription_id=9 if version == 5 else 0)
    await first.subscribe("$share/g/b", qos=0)
    await end(first, ending)
    second, survives = await connect_again(world, first, ending, version, expiry_s, clean_start=clean_start)
    writer = await world.connect("w")
    await writer.publish("a/b", b"1", qos=2)
    await writer.publish("b", b"2", qos=2)
    if survives:
        message = await second.receive_publish()
        assert (message.payload, message.qos) == (b"1", 1)
        assert message.properties == ({PropertyId.SUBSCRIPTION_IDENTIFIER: [9]} if version == 5 else {})
        assert (await second.receive_publish()).payload == b"2"
    await second.expect_nothing()
    assert world.metrics["shared_groups"] == survives


@pytest.mark.mqtt5("3.1.2-23")
@pytest.mark.parametrize("expiry_s", [0, 1, 10, 100, NEVER_S])
@pytest.mark.parametrize("away_s", [0, 2, 50, 1_000_000])
@pytest.mark.parametrize("ending", ["cut", "disconnect"])
async def test_session_lives_as_long_as_its_expiry_says(start_clocked: Start, expiry_s: int, away_s: int, ending: str):
    world = await start_clocked(session_expiry_maximum_s=NEVER_S)
    first = await world.connect("c", **fields(5, expiry_s))
    await first.subscribe("t")
    writer = await world.connect("w")
    await end(first, ending)
    await writer.publish("t", b"x", qos=1)
    world.advance(away_s * 1000 + 500)
    survives = expiry_s > away_s
    assert (world.metrics["sessions"], world.metrics["subscriptions"]) == (1 + survives, survives)
    second = await world.connect("c", session_present=survives, **fields(5, 100))
    if survives:
        assert (await second.receive_publish()).payload == b"x"
    await second.expect_nothing()


@pytest.mark.parametrize("before_s", [10, 100, NEVER_S])
@pytest.mark.parametrize("after_s", [0, 20, NEVER_S])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_each_connection_sets_the_expiry_anew(start_clocked: Start, before_s: int, after_s: int, ending: str):
    world = await start_clocked(session_expiry_maximum_s=NEVER_S)
    first = await world.connect("c", **fields(5, before_s))
    await first.subscribe("t")
    await end(first, ending)
    world.advance(5_000)
    second = await world.connect("c", session_present=True, **fields(5, after_s))
    world.advance(1_000_000)  # no expiry while there is a connection
    await second.expect_nothing()
    await second.lose()
    for elapsed_ms in (15_000, 10_000, 1_000_000):
        world.advance(elapsed_ms)
        alive = after_s == NEVER_S or (after_s == 20 and elapsed_ms == 15_000)
        assert (world.engine.session("c") is not None) == alive


@pytest.mark.parametrize(
    ("connect_s", "disconnect_s", "lives_s"),
    [(10, None, 10), (10, 0, 0), (10, 5, 5), (10, 50, 50), (10, NEVER_S, NEVER_S), (NEVER_S, 5, 5), (0, 0, 0)],
)
async def test_disconnect_may_change_the_expiry(
    start_clocked: Start, connect_s: int, disconnect_s: int | None, lives_s: int
):
    world = await start_clocked(session_expiry_maximum_s=NEVER_S)
    peer = await world.connect("c", **fields(5, connect_s))
    await peer.disconnect(0, None if disconnect_s is None else {PropertyId.SESSION_EXPIRY_INTERVAL: disconnect_s})
    if lives_s:
        world.advance(min(lives_s, 1_000_000) * 1000 - 200)
        assert world.engine.session("c") is not None
    if lives_s != NEVER_S:
        world.advance(300)
        assert world.engine.session("c") is None


async def test_disconnect_may_not_raise_the_expiry_from_zero(start: Start):
    world = await start()
    peer = await world.connect("c", **fields(5, 0))
    await peer.send(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05")
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("3.1.4-3", "3.1.4-4")
@pytest.mark.parametrize("old", [3, 4, 5])
@pytest.mark.parametrize("new", [3, 4, 5])
@clean_starts
async def test_takeover_between_versions(start: Start, old: int, new: int, clean_start: bool):
    world = await start()
    first = await world.connect("c", old, **fields(old, NEVER_S))
    await first.subscribe("t", qos=1)
    # 3.1 has no Session Present
    second = await world.connect(
        "c", new, session_present=not clean_start and new > 3, **fields(new, NEVER_S, clean_start=clean_start)
    )
    await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER if old == 5 else None)
    await second.publish("t", b"x", qos=1, packet_id=9)
    if not clean_start:
        assert (await second.receive_publish()).payload == b"x"
    await second.expect_nothing()


async def test_two_that_take_over_from_each_other_again_and_again(start: Start):
    world = await start()
    peer = await world.connect("c", **fields(5, 100))
    await peer.subscribe("t")
    writer = await world.connect("w")
    for i in range(20):
        await writer.publish("t", b"%d" % i, qos=1)
        other = await world.connect("c", session_present=True, **fields(5, 100))
        seen = await peer.receive()
        assert seen.payload == b"%d" % i
        await peer.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
        again = await other.receive()
        assert (again.packet_id, again.dup) == (seen.packet_id, True)
        await other.send(PubAck(again.packet_id))
        peer = other
    await peer.expect_nothing()
    assert world.metrics["takeovers"] == 20
    assert world.metrics["sessions"] == 2


async def test_takeover_in_the_same_write_as_other_packets(start: Start):
    world = await start()
    first = await world.connect("c", **fields(5, 100))
    await first.subscribe("t", qos=1)
    second = await world.open()
    properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 100}
    await second.send(
        Connect("c", clean_start=False, keep_alive_s=0, properties=properties), Publish("t", b"x", qos=1, packet_id=3)
    )
    assert (await second.receive()).session_present
    kinds = {type(await second.receive()) for _ in range(2)}
    assert kinds == {Publish, PubAck}
    await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
