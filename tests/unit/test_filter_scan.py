"""The scan of filters against a plain dict, while subscriptions come and go between two slices."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mqttcore.codec import Connect
from mqttcore.config import Limits
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.filter_scan import filters_from
from mqttcore.engine.subscriber import Subscriber
from mqttcore.engine.topics import TopicTree
from mqttcore.handlers import CONSUMED

END = 2**32
MANY = 10**9


class Door:
    name = "unit"
    allow_anonymous = True


def engine_with(*client_ids: str) -> tuple[Engine, list[Connection]]:
    """Return an engine with these clients; the connections keep their sessions alive."""
    engine = Engine(Limits(subscriptions_per_session_maximum=0x7FFFFFFF))
    connections = []
    for client_id in client_ids:
        connection = Connection(engine, Door())
        connection.receive(Connect(client_id).encode(5))
        connections.append(connection)
    return engine, connections


def subscribe(engine: Engine, client_id: str, topic_filter: str) -> None:
    assert engine.subscribe_client(client_id, topic_filter.encode(), 0, 0) == 0


def scan(engine: Engine, limit: int = 7, prefix: str = "", nodes: int = MANY, entries: int = MANY) -> list[tuple]:
    found, place = [], 0
    while place < END:
        rows, following = filters_from(engine.topics, place, limit, prefix.encode(), nodes, entries)
        assert following > place
        assert len(rows) <= limit
        found += rows
        place = following
    return found


def test_every_filter_comes_once_with_its_sessions():
    engine, _connections = engine_with("a", "b", "c")
    for client_id in "abc":
        subscribe(engine, client_id, "all/#")
    for name, members in (("g", "ab"), ("h", "c")):
        for client_id in members:
            subscribe(engine, client_id, f"$share/{name}/shared/+")
    subscribe(engine, "a", "shared/+")
    subscribe(engine, "b", "/")
    engine.add_handler(b"handled/#", lambda client, message: CONSUMED)
    engine.add_tap(b"tapped", Subscriber())
    engine.add_tap(b"/", Subscriber())
    assert sorted(scan(engine, limit=1)) == [
        ("/", 1, 0, 0, (), True),
        ("all/#", 3, 0, 0, (), True),
        ("shared/+", 1, 2, 3, ("h", "g"), True),
    ]
    assert [row[0] for row in scan(engine, prefix="all")] == ["all/#"]
    assert scan(engine, prefix="al/") == scan(engine, prefix="all/#/") == []
    assert scan(Engine(Limits())) == []


def test_share_names_are_a_few_of_many():
    engine, _connections = engine_with("a")
    for number in range(40):
        subscribe(engine, "a", f"$share/g{number}/t")
    ((topic_filter, sessions, groups, members, names, is_whole),) = scan(engine)
    assert (topic_filter, sessions, groups, members, is_whole) == ("t", 0, 40, 40, True)
    assert len(names) == len(set(names)) == 16


def test_work_of_a_slice_is_bounded():
    engine, _connections = engine_with("a", "b", "c", "d")
    filters = [f"level/{number}" for number in range(1000)]
    for topic_filter in filters:
        subscribe(engine, "a", topic_filter)
    rows, place = filters_from(engine.topics, 0, 10_000, b"", 100, MANY)
    assert 10 < len(rows) <= 100
    assert place < END
    assert filters_from(engine.topics, 0, 10_000, b"no", 100, MANY) == ([], place)
    assert sorted(row[0] for row in scan(engine, limit=10_000, nodes=100)) == sorted(filters)
    for client_id in "bcd":
        subscribe(engine, client_id, "level/7")
    rows = scan(engine, limit=10_000, entries=3)
    assert Counter(row[0] for row in rows) == Counter(filters)
    assert {row[0]: row[1] for row in rows if not row[5]} == {"level/7": 3}


@pytest.mark.parametrize("seed", range(8))
def test_what_stays_is_met_once_while_others_come_and_go(seed: int):
    rng = random.Random(seed)
    engine, _connections = engine_with("a")
    staying = [f"stays/{rng.random()}/{number}" for number in range(rng.choice([3, 40, 700]))]
    coming = [f"comes/{number}/{rng.random()}" for number in range(2000)]
    for topic_filter in staying:
        subscribe(engine, "a", topic_filter)
    there: set[str] = set()
    met: Counter[str] = Counter()
    place = 0
    while place < END:
        # From a few to thousands and back: the table of nodes splits and joins its buckets meanwhile.
        wanted = set(rng.sample(coming, rng.choice([0, 10, 2000])))
        for topic_filter in wanted - there:
            subscribe(engine, "a", topic_filter)
        for topic_filter in there - wanted:
            assert engine.unsubscribe_client("a", topic_filter.encode()) == 0
        there = wanted
        rows, place = filters_from(engine.topics, place, rng.choice([5, 50]), b"", MANY, MANY)
        met.update(row[0] for row in rows)
    assert all(met[topic_filter] == 1 for topic_filter in staying)
    assert all(count == 1 for count in met.values())


def test_any_place_is_taken():
    tree = TopicTree()
    for place in (0, 1, 2**31, END - 1, END, END + 5, 2**63):
        rows, following = filters_from(tree, place, 10, b"", MANY, MANY)
        assert rows == []
        assert following >= END
