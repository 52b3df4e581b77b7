"""Resources, which are Topic Filters: what they match and which others they cover (MQTT 5 §4.7)."""

from __future__ import annotations

__all__ = ["covers", "matches"]


def matches(resource: str, topic: str) -> bool:
    """Say whether a Topic Name lies in *resource*."""
    return covers(resource, topic)  # a Topic Name is a filter without wildcards


def covers(resource: str, topic_filter: str) -> bool:
    """Say whether all that *topic_filter* matches lies in *resource*; `a/#` covers `a` and `a/+/#`, not `+`.

    Topics with `$` are hidden from wildcards in the first level, as for subscriptions [MQTT-4.7.2-1].
    """
    have, want = resource.split("/"), topic_filter.split("/")
    if have[0] in ("+", "#") and want[0].startswith("$"):
        return False
    for position, level in enumerate(have):
        if level == "#":
            return True
        if position == len(want):
            return False
        wanted = want[position]
        if wanted == "#":  # and ours goes on: it has fewer topics, or other ones
            return False
        if level not in ("+", wanted):
            return False
    return len(want) == len(have)
