"""The scenarios by name: who publishes to whom, how much is written at once and may be in flight.

These are the rows of the table in `benchmarks/README.md`; a figure is only comparable with one of the same definition.
"""

from dataclasses import dataclass, replace
from enum import Enum

__all__ = ["SCENARIOS", "Scenario", "Shape"]

GATHER_S = 100e-6


class Shape(Enum):
    """How a scenario is built and driven; each has one function in `mqttcore.bench.run`."""

    FLOW = "publishers send to subscribers, window by delivery"
    RETAIN = "retained messages come back to one subscriber"
    IDLE = "connections are opened and held"
    CONNECT = "connections are opened and closed"
    OPEN_LOOP = "messages leave at fixed times, whatever comes back"


@dataclass(frozen=True)
class Scenario:
    """One row. Counts are defaults for `--clients`; *batch* is messages a write, *window* messages in flight."""

    name: str
    summary: str
    shape: Shape
    publishers: int = 0
    subscribers: int = 0
    batch: int = 1
    window: int = 4
    qos: int = 0
    version: int = 4
    has_properties: bool = False
    is_websocket: bool = False
    is_p2p: bool = False  # each publisher's topic ends in its subscriber's client id
    gather_s: float = 0.0  # see LoadGenerator.gather()
    is_tls: bool = False  # needs a broker that speaks TLS
    counts: str = ""  # what `clients` replaces: "pairs", "publishers", "subscribers"; empty: nothing

    def resized(self, clients: int | None) -> "Scenario":
        """Return this scenario for *clients* clients of the kind of which there are many; None changes nothing."""
        if clients is None:
            return self
        if not self.counts or clients < 1:
            raise ValueError(f"{self.name} cannot be run with {clients} clients")
        publishers = clients if self.counts in ("pairs", "publishers") else self.publishers
        subscribers = clients if self.counts in ("pairs", "subscribers") else self.subscribers
        return replace(self, publishers=publishers, subscribers=subscribers)

    def rebatched(self, batch: int | None) -> "Scenario":
        """Return this scenario with *batch* messages a write; None changes nothing."""
        if batch is None:
            return self
        if not 1 <= batch <= self.window or self.shape not in (Shape.FLOW, Shape.OPEN_LOOP):
            raise ValueError(f"{self.name} cannot be run with {batch} messages a write")
        return replace(self, batch=batch)


def _flow(name: str, summary: str, publishers: int, subscribers: int, **more: int | float | str) -> Scenario:
    return Scenario(name, summary, Shape.FLOW, publishers, subscribers, **more)  # type: ignore[arg-type]


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        _flow("pairs", "200→200, own topics, one message a write, ≤4 in flight", 200, 200, counts="pairs"),
        _flow("pairs_w1", "the same, 1 in flight: nothing to batch", 200, 200, window=1, counts="pairs"),
        _flow(
            "one2one",
            "1→1, 32 messages a write, ≤1024 in flight",
            1,
            1,
            batch=32,
            window=1024,
            gather_s=GATHER_S,
            counts="pairs",
        ),
        _flow(
            "fanin",
            "100→1 through +, 5 messages a write, ≤20 in flight each",
            100,
            1,
            batch=5,
            window=20,
            gather_s=GATHER_S,
            counts="publishers",
        ),
        _flow("fanout", "1→1000, ≤8 in flight", 1, 1000, window=8, counts="subscribers"),
        _flow("ingest", "100→nobody", 100, 0, batch=20, window=40, counts="publishers"),
        _flow("pairs_q1", "pairs at QoS 1 on both legs", 200, 200, qos=1, counts="pairs"),
        _flow("one2one_q1", "one2one at QoS 1", 1, 1, batch=32, window=1024, gather_s=GATHER_S, qos=1, counts="pairs"),
        _flow("fanout_q1", "fanout at QoS 1", 1, 1000, window=8, qos=1, counts="subscribers"),
        _flow("ingest_q1", "ingest at QoS 1", 100, 0, batch=5, window=20, qos=1, counts="publishers"),
        _flow("pairs_q2", "pairs at QoS 2", 200, 200, qos=2, counts="pairs"),
        _flow("pairs_v5", "pairs at MQTT 5, with properties", 200, 200, version=5, has_properties=True, counts="pairs"),
        _flow("pairs_ws", "pairs in WebSocket, a frame each write", 200, 200, is_websocket=True, counts="pairs"),
        _flow("pairs_p2p", "pairs to topics with the receiver's client id", 200, 200, is_p2p=True, counts="pairs"),
        _flow("wild", "1→101 clients holding 100,000 filters, 10 match each message", 1, 101, batch=8, window=64),
        Scenario(
            "retain", "100,000 retained messages, one # subscriber gets all", Shape.RETAIN, 1, 1, batch=100, window=1000
        ),
        _flow("pairs_tls", "pairs over TLS 1.3", 200, 200, is_tls=True, counts="pairs"),
        _flow("pairs_w1_tls", "pairs_w1 over TLS 1.3", 200, 200, window=1, is_tls=True, counts="pairs"),
        Scenario("idle", "connections held: bytes of RSS each", Shape.IDLE, subscribers=10_000, counts="subscribers"),
        Scenario(
            "connect", "connect, CONNACK, close, 64 at a time", Shape.CONNECT, subscribers=64, counts="subscribers"
        ),
        Scenario(
            "idle_tls",
            "idle over TLS 1.3, 2,000 connections",
            Shape.IDLE,
            subscribers=2_000,
            is_tls=True,
            counts="subscribers",
        ),
        Scenario(
            "connect_tls",
            "connect over TLS 1.3, without resumption",
            Shape.CONNECT,
            subscribers=64,
            is_tls=True,
            counts="subscribers",
        ),
        Scenario(
            "latency",
            "open loop, 5,000 messages a second over 20 pairs",
            Shape.OPEN_LOOP,
            20,
            20,
            window=32768,
            counts="pairs",
        ),
    )
}
