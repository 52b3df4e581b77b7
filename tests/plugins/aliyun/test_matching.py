"""What a resource covers: against a list, and against what matching single topics says."""

from itertools import product

import pytest
from mqttcore_plugins.aliyun.matching import covers, matches


@pytest.mark.parametrize(
    ("resource", "topic", "does"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a", False),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/a", False),
        ("+/a", "$SYS/a", False),
        ("$SYS/#", "$SYS/a", True),
        ("a/+", "a/", True),
    ],
)
def test_resource_matches(resource: str, topic: str, does: bool):
    assert matches(resource, topic) is does


@pytest.mark.parametrize(
    ("resource", "topic_filter", "does"),
    [
        ("a/#", "a/+/#", True),
        ("a/#", "a/#", True),
        ("a/#", "#", False),
        ("a/+", "a/#", False),
        ("a/+", "a/+", True),
        ("a/b", "a/+", False),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/#", False),
        ("a/b/#", "a/#", False),
        ("+/b", "a/b", True),
        ("+", "#", False),
    ],
)
def test_resource_covers(resource: str, topic_filter: str, does: bool):
    assert covers(resource, topic_filter) is does


def test_covering_is_what_matching_says():
    """A filter is covered when all topics that it matches lie in the resource; three levels show every case."""
    names = ("a", "b")
    topics = ["/".join(levels) for depth in (1, 2, 3, 4) for levels in product(names, repeat=depth)]
    levels = ("a", "b", "+", "#")
    filters = [
        "/".join(parts) for depth in (1, 2, 3) for parts in product(levels, repeat=depth) if "#" not in parts[:-1]
    ]

    def within(topic_filter: str) -> set[str]:
        return {topic for topic in topics if matches(topic_filter, topic)}

    held = {one: within(one) for one in filters}
    for resource in filters:
        if resource == "+/#":  # `#` in other words; a resource has a parent topic, so nobody asks
            continue
        for topic_filter in filters:
            assert covers(resource, topic_filter) is (held[topic_filter] <= held[resource]), (resource, topic_filter)
