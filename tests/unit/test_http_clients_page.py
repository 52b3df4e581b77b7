"""Pages of clients where there are very many: in order, whole, and without others having to wait for all of it."""

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from mqttcore.bans import Ban
from mqttcore.http.api import bans, clients
from mqttcore.http.api.clients import ClientFilter, Clients

IDS = [f"c{number}" for number in range(1000)]


class BrokerDouble:
    """Has clients; looking at one with its subscriptions would be a mistake."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.looked_at = 0
        self.disconnected: list[str] = []
        self.bans = SimpleNamespace(find=lambda **who: who["user_name"])

    def client_ids(self) -> list[str]:
        return list(self.ids)

    def client(self, client_id: str, *, with_subscriptions: bool) -> Any:
        assert not with_subscriptions
        self.looked_at += 1
        number = int(client_id[1:])
        return SimpleNamespace(
            client_id=client_id,
            is_connected=True,
            user_name="ann" if number % 10 == 0 else None,
            mount_point="",
            address=("192.0.2.1", 40_000),
            protocol_version=5,
            keep_alive_s=60,
            connected_s=0.0,
            session_expiry_s=0,
            subscription_count=10_000,
            in_flight=0,
            awaiting_release=0,
            queued=0,
            queued_bytes=0,
            dropped=0,
            tls=None,
        )

    def disconnect(self, client_id: str, *why: object) -> bool:
        self.disconnected.append(client_id)
        return True


@pytest.fixture
def broker() -> Any:
    shuffled = list(IDS)
    random.Random(7).shuffle(shuffled)
    return BrokerDouble(shuffled)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_IDS_AT_ONCE", 100)
    monkeypatch.setattr(clients, "_SHOWN_AT_ONCE", 10)
    monkeypatch.setattr(clients, "_LOOKED_AT_MAXIMUM", 150)
    monkeypatch.setattr(bans, "_LOOKED_AT_AT_ONCE", 10)


async def all_pages(broker: Any, **wanted: Any) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    looks = Clients(broker)
    while cursor is not None:
        page = await looks.page(ClientFilter(cursor=cursor, **wanted))
        found += [one.client_id for one in page.clients]
        assert {one.subscriptions for one in page.clients} <= {10_000}
        cursor = page.next_cursor
    return found


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"limit": 7}, IDS),
        ({"limit": 149}, IDS),
        ({"limit": 100}, IDS),
        ({"limit": 7, "client_id_prefix": "c99"}, [one for one in IDS if one.startswith("c99")]),
        ({"limit": 7, "user_name": "ann"}, IDS[::10]),
        ({"limit": 149, "user_name": "nobody"}, []),
        ({"client_id_prefix": "x"}, []),
    ],
)
async def test_pages_have_all_clients_once_and_in_order(broker: Any, wanted: dict[str, Any], expected: list[str]):
    assert await all_pages(broker, **wanted) == sorted(expected)


async def turns_of(work: Any) -> int:
    """Return how often others came to their turn meanwhile."""
    task, turns = asyncio.ensure_future(work), 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    return turns


async def test_others_come_to_their_turn_meanwhile(broker: Any):
    assert await turns_of(Clients(broker).page(ClientFilter(limit=5))) >= 10
    assert await turns_of(Clients(broker).page(ClientFilter(limit=1000, user_name="nobody"))) >= 10 + 15
    assert await turns_of(bans._end_banned(broker, Ban(kind="address", value="192.0.2.0/24"))) >= 100
    assert sorted(broker.disconnected) == sorted(IDS[::10])


async def test_many_who_look_wait_for_each_other(broker: Any):
    """A slice of each in one turn would be as long as all of one."""
    looks, slices = Clients(broker), 0
    first = looks._first

    async def alone(*given: Any) -> Any:
        nonlocal slices
        slices += 1
        assert slices == 1
        found = await first(*given)
        slices -= 1
        return found

    looks._first = alone  # type: ignore[method-assign]
    pages = await asyncio.gather(*[looks.page(ClientFilter(limit=3)) for _ in range(5)])
    assert {len(page.clients) for page in pages} == {3}
