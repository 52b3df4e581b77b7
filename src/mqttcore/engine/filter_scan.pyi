from mqttcore.engine.topics import TopicTree

def filters_from(
    topics: TopicTree, place: int, limit: int, prefix: bytes, nodes_budget: int, entries_budget: int
) -> tuple[list[tuple[str, int, int, int, tuple[str, ...], bool]], int]: ...
