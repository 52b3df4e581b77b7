"""Driver for mosquitto_pub and mosquitto_sub.

A connection is one mosquitto_sub. It cannot subscribe later, so `subscribe` starts it anew with all filters so far
(same client id), and `connect` gives it a filter that nobody publishes to. `publish` is a mosquitto_pub of its own.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from concurrent.futures import Future
from typing import Any

from lines import Fields, Refused, emit, serve

DEADLINE_S = 60
VERSIONS = {3: "mqttv31", 4: "mqttv311", 5: "mqttv5"}
PUBLISH = {
    "content_type": "content-type",
    "correlation_data": "correlation-data",
    "response_topic": "response-topic",
    "message_expiry_s": "message-expiry-interval",
    "payload_format": "payload-format-indicator",
    "topic_alias": "topic-alias",
    "user_properties": "user-property",
}
CONNECT = {
    "receive_maximum": "receive-maximum",
    "topic_alias_maximum": "topic-alias-maximum",
    "user_properties": "user-property",
}
WILL = PUBLISH | {"will_delay_s": "will-delay-interval"}
# Each message is "<hex payload> <JSON>"; debug lines begin with a word that is no hexadecimal number.
MESSAGE = re.compile(r"^MESSAGE ([0-9a-f]*) (\{.*\})$")
# Those not stopped yet: left alone, one would connect for ever, to whoever gets the port.
RUNNING: set[subprocess.Popen[str]] = set()
SUBACK = re.compile(r"^Subscribed \(mid: \d+\): (.*)$")


def property_arguments(packet: str, names: dict[str, str], fields: Fields) -> list[str]:
    arguments = []
    for name, value in fields.items():
        if name == "user_properties":
            for key, text in value:
                arguments += ["-D", packet, "user-property", key, text]
        else:
            text = bytes.fromhex(value).decode() if name == "correlation_data" else str(value)
            arguments += ["-D", packet, names[name], text]
    return arguments


def repeated_keys(pairs: list[tuple[str, Any]]) -> Fields:
    """Make an object that also tells its `pairs`: user properties repeat a key."""
    return {**dict(pairs), "pairs": pairs}


def from_mosquitto(fields: Fields) -> Fields:
    names = {theirs: ours for ours, theirs in PUBLISH.items()}
    found = {names[theirs]: value for theirs, value in fields.items() if theirs in names}
    if "user-properties" in fields:
        found["user_properties"] = fields["user-properties"]["pairs"]
    if "correlation_data" in found:
        found["correlation_data"] = found["correlation_data"].encode().hex()
    return found


class Connection:
    def __init__(self, command: Fields) -> None:
        self.name = command["name"]
        self.command = command
        self.filters: list[str] = []
        self.qos = 0
        self.process: subprocess.Popen[str] | None = None

    def arguments(self) -> list[str]:
        command = self.command
        found = ["-h", command["host"], "-p", str(command["port"]), "-V", VERSIONS[command["version"]]]
        found += ["-k", str(command["keep_alive_s"])]
        tls = command["tls"]
        if tls is not None:
            found += ["--cafile", tls["ca"]]
            if "certificate" in tls:
                found += ["--cert", tls["certificate"], "--key", tls["key"]]
        return found

    def start(self) -> tuple[Fields, list[int]]:
        """Run mosquitto_sub until it is subscribed; return CONNACK's fields and SUBACK's codes."""
        command = self.command
        arguments = ["mosquitto_sub", *self.arguments(), "-i", command["client_id"], "-d", "-F", "MESSAGE %x %j"]
        if not command["clean_start"]:
            arguments += ["-c"]
        if command["version"] == 5:
            properties = dict(command["properties"])
            arguments += ["-x", str(properties.pop("session_expiry_s", 0))]
            arguments += property_arguments("connect", CONNECT, properties)
        will = command["will"]
        if will is not None:
            arguments += ["--will-topic", will["topic"], "--will-payload", bytes.fromhex(will["payload"]).decode()]
            arguments += ["--will-qos", str(will["qos"])] + ["--will-retain"] * will["retain"]
            arguments += property_arguments("will", WILL, will["properties"])
        for one in self.filters or ["nobody/publishes/here"]:
            arguments += ["-t", one]
        arguments += ["-q", str(self.qos)]
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",  # the JSON repeats payloads that are no text; %x has them whole
        )
        RUNNING.add(self.process)
        self.connack: Future[Fields] = Future()
        self.suback: Future[list[int]] = Future()
        self.reader = threading.Thread(target=self.read, args=(self.process,), daemon=True)
        self.reader.start()
        answer = self.connack.result(DEADLINE_S)
        return answer, self.suback.result(DEADLINE_S)

    def read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            line = line.rstrip("\n")
            if message := MESSAGE.match(line):
                self.on_message(message[1], json.loads(message[2], object_pairs_hook=repeated_keys))
            elif " received CONNACK (" in line:
                code = int(line.rsplit("(", 1)[1].rstrip(")"))
                if code:
                    self.connack.set_exception(Refused(line, code))
                else:
                    self.connack.set_result({"reason_code": 0})
            elif suback := SUBACK.match(line):
                self.suback.set_result([int(code) for code in suback[1].split(", ")])
            elif " received DISCONNECT (" in line:
                emit(event="closed", name=self.name, reason_code=int(line.rsplit("(", 1)[1].rstrip(")")))
        for waiting in (self.connack, self.suback):
            if not waiting.done():
                waiting.set_exception(Refused("mosquitto_sub ended early"))

    def on_message(self, payload: str, fields: Fields) -> None:
        emit(
            event="message",
            name=self.name,
            topic=fields["topic"],
            payload=payload,
            qos=fields["qos"],
            retain=bool(fields["retain"]),
            properties=from_mosquitto(fields.get("properties", {})),
        )

    def subscribe(self, command: Fields) -> Fields:
        self.disconnect(command)
        before = len(self.filters)
        self.filters += [one["filter"] for one in command["filters"]]
        self.qos = command["filters"][0]["qos"]
        _, codes = self.start()
        return {"reason_codes": codes[before:]}

    def publish(self, command: Fields) -> None:
        arguments = ["mosquitto_pub", *self.arguments(), "-t", command["topic"], "-q", str(command["qos"])]
        arguments += ["-s" if command["payload"] else "-n"] + ["-r"] * command["retain"]
        if self.command["version"] == 5:
            arguments += property_arguments("publish", PUBLISH, command["properties"])
        done = subprocess.run(
            arguments, input=bytes.fromhex(command["payload"]), capture_output=True, timeout=DEADLINE_S, check=False
        )
        if done.returncode:
            raise Refused(done.stderr.decode())

    def disconnect(self, command: Fields) -> None:
        self.stop(signal.SIGTERM)

    def drop(self, command: Fields) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(how)
        self.process.wait(DEADLINE_S)
        RUNNING.discard(self.process)
        self.reader.join(DEADLINE_S)


CONNECTIONS: dict[str, Connection] = {}


def handle(command: Fields) -> Fields | None:
    name = command["name"]
    match command["do"]:
        case "connect":
            connection = Connection(command)
            answer, _ = connection.start()
            CONNECTIONS[name] = connection
            return answer
        case "disconnect" | "drop" as verb:
            getattr(CONNECTIONS.pop(name), verb)(command)
            return None
        case verb:
            return getattr(CONNECTIONS[name], verb)(command)


def title() -> str:
    told: Any = subprocess.run(["mosquitto_sub", "--version"], capture_output=True, text=True, check=False)
    return " ".join(told.stdout.split()[:3])


try:
    serve(title(), handle)
finally:
    for process in RUNNING:
        process.kill()
