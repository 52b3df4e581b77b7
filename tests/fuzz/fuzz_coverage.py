"""Coverage-guided fuzzing of what reads the network: libFuzzer, by way of atheris, chooses the bytes.

    python tests/fuzz/fuzz_coverage.py CORPUS -max_total_time=600

CORPUS is a folder, made and filled from the vectors when it is not there; all arguments are libFuzzer's. It sees inside
compiled modules only in a build for it: docs/development.md has the command. The first byte of an input says what the
rest is: what one client of some version sends, after a valid CONNECT or instead of one, or the choices of a round of
fuzz_feed.py. What must hold is what must hold there; a finding is kept by libFuzzer in a file, which, given instead of
CORPUS, repeats it. Two more kinds are what a WebSocket client sends behind the upgrade, and a PROXY header.
"""

import functools
import random
import sys
import types
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.fuzz_doors import check_header, frames, header, is_closed_by
from fuzz.fuzz_feed import GAUGES, VERSIONS, Dice, Round, check_decode
from fuzz.rounds import Finding, our_errors
from mqttcore import Limits
from mqttcore.codec import Connect, Decoder
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.errors import ProtocolError
from vectors import FAULTY, VALID

KINDS = 10  # of input: with and without CONNECT for three versions, two for rounds, WebSocket, PROXY
WEBSOCKET, PROXY = 8, 9
LIMITS = Limits(
    maximum_packet_size_bytes=2000,
    receive_maximum=5,
    topic_alias_maximum=3,
    topic_alias_maximum_out=3,
    in_flight_maximum=3,
    queued_messages_maximum=5,
    topic_levels_maximum=10,
    subscriptions_per_session_maximum=10,
    retained_messages_maximum=3,
)


class Choices(random.Random):
    """Chance that follows the bytes of an input; `is_spent` once they are used up, and zero from then on."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data = data
        self.at = 0

    @property
    def is_spent(self) -> bool:
        return self.at >= len(self.data)

    def getrandbits(self, k: int) -> int:
        size = (k + 7) // 8
        if size > 8:  # a payload: its bytes decide nothing, its length was chosen already
            return 0
        taken = self.data[self.at : self.at + size]
        self.at += size
        return int.from_bytes(taken, "little") & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(8) / 256


class GuidedRound(Round):
    """A round that is over when its choices are."""

    rng: Choices

    def is_over(self) -> bool:
        return self.rng.is_spent


def play_bytes(data: bytes, version: int, with_connect: bool) -> None:
    """Say *data* as one client, whole and in two pieces; raises Finding."""
    check_decode(data, version)
    middle = len(data) // 2
    whole, cut = (answer(pieces, version, with_connect) for pieces in ([data], [data[:middle], data[middle:]]))
    if with_connect and whole != cut:  # without, the client id may be one that the broker assigns by chance
        raise Finding(f"the cut matters: {whole.hex()} or {cut.hex()}")


def answer(pieces: list[bytes], version: int, with_connect: bool) -> bytes:
    """Return what the broker says to a client that sends *pieces*, and check what remains; raises Finding."""
    engine = Engine(LIMITS, now_ms=1000)
    connection = Connection(engine, types.SimpleNamespace(name="fuzz", allow_anonymous=True), ("fuzz", 1))
    if with_connect:
        connection.receive(Connect("c", protocol_version=version, clean_start=True).encode(version))
    for piece in pieces:
        connection.receive(piece)
    engine.flush()
    output = bytes(connection.take_output())
    if connection.client_id is not None:
        try:
            Decoder(connection.version, sender="server").feed(output)
        except ProtocolError as error:
            raise Finding(f"the broker wrote what cannot be read: {error}: {output[:200].hex()}") from error
    connection.connection_lost()
    for now_ms in range(10_000, 100_000, 10_000):
        engine.advance(now_ms)
    engine.discard_session("c")
    engine.flush()
    metrics = engine.metrics()
    left = {name: metrics[name] for name in GAUGES if metrics[name]}
    negative = {name: value for name, value in metrics.items() if value < 0}
    engine.close()
    if negative or (left and with_connect):
        raise Finding(f"gauges after the end: {left} {negative}")
    return output


def play_frames(data: bytes) -> None:
    """Say *data* behind an upgrade, whole and in two pieces; raises Finding."""
    middle = len(data) // 2
    if is_closed_by([data]) != is_closed_by([data[:middle], data[middle:]]):
        raise Finding(f"the cut matters: {data.hex()}")


def play(unraisable: list[BaseException | None], errors: list[str], data: bytes) -> None:
    """Play one input; raises Finding."""
    if not data:
        return
    kind = data[0] % KINDS
    if kind == WEBSOCKET:
        play_frames(data[1:])
    elif kind == PROXY:
        check_header(data[1:], "any")
    elif kind < 6:
        play_bytes(data[1:], VERSIONS[kind % 3], with_connect=kind < 3)
    else:
        GuidedRound(Choices(data[1:])).run()
    if unraisable:
        raise Finding("raised where nothing can be") from unraisable[0]
    if errors:
        raise Finding(f"logged as an error: {errors[0]}")


def fill(corpus: Path) -> None:
    """Make *corpus* of the vectors that clients send, and of chance for the rounds."""
    corpus.mkdir(parents=True)
    for number, vector in enumerate(row for row in (*VALID, *FAULTY) if row.sender == "client"):
        kind = VERSIONS.index(vector.version) + (3 if vector.data[:1] == b"\x10" else 0)
        if len(vector.data) < LIMITS.maximum_packet_size_bytes:
            (corpus / f"vector-{number}").write_bytes(bytes([kind]) + vector.data)
    for number in range(20):
        rng = random.Random(number)
        (corpus / f"round-{number}").write_bytes(bytes([6]) + rng.randbytes(1000))
        (corpus / f"frames-{number}").write_bytes(bytes([WEBSOCKET]) + frames(rng, Dice(rng)))
        (corpus / f"header-{number}").write_bytes(bytes([PROXY]) + header(rng))


def main() -> None:
    """Fuzz as told on the command line; libFuzzer ends the process."""
    corpus = Path(sys.argv[1]) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None
    if corpus is not None and not corpus.exists():
        fill(corpus)
    unraisable: list[BaseException | None] = []
    sys.unraisablehook = lambda fault: unraisable.append(fault.exc_value)
    with our_errors() as errors:
        atheris.Setup(sys.argv, functools.partial(play, unraisable, errors))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
