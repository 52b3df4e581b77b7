"""Rounds of load and sudden death, and what has to be so after each.

A round: start the broker, look at retained messages and subscriptions, let publishers and subscribers work for a while,
and end the broker somehow. Seed and number of a round decide how; timing is the machine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from durability.clients import DEADLINE_S, Publisher, Subscriber, Watcher
from durability.ledger import Ledger
from durability.power import Power
from mqttcore.codec import Publish

RUNNER = Path(__file__).parent / "runner.py"
RETAINED_TOPICS = 8
CHURNED_FILTERS = 8
DRAIN_S = 60.0


@dataclass
class Setup:
    """What is tried. deaths: how the broker ends, chosen at random. power: takes back what was not synced.

    faults: what the disk does for a part of some rounds, arguments of `Power.set`, chosen at random.
    """

    path: Path
    seed: int
    store: str = "sqlite"
    settings: dict[str, Any] = field(default_factory=dict)
    deaths: tuple[str, ...] = ("kill", "kill", "kill", "kill", "stop and kill", "stop and go", "term")
    power: Power | None = None
    faults: tuple[dict[str, Any], ...] = ()
    round_s: tuple[float, float] = (0.02, 0.15)
    window: int = 20


class Brokers:
    """One broker after another on the same file, forked from a process that has imported everything."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._forker: Process | None = None
        self._pid = 0

    async def _fork(self) -> Process:
        setup = self._setup
        environment = {**os.environ, **(setup.power.environment if setup.power is not None else {})}
        root = Path(__file__).parents[2]
        environment["PYTHONPATH"] = os.pathsep.join([str(root / "src"), environment.get("PYTHONPATH", "")])
        options = {"path": str(setup.path), "store": setup.store, "settings": setup.settings}
        command = [sys.executable, str(RUNNER), json.dumps(options)]
        with self._errors().open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=errors, env=environment
            )

    def _errors(self) -> Path:
        return self._setup.path.with_name("stderr")

    async def _line(self) -> tuple[str, int]:
        assert self._forker is not None
        assert self._forker.stdout
        async with asyncio.timeout(DEADLINE_S):
            line = await self._forker.stdout.readline()
        word, number = line.decode().split()
        if word == "pid":
            self._pid = int(number)
        return word, int(number)

    async def start(self) -> int:
        """Start the next broker; its port."""
        if self._forker is None:
            self._forker = await self._fork()
        assert self._forker.stdin
        self._forker.stdin.write(b"go\n")
        said = dict([await self._line(), await self._line()])
        assert "port" in said, f"the broker did not start:\n{self._errors().read_text()}"
        return said["port"]

    async def end(self, how: str) -> None:
        """End the broker: kill, stop and kill, stop and go (and kill), or term."""
        if how.startswith("stop"):
            os.kill(self._pid, signal.SIGSTOP)
            await asyncio.sleep(0.05)
            if how == "stop and go":
                os.kill(self._pid, signal.SIGCONT)
                await asyncio.sleep(0.05)
        os.kill(self._pid, signal.SIGTERM if how == "term" else signal.SIGKILL)
        ended = await self._line()
        expected = 0 if how == "term" else -signal.SIGKILL
        assert ended == ("ended", expected), f"{ended}\n{self._errors().read_text()}"
        self._pid = 0

    async def close(self) -> None:
        """End everything."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        if self._forker is not None:
            self._forker.kill()
            await self._forker.communicate()


@dataclass
class _Retaining:
    """A topic with a retained message that changes: number of the last change sent, and acknowledged."""

    sent: int = 0
    acknowledged: int = 0

    def possible(self) -> set[bytes | None]:
        """What may be retained now: None, nothing, for every third change."""
        return {_retained(number) for number in range(self.acknowledged, self.sent + 1)}


def _retained(number: int) -> bytes | None:
    return b"%d" % number if number % 3 else None


class Checker:
    """Plays rounds; `ledger.faults` has what went wrong."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.ledger = Ledger()
        self.restarts = 0
        self.pages_lost = 0
        rng = random.Random(setup.seed)
        self.publishers = [
            Publisher(f"p{number}", 1 + number % 2, self.ledger, setup.window, random.Random(rng.random()))
            for number in range(4)
        ]
        self.online = [Subscriber("on1", 1, self.ledger), Subscriber("on2", 2, self.ledger)]
        self.sleeper = Subscriber("off2", 2, self.ledger)
        self.changer = Watcher("changer", self.ledger)
        self.churner = Watcher("churner", self.ledger)
        self._retaining = [_Retaining() for _ in range(RETAINED_TOPICS)]
        # Filter number -> what may be so: subscribed, not subscribed; both while an answer is missing.
        self._churned: list[set[bool]] = [{False} for _ in range(CHURNED_FILTERS)]
        self._brokers = Brokers(setup)

    async def run(self, rounds: int) -> Ledger:
        """Play *rounds*, stop publishing, and let everything arrive."""
        began = time.monotonic()
        try:
            for number in range(rounds):
                await self._round(random.Random(f"{self.setup.seed}:{number}"), number)
                if self.ledger.faults:
                    break
            else:
                await self._finish()
        finally:
            for peer in self._peers():
                peer.disconnect()
            await self._brokers.close()
        self.seconds = time.monotonic() - began
        return self.ledger

    def _peers(self) -> Iterator[Any]:
        yield from (*self.publishers, *self.online, self.sleeper, self.changer, self.churner)

    async def _round(self, rng: random.Random, number: int) -> None:
        port = await self._brokers.start()
        if number:
            self.restarts += 1
            await self._check_retained(port, number)
            await self._check_subscriptions(port, number)
        for subscriber in self.online:
            subscriber.delay_s = rng.choice((0.0, 0.0, 0.002, 0.02))
            await subscriber.connect(port)
        if not number:
            for subscriber in (*self.online, self.sleeper):
                if subscriber is self.sleeper:
                    await subscriber.connect(port)
                assert await subscriber.subscribe("d/#", subscriber.qos)
            self.sleeper.disconnect()
        if number % 4 == 3:
            await self.sleeper.connect(port)
        for peer in (*self.publishers, self.changer, self.churner):
            await peer.connect(port)
        work = [asyncio.ensure_future(self._change(rng)), asyncio.ensure_future(self._churn(rng))]
        await asyncio.sleep(rng.uniform(*self.setup.round_s))
        if self.setup.power is not None and self.setup.faults:
            self.setup.power.set(**rng.choice(self.setup.faults))
            await asyncio.sleep(rng.uniform(*self.setup.round_s))
            self.setup.power.set()
            await asyncio.sleep(rng.uniform(*self.setup.round_s))
        await self._brokers.end(rng.choice(self.setup.deaths))
        for task in work:
            task.cancel()
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        for peer in self._peers():
            peer.disconnect()
        if self.setup.power is not None:
            self.pages_lost += self.setup.power.lose(rng)

    async def _change(self, rng: random.Random) -> None:
        """Change retained messages, one after another."""
        while True:
            place = rng.randrange(RETAINED_TOPICS)
            retaining = self._retaining[place]
            retaining.sent += 1
            payload = _retained(retaining.sent) or b""
            packet_id = self.changer.next_packet_id()
            await self.changer.request(Publish(f"r/{place}", payload, qos=1, retain=True, packet_id=packet_id))
            retaining.acknowledged = retaining.sent

    async def _churn(self, rng: random.Random) -> None:
        """Subscribe and unsubscribe, one after another."""
        while True:
            place = rng.randrange(CHURNED_FILTERS)
            wanted = rng.random() < 0.5
            self._churned[place].add(wanted)
            if not wanted:
                await self.churner.unsubscribe(f"s/{place}")
            elif not await self.churner.subscribe(f"s/{place}", 1):
                await asyncio.sleep(0.01)
                continue  # nothing is promised: it may be as it was
            self._churned[place] = {wanted}
            await asyncio.sleep(0)

    async def _check_retained(self, port: int, number: int) -> None:
        reader = Watcher(f"reader{number}", self.ledger)
        await reader.connect(port, clean=True)
        await reader.subscribe("r/#", 1)
        await reader.request(Publish("r/end", b"end", qos=1, packet_id=reader.next_packet_id()))
        await reader.until("r/end")  # retained messages came before it
        reader.disconnect()
        for place, retaining in enumerate(self._retaining):
            found = reader.seen.get(f"r/{place}")
            if found not in retaining.possible():
                self.ledger.fault(f"r/{place} retains {found!r}, not one of {retaining.possible()}")
            elif found is not None:
                # What is there now was kept, acknowledged or not.
                retaining.acknowledged = max(retaining.acknowledged, int(found))

    async def _check_subscriptions(self, port: int, number: int) -> None:
        await self.churner.connect(port)
        self.churner.seen.clear()
        await self.churner.subscribe("s/end", 1)
        prober = Watcher(f"prober{number}", self.ledger)
        await prober.connect(port, clean=True)
        for topic in (*(f"s/{place}" for place in range(CHURNED_FILTERS)), "s/end"):
            await prober.request(Publish(topic, b"probe", qos=1, packet_id=prober.next_packet_id()))
        await self.churner.until("s/end")
        prober.disconnect()
        self.churner.disconnect()
        for place, possible in enumerate(self._churned):
            is_subscribed = f"s/{place}" in self.churner.seen
            if is_subscribed not in possible:
                self.ledger.fault(f"the subscription to s/{place} is {'there' if is_subscribed else 'gone'}")
            self._churned[place] = {is_subscribed}

    async def _finish(self) -> None:
        """Let everything arrive that was sent; then nothing may be missing."""
        port = await self._brokers.start()
        for publisher in self.publishers:
            publisher.is_stopped = True
        receivers = [*self.online, self.sleeper]
        for receiver in receivers:
            receiver.delay_s = 0.0
        for peer in (*receivers, *self.publishers):
            await peer.connect(port)
        deadline = time.monotonic() + DRAIN_S
        progress = -1
        while not self._is_done(receivers):
            if self.ledger.received != progress:
                progress, deadline = self.ledger.received, time.monotonic() + DEADLINE_S
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.01)
        for publisher in self.publishers:
            if not publisher.is_quiet:
                self.ledger.fault(f"{publisher.client_id} never got its acknowledgements")
        for receiver in receivers:
            if lost := self.ledger.lost(receiver.client_id):
                self.ledger.fault(f"{receiver.client_id} never got {lost} acknowledged messages")
        await self._brokers.end("term")

    def _is_done(self, receivers: list[Subscriber]) -> bool:
        if not all(publisher.is_quiet for publisher in self.publishers):
            return False
        return not any(self.ledger.lost(receiver.client_id) for receiver in receivers)

    def summary(self) -> str:
        """Say what was done, for people."""
        acknowledged = sum(sender.acknowledged for sender in self.ledger.senders.values())
        return (
            f"seed {self.setup.seed}: {self.restarts} restarts in {self.seconds:.0f} s, {acknowledged} messages "
            f"acknowledged, {self.ledger.received} received, {self.ledger.repeated} of QoS 1 repeated, "
            f"{self.pages_lost} pages lost, {len(self.ledger.faults)} faults"
        )
