"""The records of a store: what each says, and its bytes.

A record has a *key*, a number that is never used twice. It is never changed: what changes is put again under a new key,
and the old key is deleted in the same batch. Keys ascend in the order of events, so whoever reads records in the order
of their keys meets queued messages in the order of queueing, and messages in flight in the order of sending.

    session ◀── subscription            entry ──▶ message ◀── retained
       ▲ ▲───── received                  │          ▲
       └─────────────────────────────── entry        └── session.will

A message stands there once, however many sessions have an entry for it; the broker counts, and deletes it with the
last that refers to it. `session` in the other records is the *number* of a session, which stays when its record is put
again. A record may be older than the session record it refers to, never older than its message. A record whose session
or message is not there is rubbish of an interrupted clean-up; the broker deletes it when it loads.

Times are wall-clock milliseconds since 1970; 0 stands for never.

The frame around a body is that of `framing.pxd`; in a body numbers are little-endian, and bytes and UTF-8 text have
their size (u32, text: u16) in front. `encode` and `decode` are for tools and tests: the broker has its own in C.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import msgspec

from mqttcore.errors import StoreError
from mqttcore.store.framing import check, index, keys, select, without

__all__ = [
    "FORMAT_VERSION",
    "UPGRADES",
    "EntryRecord",
    "MessageRecord",
    "ReceivedRecord",
    "Record",
    "RetainedRecord",
    "SessionRecord",
    "SubscriptionRecord",
    "check",
    "decode",
    "encode",
    "index",
    "keys",
    "select",
    "upgrade",
    "without",
]

FORMAT_VERSION = 2

_HEADER = struct.Struct("<IQB")
_SESSION = 1


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of the records. KIND: its number in the frame. _LAYOUT: fields in order, each with its code of `struct`.

    s: text, b: bytes, r: bytes to the end of the record.
    """

    KIND: ClassVar[int]
    _LAYOUT: ClassVar[str]


class SessionRecord(Record, frozen=True, kw_only=True, tag="session"):
    """A session that outlives its connection (session_expiry_s > 0).

    number: what other records call it; no other session ever had it. expires_at: when it ends; 0 while it is connected,
    and for session_expiry_s 4294967295. will_message: key of the message record, 0: none. will_due_at: when a will that
    is being delayed is published; 0: its session is connected, or there is none. user_name: of the CONNECT.
    identity_name: to whom it belongs. mount_point: prefix of its topics; in the records they are whole, with it. These
    three are empty when there was none.
    """

    KIND: ClassVar[int] = _SESSION
    _LAYOUT: ClassVar[str] = "QIBQQIQssss"

    number: int
    session_expiry_s: int
    is_connected: bool
    expires_at: int
    will_message: int
    will_delay_s: int
    will_due_at: int
    client_id: str
    user_name: str
    identity_name: str
    mount_point: str = ""


class SubscriptionRecord(Record, frozen=True, kw_only=True, tag="subscription"):
    """A subscription of a session.

    options: byte of the SUBSCRIBE with the QoS that was granted. subscription_id: 0: none.
    """

    KIND: ClassVar[int] = 2
    _LAYOUT: ClassVar[str] = "QBIs"

    session: int
    options: int
    subscription_id: int
    topic_filter: str


class MessageRecord(Record, frozen=True, kw_only=True, tag="message"):
    """An application message as it is forwarded.

    expires_at: when its Message Expiry Interval ends. received_at: when it was published. node_epoch, number: its id.
    expiry_place: 1 + offset of the interval's four value bytes in properties, 0: absent. qos, retain: as published.
    publisher, identity_name, ordering_key: client id of who published it, whom authentication found, and by what sinks
    keep its messages in order; empty: the broker itself, nobody, none. properties: MQTT 5 block without its length.
    """

    KIND: ClassVar[int] = 3
    _LAYOUT: ClassVar[str] = "QQQQIBBBssssbr"

    expires_at: int
    received_at: int
    node_epoch: int
    number: int
    expiry_place: int
    qos: int
    retain: bool
    is_utf8: bool
    topic: str
    publisher: str
    identity_name: str
    ordering_key: str
    properties: bytes
    payload: bytes


class EntryRecord(Record, frozen=True, kw_only=True, tag="entry"):
    """A message that a session is to get or is getting.

    state: 0 queued, packet_id is 0; 1 PUBLISH of QoS 1 sent, PUBACK awaited; 2 PUBLISH of QoS 2 sent, PUBREC awaited;
    3 PUBREL sent, PUBCOMP awaited, message is 0. queued_at: since when. qos: of the delivery.
    flags: 1 it goes out with RETAIN, 128 its receiver was named, so no subscription has to allow it.
    subscription_ids: encoded properties. share: the `$share/…` filter it came through, or empty.
    """

    KIND: ClassVar[int] = 4
    _LAYOUT: ClassVar[str] = "QQQHBBBbs"

    session: int
    message: int
    queued_at: int
    packet_id: int
    state: int
    qos: int
    flags: int
    subscription_ids: bytes
    share: str


class ReceivedRecord(Record, frozen=True, kw_only=True, tag="received"):
    """A packet id of a QoS 2 PUBLISH that a session's client sent and has not released."""

    KIND: ClassVar[int] = 5
    _LAYOUT: ClassVar[str] = "QH"

    session: int
    packet_id: int


class RetainedRecord(Record, frozen=True, kw_only=True, tag="retained"):
    """The retained message of its topic."""

    KIND: ClassVar[int] = 6
    _LAYOUT: ClassVar[str] = "Q"

    message: int


_TYPES: dict[int, type[Record]] = {
    kind.KIND: kind
    for kind in (SessionRecord, SubscriptionRecord, MessageRecord, EntryRecord, ReceivedRecord, RetainedRecord)
}


class _Part(NamedTuple):
    text: str
    size: int


_PREFIXES = {"s": _Part("<H", 2), "b": _Part("<I", 4)}


def encode(key: int, record: Record) -> bytes:
    """Return the framed record."""
    parts = []
    for code, field in zip(record._LAYOUT, record.__struct_fields__, strict=True):
        value: Any = getattr(record, field)
        if code == "s":
            value = value.encode()
        if code in _PREFIXES:
            parts.append(struct.pack(_PREFIXES[code].text, len(value)))
        parts.append(value if code in "sbr" else struct.pack("<" + code, value))
    body = b"".join(parts)
    return _HEADER.pack(_HEADER.size + len(body), key, record.KIND) + body


def decode(chunk: bytes) -> Iterator[tuple[int, Record]]:
    """Give key and record, one after another. Raises StoreError (corrupt): no record, an unknown kind, a short body."""
    for key, kind, start, end in index(chunk):
        if kind not in _TYPES:
            raise StoreError("corrupt", f"record {key} has kind {kind}")
        try:
            yield key, _decode_body(_TYPES[kind], chunk[start + _HEADER.size : end])
        except (struct.error, UnicodeDecodeError) as error:
            raise StoreError("corrupt", f"record {key}: {error}") from error


def _decode_body(kind: type[Record], body: bytes) -> Record:
    at = 0
    values: dict[str, Any] = {}
    for code, field in zip(kind._LAYOUT, kind.__struct_fields__, strict=True):
        if code == "r":
            values[field], at = body[at:], len(body)
        elif code in _PREFIXES:
            (size,) = struct.unpack_from(_PREFIXES[code].text, body, at)
            at += _PREFIXES[code].size
            if at + size > len(body):
                raise struct.error(f"{field} ends behind the record")
            values[field] = body[at : at + size].decode() if code == "s" else body[at : at + size]
            at += size
        else:
            (values[field],) = struct.unpack_from("<" + code, body, at)
            at += struct.calcsize("<" + code)
    if at != len(body):
        raise struct.error(f"{len(body) - at} bytes too many")
    return msgspec.convert(values, kind, strict=False)


def _to_2(chunk: bytes) -> bytes:
    """Give every session a mount point: none."""
    made = []
    for key, kind, start, end in index(chunk):
        if kind == _SESSION:
            made += [_HEADER.pack(end - start + 2, key, kind), chunk[start + _HEADER.size : end], b"\0\0"]
        else:
            made.append(chunk[start:end])
    return b"".join(made)


UPGRADES: dict[int, Callable[[bytes], bytes]] = {1: _to_2}
"""Format version -> function that makes of a chunk of that version one of the next, with the same keys."""


def upgrade(chunk: bytes, version: int) -> bytes:
    """Return a chunk of format *version* as one of FORMAT_VERSION, with the same keys.

    Raises StoreError (version) for a version that is newer, or older than all we know.
    """
    while version != FORMAT_VERSION:
        step = UPGRADES.get(version)
        if version > FORMAT_VERSION or step is None:
            raise StoreError("version", f"records of format {version}; this version of mqttcore knows {FORMAT_VERSION}")
        chunk = step(chunk)
        version += 1
    return chunk
