"""Records as older versions wrote them."""

import pytest

from mqttcore import Broker, StoreError
from mqttcore.store import records
from mqttcore.store.memory import MemoryStore
from mqttcore.store.transfer import import_lines
from network.conftest import quiet_config

# A session, a subscription, and a session without any text; written by the last version of format 1.
FORMAT_1 = bytes.fromhex(
    "430000000100000000000000010100000000000000ffffffff00000000000000000000000000000000000000000000000000000000"
    "0003006f6c64010075030077686f"
    "1f000000020000000000000002010000000000000001000000000300612f23"
    "3c00000003000000000000000102000000000000003c0000000100000000000000000000000000000000000000000000000000000000"
    "000000000000"
)
FORMAT_1_LINES = (
    b'{"kind":"store","format_version":1}',
    b'{"kind":"session","key":1,"number":1,"session_expiry_s":4294967295,"is_connected":false,"expires_at":0,'
    b'"will_message":0,"will_delay_s":0,"will_due_at":0,"client_id":"old","user_name":"u","identity_name":"who"}',
    b'{"kind":"subscription","key":2,"session":1,"options":1,"subscription_id":0,"topic_filter":"a/#"}',
)


def sessions(chunk: bytes) -> list[records.SessionRecord]:
    return [record for _, record in records.decode(chunk) if isinstance(record, records.SessionRecord)]


def test_sessions_of_format_1_have_no_mount_point():
    upgraded = records.upgrade(FORMAT_1, 1)
    assert records.check(upgraded) == 3
    assert [key for key, *_ in records.index(upgraded)] == [1, 2, 3]
    first, second = sessions(upgraded)
    assert (first.client_id, first.user_name, first.identity_name, first.mount_point) == ("old", "u", "who", "")
    assert (second.number, second.session_expiry_s, second.mount_point) == (2, 60, "")
    assert records.upgrade(upgraded, records.FORMAT_VERSION) == upgraded
    assert b"".join(records.encode(*row) for row in records.decode(upgraded)) == upgraded
    with pytest.raises(StoreError):
        list(records.decode(FORMAT_1))


async def test_broker_goes_on_with_a_store_of_format_1():
    store = MemoryStore(is_durable=True)
    store.format_version, store.last_key = 1, 2
    store._records = {key: FORMAT_1[start:end] for key, _, start, end in records.index(FORMAT_1) if key < 3}
    async with Broker(quiet_config(), store=store) as broker:
        info = broker.client("old")
        assert info is not None
        assert (info.mount_point, info.subscriptions) == ("", ("a/#",))
        await broker.publish("a/b", b"kept", qos=1)
        assert broker.discard_session("old")


async def test_export_of_format_1_is_imported():
    store = MemoryStore(is_durable=True)
    await store.open(lambda *_: None)
    assert await import_lines(store, FORMAT_1_LINES) == 2
    (session,) = [record async for chunk in store.load() for record in sessions(chunk)]
    assert session.mount_point == ""
    newer = b'{"kind":"store","format_version":%d}' % (records.FORMAT_VERSION + 1)
    empty = MemoryStore(is_durable=True)
    await empty.open(lambda *_: None)
    with pytest.raises(StoreError, match="format") as caught:
        await import_lines(empty, [newer])
    assert caught.value.kind == "version"
