"""WebSocket framing without a socket: however a stream is cut, the engine gets the same."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqttcore.codec import Connect, Decoder, PingResp, Publish
from mqttcore.config import Limits
from mqttcore.engine.engine import Engine
from mqttcore.engine.tap import Tap
from mqttcore.net.listeners import BoundListener
from mqttcore.net.stream import WebSocketStream
from websocket_wire import BINARY, CLOSE, CONTINUATION, PING, PONG, close_frame, frame

EXAMPLES = settings(max_examples=150, deadline=None)


class Transport:
    """An asyncio transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Reads come from the test."""

    resume_reading = pause_reading


class Rig:
    """One WebSocket connection of an engine, and everything that the engine got published through it."""

    def __init__(self, **framing: int) -> None:
        self.engine = Engine(Limits(), now_ms=1)
        self.tap = Tap(self.engine, lambda: None, messages_maximum=1000, bytes_maximum=1 << 30)
        self.engine.add_tap(b"#", self.tap)
        self.transport = Transport()
        limits = {"message_bytes_maximum": 1 << 30, "pings_per_s_maximum": 1 << 30, **framing}
        self.connection = WebSocketStream(self.engine, BoundListener("t", True, 0, 1, 1), upgraded=b"HTTP!", **limits)
        self.connection.connection_made(self.transport)
        self.engine.flush()

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        return [(message.topic, message.payload) for message in self.tap.take()]

    def feed(self, data: bytes, cuts: list[int]) -> None:
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        for begin, end in itertools.pairwise(edges):
            self.connection.data_received(data[begin:end])

    def answers(self) -> list[tuple[int, bytes]]:
        """Return the frames that were written, which must be whole and unmasked, behind the answer to the upgrade."""
        assert self.transport.written[:5] == b"HTTP!"
        rest, frames = bytes(self.transport.written[5:]), []
        while rest:
            assert rest[0] & 0xF0 == 0x80
            size, at = rest[1], 2
            assert size < 128
            if size >= 126:
                at = 4 if size == 126 else 10
                size = int.from_bytes(rest[2:at], "big")
            assert len(rest) >= at + size
            frames.append((rest[0] & 0x0F, rest[at : at + size]))
            rest = rest[at + size :]
        return frames

    def end(self) -> None:
        self.connection.connection_lost()
        assert self.engine.metrics()["connections"] == 0
        self.engine.close()


payloads = st.lists(
    st.one_of(st.binary(max_size=200), st.integers(120, 70_000).map(lambda size: b"\xa5" * size)), max_size=6
)
masks = st.binary(min_size=4, max_size=4)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


class Cut(NamedTuple):
    """Where the stream is cut, and what follows there."""

    at: int
    ends_message: bool
    mask: bytes
    control: tuple[int, bytes] | None


# Small places as well: heads and the first packets are there.
places = st.one_of(st.integers(0, 40), st.integers(0, 400_000))
stream_cuts = st.lists(st.builds(Cut, places, st.booleans(), masks, st.none() | controls), max_size=10)


def framed(stream: bytes, cuts: list[Cut]) -> tuple[bytes, list[bytes]]:
    """Return *stream* in messages of fragments with control frames between, and the payloads of the pings."""
    sent, pings, at, is_first = b"", [], 0, True
    for cut in [*sorted(cuts, key=lambda one: one.at), Cut(len(stream), True, b"last", None)]:
        end = min(cut.at, len(stream))
        sent += frame(stream[at:end], BINARY if is_first else CONTINUATION, fin=cut.ends_message, mask=cut.mask)
        at, is_first = end, cut.ends_message
        if cut.control is not None:
            kind, payload = cut.control
            sent += frame(payload, kind, mask=cut.mask)
            if kind == PING:
                pings.append(payload)
    return sent, pings


@given(contents=payloads, stream_cuts=stream_cuts, cuts=st.lists(places, max_size=8))
@EXAMPLES
def test_any_cut_gives_the_engine_the_same(contents: list[bytes], stream_cuts: list[Cut], cuts: list[int]) -> None:
    stream = Connect("c").encode(5)
    stream += b"".join(Publish(f"t/{number}", payload).encode(5) for number, payload in enumerate(contents))
    sent, pings = framed(stream + b"\xc0\x00", stream_cuts)
    rig = Rig()
    rig.feed(sent, cuts)
    assert rig.messages == [(f"t/{number}", payload) for number, payload in enumerate(contents)]
    answers = rig.answers()
    packets = list(Decoder(5, sender="server").feed(b"".join(part for kind, part in answers if kind == BINARY)))
    assert isinstance(packets[-1], PingResp)
    pongs = [part for kind, part in answers if kind == PONG]
    assert not pings or pongs[-1] == pings[-1]
    assert all(any(pong == ping for ping in pings) for pong in pongs)
    assert not rig.connection.is_closed
    rig.end()


@given(sent=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=4), is_connected=st.booleans())
@EXAMPLES
def test_rubbish_closes_or_waits_but_never_fails(sent: bytes, cuts: list[int], is_connected: bool) -> None:
    rig = Rig(message_bytes_maximum=1000, pings_per_s_maximum=3)
    if is_connected:
        rig.feed(frame(Connect("c").encode(5)), [])
    rig.feed(sent, cuts)
    answers = rig.answers()
    assert rig.connection.is_closed == rig.transport.is_closed
    if rig.connection.is_closed:
        assert answers[-1][0] == CLOSE
        assert 1000 <= int.from_bytes(answers[-1][1][:2], "big") <= 4999
    rig.end()


@given(
    first=st.integers(0, 255),
    second=st.integers(0, 255),
    rest=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 24), max_size=4),
)
@EXAMPLES
def test_every_beginning_of_a_frame_has_one_outcome_however_it_is_cut(
    first: int, second: int, rest: bytes, cuts: list[int]
) -> None:
    outcomes = []
    for cut in ([], cuts, list(range(24))):
        rig = Rig()
        rig.feed(bytes([first, second]) + rest, cut)
        answers = rig.answers()
        outcomes.append((rig.connection.is_closed, answers[-1:]))
        rig.end()
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_nothing_is_taken_after_close() -> None:
    rig = Rig()
    rig.feed(frame(Connect("c").encode(5)) + close_frame(1000) + frame(Publish("t", b"late").encode(5)), [])
    assert rig.messages == []
    assert [kind for kind, _ in rig.answers()] == [BINARY, CLOSE]
    rig.end()


def test_connection_that_cannot_be_written_to_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.transport.write = lambda data: 1 / 0  # type: ignore[method-assign]
    rig.feed(frame(Connect("c").encode(5)), [])
    assert rig.transport.is_closed
    assert "ZeroDivisionError" in caplog.text
    rig.end()
