"""What a query of a client's status over HTTP costs while 100,000 messages a second pass: CPU time of the one process.

    python benchmarks/load/status_query.py [--rate 3000] [--messages 100000] [--batch 1] [--seconds 4] [--rounds 3]

The broker has the Alibaba profile, and every message goes the way of a client's that logged in. 100,000 messages a
second, one a write, take most of a core to generate: that is core 1. The broker is on core 0, and so are those who ask
(their time is not in the figures, but is missing for the broker). Each round measures the messages alone, then with
each query: `none`, `route` (signed, `/route/clientId/get`), `api` (`/api/v1/clients/{id}`, with a key), `rpc`
(QuerySessionByClientId, signed, each with a nonce of its own). --rate 0: as many as can be answered; --messages 0: no
messages; --batch: messages a write. Prints CSV. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hmac
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aliyun_pairs import Everybody, signed_in
from http_load import Answers, ask

from mqttcore import Broker, Config, Listener
from mqttcore.bench.accounting import cpu_seconds
from mqttcore.cli.serve import tune_garbage_collection
from mqttcore.config import HttpApi
from mqttcore.http.keys import Role, make_key, write_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTANCE = "mqtt-xxxxx"
KEY_ID, SECRET = "YYYYY", "XXXXX"
CONNECTIONS = 50
SETTLE_S = 1.5  # until the messages flow, and then until they are all there
HEAD = "GET {} HTTP/1.1\r\nHost: localhost\r\n{}\r\n"


def client_id(number: int) -> str:
    return f"GID_Test@@@{number:08}"


# --- the broker -------------------------------------------------------------------------------------------------------


def serve(keys_file: str) -> None:
    plugins = {
        "aliyun_auth": {
            "instances": [{"id": INSTANCE, "groups": ["GID_Test"]}],
            "access_keys": [{"id": KEY_ID, "secret": SECRET}],
            "auto_create_topics": True,
            "subscriptions_maximum": 10_000,
        },
        "p2p": {},
        "ordered": {},
        "presence": {},
        "aliyun_openapi": {"session_queries_per_s": 1e6, "calls_per_s": 1e6},
    }
    listeners = [Listener(port=0, max_connections=0), Listener(name="web", port=0, protocol="http")]
    api = HttpApi(keys_file=keys_file, requests_per_s_per_key=0)
    config = Config(listeners=listeners, sys_interval_s=0, plugins=plugins, http_api=api)

    async def run() -> None:
        async with Broker(config, plugins=[Everybody()]) as broker:
            signed_in(broker)
            tune_garbage_collection()
            print(*(port for _, _, port in broker.addresses), flush=True)
            await asyncio.Event().wait()

    import uvloop

    uvloop.run(run())


@contextlib.contextmanager
def broker_process(keys_file: str) -> Iterator[tuple[int, int, int]]:
    """Run a broker on core 0; yield its process id and both ports."""
    command = [sys.executable, __file__, "--serve", keys_file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as broker:
        os.sched_setaffinity(broker.pid, {0})
        try:
            assert broker.stdout is not None
            mqtt_port, http_port = broker.stdout.readline().split()
            yield broker.pid, int(mqtt_port), int(http_port)
        finally:
            broker.terminate()


@contextlib.contextmanager
def known_clients(port: int, count: int) -> Iterator[None]:
    """Keep *count* clients logged in by signature."""

    def field(text: str) -> bytes:
        return len(text).to_bytes(2, "big") + text.encode()

    with contextlib.ExitStack() as stack:
        for number in range(count):
            one = client_id(number)
            password = base64.b64encode(hmac.digest(SECRET.encode(), one.encode(), "sha1")).decode()
            body = field("MQTT") + b"\x04\xc2\x00\x00" + field(one)
            body += field(f"Signature|{KEY_ID}|{INSTANCE}") + field(password)
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            sock.sendall(b"\x10" + bytes((len(body),)) + body)
            if (answer := sock.recv(4)) != b"\x20\x02\x00\x00":
                raise SystemExit(f"{one} is refused: {answer.hex()}")
        yield


# --- the queries ------------------------------------------------------------------------------------------------------


def route_requests(known: int, _: str) -> Iterator[bytes]:
    now_ms = int(time.time() * 1000)
    prepared = []
    for number in range(known):
        given = {
            "accessKey": KEY_ID,
            "instanceId": INSTANCE,
            "resource": client_id(number),
            "timestamp": str(now_ms),
        }
        text = "&".join(f"{name}={value}" for name, value in sorted(given.items()))
        given["signature"] = base64.b64encode(hmac.digest(SECRET.encode(), text.encode(), "sha1")).decode()
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
        prepared.append(HEAD.format(f"/route/clientId/get?{query}", "").encode())
    return random.Random(1).choices(prepared, k=100_000).__iter__()


def api_requests(known: int, key: str) -> Iterator[bytes]:
    head = f"Authorization: Bearer {key}\r\n"
    prepared = [HEAD.format(f"/api/v1/clients/{client_id(number)}", head).encode() for number in range(known)]
    return itertools.cycle(prepared)


def rpc_requests(known: int, _: str) -> Iterator[bytes]:
    made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    prepared = []
    for number in range(60_000):  # no nonce counts twice
        given = {
            "AccessKeyId": KEY_ID,
            "Action": "QuerySessionByClientId",
            "ClientId": client_id(number % known),
            "Format": "JSON",
            "InstanceId": INSTANCE,
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": str(uuid.uuid4()),
            "SignatureVersion": "1.0",
            "Timestamp": made_at,
            "Version": "2020-04-20",
        }
        text = "&".join(f"{name}={quote(value, safe='~')}" for name, value in sorted(given.items()))
        signed = f"GET&%2F&{quote(text, safe='~')}"
        signature = base64.b64encode(hmac.digest(f"{SECRET}&".encode(), signed.encode(), "sha1")).decode()
        prepared.append(HEAD.format(f"/?{text}&Signature={quote(signature, safe='')}", "").encode())
    return iter(prepared)


QUERIES = {
    "route": (route_requests, b'"online":1'),
    "api": (api_requests, b'"is_connected":true'),
    "rpc": (rpc_requests, b'"OnlineStatus":true'),
}


# --- measuring --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def messages(port: int, rate: int, batch: int, seconds: float) -> Iterator[list[dict[str, float]]]:
    """Have *rate* messages a second pass from before to after; the generator's report is in the list then."""
    found: list[dict[str, float]] = []
    if not rate:
        yield found
        return
    bench = [sys.executable, "-m", "mqttcore", "bench", "latency", "--port", str(port), "--rate", str(rate), "--json"]
    bench += ["--clients", "200", "--batch", str(batch), "--warm-up", "1", "--duration", str(seconds + SETTLE_S)]
    with subprocess.Popen(bench, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as generator:
        os.sched_setaffinity(generator.pid, {1})
        time.sleep(SETTLE_S)
        yield found
        out, errors = generator.communicate(timeout=60)
        if generator.returncode:
            raise SystemExit(out + errors)
        found.append(json.loads(out))


def measure(arguments: argparse.Namespace, kind: str, key: str, pid: int, ports: tuple[int, int]) -> dict[str, float]:
    """Return a row of figures of the broker with messages, and with queries of *kind*."""
    make, expected = QUERIES.get(kind, (None, b""))
    requests = iter(()) if make is None else make(arguments.known, key)
    with messages(ports[0], arguments.messages, arguments.batch, arguments.seconds) as report:
        before_s, began_s = cpu_seconds(pid), time.monotonic()
        if make is None:
            time.sleep(arguments.seconds)
            answers = Answers(seconds=arguments.seconds)
        else:
            answers = ask(
                ("127.0.0.1", ports[1]),
                requests,
                connections=arguments.connections,
                rate=arguments.rate,
                seconds=arguments.seconds,
                check=lambda answer: answer.startswith(b"HTTP/1.1 200") and expected in answer.replace(b": ", b":"),
            )
        cores = (cpu_seconds(pid) - before_s) / (time.monotonic() - began_s)
    row = {"cores": cores, "queries_per_s": answers.rate}
    if answers.latencies_s:
        row |= {"query_p50_ms": answers.percentile_ms(0.5), "query_p99_ms": answers.percentile_ms(0.99)}
    if report:
        row |= {"messages_per_s": report[0]["rate"], "message_p50_ms": report[0]["p50_us"] / 1e3}
        row |= {"message_p99_ms": report[0]["p99_us"] / 1e3}
    return row


COLUMNS = (
    "cores",
    "queries_per_s",
    "us_per_query",
    "query_p50_ms",
    "query_p99_ms",
    "messages_per_s",
    "message_p50_ms",
    "message_p99_ms",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=3000)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1, help="messages a write")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--known", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--kinds", default="route,api,rpc")
    parser.add_argument("--serve", metavar="KEYS_FILE")
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve)
    os.sched_setaffinity(0, {0})
    print(",".join(("query", *COLUMNS)))
    with tempfile.TemporaryDirectory() as folder:
        keys_file = str(Path(folder) / "keys")
        key, text = make_key("bench", Role.VIEWER)
        write_keys(keys_file, {key.name: key})
        with broker_process(keys_file) as (pid, *ports), known_clients(ports[0], arguments.known):
            for _ in range(arguments.rounds):
                alone = 0.0
                for kind in ("none", *arguments.kinds.split(",")):
                    row = measure(arguments, kind, text, pid, (ports[0], ports[1]))
                    alone = row["cores"] if kind == "none" else alone
                    if row["queries_per_s"]:
                        row["us_per_query"] = (row["cores"] - alone) / row["queries_per_s"] * 1e6
                    print(
                        ",".join((kind, *(f"{row[name]:.2f}" if name in row else "" for name in COLUMNS))), flush=True
                    )
    return None


if __name__ == "__main__":
    main()
