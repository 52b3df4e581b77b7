"""Entries of a trace as lines for people."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

from mqttcore.cli.visible import visible
from mqttcore.constants import ReasonCode

__all__ = ["line_of"]

_ARROWS = {"in": "-->", "out": "<--"}
_PASSED_BY = {
    "no_local": "its own, and No Local",
    "away": "QoS 0, and it is away",
    "mount_point": "it does not know of such a topic",
    "not_authorized": "not authorized; another member may be",
}
_Entry = dict[str, Any]


def line_of(entry: _Entry) -> str:
    """Return the line of an entry, as the management API gives it: when, which connection, whose, what."""
    moment = datetime.fromtimestamp(entry["time_ms"] / 1000).astimezone()
    clock = moment.strftime("%H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    number = entry.get("connection")
    kind = entry["kind"]
    words = _WORDS[kind](entry) if kind in _WORDS else kind.replace("_", " ")
    return visible(f"{clock} {'-' if number is None else f'#{number}':>4} {entry.get('client_id') or '-'}  {words}")


def _code(reason_code: int) -> str:
    try:
        return f"0x{reason_code:02X} {ReasonCode(reason_code).name.lower().replace('_', ' ')}"
    except ValueError:
        return f"0x{reason_code:02X}"


def _message(entry: _Entry) -> str:
    return f"{entry['topic']!r} qos {entry['qos']} {entry['payload_bytes']} B"


def _opened(entry: _Entry) -> str:
    words = f"connection from {entry['address'] or 'an unknown address'} on {entry['listener'] or 'no listener'}"
    if entry.get("has_tls"):
        words += ", TLS"
    since_ms = entry.get("opened_for_ms", 0)
    return words + (f", open for {since_ms / 1000:.1f} s" if since_ms >= 1000 else "")


def _failed(entry: _Entry) -> str:
    return f"connection from {entry['address']} on {entry['listener']} fails: {entry['reason']}"


def _request(entry: _Entry) -> str:
    words = f"{entry['method']} {entry['path']} from {entry['address']} on {entry['listener'] or 'no listener'}"
    return f"{words}: HTTP {entry['status']}" + (f": {entry['detail']}" if entry.get("detail") else "")


def _packet(entry: _Entry) -> str:
    words = [_ARROWS[entry["direction"]], entry["packet_type"].upper()]
    if entry.get("protocol_version") is not None:
        words += _connect(entry)
    for name in ("packet_id", "topic_alias"):
        if entry.get(name) is not None:
            words.append(f"{name.rpartition('_')[2]} {entry[name]}")
    if entry.get("topic") is not None:
        will = "will " if entry.get("protocol_version") is not None else ""
        words.append(will + _message(entry))
        words += [flag for flag in ("retain", "dup") if entry.get(flag)]
    if entry.get("topic_filters") is not None:
        options = entry.get("options") or [None] * len(entry["topic_filters"])
        words += [
            repr(one) if option is None else f"{one!r} qos {option & 3}"
            for one, option in zip(entry["topic_filters"], options, strict=True)
        ]
    if entry.get("session_present"):
        words.append("session present")
    if entry.get("reason_codes") is not None:
        words.append(", ".join(_code(one) for one in entry["reason_codes"]))
    if entry.get("properties"):
        words.append(f"[{', '.join(entry['properties'])}]")
    if entry.get("topic") is None:
        words.append(f"({entry['size_bytes']} B)")
    return " ".join(words) + _payload(entry)


def _connect(entry: _Entry) -> list[str]:
    versions = {3: "3.1", 4: "3.1.1", 5: "5"}
    words = [f"MQTT {versions.get(entry['protocol_version'], entry['protocol_version'])}"]
    if entry.get("user_name") is not None:
        words.append(f"user {entry['user_name']!r}")
    words.append("with password" if entry.get("has_password") else "no password")
    words.append("clean start" if entry.get("clean_start") else "goes on")
    words.append(f"keep alive {entry.get('keep_alive_s')} s")
    return words


def _payload(entry: _Entry) -> str:
    if entry.get("payload_base64") is None:
        return ""
    return f" {base64.b64decode(entry['payload_base64'])!r}"


def _decided(entry: _Entry) -> str:
    who = f"plugin {entry['plugin']}" if entry["plugin"] else "no plugin"
    return f"{entry['hook']}: {who}: {entry['answer']}"


def _session(entry: _Entry) -> str:
    who = "anonymous" if entry["identity_name"] is None else f"as {entry['identity_name']!r}"
    begun = "resumed" if entry["session_present"] else "new"
    return f"accepted {who}, {begun} session, expiry {entry['session_expiry_s']} s, {entry['queued']} queued"


def _refused(entry: _Entry) -> str:
    return f"CONNECT refused: {_code(entry['reason_code'])}" + (f": {entry['reason']}" if entry.get("reason") else "")


def _dropped(entry: _Entry) -> str:
    of = f" of {entry['topic']!r}" if entry.get("topic") is not None else ""
    return f"{entry.get('count', 1)} dropped{of}: {entry['reason'].replace('_', ' ')}"


def _closed(entry: _Entry) -> str:
    code = "" if entry["reason_code"] is None else f" (0x{entry['reason_code']:02X})"
    return f"connection closed: {entry['reason']}{code}" + (f": {entry['detail']}" if entry.get("detail") else "")


_WORDS: dict[str, Callable[[_Entry], str]] = {
    "connection_opened": _opened,
    "connection_failed": _failed,
    "request_refused": _request,
    "accepting_paused": lambda e: f"nobody is accepted on {e['listener'] or 'any listener'}: {e['reason']}",
    "packet_seen": _packet,
    "decided": _decided,
    "session_opened": _session,
    "connect_refused": _refused,
    "protocol_broken": lambda e: f"breaks the standard: {e['text']} [{e['clause']}], {_code(e['reason_code'])}",
    "published": lambda e: (
        f"published {_message(e)}{' retain' if e['retain'] else ''} recipients {e['recipients']}{_payload(e)}"
    ),
    "publish_refused": lambda e: f"PUBLISH refused: {_message(e)}: {_code(e['reason_code'])}",
    "publish_taken": lambda e: f"PUBLISH taken by a handler: {_message(e)}: {_code(e['reason_code'])}",
    "message_queued": lambda e: f"queued: {_message(e)}, {e['queued']} waiting",
    "message_dropped": _dropped,
    "message_passed_by": lambda e: f"not sent: {e['topic']!r}: {_PASSED_BY.get(e['reason'], e['reason'])}",
    "subscribed": lambda e: f"subscribed to {e['topic_filter']!r} qos {e['options'] & 3}",
    "unsubscribed": lambda e: f"unsubscribed from {e['topic_filter']!r}",
    "connection_paused": lambda e: f"not read for a while: {e['reason']}",
    "connection_resumed": lambda e: "read again",
    "connection_closed": _closed,
    "session_ended": lambda e: "session ended",
}
