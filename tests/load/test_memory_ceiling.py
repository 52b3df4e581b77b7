"""Messages for somebody who is away, and retained ones, more than memory may hold: the broker refuses, and recovers."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from broker_process import BrokerProcess, running_broker
from load import wire

CEILING_BYTES = 300 << 20
PAYLOAD_BYTES = 64 << 10
OVER = 1.1  # between two looks more comes
CONFIG = f"""\
memory_maximum_bytes = {CEILING_BYTES}
[limits]
queued_messages_maximum = 1_000_000
queued_bytes_maximum = 10_000_000_000
queued_total_bytes_maximum = 10_000_000_000
retained_bytes_maximum = 10_000_000_000
[[listeners]]
port = 0
"""
ACCEPTED, UNAVAILABLE = b"\x20\x02\x00\x00", b"\x20\x02\x00\x03"
DEADLINE_S = 60.0


class Client:
    """A blocking client of MQTT 3.1.1, with a deadline for each answer."""

    def __init__(self, broker: BrokerProcess, client_id: str, *, lasts: bool = False) -> None:
        self.socket = socket.create_connection((broker.host, broker.port), timeout=DEADLINE_S)
        self.socket.sendall(wire.connect(client_id, clean_session=not lasts))
        self.connack = self.socket.recv(4, socket.MSG_WAITALL)
        self.splitter = wire.Splitter()

    def is_refused(self) -> bool:
        """Close it, and say whether it was refused because the broker is busy."""
        self.socket.close()
        assert self.connack in (ACCEPTED, UNAVAILABLE)
        return self.connack == UNAVAILABLE

    def subscribe(self, topic_filter: str) -> None:
        self.socket.sendall(wire.subscribe(1, topic_filter, 1))
        assert self.socket.recv(5, socket.MSG_WAITALL) == b"\x90\x03\x00\x01\x01"

    def publish(self, topic: str, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait for the acknowledgement."""
        packet = bytearray(wire.publish(1, topic, bytes(PAYLOAD_BYTES), 1))
        packet[0] |= retain
        self.socket.sendall(packet)
        assert self.socket.recv(4, socket.MSG_WAITALL) == b"\x40\x02\x00\x01"

    def receive(self, seconds: float) -> int:
        """Acknowledge what comes until nothing has come for *seconds*; return how many messages that were."""
        count = 0
        self.socket.settimeout(seconds)
        try:
            while data := self.socket.recv(1 << 20):
                for first, body in self.splitter.feed(data):
                    assert first >> 4 == wire.PUBLISH
                    _, packet_id, _ = wire.parse_publish(first, body)
                    self.socket.sendall(wire.acknowledge(wire.PUBACK, packet_id))
                    count += 1
        except TimeoutError:
            pass
        return count


def fill(broker: BrokerProcess, writer: Client, *, retain: bool) -> int:
    """Publish until memory is full, and then a while; return the most that was resident."""
    most = count = 0
    until_s, full_s = time.monotonic() + DEADLINE_S, float("inf")
    while time.monotonic() < min(until_s, full_s + 2):
        writer.publish(f"t/{count if retain else 0}", retain=retain)
        count += 1
        most = max(most, broker.rss_bytes())
        if most >= CEILING_BYTES and full_s == float("inf"):
            full_s = time.monotonic()
    assert full_s < float("inf"), f"only {most} bytes after {count} messages"
    return most


def test_queue_of_somebody_away_stays_below_the_ceiling(tmp_path: Path):
    with running_broker(tmp_path, CONFIG, kind="mqttcore") as broker:
        reader = Client(broker, "reader", lasts=True)
        reader.subscribe("t/#")
        reader.socket.close()
        writer = Client(broker, "writer")
        assert fill(broker, writer, retain=False) < CEILING_BYTES * OVER
        assert Client(broker, "new").is_refused()
        reader = Client(broker, "reader", lasts=True)  # who has a session fetches what it holds
        assert reader.connack == b"\x20\x02\x01\x00"
        assert reader.receive(1.0) > 100
        until_s = time.monotonic() + DEADLINE_S
        while Client(broker, "new").is_refused():
            assert time.monotonic() < until_s, f"{broker.rss_bytes()} bytes are resident, and nobody is let in"
            time.sleep(0.1)  # another process: there is nothing to be notified by
        reader.socket.close()
        writer.socket.close()


def test_retained_messages_stay_below_the_ceiling(tmp_path: Path):
    with running_broker(tmp_path, CONFIG, kind="mqttcore") as broker:
        writer = Client(broker, "writer")
        assert fill(broker, writer, retain=True) < CEILING_BYTES * OVER
        assert Client(broker, "new").is_refused()
        writer.publish("other")
        writer.socket.close()
