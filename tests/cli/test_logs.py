"""Logging of `serve`: its two formats, and that it never blocks."""

import io
import json
import logging
import threading

import pytest

from mqttcore.cli import logs

log = logging.getLogger("mqttcore.test")


def logged(log_format, action, level="info"):
    stream = io.StringIO()
    with logs.running(level, log_format, stream):
        action()
    return stream.getvalue()


def test_text_line_has_time_level_logger_message_and_fields():
    line = logged("text", lambda: log.info("hello %s", "you", extra={"client_id": "c1"}))
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert len(time) == len("2026-01-02T03:04:05.678Z")
    assert rest == "info mqttcore.test: hello you client_id=c1\n"


def test_words_of_peers_cannot_forge_lines():
    line = logged("text", lambda: log.info("%s", "a\nb\x1b[2J\x9b", extra={"topic": "x\r\ny"}))
    assert line.endswith(": a\\x0ab\\x1b[2J\\x9b topic=x\\x0d\\x0ay\n")
    assert line.count("\n") == 1


def test_json_line_is_an_object():
    line = logged("json", lambda: log.warning("a\n%d", 1, extra={"client_id": "c1", "code": 0x87, "path": object}))
    record = json.loads(line)
    assert line.count("\n") == 1
    assert record.pop("time").endswith("Z")
    assert record == {
        "client_id": "c1",
        "code": 0x87,
        "path": "<class 'object'>",
        "level": "warning",
        "logger": "mqttcore.test",
        "message": "a\n1",
    }


def fail():
    try:
        raise ValueError("oh")
    except ValueError:
        log.exception("it failed")


def test_traceback_follows_the_text_line():
    first, *traceback = logged("text", fail).splitlines()
    assert first.endswith("error mqttcore.test: it failed")
    assert traceback[0] == "  Traceback (most recent call last):"
    assert traceback[-1] == "  ValueError: oh"


def test_words_of_peers_in_errors_cannot_forge_lines():
    def fail_with_their_words():
        try:
            raise ValueError("oh\n2026-01-01T00:00:00.000Z info mqttcore: all is well\x1b[2J\u2028x\u202ey")
        except ValueError:
            log.exception("\u2066it failed")

    lines = logged("text", fail_with_their_words).splitlines()
    assert [line for line in lines if not line.startswith("  ")] == lines[:1]
    assert lines[0].endswith(": \\u2066it failed")
    assert lines[-1].endswith("all is well\\x1b[2J\\u2028x\\u202ey")


def test_traceback_is_a_field_in_json():
    assert json.loads(logged("json", fail))["exception"].endswith("ValueError: oh")


def test_level_can_be_changed_and_is_put_back():
    root = logging.getLogger()
    before = root.level, list(root.handlers)

    def act():
        log.debug("one")
        logs.set_level("debug")
        log.debug("two")

    assert [line.rsplit(" ", 1)[1] for line in logged("text", act).splitlines()] == ["two"]
    assert (root.level, root.handlers) == before


class Clock:
    """A time that is set."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(logs, "time", clock)
    return clock


def test_flood_of_one_kind_is_cut_and_counted_and_hides_no_other(clock):
    def act():
        for number in range(1000):
            log.info("refused %d", number)
        log.info("something else")
        clock.now_s += 1
        log.info("refused %d", 1000)

    lines = logged("text", act).splitlines()
    assert len(lines) == 100 + 1 + 1 + 1
    assert lines[99].endswith(": refused 99")
    assert lines[100].endswith(": something else")
    assert lines[101].endswith("warning mqttcore.cli.logs: 900 log records left out: over 100 alike in a second")
    assert lines[102].endswith(": refused 1000")


def test_what_was_left_out_at_the_end_is_told(clock):
    lines = logged("text", lambda: [log.info("x") for _ in range(103)]).splitlines()
    assert len(lines) == 101
    assert ": 3 log records left out" in lines[-1]


def test_who_asks_for_debug_gets_all_of_it(clock):
    assert len(logged("text", lambda: [log.debug("x") for _ in range(500)], "debug").splitlines()) == 500


def test_kinds_are_bounded(clock, monkeypatch):
    monkeypatch.setattr(logs, "_KINDS_MAXIMUM", 3)
    lines = logged("text", lambda: [log.info(f"kind {number}") for number in range(500)]).splitlines()
    assert len(lines) == 3 + 100 + 1
    assert ": 397 log records left out" in lines[-1]


def test_long_words_of_peers_are_cut():
    line = logged("text", lambda: log.info("client %s refused", "x" * 65_535))
    assert line.endswith("xxx… (61454 more characters)\n")
    assert len(line) < 4200


class Stuck(io.StringIO):
    """A stream that takes nothing until it may."""

    def __init__(self):
        super().__init__()
        self.may_write = threading.Event()

    def write(self, text):
        assert self.may_write.wait(60)
        return super().write(text)


def test_slow_reader_makes_records_drop_and_never_wait(monkeypatch):
    monkeypatch.setattr(logs, "_ALIKE_PER_S", 1_000_000)
    stream = Stuck()
    count = 30_000
    with logs.running("info", "text", stream):
        for number in range(count):
            log.info("%d", number)
        stream.may_write.set()
        while "dropped" not in stream.getvalue():
            log.info("again")
    written = stream.getvalue()
    dropped = int(written.split(" log records dropped")[0].rsplit(" ", 1)[1])
    assert count - 10_010 <= dropped
    assert "mqttcore.test: 0\n" in written


def test_end_waits_until_a_full_queue_is_written(monkeypatch):
    monkeypatch.setattr(logs, "_ALIKE_PER_S", 1_000_000)
    stream = Stuck()
    with logs.running("info", "text", stream):
        for number in range(20_000):
            log.info("%d", number)
        threading.Timer(0.1, stream.may_write.set).start()
    assert stream.getvalue().count("\n") >= 10_000
