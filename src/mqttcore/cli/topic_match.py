"""Does a topic filter cover a topic? For the client's -T; the broker has its trie."""

__all__ = ["covers"]


def covers(topic_filter: str, topic: str) -> bool:
    """Say whether *topic_filter* covers the Topic Name *topic* (MQTT 5 §4.7)."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):  # [MQTT-4.7.2-1]
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index == len(levels):
            return False
        if level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)
