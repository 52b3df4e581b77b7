"""Faults that other brokers had to fix, as far as they live in codec and engine: each must stay impossible here.

Memory is counted in a process of its own (memory_probe.py), work in steps of the trie; no clock decides.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conversations.conftest import Start
from conversations.harness import Door, Peer
from mqttcore.codec import Auth, PubAck, Publish, UnsubAck
from mqttcore.config import Limits
from mqttcore.constants import PropertyId
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.identity import Challenge
from vectors import FAULTY, VALID

from .authentication import ACCEPT
from .hardening_bytes import assert_says, connect, packet, publish, subscribe, text, u16, unsubscribe, versions

TESTS = Path(__file__).parent.parent
DEADLINE_S = 100
SLACK_BYTES = 1 << 20  # what the allocator may come to hold without anybody keeping it
SLACK_BLOCKS = 200


def probe(work: str) -> dict[str, int]:
    """Run a work of memory_probe.py; what it printed."""
    paths = os.pathsep.join([str(TESTS), *(path for path in sys.path if path)])
    finished = subprocess.run(
        [sys.executable, "-m", "conformance.memory_probe", work],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def assert_flat(said: dict[str, int]) -> None:
    assert said["resident"] <= SLACK_BYTES
    assert said["blocks"] <= SLACK_BLOCKS


# --- memory from a declared length, before anybody is known: Mosquitto CVE-2017-7651, CVE-2023-0809


def test_declared_length_takes_no_memory_before_its_bytes_come():
    said = probe("silent_connections_with_a_declared_length")
    assert said["connections"] == 10_000
    assert said["address_space"] <= 10_000 * 1024  # bytes, of 130,000 that each announced
    assert said["blocks"] <= 10_000 * 5


def test_declared_length_over_the_limit_leaves_nothing():
    said = probe("connections_with_a_length_over_the_limit")
    assert said["connections"] == 0
    assert_flat(said)


# --- odd use of QoS 2: CVE-2023-28366, mosquitto#1793


def test_a_million_qos2_messages_of_one_id_cost_one_place():
    said = probe("one_qos2_id_for_ever")
    assert said["awaiting_release"] == 1
    assert_flat(said)


def test_unreleased_qos2_ids_are_as_many_as_there_are_ids():
    said = probe("every_qos2_id_unreleased")
    assert said["awaiting_release"] == 65_535
    assert_flat(said)


# --- leaks where CONNECT and its will fail: CVE-2023-3592


def test_connects_that_fail_leave_nothing():
    said = probe("connects_that_fail")
    assert (said["connections"], said["sessions"]) == (0, 0)
    assert_flat(said)


def test_wills_that_are_replaced_or_deleted_leave_nothing():
    said = probe("wills_that_are_replaced")
    assert said["sessions"] <= 1
    assert_flat(said)


# --- memory bloat by crafted messages: CVE-2021-22116, CVE-2021-33175, CVE-2021-33176


def test_message_of_properties_is_queued_in_as_many_bytes_as_it_came_in():
    said = probe("property_bombs")
    assert said["queued"] == 20
    assert said["queued_bytes"] <= 20 * (said["message_bytes"] + 256)
    assert_flat(said)


def test_other_packets_full_of_properties_leave_nothing():
    assert_flat(probe("subscribe_bombs"))


def test_subscribing_again_and_again_keeps_one_answer_for_each_filter():
    said = probe("subscriptions_again_and_again")
    assert (said["in_flight"], said["subscriptions"]) == (10, 2)
    assert_flat(said)


async def retained_readers_first_two(start: Start) -> tuple[Peer, list[Publish]]:
    """A subscriber to five retained messages that has two, unacknowledged, and no window for more."""
    world = await start(in_flight_maximum=2)
    writer = await world.connect("w")
    for n in range(5):
        await writer.publish(f"t/{n}", b"kept", qos=1, retain=True)
    reader = await world.connect("r")
    await reader.subscribe("t/+", qos=1)
    return reader, [await reader.receive() for _ in range(2)]


async def test_subscribing_again_sends_every_retained_message_again(start: Start):
    reader, begun = await retained_readers_first_two(start)
    await reader.subscribe("t/+", qos=1)
    await reader.send(*(PubAck(message.packet_id) for message in begun))
    rest = sorted([(await reader.receive_publish()).topic for _ in range(5 - len(begun))])
    assert sorted([*rest, *(message.topic for message in begun)]) == [f"t/{n}" for n in range(5)]
    again = sorted([(await reader.receive_publish()).topic for _ in range(5)])
    assert again == [f"t/{n}" for n in range(5)]
    await reader.expect_nothing()


async def test_unsubscribing_ends_the_retained_messages(start: Start):
    reader, begun = await retained_readers_first_two(start)
    await reader.send(unsubscribe(5, "t/+"), *(PubAck(message.packet_id) for message in begun))
    await reader.expect(UnsubAck(1, [0]))
    await reader.expect_nothing()


# --- deep hierarchies: CVE-2019-11779, amqtt GHSA-2hjf


def test_sixty_thousand_levels_are_walked_without_a_stack():
    said = probe("deep_topics")
    # three filters: one of 60,000 levels, one of 30,001, one of 1; `+` and text part at each level of the second
    assert said["steps"] <= 4 * 90_001
    assert said["nodes_left"] == 0
    assert said["blocks"] <= SLACK_BLOCKS


# --- subscription lists while clients come and go: NanoMQ CVE-2025-59946, CVE-2026-22040


def test_sessions_that_take_over_from_each_other_leave_nothing():
    said = probe("sessions_that_take_over_from_each_other")
    left = {name: value for name, value in said.items() if name not in ("address_space", "resident", "blocks")}
    assert not any(left.values()), left
    assert_flat(said)


# --- floods towards a reader that stalls: NanoMQ CVE-2024-48077


def test_reader_that_never_takes_anything_costs_its_buffer_and_its_queue():
    said = probe("reader_that_never_takes_anything")
    assert said["pending"] <= 65_536 + 2 * 1100
    assert said["queued"] == 100
    assert_flat(said)


# --- packets out of role or out of time: CVE-2021-28166, CVE-2018-12543, CVE-2021-34432


def packets_of_all_types(version: int) -> dict[str, bytes]:
    """One packet of each type, as it should look, and some that brought brokers down."""
    end = b"\x00" if version == 5 else b""
    return {
        "reserved": b"\x00\x00",
        "CONNECT": connect(version, "again"),
        "CONNACK": packet(0x20, b"\x00\x00", end),
        "PUBLISH": publish(version, "t"),
        "PUBLISH QoS 1": publish(version, "t", first=0x32, packet_id=1),
        "PUBLISH QoS 2": publish(version, "t", first=0x34, packet_id=1),
        "PUBLISH to $": publish(version, "$", b"x", first=0x31),
        "PUBLISH to $SYS": publish(version, "$SYS/x", b"x", first=0x31),
        "PUBLISH without topic": publish(version, ""),
        "PUBLISH without anything": b"\x30\x00",
        "PUBACK": packet(0x40, u16(1)),
        "PUBREC": packet(0x50, u16(1)),
        "PUBREL": packet(0x62, u16(1)),
        "PUBCOMP": packet(0x70, u16(1)),
        "SUBSCRIBE": subscribe(version, ("#", 2)),
        "SUBACK": packet(0x90, u16(1), end, b"\x00"),
        "UNSUBSCRIBE": unsubscribe(version, "#"),
        "UNSUBACK": packet(0xB0, u16(1), end, b"\x00" if end else b""),
        "PINGREQ": b"\xc0\x00",
        "PINGRESP": b"\xd0\x00",
        "DISCONNECT": b"\xe0\x00",
        "AUTH": packet(0xF0, b"\x18\x04\x15", text("m")),
        "AUTH again": packet(0xF0, b"\x19\x04\x15", text("m")),
    }


ALL_TYPES = sorted(packets_of_all_types(5))
ALIVE_WHEN_CONNECTED = {
    "PUBLISH", "PUBLISH QoS 1", "PUBLISH QoS 2", "PUBLISH to $", "PUBACK", "PUBREC", "PUBREL",
    "PUBCOMP", "SUBSCRIBE", "UNSUBSCRIBE", "PINGREQ",
}  # fmt: skip
STATES = ["new", "waiting for an answer", "challenged", "connected", "re-authenticating", "closed"]


class World:
    """An engine and one connection in a state, without the harness, so that nothing is between us and the state."""

    def __init__(self, version: int, state: str) -> None:
        hooks = HookTable()
        if state == "waiting for an answer":
            hooks = HookTable(authenticate=lambda connection, packet: PENDING)
        elif state in ("challenged", "re-authenticating"):
            hooks = HookTable(
                authenticate=lambda connection, packet: Challenge(b"?") if state == "challenged" else ACCEPT,
                continue_authentication=lambda connection, packet: Challenge(b"?"),
            )
        self.engine = Engine(Limits(), hooks)
        self.connection = Connection(self.engine, Door(), ("memory", 0))
        properties = b"\x15" + text("m") if version == 5 and state in ("challenged", "re-authenticating") else b""
        if state == "closed":
            self.connection.receive(b"\xc0\x00")
            assert self.connection.is_closed
        elif state != "new":
            self.connection.receive(connect(version, "c", properties=properties))
        if state == "re-authenticating":
            self.connection.receive(Auth(0x19, {PropertyId.AUTHENTICATION_METHOD: "m"}).encode(5))
        self.connection.take_output()

    def end(self) -> None:
        self.connection.connection_lost()
        self.engine.flush()
        metrics = self.engine.metrics()
        assert (metrics["connections"], metrics["sessions_connected"]) == (0, 0)
        self.engine.close()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", ALL_TYPES)
@versions
def test_any_packet_in_any_state_is_handled_or_closes(version: int, name: str, state: str):
    if version == 4 and state in ("challenged", "re-authenticating"):
        state = "connected"  # 3.1.1 has neither
    world = World(version, state)
    world.connection.receive(packets_of_all_types(version)[name])
    if state == "closed":
        assert world.connection.take_output() == b""
    is_alive = not world.connection.is_closed
    if state == "new":
        assert is_alive == (name == "CONNECT")
    elif state == "waiting for an answer":
        assert is_alive  # nothing is read until the answer comes
        assert world.connection.is_paused
    elif state == "challenged":
        assert is_alive == (name == "AUTH")
    elif state == "connected":
        assert is_alive == (name in ALIVE_WHEN_CONNECTED)
    elif state == "re-authenticating":
        assert is_alive == (name in ALIVE_WHEN_CONNECTED | {"AUTH"})
    world.end()


# --- reading past the end of short packets: NanoMQ CVE-2026-25627, CVE-2026-21888


@pytest.mark.parametrize("vector", VALID + FAULTY, ids=lambda vector: vector.name)
def test_body_that_is_cut_anywhere_is_handled_or_closes(vector):
    # The Remaining Length says what is there, so each field that goes on finds the packet's end.
    body_at = 2
    while vector.data[body_at - 1] & 0x80 and body_at < min(5, len(vector.data)):
        body_at += 1
    body = vector.data[body_at : body_at + 127]
    engine = Engine(Limits())
    for size in range(len(body)):
        connection = Connection(engine, Door(), ("memory", 0))
        if vector.data[0] != 0x10:
            connection.receive(connect(vector.version, name="MQIsdp" if vector.version == 3 else "MQTT"))
        connection.receive(bytes([vector.data[0], size]) + body[:size])
        assert connection.is_closed or connection.client_id is not None
        connection.receive(b"\xc0\x00")  # whole packet or fatal: nothing may be left that waits for more
        assert connection.is_closed or connection.take_output().endswith(b"\xd0\x00")
        connection.connection_lost()
    engine.close()


# --- only the first filter checked: dojot#2529; ids and topics with wildcards: CVE-2017-7650


@versions
async def test_every_filter_of_a_subscribe_is_checked(start: Start, version: int):
    world = await start(subscriptions_per_session_maximum=2)
    peer = await world.connect("c", version)
    await peer.send(
        subscribe(version, ("ok", 1), ("$SYS/#", 1), ("bad#", 1), ("ok/2", 1), ("ok/3", 1), ("$share/g/$SYS/x", 1))
    )
    codes = bytes([1, 0x87, 0x8F, 1, 0x97, 0x87]) if version == 5 else bytes([1, 0x80, 0x80, 1, 0x80, 0x80])
    await assert_says(peer, packet(0x90, u16(1), b"\x00" if version == 5 else b"", codes))
    assert world.metrics["subscriptions"] == 2


@versions
@pytest.mark.parametrize("client_id", ["#", "+", "a/b", "$SYS/x", "../x", "%c"])
async def test_client_id_is_a_name_and_no_pattern(start: Start, version: int, client_id: str):
    world = await start()
    plain = await world.connect("plain", version)
    odd = await world.connect(client_id, version)
    assert world.metrics["sessions_connected"] == 2
    await odd.subscribe(client_id if "#" in client_id or "+" in client_id else "mine")
    await plain.publish("$own/secret", b"x")
    await odd.expect_nothing()
    assert world.engine.session(client_id)
    assert world.engine.disconnect(client_id, 0x98)
    await plain.expect_nothing()
