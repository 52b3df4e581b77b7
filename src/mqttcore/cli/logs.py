"""Logging of `mqttcore serve`: records are formatted and written by a thread of their own.

A slow terminal or a full pipe must not stop the event loop: the loop only puts records into a bounded queue. When that
is full records are dropped, and how many is logged as soon as there is room.

Peers cause records and choose words in them, so one kind of record has a rate, and a message a length: nobody fills
disks, or the queue with 64 KiB client ids.
"""

import logging
import logging.handlers
import queue
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

from mqttcore.cli.visible import visible

__all__ = ["JsonFormatter", "TextFormatter", "running", "set_level"]

_QUEUE_RECORDS = 10_000
_MESSAGE_LENGTH_MAXIMUM = 4096
_ALIKE_PER_S = 100  # records of one logger and one format, before its words are in it
_KINDS_MAXIMUM = 1000  # counted in a second; all beyond are of one kind
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}


class TextFormatter(logging.Formatter):
    """`time level logger: message field=value`, a traceback on indented lines of its own; UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = f"{_time(record)} {record.levelname.lower()} {record.name}: {record.getMessage()}"
        for name, value in _fields(record).items():
            line += f" {name}={value}"
        line = visible(line)
        if record.exc_info:  # indented: an error may repeat a peer's words, and they could look like a line of ours
            line += "".join(f"\n  {visible(one)}" for one in self.formatException(record.exc_info).split("\n"))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields of `extra`, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            **_fields(record),
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class _Pace:
    """Counts records by kind in windows of a second."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._ends_s = 0.0
        self._held_back = 0

    def lets_through(self, record: logging.LogRecord, now_s: float) -> bool:
        """Say whether a record is one of the first of its kind in this second."""
        if now_s >= self._ends_s:
            self._counts.clear()
            self._ends_s = now_s + 1
        kind = (record.name, str(record.msg))
        if kind not in self._counts and len(self._counts) >= _KINDS_MAXIMUM:
            kind = ("", "")
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        self._held_back += count > _ALIKE_PER_S
        return count <= _ALIKE_PER_S

    def take_held_back(self, now_s: float) -> int:
        """Return how many were not let through in the seconds that are over, and were not told before."""
        if now_s < self._ends_s:
            return 0
        count, self._held_back = self._held_back, 0
        return count


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def __init__(self, records: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(records)
        self._records = records
        self._dropped = 0
        self._pace = _Pace()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, if there are not too many like it."""
        now_s = time.monotonic()
        self.tell_held_back(now_s)
        if record.levelno <= logging.DEBUG or self._pace.lets_through(record, now_s):  # who asks for DEBUG wants all
            super().emit(record)

    def tell_held_back(self, now_s: float) -> None:
        """Log how many records were left out, once their second is over."""
        if count := self._pace.take_held_back(now_s):
            super().emit(_own_record(f"{count} log records left out: over {_ALIKE_PER_S} alike in a second"))

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # Arguments may change later, so the message is made here; the traceback stays one for the formatter.
        message = record.getMessage()
        if len(message) > _MESSAGE_LENGTH_MAXIMUM:
            more = len(message) - _MESSAGE_LENGTH_MAXIMUM
            message = f"{message[:_MESSAGE_LENGTH_MAXIMUM]}… ({more} more characters)"
        record.msg, record.args = message, None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped:
                self._records.put_nowait(
                    _own_record(f"{self._dropped} log records dropped: the log is read too slowly")
                )
                self._dropped = 0
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1


def _own_record(text: str) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)


class _Listener(logging.handlers.QueueListener):
    def __init__(self, records: "queue.Queue[Any]", sink: logging.Handler) -> None:
        super().__init__(records, sink)
        self._records = records

    def enqueue_sentinel(self) -> None:
        # The queue may be full of records that are still to be written: wait for room instead of failing.
        self._records.put(None)


def set_level(level: str) -> None:
    """Log records of *level* (a name in lower case) and above."""
    logging.getLogger().setLevel(level.upper())


@contextmanager
def running(level: str, log_format: str, stream: TextIO | None = None) -> Iterator[None]:
    """Log to *stream* (standard error) while the block runs; at its end everything is written."""
    sink = logging.StreamHandler(stream or sys.stderr)
    sink.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    records: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_RECORDS)
    handler = _BoundedQueueHandler(records)
    listener = _Listener(records, sink)
    root = logging.getLogger()
    former_level = root.level
    set_level(level)
    root.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(former_level)
        handler.tell_held_back(float("inf"))
        listener.stop()
