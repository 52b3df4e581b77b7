"""The subscription trie: matching, bounds, the cache of routes and shared groups, one fact at a time."""

import gc
import sys
from itertools import product

import pytest

from mqttcore.constants import ReasonCode
from mqttcore.engine.subscriber import Subscriber
from mqttcore.engine.topics import TopicTree
from mqttcore.errors import ProtocolError, QuotaExceeded

NO_LOCAL = 0x04


def receivers(tree: TopicTree, topic: str) -> set[Subscriber]:
    return {target[0] for target in tree.match(topic)}


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_match"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/", False),
        ("a/b", "/a/b", False),
        ("a/b", "A/b", False),
        ("+", "a", True),
        ("+", "/a", False),
        ("+/+", "/a", True),
        ("/+", "/a", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("a/+/c", "a//c", True),
        ("#", "a/b/c", True),
        ("#", "/", True),
        ("a/#", "a", True),
        ("a/#", "a/", True),
        ("a/#", "ab", False),
        ("a/+/#", "a", False),
        ("a/+/#", "a/b", True),
        ("//", "//", True),
        ("//", "/", False),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("+/#", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("$SYS/#", "$SYS", True),
        ("$SYS/+", "$SYS/a", True),
        ("a/#", "a/$b", True),
        ("a/+", "a/$b", True),
    ],
)
def test_filter_matches_as_the_standard_says(topic_filter: str, topic: str, is_match: bool) -> None:
    tree = TopicTree()
    tree.add(topic_filter, Subscriber())
    assert len(tree.match(topic)) == is_match
    assert len(tree.match(topic)) == is_match


def test_overlap_is_one_target_with_highest_qos_and_all_identifiers() -> None:
    tree = TopicTree()
    who, other = Subscriber(), Subscriber()
    tree.add("a/b", who, 0, 300)
    tree.add("a/+", who, 2 | NO_LOCAL, 7)
    tree.add("#", who, 1, 300)
    tree.add("#", other, 1)
    targets = {target[0]: target[1:] for target in tree.match("a/b")}
    qos, subids, own_qos, own_subids, _ = targets[who]
    assert (qos, sorted(subids), own_qos, own_subids) == (2, [7, 300, 300], 1, (300, 300))
    assert targets[other] == (1, (), 1, (), False)


def test_subscriber_with_only_no_local_gets_nothing_of_its_own() -> None:
    tree = TopicTree()
    who = Subscriber()
    tree.add("a", who, 2 | NO_LOCAL, 7)
    assert tree.match("a") == [(who, 2, (7,), None, (), False)]


def test_same_subscriber_in_two_trees_is_not_confused() -> None:
    first, second = TopicTree(), TopicTree()
    people = [Subscriber() for _ in range(4)]
    for i, who in enumerate(people):
        first.add("a/#", who, 0, i + 1)
        first.add("a/b", who, 1)
        second.add("+/b", people[-1 - i], 0, i + 1)
        second.add("a/b", people[-1 - i], 2)
    for _ in range(2):
        assert {target[0]: target[1:3] for target in first.match("a/b")} == {
            who: (1, (i + 1,)) for i, who in enumerate(people)
        }
        assert {target[0]: target[1:3] for target in second.match("a/b")} == {
            who: (2, (4 - i,)) for i, who in enumerate(people)
        }


# Bounds


def test_match_of_many_wildcards_visits_each_node_once() -> None:
    tree = TopicTree(routes_maximum=0)
    tree.add("/".join(["+"] * 60), Subscriber())
    tree.match("/".join(["x"] * 60))
    assert tree.steps == tree.node_count + 1
    assert len(tree.match("/".join(["x"] * 61))) == 0


def test_match_of_all_combinations_visits_no_node_twice() -> None:
    tree = TopicTree(routes_maximum=0)
    who = Subscriber()
    for levels in product("a+", repeat=10):
        tree.add("/".join(levels), who, 0, 1)
    assert tree.match("/".join("a" * 10)) == [(who, 0, (1,) * 1024, 0, (1,) * 1024, False)]
    assert tree.steps == tree.node_count + 1 == 2**11 - 1


def test_match_of_deep_topic_ends_below_deepest_filter() -> None:
    tree = TopicTree()
    people = [Subscriber() for _ in range(3)]
    tree.add("#", people[0])
    tree.add("+/+/+", people[1])
    tree.add("////#", people[2])
    assert receivers(tree, "/" * 65_535) == {people[0], people[2]}
    assert tree.steps <= 10


def test_filter_with_too_many_levels_is_refused_and_leaves_nothing() -> None:
    tree = TopicTree(levels_maximum=4)
    who = Subscriber()
    tree.add("a/b/c/d", who)
    for topic_filter in ("a/b/c/d/e", "/" * 65_000, "$share/g/a/b/c/d/e"):
        with pytest.raises(QuotaExceeded) as refused:
            tree.add(topic_filter, who)
        assert refused.value.reason_code == ReasonCode.QUOTA_EXCEEDED
    assert (tree.count, tree.node_count, tree.share_groups) == (1, 4, 0)
    assert not tree.discard("/" * 65_000, who)


def test_filter_beyond_nodes_maximum_is_refused_and_leaves_nothing() -> None:
    tree = TopicTree(nodes_maximum=3)
    who = Subscriber()
    tree.add("a/b", who)
    with pytest.raises(QuotaExceeded):
        tree.add("x/y", who)
    assert tree.node_count == 2
    tree.add("a/c", who)
    tree.add("a", who)


def test_topic_longer_than_the_standard_allows_is_refused() -> None:
    tree = TopicTree()
    with pytest.raises(ValueError, match="65535"):
        tree.match("x" * 65_536)
    with pytest.raises(QuotaExceeded):
        tree.add("x" * 65_536, Subscriber())
    tree.add("x" * 65_535, Subscriber())
    assert len(tree.match("x" * 65_535)) == 1


@pytest.mark.parametrize("topic_filter", ["$share/", "$share//a", "$share/g"])
def test_share_without_name_or_filter_is_refused(topic_filter: str) -> None:
    tree = TopicTree()
    with pytest.raises(ProtocolError) as refused:
        tree.add(topic_filter, Subscriber())
    assert refused.value.reason_code == ReasonCode.TOPIC_FILTER_INVALID
    assert tree.node_count == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"share_strategy": "loudest"},
        {"routes_maximum": -1},
        {"routes_bytes_maximum": -1},
        {"levels_maximum": 0},
        {"nodes_maximum": 0},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is"):
        TopicTree(**settings)


def test_everything_goes_when_the_last_subscription_goes() -> None:
    tree = TopicTree()
    people = [Subscriber() for _ in range(50)]
    names = [f"site{i % 7}/{i}/+" for i in range(2000)] + [f"$share/g{i % 5}/a/{i}" for i in range(500)]
    references = [sys.getrefcount(who) for who in people]
    for i, name in enumerate(names):
        tree.add(name, people[i % 50])
    assert tree.count == 2500
    for i, name in enumerate(names):
        assert tree.discard(name, people[i % 50])
    assert (tree.count, tree.share_groups, tree.node_count, tree.node_bytes) == (0, 0, 0, 0)
    assert [sys.getrefcount(who) for who in people] == references


@pytest.mark.parametrize("how", ["clear", "dealloc"])
def test_tree_gives_back_its_subscribers(how: str) -> None:
    tree = TopicTree()
    who = Subscriber()
    references = sys.getrefcount(who)
    for i in range(1000):
        tree.add(f"a/{i}", who)
        tree.add(f"$share/g/{i % 10}", who)
    tree.match("a/1")
    if how == "clear":
        tree.clear()
        assert (tree.count, tree.share_groups, tree.node_count, tree.cache_size) == (0, 0, 0, 0)
        assert tree.match("a/1") == []
    del tree
    gc.collect()
    assert sys.getrefcount(who) == references


# The cache of routes


def test_second_match_is_a_hit_even_without_subscribers() -> None:
    tree = TopicTree()
    assert not tree.is_cached("a")
    assert tree.match("a") == []
    assert tree.is_cached("a")
    assert tree.match("a") == []
    assert (tree.cache_misses, tree.cache_size) == (1, 1)


def test_exact_filter_outdates_its_own_topic_only() -> None:
    tree = TopicTree()
    who = Subscriber()
    tree.match("a/b")
    tree.match("a/c")
    for change in (lambda: tree.add("a/b", who), lambda: tree.add("a/b", who, 1), lambda: tree.discard("a/b", who)):
        change()
        assert not tree.is_cached("a/b")
        assert tree.is_cached("a/c")
        tree.match("a/b")


def test_wildcard_filter_outdates_its_first_level() -> None:
    tree = TopicTree()
    others = [f"other{i}/x" for i in range(40)]
    for topic in ("a/b", "a", *others):
        tree.match(topic)
    tree.add("a/+", Subscriber())
    assert not tree.is_cached("a/b")
    assert not tree.is_cached("a")
    # 1 first level of 1024 shares the counter with `a`: 37 of 40 leaves a chance of about 1e-10.
    assert sum(map(tree.is_cached, others)) >= 37
    assert [len(tree.match(topic)) for topic in ("a/b", "a", "other1/x")] == [1, 0, 0]


def test_wildcard_on_first_level_outdates_all() -> None:
    tree = TopicTree()
    for topic in ("a/b", "c"):
        tree.match(topic)
    tree.add("+/b", Subscriber())
    assert not tree.is_cached("a/b")
    assert not tree.is_cached("c")


def test_same_subscription_again_outdates_nothing() -> None:
    tree = TopicTree()
    who = Subscriber()
    tree.add("#", who, 1, 5)
    tree.match("a")
    assert not tree.add("#", who, 1 | 0x10, 5)  # Retain Handling does not concern routes
    assert tree.is_cached("a")
    assert not tree.add("#", who, 1, 6)
    assert not tree.is_cached("a")


def test_cache_is_bounded_by_number() -> None:
    tree = TopicTree(routes_maximum=10)
    for i in range(100):
        tree.match(str(i))
        tree.match("hot")
    assert tree.cache_size == 10
    assert tree.cache_evictions == 91
    assert tree.is_cached("hot")
    assert tree.cache_misses == 101


def test_cache_is_bounded_by_bytes() -> None:
    tree = TopicTree(routes_bytes_maximum=20_000)
    for i in range(100):
        tree.match("x" * 1000 + str(i))
        assert tree.cache_bytes <= 20_000
    assert 10 <= tree.cache_size <= 20
    people = [Subscriber() for _ in range(1000)]
    for who in people:
        tree.add("big", who, 0, 1)
    assert len(tree.match("big")) == 1000
    assert not tree.is_cached("big")
    assert tree.cache_size >= 10


def test_hit_visits_no_node() -> None:
    tree = TopicTree()
    tree.add("+/+/#", Subscriber())
    tree.match("a/b/c")
    steps = tree.steps
    tree.match("a/b/c")
    assert tree.steps == steps


# Shared groups


def picks(tree: TopicTree, topic: str, times: int) -> list[Subscriber]:
    found = [tree.pick_shared(topic) for _ in range(times)]
    assert all(len(groups) == 1 for groups in found)
    return [groups[0][1] for groups in found]


def group_of(strategy: str, size: int, is_online: bool = True) -> tuple[TopicTree, list[Subscriber]]:
    tree = TopicTree(share_strategy=strategy)
    people = [Subscriber(is_online=is_online) for _ in range(size)]
    for who in people:
        tree.add("$share/g/a/#", who)
    return tree, people


def test_round_robin_takes_turns() -> None:
    tree, people = group_of("round_robin", 3)
    assert picks(tree, "a/b", 6) == people * 2


def test_round_robin_passes_over_who_is_offline() -> None:
    tree, people = group_of("round_robin", 3)
    people[1].__init__(is_online=False)
    assert picks(tree, "a", 4) == [people[0], people[2]] * 2
    people[1].__init__(is_online=True)
    assert set(picks(tree, "a", 3)) == set(people)


def test_sticky_stays_until_offline_or_gone() -> None:
    tree, people = group_of("sticky", 3)
    assert picks(tree, "a", 3) == [people[0]] * 3
    people[0].__init__(is_online=False)
    second = picks(tree, "a", 3)
    assert second == [people[1]] * 3
    people[0].__init__(is_online=True)
    assert picks(tree, "a", 2) == second[:2]
    tree.discard("$share/g/a/#", people[0])
    assert picks(tree, "a", 2) == second[:2]
    tree.discard("$share/g/a/#", people[1])
    assert picks(tree, "a", 2) == [people[2]] * 2


def test_hash_gives_one_topic_to_one_member() -> None:
    tree, people = group_of("hash", 4)
    chosen = {topic: picks(tree, topic, 3) for topic in (f"a/{i}" for i in range(200))}
    assert all(len(set(members)) == 1 for members in chosen.values())
    assert {members[0] for members in chosen.values()} == set(people)
    gone = people[2]
    gone.__init__(is_online=False)
    for topic, members in chosen.items():
        now = picks(tree, topic, 1)
        assert now == members[:1] or (members[0] is gone and now[0].is_online)


@pytest.mark.parametrize("strategy", ["round_robin", "sticky", "hash"])
def test_group_without_online_members_still_has_one(strategy: str) -> None:
    tree, people = group_of(strategy, 3, is_online=False)
    assert set(picks(tree, "a/x", 5)) <= set(people)


def test_group_is_neither_merged_nor_doubled() -> None:
    tree = TopicTree()
    who = Subscriber(is_online=True)
    assert tree.add("a", who, 0, 1)
    assert tree.add("$share/g/a", who, 1, 2)
    assert tree.add("$share/h/a", who, 2, 3)
    assert not tree.add("$share/g/a", who, 2, 4)
    assert [target[1:3] for target in tree.match("a")] == [(0, (1,))]
    assert sorted(tree.pick_shared("a"), key=lambda pick: pick[0]) == [("g", who, 2, (4,)), ("h", who, 2, (3,))]
    assert (tree.count, tree.share_groups) == (3, 2)


def test_group_goes_with_its_last_member() -> None:
    tree, people = group_of("round_robin", 2)
    assert len(picks(tree, "a/b", 1)) == 1
    assert tree.discard("$share/g/a/#", people[0])
    assert tree.is_cached("a/b")
    assert picks(tree, "a/b", 2) == [people[1]] * 2
    assert tree.discard("$share/g/a/#", people[1])
    assert tree.pick_shared("a/b") == []
    assert (tree.share_groups, tree.node_count) == (0, 0)
    assert not tree.discard("$share/g/a/#", people[1])


# Management


def test_cursor_gives_all_subscriptions_in_slices() -> None:
    tree = TopicTree()
    people = [Subscriber() for _ in range(3)]
    rows = {(f"a/{i}", people[i % 3], 1, i + 1) for i in range(20)}
    rows |= {("$share/g/a/+", people[i], 0, 0) for i in range(3)} | {
        ("$SYS/#", people[0], 2, 0),
        ("/", people[1], 0, 0),
    }
    for row in rows:
        tree.add(*row)
    cursor = tree.subscriptions()
    slices = []
    while rows_taken := cursor.take(4):
        slices.append(rows_taken)
    assert {row for taken in slices for row in taken} == rows
    assert [len(taken) for taken in slices[:-1]] == [4] * (len(slices) - 1)
    assert sum(map(len, slices)) == len(rows)


def test_open_cursor_holds_only_its_place() -> None:
    tree = TopicTree()
    who = Subscriber()
    for i in range(10):
        tree.add(f"a/{i}", who)
    cursor = tree.subscriptions()
    cursor.take(3)
    tree.clear()
    assert tree.node_count == 2  # the node it stands on and the one above
    assert cursor.take(3) == []
    assert tree.node_count == 0
    cursor.close()
    assert cursor.take(3) == []
