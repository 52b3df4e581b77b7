"""How much a client may send: token buckets, pauses, and the end of patience; and what nobody known may send."""

import pytest

from mqttcore.codec import Connect, Disconnect, PingReq, PingResp, PubAck, Publish
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.identity import Challenge, Identity, Quotas

from .conftest import Start
from .harness import Peer


def hooks(**quotas: float) -> HookTable:
    return HookTable(authenticate=lambda *_: Identity("user", quotas=Quotas(**quotas)))


async def flood(peer: Peer, count: int, size: int = 1) -> None:
    await peer.send(b"".join(Publish("t", bytes(size)).encode(peer.version) for _ in range(count)))


async def test_client_over_its_rate_is_not_read_for_a_while(start_clocked: Start, version: int):
    world = await start_clocked(hooks=hooks(messages_per_s=10))
    peer = await world.connect("a", version)
    await flood(peer, 25)
    assert world.metrics["messages_received_qos0"] == 11  # a second's worth, and the one that told
    assert peer.connection.is_paused
    world.advance(1_000)
    assert world.metrics["messages_received_qos0"] == 21
    world.advance(1_000)
    assert world.metrics["messages_received_qos0"] == 25
    assert not peer.connection.is_paused
    assert world.metrics["rate_limited"] == 2
    await peer.send(PingReq())
    await peer.expect(PingResp())


async def test_bytes_are_counted_as_well(start_clocked: Start):
    world = await start_clocked(hooks=hooks(bytes_per_s=1000))
    peer = await world.connect("a")
    await flood(peer, 3, size=5_000)  # one is more than a second's worth: it costs five
    assert world.metrics["messages_received_qos0"] == 1
    world.advance(3_900)
    assert world.metrics["messages_received_qos0"] == 1
    world.advance(300)
    assert world.metrics["messages_received_qos0"] == 2


async def test_rate_of_the_broker_is_for_every_client_by_itself(start_clocked: Start):
    world = await start_clocked(messages_per_s=5)
    first, second = await world.connect("a"), await world.connect("b")
    await flood(first, 8)
    await flood(second, 4)
    assert world.metrics["messages_received_qos0"] == 6 + 4
    assert (first.connection.is_paused, second.connection.is_paused) == (True, False)


async def test_the_stricter_rate_counts(start_clocked: Start):
    world = await start_clocked(hooks=hooks(messages_per_s=3, bytes_per_s=1e9), messages_per_s=5)
    peer = await world.connect("a")
    await flood(peer, 8)
    assert world.metrics["messages_received_qos0"] == 4


async def test_client_within_its_rate_is_never_paused(start_clocked: Start):
    world = await start_clocked(hooks=hooks(messages_per_s=10))
    peer = await world.connect("a")
    for _ in range(100):
        await flood(peer, 5)
        world.advance(500)
    assert world.metrics["rate_limited"] == 0
    assert world.metrics["messages_received_qos0"] == 500


async def test_client_that_presses_on_is_disconnected(start_clocked: Start, version: int):
    world = await start_clocked(hooks=hooks(messages_per_s=10), rate_excess_maximum_s=5)
    peer = await world.connect("a", version)
    for _ in range(4):
        await flood(peer, 15)
        world.advance(1_000)
    assert not peer.connection.is_closed
    for _ in range(3):
        await flood(peer, 15)
        world.advance(1_000)
    await peer.expect_closed(ReasonCode.MESSAGE_RATE_TOO_HIGH if version == 5 else None)


async def test_client_that_gives_way_is_forgiven(start_clocked: Start):
    world = await start_clocked(hooks=hooks(messages_per_s=10), rate_excess_maximum_s=5)
    peer = await world.connect("a")
    for _ in range(10):
        await flood(peer, 12)
        world.advance(3_000)
    assert world.metrics["rate_limited"] == 10
    assert not peer.connection.is_closed


async def test_patience_without_end_by_setting(start_clocked: Start):
    world = await start_clocked(messages_per_s=10, rate_excess_maximum_s=0)
    peer = await world.connect("a")
    await flood(peer, 400)
    for _ in range(45):
        world.advance(1_000)
    assert world.metrics["messages_received_qos0"] == 400


async def test_rates_begin_anew_with_another_identity(start_clocked: Start):
    world = await start_clocked(hooks=hooks(messages_per_s=1))
    peer = await world.connect("a")
    await flood(peer, 10)
    assert world.metrics["messages_received_qos0"] == 2
    world.engine.set_identity("a", Identity("user", quotas=Quotas(messages_per_s=5)))
    assert world.metrics["messages_received_qos0"] == 8
    world.engine.set_identity("a", Identity("user"))
    assert world.metrics["messages_received_qos0"] == 10
    assert not peer.connection.is_paused


async def test_client_that_is_paused_may_go(start_clocked: Start):
    world = await start_clocked(hooks=hooks(messages_per_s=1))
    peer = await world.connect("a")
    await flood(peer, 10)
    await peer.lose()
    world.advance(5_000)
    assert world.metrics["connections"] == 0


async def test_rate_over_sockets(start: Start):
    world = await start(messages_per_s=200)
    peer = await world.connect("a")
    packets = [Publish("t", b"", qos=1, packet_id=i) for i in range(1, 251)]
    await peer.send(*packets)
    if world.has_clock:
        world.advance(1_000)
    for i in range(1, 251):
        await peer.expect(PubAck(i, ReasonCode.NO_MATCHING_SUBSCRIBERS))
    assert world.metrics["rate_limited"] >= 1


# --- before anybody is known


async def test_connect_over_its_limit_is_refused_before_it_is_kept(start: Start, any_version: int):
    world = await start(connect_packet_bytes_maximum=2_000)
    fits = await world.connect("a", any_version, user_name="u" * 1_900)
    await fits.publish("t", bytes(50_000))  # known by now
    peer = await world.open(any_version)
    data = Connect("b", protocol_version=any_version, user_name="u" * 2_000).encode(any_version)
    await peer.send(data[:4])
    await peer.expect_closed()


async def test_auth_over_the_limit_of_connect_is_refused(start_clocked: Start):
    method = {PropertyId.AUTHENTICATION_METHOD: "m"}
    table = HookTable(authenticate=lambda *_: Challenge(b"?"), continue_authentication=lambda *_: Identity("user"))
    world = await start_clocked(hooks=table, connect_packet_bytes_maximum=2_000)
    peer = await world.open()
    await peer.send(Connect("a", properties=method))
    await peer.receive()
    await peer.send(b"\xf0\xff\xff\x03")
    await peer.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.parametrize("size", [70_000, 130_000])
async def test_long_fields_are_taken_by_default(start_clocked: Start, size: int):
    world = await start_clocked()
    await world.connect("a", user_name="u" * (size // 2), password=b"p" * (size // 2))


async def test_closing_is_said_once(start_clocked: Start):
    world = await start_clocked(hooks=hooks(messages_per_s=1), rate_excess_maximum_s=0.1)
    peer = await world.connect("a")
    await flood(peer, 3)
    world.advance(1_500)
    said = await peer.receive()
    assert isinstance(said, Disconnect)
    assert world.metrics["packets_sent_disconnect"] == 1
