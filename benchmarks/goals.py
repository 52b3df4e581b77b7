"""What mqttcore must cost, scenario by scenario, beside mosquitto 2.0.11 in the same run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """At most *limit*: of mosquitto's figure (is_ratio) or of the figure itself, in *unit*."""

    limit: float
    unit: str = "µs"
    is_ratio: bool = True


GOALS = {
    "pairs": Goal(0.42),
    "pairs_w1": Goal(0.82),
    "one2one": Goal(0.045),
    "fanin": Goal(0.14),
    "fanout": Goal(0.14),
    "ingest": Goal(0.25),
    "pairs_q1": Goal(0.34),
    "one2one_q1": Goal(0.055),
    "fanout_q1": Goal(0.14),
    "ingest_q1": Goal(0.11),
    "pairs_q2": Goal(0.30),
    "pairs_v5": Goal(0.42),
    "pairs_ws": Goal(0.55),
    "pairs_p2p": Goal(0.42),
    "wild": Goal(0.18),
    "retain": Goal(0.35),
    "pairs_tls": Goal(1.0),
    "pairs_w1_tls": Goal(1.0),
    "idle": Goal(3500, "bytes", is_ratio=False),
    "connect": Goal(30, is_ratio=False),
    "idle_tls": Goal(1.1, "bytes"),
    "connect_tls": Goal(1.0),
    "latency": Goal(1.1, "µs p50"),
}
