"""The test's end of the line protocol: a driver's process and the MQTT connections that it holds."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import threading
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop.clients import ONE_CONNECTION, TLS_CLOSES, Client
from interop.relay import Relay

DEADLINE_S = 80  # longer than the drivers' own, whose errors say more


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict[str, Any] = field(default_factory=dict)


class Failed(AssertionError):
    """The driver answered that the library failed; reason_code where the library told it."""

    def __init__(self, text: str, reason_code: int | None) -> None:
        super().__init__(text)
        self.reason_code = reason_code


class Driver:
    """One driver's process; it serves all tests of its client."""

    def __init__(self, client: Client, log: Path) -> None:
        self.client = client
        self.log = log
        self.numbers = itertools.count(1)
        self.changed = threading.Condition()
        self.answers: dict[int, dict[str, Any]] = {}
        self.messages: dict[str, deque[Message]] = {}
        self.closed: dict[str, int | None] = {}
        self.title = ""
        self.has_ended = False
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                client.command,
                env=client.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.wait_for(lambda: self.title, "ready")

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            fields = json.loads(line)
            with self.changed:
                match fields.get("event"):
                    case None:
                        self.answers[fields["id"]] = fields
                    case "ready":
                        self.title = fields["client"]
                    case "message":
                        message = Message(
                            fields["topic"],
                            bytes.fromhex(fields["payload"]),
                            fields["qos"],
                            fields["retain"],
                            {name: value for name, value in fields["properties"].items() if value is not None},
                        )
                        self.messages.setdefault(fields["name"], deque()).append(message)
                    case "closed":
                        self.closed.setdefault(fields["name"], fields.get("reason_code"))
                self.changed.notify_all()
        with self.changed:
            self.has_ended = True
            self.changed.notify_all()

    def wait_for(self, predicate: Any, what: str) -> Any:
        """Wait until predicate() is true; return its value."""
        with self.changed:
            found = self.changed.wait_for(lambda: predicate() or self.has_ended, DEADLINE_S)
            value = predicate()
            assert value, (
                f"{self.client.name}: no {what} "
                + ("(driver ended)" if found else "in time")
                + f"\n{self.log.read_text()}"
            )
            return value

    def call(self, do: str, name: str, **fields: Any) -> dict[str, Any]:
        """Run one command; raise Failed where the library failed."""
        number = next(self.numbers)
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"id": number, "do": do, "name": name, **fields}) + "\n")
        self.process.stdin.flush()
        self.wait_for(lambda: number in self.answers, f"answer to {do}")
        answer = self.answers.pop(number)
        if not answer["ok"]:
            raise Failed(f"{self.title}: {do}: {answer['error']}", answer.get("reason_code"))
        return answer

    def stop(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):  # it crashed, and the test that made it did fail
            self.process.stdin.close()
        try:
            self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join()
            self.process.stdout.close()


class Connection:
    """One MQTT connection of a driver, through a relay of its own. connack: the answer to `connect`."""

    def __init__(
        self,
        driver: Driver,
        name: str,
        address: tuple[str, int],
        command: dict[str, Any],
        tls: dict[str, str] | None = None,
    ) -> None:
        self.driver = driver
        self.name = name
        self.is_tls = tls is not None
        self.relay = Relay(address, takes_one=ONE_CONNECTION in driver.client.can)
        try:
            self.connack = driver.call("connect", name, host="127.0.0.1", port=self.relay.port, tls=tls, **command)
        except BaseException:
            self.relay.cut()
            raise

    def subscribe(self, *filters: str, qos: int = 0, subscription_id: int | None = None, **options: Any) -> list[int]:
        """Subscribe to all filters in one packet; return the reason codes."""
        wanted = [
            {
                "filter": one,
                "qos": qos,
                "no_local": options.get("no_local", False),
                "retain_as_published": options.get("retain_as_published", False),
                "retain_handling": options.get("retain_handling", 0),
            }
            for one in filters
        ]
        answer = self.driver.call("subscribe", self.name, filters=wanted, subscription_id=subscription_id)
        return list(answer["reason_codes"])

    def unsubscribe(self, *filters: str) -> None:
        self.driver.call("unsubscribe", self.name, filters=list(filters))

    def publish(
        self, topic: str, payload: bytes, qos: int = 0, retain: bool = False, **properties: Any
    ) -> dict[str, Any]:
        """Publish and wait for the end of the QoS handshake."""
        if "correlation_data" in properties:
            properties["correlation_data"] = properties["correlation_data"].hex()
        return self.driver.call(
            "publish", self.name, topic=topic, payload=payload.hex(), qos=qos, retain=retain, properties=properties
        )

    def receive(self) -> Message:
        """Return the next message, waiting for it."""
        inbox = self.driver.messages.setdefault(self.name, deque())
        self.driver.wait_for(lambda: inbox, f"message for {self.name}")
        return inbox.popleft()

    def closed(self) -> int | None:
        """Wait until the library reports the end of the connection; return the peer's reason code, None if not told."""
        self.driver.wait_for(lambda: self.name in self.driver.closed, "report that the connection ended")
        self.drop()
        return self.driver.closed[self.name]

    def disconnect(self, reason_code: int = 0) -> None:
        self.driver.call("disconnect", self.name, reason_code=reason_code)
        if self.is_tls and TLS_CLOSES not in self.driver.client.can:
            self.relay.cut()
        else:
            self.relay.finish()

    def kill(self) -> None:
        """End the network connection without a DISCONNECT."""
        self.drop()

    def drop(self) -> None:
        if self.relay.is_open:
            self.relay.cut()
            self.driver.call("drop", self.name)
