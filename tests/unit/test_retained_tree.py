"""The retained tree: lookup, limits, slices and expiry, one fact at a time."""

import pytest

from mqttcore.engine.retained import RetainedTree
from mqttcore.errors import QuotaExceeded


def topics(tree: RetainedTree, topic_filter: str) -> list[str]:
    return sorted(message.topic for message in tree.matching(topic_filter))


def test_message_is_kept_replaced_and_removed() -> None:
    tree = RetainedTree()
    tree.set("a/b", b"1", qos=1)
    tree.set("a/b", b"22", qos=2)
    message = tree.get("a/b")
    assert message is not None
    assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", b"22", 2, True)
    assert (tree.count, tree.node_count) == (1, 2)
    assert tree.get("a") is None
    assert tree.get("a/b/c") is None
    assert tree.discard("a/b")
    assert not tree.discard("a/b")
    assert (tree.count, tree.node_count, tree.bytes_held, tree.node_bytes) == (0, 0, 0, 0)
    assert message.payload == b"22"  # whoever holds it keeps it


@pytest.mark.parametrize(
    ("topic_filter", "found"),
    [
        ("#", ["/", "a", "a/b", "a/b/c", "a/c"]),
        ("a/#", ["a", "a/b", "a/b/c", "a/c"]),
        ("+", ["a"]),
        ("+/+", ["/", "a/b", "a/c"]),
        ("+/b/#", ["a/b", "a/b/c"]),
        ("+/#", ["/", "a", "a/b", "a/b/c", "a/c"]),
        ("$SYS/#", ["$SYS/x"]),
        ("$SYS/+", ["$SYS/x"]),
        ("a/b", ["a/b"]),
        ("a/x", []),
        ("a/b/c/d/#", []),
        ("/" * 60_000, []),
        ("+/" * 30_000 + "#", []),
    ],
)
def test_filter_finds_as_the_standard_says(topic_filter: str, found: list[str]) -> None:
    tree = RetainedTree()
    for topic in ("/", "a", "a/b", "a/b/c", "a/c", "$SYS/x"):
        tree.set(topic, b"")
    assert topics(tree, topic_filter) == found


def test_count_is_limited() -> None:
    tree = RetainedTree(count_maximum=2)
    tree.set("a", b"1")
    tree.set("b/c", b"1")
    with pytest.raises(QuotaExceeded):
        tree.set("b/d", b"1")
    assert (tree.count, tree.node_count) == (2, 3)
    tree.set("a", b"2")
    tree.discard("a")
    tree.set("b/d", b"1")


def test_bytes_are_limited_with_their_nodes() -> None:
    tree = RetainedTree(bytes_maximum=3000)
    tree.set("a", b"x" * 1000)
    with pytest.raises(QuotaExceeded):
        tree.set("b", b"x" * 2000)
    with pytest.raises(QuotaExceeded):
        tree.set("/".join("x" * 60), b"")
    assert (tree.count, tree.node_count) == (1, 1)
    tree.set("a", b"x" * 2000)
    assert 2000 < tree.bytes_held + tree.node_bytes <= 3000


def test_levels_are_limited() -> None:
    tree = RetainedTree(levels_maximum=3)
    tree.set("a/b/c", b"")
    for topic in ("a/b/c/d", "/" * 60_000):
        with pytest.raises(QuotaExceeded):
            tree.set(topic, b"")
    assert tree.node_count == 3
    assert topics(tree, "a/b/c/#") == ["a/b/c"]


def test_slice_visits_no_more_than_its_budget() -> None:
    tree = RetainedTree()
    for i in range(100):
        tree.set(f"a/{i}", b"")
    cursor = tree.cursor("+/+/none")
    slices = 0
    is_at_end = False
    while not is_at_end:
        messages, is_at_end = cursor.take(10)
        assert messages == []
        slices += 1
    assert slices == 11
    assert cursor.take(10) == ([], True)


def test_cursor_survives_the_removal_of_all_around_it() -> None:
    tree = RetainedTree()
    names = [f"a/b{i}/c{j}" for i in range(5) for j in range(5)]
    for name in names:
        tree.set(name, b"")
    cursor = tree.cursor("a/#")
    messages, is_at_end = cursor.take(9)
    assert messages
    assert not is_at_end
    for name in names:
        tree.discard(name)
    assert tree.node_count <= 3  # the cursor's place
    assert cursor.take(100) == ([], True)
    assert tree.node_count == 0


def test_sweep_removes_what_is_due_and_nothing_else() -> None:
    tree = RetainedTree()
    for i in range(50):
        tree.set(f"a/{i}/x", b"", expires_ms=[0, 100, 200][i % 3])
    assert tree.sweep_expired(99, 1000) == 0
    assert sum(tree.sweep_expired(100, 7) for _ in range(20)) == 17
    assert tree.count == 33
    assert sum(tree.sweep_expired(500, 7) for _ in range(30)) == 16
    assert tree.sweep_expired(500, 1000) == 0
    assert {message.topic for message in tree.matching("#")} == {f"a/{i}/x" for i in range(0, 50, 3)}


def test_clear_removes_all_under_an_open_cursor() -> None:
    tree = RetainedTree()
    for i in range(100):
        tree.set(f"a/{i}/x", b"")
    cursor = tree.cursor("#")
    cursor.take(5)
    tree.clear()
    assert (tree.count, tree.bytes_held) == (0, 0)
    assert cursor.take(100) == ([], True)
    assert tree.node_count == 0
