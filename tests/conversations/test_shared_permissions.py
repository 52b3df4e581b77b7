"""Shared subscriptions whose members may not all hear everything: another one gets what one may not have."""

from typing import Any

import pytest

from mqttcore.codec import PubRec
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.engine.watch import Watch
from mqttcore.identity import Action, Identity, Permission

from .conftest import Start
from .harness import Peer, World

LASTING: dict[str, Any] = {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}}


class Deaf:
    """`authorize_deliver` that keeps some clients from hearing anything, and counts whom it was asked about."""

    def __init__(self, *client_ids: str) -> None:
        self.client_ids = set(client_ids)
        self.asked: list[str] = []
        self.hooks = HookTable(authorize_deliver=self)

    def __call__(self, client: Any, message: Any) -> bool:
        self.asked.append(client.client_id)
        return client.client_id not in self.client_ids


async def members(world: World, count: int, topic_filter: str = "$share/g/t/#", **fields: Any) -> list[Peer]:
    found = [await world.connect(f"m{i}", **fields) for i in range(count)]
    for peer in found:
        await peer.subscribe(topic_filter, qos=2)
    return found


async def payloads(peer: Peer, count: int) -> list[bytes]:
    found = [(await peer.receive_publish()).payload for _ in range(count)]
    await peer.expect_nothing()
    return found


def dropped(world: World) -> dict[str, int]:
    """The counters of dropped messages that are not zero."""
    prefix = "messages_dropped_"
    return {key.removeprefix(prefix): value for key, value in world.metrics.items() if key.startswith(prefix) and value}


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("strategy", ["round_robin", "sticky", "hash"])
async def test_another_member_gets_what_one_may_not_hear(start_clocked: Start, strategy: str, qos: int):
    world = await start_clocked(hooks=Deaf("m0", "m2").hooks, share_strategy=strategy)
    group = await members(world, 3)
    writer = await world.connect("w")
    for i in range(6):
        await writer.publish(f"t/{i}", b"%d" % i, qos=qos)
    assert await payloads(group[1], 6) == [b"%d" % i for i in range(6)]
    await group[0].expect_nothing()
    await group[2].expect_nothing()
    assert dropped(world) == {}


async def test_the_turn_goes_on_behind_who_took_it(start_clocked: Start):
    world = await start_clocked(hooks=Deaf("m0").hooks)
    group = await members(world, 3)
    writer = await world.connect("w")
    for i in range(6):
        await writer.publish("t/x", b"%d" % i, qos=1)
    assert len(await payloads(group[1], 3)) == 3  # not all that m0 may not have
    assert len(await payloads(group[2], 3)) == 3
    assert dropped(world) == {}


async def test_what_no_member_may_hear_is_dropped_and_counted_once(start_clocked: Start):
    deaf = Deaf("m0", "m1", "m2")
    world = await start_clocked(hooks=deaf.hooks)
    group = await members(world, 3)
    everything = await world.connect("all")
    await everything.subscribe("t/#")
    writer = await world.connect("w")
    for qos in (0, 1, 2):
        await writer.publish("t/x", b"x", qos=qos)
    for peer in group:
        await peer.expect_nothing()
    assert len(await payloads(everything, 3)) == 3
    assert sorted(deaf.asked) == sorted(["m0", "m1", "m2", "all"] * 3)  # each once a message
    assert dropped(world) == {"not_authorized": 3}
    assert sum(world.engine.session(f"m{i}").dropped for i in range(3)) == 3


async def test_member_whose_mount_point_hides_a_topic(start: Start):
    world = await start(mount_points=("", "t/"))
    inside = await world.connect("inside", mount_point="t/")
    await inside.subscribe("$share/g/#", qos=1)
    outside = await world.connect("outside")
    await outside.subscribe("$share/g/t/#", qos=1)  # the same group, by its whole name
    writer = await world.connect("w")
    for i in range(4):
        await writer.publish("t/$x", b"%d" % i, qos=1)  # inside it would begin with $
    assert await payloads(outside, 4) == [b"0", b"1", b"2", b"3"]
    await inside.expect_nothing()
    await outside.disconnect()
    await writer.publish("t/$x", b"x", qos=1)
    await inside.expect_nothing()
    assert dropped(world) == {"not_authorized": 1}


async def test_member_without_a_connection_gets_it_only_when_none_with_one_may(start_clocked: Start):
    world = await start_clocked(hooks=Deaf("m1").hooks)
    away, deaf, hearing = await members(world, 3, **LASTING)
    await away.lose()
    writer = await world.connect("w")
    for i in range(3):
        await writer.publish("t/x", b"%d" % i, qos=1)
    assert len(await payloads(hearing, 3)) == 3
    await hearing.lose()
    await writer.publish("t/x", b"later", qos=1)
    await deaf.expect_nothing()
    assert world.metrics["queued"] == 1
    assert dropped(world) == {}


async def test_queued_goes_to_a_member_for_whom_it_is_kept(start: Start):
    world = await start()
    peers = [await world.connect(f"m{i}", **LASTING) for i in range(2)]
    for qos, peer in enumerate(peers):
        await peer.subscribe("$share/g/t", qos=qos)
        await peer.lose()
    writer = await world.connect("w")
    for i in range(4):
        await writer.publish("t", b"%d" % i, qos=1)
    assert world.metrics["queued"] == 4
    peer = await world.connect("m1", session_present=True, **LASTING)
    assert await payloads(peer, 4) == [b"0", b"1", b"2", b"3"]


async def test_queued_message_that_a_member_may_not_hear_any_more(start_clocked: Start):
    deaf = Deaf()
    world = await start_clocked(hooks=deaf.hooks)
    one, two = await members(world, 2, **LASTING)
    await one.lose()
    await two.lose()
    writer = await world.connect("w")
    for i in range(4):
        await writer.publish("t/x", b"%d" % i, qos=1)  # two each
    deaf.client_ids.add("m0")
    one = await world.connect("m0", session_present=True, **LASTING)
    await one.expect_nothing()
    assert (world.engine.session("m0").queued, world.metrics["queued"]) == (0, 4)
    two = await world.connect("m1", session_present=True, **LASTING)
    assert sorted(await payloads(two, 4)) == [b"0", b"1", b"2", b"3"]
    assert dropped(world) == {}


@pytest.mark.parametrize("qos", [1, 2])
async def test_message_in_flight_that_a_member_may_not_hear_any_more(start_clocked: Start, qos: int):
    deaf = Deaf()
    world = await start_clocked(hooks=deaf.hooks)
    one = await world.connect("m0", **LASTING)
    await one.subscribe("$share/g/t", qos=2)
    writer = await world.connect("w")
    await writer.publish("t", b"x", qos=qos)
    await one.receive()
    await one.lose()
    two = await world.connect("m1")
    await two.subscribe("$share/g/t", qos=2)
    deaf.client_ids.add("m0")
    one = await world.connect("m0", session_present=True, **LASTING)
    await one.expect_nothing()
    if qos == 1:
        assert await payloads(two, 1) == [b"x"]
        assert dropped(world) == {}
    else:  # it may have come to m0 already [MQTT-4.8.2-4] [MQTT-4.8.2-5]
        await two.expect_nothing()
        assert dropped(world) == {"not_authorized": 1}
    assert world.metrics["in_flight"] == 0


async def test_message_that_a_member_refuses_goes_to_nobody_else(start_clocked: Start):
    # [MQTT-4.8.2-6]: heard and refused is not unheard.
    world = await start_clocked(hooks=Deaf("m0").hooks)
    group = await members(world, 3)
    writer = await world.connect("w")
    await writer.publish("t/x", b"x", qos=2)
    message = await group[1].receive()
    await group[1].send(PubRec(message.packet_id, ReasonCode.NOT_AUTHORIZED))
    for peer in group:
        await peer.expect_nothing()
    assert world.metrics["in_flight"] == 0


async def test_rights_that_are_taken_away_give_the_queue_to_another(start_clocked: Start):
    identities = {"m0": Identity("m", (Permission(Action.ALL, "t/#"),)), "m1": Identity("m")}
    hooks = HookTable(authenticate=lambda client, connect: identities.get(client.client_id, Identity("w")))
    world = await start_clocked(hooks=hooks)
    one, two = await members(world, 2, **LASTING)
    await one.lose()
    await two.lose()
    writer = await world.connect("w")
    for i in range(4):
        await writer.publish("t/x", b"%d" % i, qos=1)
    identities["m0"] = Identity("m", (Permission(Action.ALL, "other"),))
    one = await world.connect("m0", session_present=True, **LASTING)
    await one.expect_nothing()
    two = await world.connect("m1", session_present=True, **LASTING)
    assert sorted(await payloads(two, 4)) == [b"0", b"1", b"2", b"3"]
    assert dropped(world) == {}


@pytest.mark.parametrize("deed", ["unsubscribe", "end", "end all", "join"])
async def test_hook_may_change_the_group_while_it_is_asked(start_clocked: Start, deed: str):
    done: list[str] = []

    def hook(client: Any, message: Any) -> bool:
        engine = world.engine
        done.append(client.client_id)
        if deed == "unsubscribe":
            engine.unsubscribe_client(client.client_id, b"$share/g/t/#")
        elif deed == "end":
            engine.discard_session(client.client_id)
        elif deed == "end all":
            for i in range(4):
                engine.discard_session(f"m{i}")
        else:
            for i in range(4, 20):  # the table of members moves
                engine.subscribe_client(f"m{i}", b"$share/g/t/#", 1, 0)
        return client.client_id == "m3" and deed != "end all"

    world = await start_clocked(hooks=HookTable(authorize_deliver=hook))
    peers = [await world.connect(f"m{i}") for i in range(20)]
    for peer in peers[:4]:
        await peer.subscribe("$share/g/t/#", qos=1)
    writer = await world.connect("w")
    await writer.publish("t/x", b"x", qos=1)
    assert len(done) <= 8  # bounded by the members there were, in two rounds
    if deed == "join":
        assert await payloads(peers[3], 1) == [b"x"]
        assert dropped(world) == {}
    else:
        assert sum(dropped(world).values()) <= 1
    await writer.publish("other", b"x", qos=1)


async def test_who_watches_sees_why_another_got_it(start_clocked: Start):
    world = await start_clocked(hooks=Deaf("m0").hooks)
    seen: list[Any] = []
    world.engine.add_watch(Watch("topic_filter", "t/#", seen.append, lambda error: seen.append(error)))
    group = await members(world, 2)
    writer = await world.connect("w")
    await writer.publish("t/x", b"x")
    assert await payloads(group[1], 1) == [b"x"]
    assert [(type(one).__name__, one.client_id) for one in seen] == [
        ("Published", "w"),
        ("MessagePassedBy", "m0"),
        ("PacketSeen", "m1"),
    ]
    assert seen[1].reason == "not_authorized"
