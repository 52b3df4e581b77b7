"""Fuzz what Python may do from the middle of things: hooks, topic handlers and taps that meddle.

    python tests/fuzz/fuzz_meddling.py --seconds 600 [--seed N]

A round is one of fuzz_feed.py whose hooks, handlers, taps and wills' authorisers do anything to anybody while they are
asked: disconnect, discard sessions, replace identities, publish, subscribe, let others go on, collect garbage. The
queues are short in messages and in total bytes, so that room is always being made. Half of the rounds have a store,
which is slow and fails at times. What must hold is what must hold there, but for what a hook changed: whatever C held
while it called Python has to outlive it. Without AddressSanitizer it sees little: docs/development.md has the command.

Another round changes the records of a store: it is refused as corrupt, or what it holds is played with.
"""

import contextlib
import gc
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.fuzz_feed import CLIENTS, FILTERS, TOPICS, Dice, Round
from fuzz.rounds import fuzz_rounds, run_command
from mqttcore import Action, Identity, Limits, Permission
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.engine.keeper import Keeper
from mqttcore.engine.restore import Restorer
from mqttcore.engine.tap import Tap
from mqttcore.errors import ProtocolError, StoreError
from mqttcore.handlers import Consumed, PublishChange, Recipients
from mqttcore.identity import Quotas
from unit.durable_world import WALL_MS, Disk

ACTS = 19
DEPTH = 3  # of hooks asked while a hook meddles
HEARD = ("a", "a/b", "#", "+/b", "a/#", "b//c")  # by handlers and taps
TRIED = (ProtocolError, StoreError, ValueError)


class MeddlingRound(Round):
    """A round in which nobody keeps to their place."""

    def __init__(self, rng: random.Random) -> None:
        self.depth = 0
        self.disk: Disk | None = None
        self.keeper: Keeper
        self.batches: list[Any] = []
        self.pending: list[Any] = []
        self.taps: list[tuple[bytes, Tap]] = []
        self.seen: list[Any] = []  # clients that hooks were shown
        super().__init__(rng)

    def make_engine(self, limits: Limits) -> Engine:
        rng = self.rng
        changes: dict[str, Any] = {
            "queued_total_bytes_maximum": rng.choice((3_000, 30_000, 1 << 30)),
            "queued_resident_messages": rng.choice((1, 4, 1000)),
            "publisher_pause_ms": rng.choice((0, 50)),
            "output_high_water_bytes": rng.choice((1024, 20_000)),
            "queue_drop": rng.choice(("newest", "oldest", "refuse")),
        }
        limits = Limits(**{name: changes.get(name, getattr(limits, name)) for name in limits.__struct_fields__})
        hooks = HookTable(
            admit=self.silent,
            authenticate=self.authenticate,
            authorize_subscribe=self.authorize_subscribe,
            authorize_publish=self.silent if rng.random() < 0.8 else None,
            authorize_deliver=self.authorize_deliver if rng.random() < 0.7 else None,
            transform_publish=self.transform_publish if rng.random() < 0.5 else None,
        )
        engine = Engine(limits, hooks, now_ms=self.now_ms)
        self.engine = engine
        if rng.random() < 0.5:
            self.disk = Disk()
            self.keeper = Keeper(engine, wall_ms=WALL_MS, bytes_maximum=rng.choice((5_000, 1 << 20)))
        if rng.random() < 0.3:
            engine.keep_backlogs(self.backlog)
        for topic_filter in rng.sample(HEARD, 2):
            engine.add_handler(topic_filter.encode(), self.handle, is_authorized_by_itself=rng.random() < 0.3)
        for topic_filter in rng.sample(HEARD, 2):
            tap = Tap(engine, self.meddle, messages_maximum=5, bytes_maximum=20_000, pauses=rng.random() < 0.5)
            engine.add_tap(topic_filter.encode(), tap)
            self.taps.append((topic_filter.encode(), tap))
        return engine

    # --- what is asked ------------------------------------------------------------------------------------------------

    def silent(self, client: Any, *_: object) -> None:
        self.seen = [*self.seen[-9:], client]
        self.meddle()

    def authenticate(self, client: Any, _: object) -> object:
        self.meddle()
        if self.rng.random() < 0.1:
            self.pending.append((self.engine.answer, client, self.identity()))
            return PENDING
        return self.identity() if self.rng.random() < 0.5 else None

    def authorize_subscribe(self, client: Any, *_: object) -> object:
        self.meddle()
        if self.rng.random() < 0.1:
            self.pending.append((self.engine.answer_subscribe, client, self.rng.choice((None, 0, 0x87))))
            return PENDING
        return None

    def authorize_deliver(self, *_: object) -> bool:
        self.meddle()
        return self.rng.random() < 0.9

    def transform_publish(self, _: object, message: Any) -> PublishChange | None:
        self.meddle()
        return PublishChange(topic=self.rng.choice(TOPICS[:5])) if self.rng.random() < 0.2 else None

    def handle(self, *_: object) -> object:
        self.meddle()
        rng = self.rng
        if rng.random() < 0.1:
            return Consumed()
        if rng.random() < 0.2:
            return Recipients(
                [self.someone() for _ in range(rng.randrange(4))],
                is_fixed=rng.random() < 0.5,
                topic=rng.choice((None, "renamed")),
            )
        return None

    def backlog(self, *_: object) -> int | None:
        self.meddle()
        return self.rng.choice((None, 0, 2))

    def identity(self) -> Identity:
        rng = self.rng
        permissions = None
        if rng.random() < 0.6:
            permissions = tuple(
                Permission(Action.ALL, rng.choice(FILTERS[9:13]), is_allowed=rng.random() < 0.7) for _ in range(2)
            )
        return Identity(
            "who",
            permissions,
            quotas=Quotas(
                bytes_per_s=rng.choice((None, None, 100)),
                queued_messages_maximum=rng.choice((None, 3)),
            ),
        )

    def someone(self) -> str:
        return f"c{self.rng.randrange(CLIENTS)}"

    # --- what is done -------------------------------------------------------------------------------------------------

    def meddle(self) -> None:
        """Do something that has nothing to do with what was asked."""
        if self.depth >= DEPTH or self.rng.random() < 0.7:
            return
        self.depth += 1
        try:
            self.act(self.rng.randrange(ACTS))
        except TRIED:
            pass
        finally:
            self.depth -= 1

    def act(self, what: int) -> None:
        rng, engine = self.rng, self.engine
        match what:
            case 0 | 1:
                engine.disconnect(self.someone(), 0x98, "fuzz")
            case 2:
                engine.discard_session(self.someone())
            case 3 | 4:
                engine.set_identity(self.someone(), self.identity())
            case 5:
                engine.publish_bytes(rng.choice(TOPICS).encode(), self.dice.payload(), rng.randrange(3))
            case 6:
                engine.deliver(self.someone(), rng.choice(TOPICS).encode(), self.dice.payload(), rng.randrange(3))
            case 7:
                engine.subscribe_client(self.someone(), rng.choice(FILTERS[:-3]).encode(), rng.randrange(3), 0)
            case 8:
                engine.unsubscribe_client(self.someone(), rng.choice(FILTERS[:-3]).encode())
            case 9:
                for _, tap in self.taps:
                    tap.take()
                engine.release_held()
            case 10:
                self.answer_pending()
            case 11:
                if self.open:
                    rng.choice(self.open)[0].connection_lost()
            case 12 | 13:
                if self.seen:
                    engine.refuse(rng.choice(self.seen), 0x87, "fuzz")
            case 14:
                if self.seen:
                    engine.answer(rng.choice(self.seen), self.identity())
            case 15:
                engine.release_backlog(self.someone(), rng.choice((None, 0, 1)), rng.random() < 0.5)
            case 16:
                engine.set_memory(is_short=rng.random() < 0.2, is_full=rng.random() < 0.2)
            case 17:
                engine.set_retained(rng.choice(TOPICS[:5]).encode(), b"retained")
            case _:
                gc.collect(0)

    def answer_pending(self) -> None:
        if self.pending:
            answer, client, what = self.pending.pop()
            answer(client, what)

    def step(self) -> None:
        if self.rng.random() < 0.2:
            with contextlib.suppress(*TRIED):
                self.act(self.rng.randrange(ACTS))
        if self.disk is not None and self.rng.random() < 0.3:
            self.write()
        with contextlib.suppress(StoreError):  # what the broker itself publishes has to be kept, too
            super().step()

    def write(self) -> None:
        """Have the store do some of what it was told, or fail."""
        disk, keeper = self.disk, self.keeper
        assert disk is not None
        batch = keeper.take_batch()
        if batch is not None:
            self.batches.append(batch)
        if self.batches and self.rng.random() < 0.1:
            keeper.failed(self.batches[0].number, self.rng.choice(("full", "io")))
        elif self.rng.random() < 0.7:
            while self.batches:
                batch = self.batches.pop(0)
                disk.apply(batch)
                keeper.committed(batch.number)
            for session, keys in keeper.take_reads():
                keeper.page_in(session, keys, disk.read(keys) if self.rng.random() < 0.9 else None)
        self.engine.flush()

    def read(self, connection: Any, decoder: Any) -> None:
        if connection.client_id is not None and connection.is_closed and connection.version != decoder.version:
            return
        super().read(connection, decoder)

    def end(self) -> None:
        self.depth = DEPTH  # nobody meddles any more
        self.pending.clear()
        for topic_filter, tap in self.taps:
            self.engine.remove_tap(topic_filter, tap)
        for client_id in [f"c{n}" for n in range(CLIENTS)]:
            self.engine.discard_session(client_id)


def play_meddling(rng: random.Random) -> None:
    """Play one round; raises Finding."""
    MeddlingRound(rng).run()


class StoredRound(MeddlingRound):
    """Fills a disk."""

    def make_engine(self, limits: Limits) -> Engine:
        engine = super().make_engine(limits)
        if self.disk is None:
            self.disk = Disk()
            self.keeper = Keeper(engine, wall_ms=WALL_MS)
        return engine

    def end(self) -> None:
        """Keep what there is on the disk."""
        self.depth = DEPTH
        while self.batches or self.keeper.has_work:
            self.write()
        self.written = dict(self.disk.table) if self.disk is not None else {}
        super().end()


def play_records(rng: random.Random) -> None:
    """Change the records of a store and start with them; raises Finding."""
    played = StoredRound(rng)
    played.run()
    disk = played.disk
    assert disk is not None
    dice = Dice(rng)
    for _ in range(5):
        disk.table = dict(played.written)
        for key in rng.sample(sorted(disk.table), min(len(disk.table), rng.randrange(4))):
            row = disk.table[key]
            disk.table[key] = row[:13] + dice.mutated(row[13:]) if rng.random() < 0.5 else dice.mutated(row)
            if rng.random() < 0.8:  # the frame is right, so that more than that is looked at
                disk.table[key] = len(disk.table[key]).to_bytes(4, "little") + row[4:13] + disk.table[key][13:]
        engine = Engine(Limits(queued_resident_messages=rng.choice((1, 1000))), now_ms=1000)
        keeper = Keeper(engine, wall_ms=WALL_MS)
        try:
            restorer = Restorer(keeper, last_key=disk.last_key)
            for chunk in disk.load():
                restorer.feed(chunk)
            while keys := restorer.wanted():
                restorer.supply(keys, disk.read(keys))
            restorer.finish()
        except (StoreError, UnicodeDecodeError):
            pass
        else:
            engine.advance(10_000)
            for session in engine.sessions():
                engine.discard_session(session.client_id)
        engine.close()
        del restorer, keeper, engine


PLAYS = {"meddling": (play_meddling, 2), "records": (play_records, 1)}


def fuzz(seed: int, seconds: float, rounds: int | None = None) -> int:
    """Play rounds from *seed* on until *seconds* are over; the number played. Raises Finding, with the seed in it."""
    return fuzz_rounds(PLAYS, seed, seconds, rounds)


if __name__ == "__main__":
    run_command(__doc__.partition("\n")[0], fuzz)
