"""Fuzz what reads the network: `Connection.receive` in a live engine, and the codec's `Decoder`.

    python tests/fuzz/fuzz_feed.py --seconds 600 [--seed N]

A round is a small broker with clients of all three versions that say valid packets, mutated ones and rubbish, in pieces
of any size, come, go, and let time pass. What must hold: nothing raises and nothing is logged as our error; whatever
the broker writes can be read; when all have gone, all gauges are zero. Rounds follow from the seed alone: a finding
prints the seed of its round, and `--seed N --rounds 1` repeats it. AddressSanitizer makes it see more: tests/asan.sh.
"""

import contextlib
import random
import sys
import types
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.rounds import Finding, fuzz_rounds, run_command
from mqttcore import Limits, PropertyId
from mqttcore.codec import (
    Auth,
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    Packet,
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
    Will,
    decode,
    encode,
)
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.errors import ProtocolError

STEPS = 400
CLIENTS = 5
VERSIONS = (3, 4, 5)
TOPICS = ("a", "a/b", "a/b/c", "/", "b//c", "$x/y", "ä/🐟", "long/" * 20 + "topic", "$SYS/x")
FILTERS = (*TOPICS, "#", "+", "+/b", "a/#", "a/+/c", "$share/g/a/#", "$share/h/+", "$x/#", "a/#/b", "", "$share//x")
MOUNT_POINTS = ("", "", "a/", "/", "${client_id}/")
GAUGES = (
    "connections",
    "sessions",
    "sessions_connected",
    "subscriptions",
    "shared_groups",
    "in_flight",
    "awaiting_release",
    "queued",
    "queued_bytes",
)
INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFF)


class Dice:
    """Packets by chance, most of them valid."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def payload(self) -> bytes:
        return self.rng.randbytes(self.rng.choice((0, 1, 10, 200, 5000, 20_000)))

    def properties(self, **possible: Callable[[], object]) -> dict[int, object]:
        return {PropertyId[name.upper()]: make() for name, make in possible.items() if self.rng.random() < 0.3}

    def number(self, *most: int) -> int:
        return self.rng.choice((*most, self.rng.randint(0, most[-1])))

    def text(self) -> str:
        return self.rng.choice(("", "x", "text", "ü" * 30))

    def connect(self, version: int) -> Connect:
        rng = self.rng
        will = None
        if rng.random() < 0.3:
            properties = {} if version < 5 else self.properties(will_delay_interval=lambda: self.number(0, 5))
            will = Will(
                rng.choice(TOPICS[:5]),
                self.payload(),
                qos=rng.randrange(3),
                retain=rng.random() < 0.3,
                properties=properties,
            )
        properties = {}
        if version == 5:
            properties = self.properties(
                session_expiry_interval=lambda: self.number(0, 1, 30),
                receive_maximum=lambda: self.number(1, 2, 20) or 1,
                maximum_packet_size=lambda: self.number(20, 100, 30_000) or 1,
                topic_alias_maximum=lambda: self.number(0, 2, 10),
                request_problem_information=lambda: rng.randrange(2),
                request_response_information=lambda: rng.randrange(2),
                user_property=lambda: [("k", "v")] * rng.randrange(1, 4),
            )
        return Connect(
            f"c{rng.randrange(CLIENTS)}",
            protocol_version=version,
            clean_start=rng.random() < 0.4,
            keep_alive_s=rng.choice((0, 1, 60)),
            user_name=rng.choice((None, "user")),
            will=will,
            properties=properties,
        )

    def publish(self, version: int) -> Publish:
        rng = self.rng
        qos = rng.randrange(3)
        properties = {}
        topic = rng.choice(TOPICS)
        if version == 5:
            properties = self.properties(
                payload_format_indicator=lambda: 0,
                message_expiry_interval=lambda: self.number(0, 1, 100),
                topic_alias=lambda: self.number(1, 2, 10) or 1,
                content_type=self.text,
                correlation_data=self.payload,
                response_topic=lambda: "answers",
                user_property=lambda: [("k", "v")] * rng.randrange(1, 4),
            )
            if PropertyId.TOPIC_ALIAS in properties and rng.random() < 0.5:
                topic = ""
        return Publish(
            topic,
            self.payload(),
            qos=qos,
            retain=rng.random() < 0.3,
            dup=qos > 0 and rng.random() < 0.2,
            packet_id=rng.randint(1, 30) if qos else 0,
            properties=properties,
        )

    def subscribe(self, version: int) -> Subscribe:
        rng = self.rng
        subscriptions = []
        for _ in range(rng.randint(1, 4)):
            options = {}
            if version == 5:
                options = {
                    "no_local": rng.random() < 0.2,
                    "retain_as_published": rng.random() < 0.3,
                    "retain_handling": rng.randrange(3),
                }
            subscriptions.append(Subscription(rng.choice(FILTERS[:-3]), rng.randrange(3), **options))
        properties = self.properties(subscription_identifier=lambda: self.number(1, 300, 70_000) or 1)
        return Subscribe(rng.randint(1, 30), subscriptions, properties if version == 5 else {})

    def packet(self, version: int) -> Packet:
        rng = self.rng
        packet_id = rng.randint(1, 30)
        makers: tuple[Callable[[], Packet], ...] = (
            lambda: self.publish(version),
            lambda: self.publish(version),
            lambda: self.publish(version),
            lambda: self.subscribe(version),
            lambda: Unsubscribe(packet_id, [rng.choice(FILTERS[:-3])]),
            lambda: PubAck(packet_id),
            lambda: PubRec(packet_id, rng.choice((0, 0x80)) if version == 5 else 0),
            lambda: PubRel(packet_id),
            lambda: PubComp(packet_id),
            PingReq,
            lambda: self.rare(version),
        )
        return rng.choice(makers)()

    def rare(self, version: int) -> Packet:
        rng = self.rng
        code = rng.choice((0, 4, 0x80)) if version == 5 else 0
        expiry = self.properties(session_expiry_interval=lambda: self.number(0, 1, 30)) if version == 5 else {}
        return rng.choice(
            (
                Disconnect(code, expiry),
                self.connect(version),
                ConnAck(),
                SubAck(1, [0]),
                UnsubAck(1, [0] if version == 5 else []),
                PingResp(),
                *([Auth(0x18, {PropertyId.AUTHENTICATION_METHOD: "m"})] if version == 5 else []),
            )
        )

    def mutated(self, data: bytes) -> bytes:
        """Return *data* with one to four changes."""
        rng = self.rng
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(changed)) if changed else 0
            match rng.randrange(7):
                case 0 if changed:
                    changed[at] ^= 1 << rng.randrange(8)
                case 1 if changed:
                    changed[at] = rng.choice(INTERESTING)
                case 2:
                    del changed[at : at + rng.randint(1, 8)]
                case 3:
                    changed[at:at] = rng.randbytes(rng.randint(1, 8))
                case 4:
                    changed += changed[at:]
                case 5 if len(changed) > 1:  # Remaining Length lies
                    changed[1] = rng.randrange(256)
                case 6:
                    changed = changed[: at + 1]
        return bytes(changed)


class Round:
    """One broker and its clients, from the first packet until all have gone."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.dice = Dice(rng)
        self.now_ms = 1000
        limits = Limits(
            connect_timeout_s=1,
            maximum_packet_size_bytes=30_000,
            receive_maximum=10,
            session_expiry_maximum_s=60,
            topic_alias_maximum=5,
            topic_alias_maximum_out=5,
            in_flight_maximum=10,
            queued_messages_maximum=20,
            queued_bytes_maximum=50_000,
            output_high_water_bytes=20_000,
            topic_levels_maximum=20,
            subscriptions_per_session_maximum=6,
            sessions_maximum=CLIENTS - 1,
            retained_messages_maximum=5,
            routes_cached_maximum=self.rng.choice((0, 2, 1000)),
            share_strategy=self.rng.choice(("round_robin", "sticky", "hash")),
            queue_drop=self.rng.choice(("newest", "oldest")),
            queue_qos0_offline=self.rng.random() < 0.5,
        )
        self.engine = self.make_engine(limits)
        self.listeners = [
            types.SimpleNamespace(name="fuzz", allow_anonymous=True, mount_point=mount_point)
            for mount_point in MOUNT_POINTS
        ]
        # connection, version it speaks, decoder of what the broker tells it
        self.open: list[tuple[Connection, int, Decoder]] = []

    def make_engine(self, limits: Limits) -> Engine:
        """Return the broker that is played with."""
        return Engine(limits, now_ms=self.now_ms)

    def run(self) -> None:
        """Play; raises Finding."""
        for _ in range(STEPS):
            if self.is_over():
                break
            self.step()
        for connection, *_ in self.open:
            connection.connection_lost()
        self.end()
        self.pass_time(100_000)
        metrics = self.engine.metrics()
        left = {name: metrics[name] for name in GAUGES if metrics[name]}
        if left:
            raise Finding(f"gauges after the end: {left}")
        negative = {name: value for name, value in metrics.items() if value < 0}
        if negative:
            raise Finding(f"negative: {negative}")
        self.engine.close()

    def end(self) -> None:
        """Take off what does not go with the connections."""

    def is_over(self) -> bool:
        """Whether the round ends before all its steps are played."""
        return False

    def step(self) -> None:
        """Do one thing."""
        rng = self.rng
        what = rng.random()
        if not self.open or (what < 0.05 and len(self.open) < 2 * CLIENTS):
            self.arrive()
            return
        connection, version, decoder = rng.choice(self.open)
        if what < 0.10:
            self.pass_time(rng.choice((1, 100, 2000)))
        elif what < 0.12:
            connection.connection_lost()
        elif what < 0.14:
            self.engine.disconnect(connection.client_id or "", 0x98, "fuzz")
        elif what < 0.15:
            self.engine.discard_session(connection.client_id or "")
        elif what < 0.20:
            with contextlib.suppress(ProtocolError):  # QuotaExceeded
                self.engine.publish_bytes(
                    rng.choice(TOPICS).encode(), self.dice.payload(), rng.randrange(3), what < 0.16
                )
        else:
            data = b"".join(self.dice.packet(version).encode(version) for _ in range(rng.choice((1, 1, 5, 40))))
            if what < 0.5:
                data = self.dice.mutated(data)
            self.say(connection, data)
        self.engine.flush()
        self.read(connection, decoder)
        if connection.is_closed:
            self.open.remove((connection, version, decoder))

    def arrive(self) -> None:
        """Connect a client, with a CONNECT that is valid most of the time."""
        version = self.rng.choice(VERSIONS)
        connection = Connection(self.engine, self.rng.choice(self.listeners), ("fuzz", 1))
        data = self.dice.connect(version).encode(version)
        if self.rng.random() < 0.2:
            data = self.dice.mutated(data)
        self.open.append((connection, version, Decoder(version, sender="server")))
        self.say(connection, data)

    def say(self, connection: Connection, data: bytes) -> None:
        """Hand *data* over in pieces."""
        size = self.rng.choice((1, 7, 100, 100_000)) if len(data) < 5000 else self.rng.choice((1000, 100_000))
        for at in range(0, len(data), size):
            connection.receive(data[at : at + size])

    def read(self, connection: Connection, decoder: Decoder) -> None:
        """Read what the broker wrote to one client; most of the time, so that output piles up, too."""
        if self.rng.random() < 0.3 and not connection.is_closed:
            return
        output = connection.take_output()
        if connection.client_id is None or connection.version != decoder.version:
            return  # its CONNECT was changed: it speaks another version, or none
        try:
            packets = decoder.feed(output)
        except ProtocolError as error:
            raise Finding(f"the broker wrote what cannot be read: {error}: {output[:200].hex()}") from error
        if connection.listener.mount_point:
            for packet in packets:
                if isinstance(packet, Publish) and packet.topic.startswith("$"):
                    raise Finding(f"a client with a mount point hears of {packet.topic}")

    def pass_time(self, ms: int) -> None:
        """Let the clock go on, in ticks as a driver does."""
        until = self.now_ms + ms
        while self.now_ms < until:
            self.now_ms = min(until, self.now_ms + 10_000)
            self.engine.advance(self.now_ms)
        self.engine.sweep()
        self.engine.flush()


def fuzz_decoder(rng: random.Random) -> None:
    """Decode mutated packets: ProtocolError or a packet that survives encoding; raises Finding."""
    dice = Dice(rng)
    for _ in range(200):
        version = rng.choice(VERSIONS)
        packet = dice.connect(version) if rng.random() < 0.1 else dice.packet(version)
        data = dice.mutated(packet.encode(version))
        with contextlib.suppress(ProtocolError):
            Decoder(version, maximum_packet_size_bytes=40_000).feed(data)
        check_decode(data, version)


def check_decode(data: bytes, version: int) -> None:
    """Decode *data*: ProtocolError, too little, or a packet that survives encoding; raises Finding."""
    try:
        found, _ = decode(data, version)
    except ProtocolError:
        return
    if found is None:
        return
    spoken = found.protocol_version if isinstance(found, Connect) else version
    again, _ = decode(encode(found, spoken), spoken)
    if again != found:
        raise Finding(f"version {version}: {data.hex()} became {found!r}, then {again!r}")


def play_round(rng: random.Random) -> None:
    """Play one round; raises Finding."""
    Round(rng).run()


def fuzz(seed: int, seconds: float, rounds: int | None = None) -> int:
    """Play rounds from *seed* on until *seconds* are over; the number played. Raises Finding, with the seed in it."""
    return fuzz_rounds({"engine": (play_round, 1), "decoder": (fuzz_decoder, 1)}, seed, seconds, rounds)


if __name__ == "__main__":
    run_command(__doc__.partition("\n")[0], fuzz)
