"""What topics, filters and subscriptions mean, said plainly: the model that the trees are held against."""

from collections.abc import Iterator

from hypothesis import strategies as st

LEVELS = ["a", "a", "a", "b", "", "$x", "a-level-of-more-than-sixteen-bytes", "é"]

topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=3).map("/".join).filter(bool)


@st.composite
def filters(draw: st.DrawFn) -> str:
    """Draw a valid filter without `$share`."""
    levels = draw(st.lists(st.sampled_from([*LEVELS, "+", "+", "+"]), max_size=3))
    if draw(st.integers(0, 3)) == 0 or levels in ([], [""]):
        levels.append("#")
    return "/".join(levels)


shared_filters = st.builds("$share/{}/{}".format, st.sampled_from(["g", "h"]), filters())


def split_share(topic_filter: str) -> tuple[str | None, str]:
    """Split `$share/name/filter`; the name of any other filter is None."""
    if topic_filter.startswith("$share/"):
        _, name, rest = topic_filter.split("/", 2)
        return name, rest
    return None, topic_filter


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter without `$share` covers a topic (MQTT 5 §4.7)."""
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i == len(levels) or level not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)


def paths(topic_filter: str) -> Iterator[str]:
    """Name the nodes that a topic or filter needs."""
    levels = topic_filter.split("/")
    for i in range(len(levels)):
        yield "/".join(["", *levels[: i + 1]])
