"""What a login by signature costs the broker, beside one of an anonymous client: CPU time of its process. Linux only.

    python benchmarks/load/signature_logins.py [--logins 4000] [--rounds 5]

Each login is a connection of its own: TCP, CONNECT, CONNACK, DISCONNECT. Prints one line of CSV a round.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """\
sys_interval_s = 0
[[listeners]]
port = 0
"""
PLUGIN = """\
[plugins.aliyun_auth]
instances = [{ id = "mqtt-xxxxx", groups = ["GID_Test"], topics = ["TopicA", "TopicB"] }]
access_keys = [{ id = "YYYYY", secret = "XXXXX" }]
"""
DISCONNECT = b"\xe0\x00"


def field(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def connect(number: int, is_signed: bool) -> bytes:
    client_id = b"GID_Test@@@%08d" % number
    body = field(b"MQTT") + bytes((4, 0xC2 if is_signed else 0x02)) + b"\x00\x5a" + field(client_id)
    if is_signed:
        password = base64.b64encode(hmac.digest(b"XXXXX", client_id, "sha1"))
        body += field(b"Signature|YYYYY|mqtt-xxxxx") + field(password)
    return b"\x10" + bytes((len(body),)) + body


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(config: str, logins: int, is_signed: bool) -> tuple[float, float]:
    """Return CPU microseconds of the broker and logins a second."""
    packets = [connect(number, is_signed) for number in range(logins)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "broker.toml"
        path.write_text(config)
        command = [sys.executable, "-m", "mqttcore", "serve", "--config", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as broker:
            try:
                assert broker.stdout is not None
                found = re.search(r"listening on \S+:(\d+)", broker.stdout.readline())
                assert found is not None
                address = ("127.0.0.1", int(found[1]))
                before_s, began_s = cpu_s(broker.pid), time.monotonic()
                for start in range(0, logins, 64):
                    log_in(address, packets[start : start + 64])
                return (
                    (cpu_s(broker.pid) - before_s) / logins * 1e6,
                    logins / (time.monotonic() - began_s),
                )
            finally:
                broker.terminate()


def log_in(address: tuple[str, int], packets: list[bytes]) -> None:
    """Open a connection for each packet, all at once; insist on the CONNACK."""
    sockets = [socket.create_connection(address) for _ in packets]
    for sock, packet in zip(sockets, packets, strict=True):
        sock.sendall(packet)
    for sock in sockets:
        answer = sock.recv(4)
        if answer != b"\x20\x02\x00\x00":
            raise SystemExit(f"refused: {answer.hex()}")
        sock.sendall(DISCONNECT)
        sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logins", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print("anonymous_us,signature_us,signature_logins_per_s,logins_per_s_of_one_core")
    for _ in range(arguments.rounds):
        anonymous_us, _ = measure(CONFIG, arguments.logins, is_signed=False)
        signature_us, per_s = measure(CONFIG + PLUGIN, arguments.logins, is_signed=True)
        print(f"{anonymous_us:.1f},{signature_us:.1f},{per_s:.0f},{1e6 / signature_us:.0f}", flush=True)


if __name__ == "__main__":
    main()
