"""What durable sessions cost: messages a second and CPU time each, with every acknowledgement synced to disk.

    python benchmarks/load/durable.py                    all of it
    python benchmarks/load/durable.py offline online     some

offline   100 publishers, QoS 1 → one durable session whose client is away; done with PUBACK
online    100 publishers, QoS 1 → 100 durable sessions, each its own
clean     pairs_q1, clean sessions, with a store and without: it must cost nothing
start     a file with 100,000 sessions, 3 subscriptions and 10 queued messages each: time to listen, memory
resume    a session with 1,000,000 queued messages comes back; p99.9 of 20 other pairs meanwhile

mosquitto runs beside us in `offline` and `online`, with persistence on; it acknowledges before anything is on disk, and
writes everything at intervals. Broker, threads included, on core 0, generator on core 1. CSV on standard output.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from mqttcore.bench.accounting import cpu_seconds, rss_bytes
from mqttcore.bench.packets import connect_packet, subscribe_packet
from mqttcore.bench.run import Options, Report, run_scenario
from mqttcore.bench.scenarios import SCENARIOS
from mqttcore.codec import Decoder, PubAck, Publish
from mqttcore.store import records

SECONDS = 4.0
ROUNDS = 2
ANNOUNCED_S = 120.0

OURS = """\
sys_interval_s = 0
log_level = "warning"
[[listeners]]
port = 0
[limits]
queued_messages_maximum = 100_000_000
queued_bytes_maximum = 1_000_000_000_000
queued_total_bytes_maximum = 1_000_000_000_000
session_expiry_maximum_s = 4294967295
"""
STORE = """\
[plugins.sqlite]
path = "{path}"
"""
MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 30
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_dest none
"""

SCENARIOS["durable_offline"] = replace(SCENARIOS["ingest_q1"], name="durable_offline")
SCENARIOS["durable_online"] = replace(
    SCENARIOS["pairs_q1"], name="durable_online", publishers=100, subscribers=100, batch=5, window=20
)


@contextmanager
def running(command: list[str], folder: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a broker on core 0 and yield it and its port; it is killed, for what it would write at its end."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, preexec_fn=lambda: os.sched_setaffinity(0, {0})
    )
    assert process.stdout
    try:
        if port:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
        else:
            line = process.stdout.readline()
            port = int(line.partition(" listening on ")[2].split()[0].rpartition(":")[2])
        yield process, port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


@contextmanager
def ours(folder: Path, store: Path | None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run mqttcore, with a store or without."""
    config = folder / "broker.toml"
    config.write_text(OURS + (STORE.format(path=store) if store else ""))
    with running([sys.executable, "-m", "mqttcore", "serve", "--config", str(config)], folder) as broker:
        yield broker


@contextmanager
def mosquitto(folder: Path, _: Path | None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run mosquitto with persistence."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    folder.chmod(0o777)  # it gives up root's rights
    config.write_text(MOSQUITTO.format(port=port, folder=folder))
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with running([program, "-c", str(config)], folder, port) as broker:
        yield broker


def sleeper(port: int, topic_filter: str) -> None:
    """Make a durable session with a subscription of QoS 1, and go away."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(connect_packet("sleeper", 4, is_durable=True) + subscribe_packet(1, [topic_filter], 1, 4))
        answer = b""
        while len(answer) < 9:  # CONNACK and SUBACK
            answer += sock.recv(64)
        sock.sendall(b"\xe0\x00")


def measure(
    name: str, broker: Callable[..., object], label: str, *, has_store: bool = True, durable: bool = True
) -> None:
    """Run a scenario once and print a line of figures."""
    with tempfile.TemporaryDirectory(prefix="mqttcore-durable-") as place:
        folder = Path(place)
        seen: list[float] = []
        with broker(folder, folder / "broker.db" if has_store else None) as (process, port):  # type: ignore[attr-defined]
            if name == "durable_offline":
                sleeper(port, "bench/#")
            options = Options("127.0.0.1", port, duration_s=SECONDS, durable_subscribers=durable, stall_s=30)

            def look() -> None:
                seen.append(cpu_seconds(process.pid))

            report = run_scenario(name, options, look, look)
            memory = rss_bytes(process.pid)
        line(label, name, report, seen[1] - seen[0], memory)


def line(label: str, name: str, report: Report, cpu_s: float, memory: int) -> None:
    """Print one row."""
    print(
        f"{name},{label},{report.rate:.0f},{cpu_s * 1e6 / max(report.messages, 1):.2f},{cpu_s / report.seconds:.2f},"
        f"{report.p50_us / 1000:.2f},{report.p99_us / 1000:.2f},{memory // 1_000_000},"
        f"{report.lost + report.duplicated + report.reordered + report.foreign}",
        flush=True,
    )


def compare(name: str) -> None:
    """Run a scenario with us and mosquitto in turns."""
    for number in range(ROUNDS):
        turns = [("mqttcore", ours), ("mosquitto", mosquitto)]
        for label, broker in turns if number % 2 == 0 else turns[::-1]:
            measure(name, broker, label)


def clean() -> None:
    """Clean sessions with a store and without."""
    for number in range(ROUNDS):
        for has_store in (True, False) if number % 2 == 0 else (False, True):
            measure("pairs_q1", ours, "store" if has_store else "no store", has_store=has_store, durable=False)


# --- files -----------------------------------------------------------------------------------------------------------


def session_record(key: int, client_id: str) -> bytes:
    """Return a session without connection, for ever."""
    values = {"number": key, "session_expiry_s": 0xFFFFFFFF, "client_id": client_id}
    return records.encode(key, zeroed(records.SessionRecord, values))


class Queued:
    """Makes messages of QoS 1 and their places in a session's queue, all of one topic's length and 64 bytes.

    A record is made once and its keys are put in where they stand: fields come in the order of the record.
    """

    def __init__(self, topic: str) -> None:
        values = {"topic": topic, "payload": bytes(64), "qos": 1}
        self._message = bytearray(records.encode(1, zeroed(records.MessageRecord, values)))
        now_ms = time.time_ns() // 1_000_000
        self._entry = bytearray(records.encode(1, zeroed(records.EntryRecord, {"queued_at": now_ms, "qos": 1})))
        self._topic = topic.encode()
        self._topic_at = self._message.index(self._topic)

    def records(self, key: int, session: int, topic: str, payload: bytes) -> bytes:
        """Return both, their keys are *key* and *key* + 1."""
        struct.pack_into("<Q", self._message, 4, key)
        self._message[self._topic_at : self._topic_at + len(self._topic)] = topic.encode()
        self._message[-64:] = payload
        struct.pack_into("<Q", self._entry, 4, key + 1)
        struct.pack_into("<QQ", self._entry, 13, session, key)
        return bytes(self._message + self._entry)


def zeroed(kind: type[records.Record], values: dict[str, object]) -> records.Record:
    """Return a record with *values*, and nothing in all other fields."""
    empty = {str: "", bytes: b"", int: 0, bool: False}
    return kind(**{field.name: values.get(field.name, empty[field.type]) for field in msgspec.structs.fields(kind)})


def subscription(key: int, session: int, topic_filter: str) -> bytes:
    """Return a subscription of QoS 1."""
    values = {"session": session, "options": 1, "topic_filter": topic_filter}
    return records.encode(key, zeroed(records.SubscriptionRecord, values))


def write(path: Path, parts: Iterator[bytes]) -> None:
    """Write records into a new file, by way of the store."""
    import asyncio

    from mqttcore.plugins.discovery import installed
    from mqttcore.store.contract import StoreBatch

    plugin = installed()["sqlite"][0].load()

    async def fill() -> None:
        store = plugin(plugin.Config(path=str(path), synchronous="off")).open_store(None)
        await store.open(print)
        number = 0
        chunk: list[bytes] = []

        async def commit() -> None:
            nonlocal number
            number += 1
            joined = b"".join(chunk)
            keys = memoryview(records.keys(joined)).cast("Q")
            await store.commit(StoreBatch(number, joined, len(keys), keys[0], keys[-1]))
            chunk.clear()

        for part in parts:
            chunk.append(part)
            if len(chunk) == 2000:
                await commit()
        if chunk:
            await commit()
        await store.close()

    asyncio.run(fill())


def many_sessions(count: int) -> Iterator[bytes]:
    """Give *count* sessions with 3 subscriptions and 10 queued messages each."""
    key = 1
    messages = Queued("site/00/device/000000/in/0")
    for number in range(count):
        session = key
        yield session_record(key, f"device-{number:06}")
        key += 1
        for which in range(3):
            yield subscription(key, session, f"site/{number % 100:02}/device/{number:06}/in/{which}")
            key += 1
        for _ in range(10):
            yield messages.records(key, session, f"site/{number % 100:02}/device/{number:06}/in/0", bytes(64))
            key += 2


def start(count: int = 100_000) -> None:
    """Start with many sessions."""
    with tempfile.TemporaryDirectory(prefix="mqttcore-durable-") as place:
        folder = Path(place)
        path = folder / "broker.db"
        write(path, many_sessions(count))
        size = path.stat().st_size
        began = time.monotonic()
        with ours(folder, path) as (process, _):
            taken_s = time.monotonic() - began
            print(
                f"start,{count} sessions,{taken_s:.2f} s,{rss_bytes(process.pid) // 1_000_000} MB of memory,"
                f"{size // 1_000_000} MB of file",
                flush=True,
            )


def long_queue(count: int) -> Iterator[bytes]:
    """Give one session with *count* queued messages."""
    yield session_record(1, "sleeper")
    messages = Queued("long/queue")
    for number in range(count):
        yield messages.records(2 + 2 * number, 1, "long/queue", number.to_bytes(8, "big") * 8)


def drain(port: int, count: int) -> None:
    """Come back as the session's client, take everything and acknowledge it."""
    os.nice(10)  # it shares a core with those whose latency is measured
    began = time.monotonic()
    got = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(connect_packet("sleeper", 4, is_durable=True))
        decoder = Decoder(4, sender="server")
        while got < count:
            packets = decoder.feed(sock.recv(262_144))
            publishes = [packet for packet in packets if isinstance(packet, Publish)]
            for packet in publishes:
                assert packet.payload[:8] == got.to_bytes(8, "big"), f"{got} is missing"
                got += 1
            sock.sendall(b"".join(PubAck(packet.packet_id).encode(4) for packet in publishes))
    print(f"drained,{got},{time.monotonic() - began:.1f} s", flush=True)


def resume(count: int = 1_000_000) -> None:
    """Let a long queue be taken while others measure their latency."""
    with tempfile.TemporaryDirectory(prefix="mqttcore-durable-") as place:
        folder = Path(place)
        path = folder / "broker.db"
        write(path, long_queue(count))
        began = time.monotonic()
        with ours(folder, path) as (process, port):
            print(f"resume,start,{time.monotonic() - began:.2f} s,{rss_bytes(process.pid) // 1_000_000} MB", flush=True)
            for label in ("quiet", "resuming"):
                drainer = None
                if label == "resuming":
                    drainer = subprocess.Popen([sys.executable, __file__, "drain", str(port), str(count)])
                report = run_scenario("latency", Options("127.0.0.1", port, rate=1000, duration_s=8.0))
                print(
                    f"resume,{label},p50 {report.p50_us / 1000:.2f} ms,p99 {report.p99_us / 1000:.2f} ms,"
                    f"p99.9 {report.p999_us / 1000:.2f} ms,{rss_bytes(process.pid) // 1_000_000} MB",
                    flush=True,
                )
                if drainer is not None:
                    drainer.wait(120)


def main() -> None:
    """Run what is asked for."""
    names = sys.argv[1:]
    if names[:1] == ["drain"]:
        drain(int(names[1]), int(names[2]))
        return
    os.sched_setaffinity(0, {1})
    parts: dict[str, Callable[[], None]] = {
        "offline": lambda: compare("durable_offline"),
        "online": lambda: compare("durable_online"),
        "clean": clean,
        "start": start,
        "resume": resume,
    }
    print(f"# load average {os.getloadavg()[0]:.2f}")
    print("scenario,broker,messages a second,us of CPU each,share of a core,p50 ms,p99 ms,MB of memory,faults")
    for name in names or list(parts):
        parts[name]()


if __name__ == "__main__":
    main()
