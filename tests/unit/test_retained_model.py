"""The retained tree against a dict of topics and a naive matcher."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from topic_model import filters, matches, paths, topics

from mqttcore.engine.retained import RetainedCursor, RetainedTree


class Walk:
    """An open cursor and what it owes."""

    def __init__(self, cursor: RetainedCursor, topic_filter: str, owed: set[str]) -> None:
        self.cursor = cursor
        self.topic_filter = topic_filter
        self.owed = owed
        self.given: set[str] = set()


class RetainedMachine(RuleBasedStateMachine):
    """Put, remove, expire and look up at random, with cursors open; the dict is the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = RetainedTree()
        self.model: dict[str, tuple[bytes, int]] = {}
        self.walks: list[Walk] = []
        self.now_ms = 1

    @rule(topic=topics, payload=st.binary(max_size=4), lifetime_ms=st.sampled_from([0, 0, 2, 5]))
    def put(self, topic: str, payload: bytes, lifetime_ms: int) -> None:
        expires_ms = self.now_ms + lifetime_ms if lifetime_ms else 0
        self.tree.set(topic, payload, expires_ms=expires_ms)
        self.model[topic] = (payload, expires_ms)

    @rule(topic=topics)
    def discard(self, topic: str) -> None:
        assert self.tree.discard(topic) == (topic in self.model)
        self._gone(topic)

    def _gone(self, topic: str) -> None:
        self.model.pop(topic, None)
        for walk in self.walks:
            walk.owed.discard(topic)

    @rule(topic=topics)
    def find(self, topic: str) -> None:
        message = self.tree.get(topic)
        assert (None if message is None else message.payload) == (self.model[topic][0] if topic in self.model else None)

    @rule(topic_filter=filters())
    def match(self, topic_filter: str) -> None:
        found = [(message.topic, message.payload) for message in self.tree.matching(topic_filter)]
        wanted = [(topic, payload) for topic, (payload, _) in self.model.items() if matches(topic_filter, topic)]
        assert sorted(found) == sorted(wanted)

    @rule(passed_ms=st.integers(0, 4), budget=st.integers(1, 30))
    def sweep_all(self, passed_ms: int, budget: int) -> None:
        """Two rounds over the tree meet every node, wherever the last sweep stopped."""
        self.now_ms += passed_ms
        due = [topic for topic, (_, expires_ms) in self.model.items() if expires_ms and expires_ms <= self.now_ms]
        rounds = 2 * (2 + (self.tree.node_count + 1) // budget)
        assert sum(self.tree.sweep_expired(self.now_ms, budget) for _ in range(rounds)) == len(due)
        for topic in due:
            self._gone(topic)

    @rule(budget=st.integers(1, 3))
    def sweep_some(self, budget: int) -> None:
        """A short sweep leaves its place somewhere inside; nothing that is not due goes."""
        assert self.tree.sweep_expired(0, budget) == 0

    @precondition(lambda self: len(self.walks) < 3)
    @rule(topic_filter=filters())
    def open_cursor(self, topic_filter: str) -> None:
        owed = {topic for topic in self.model if matches(topic_filter, topic)}
        self.walks.append(Walk(self.tree.cursor(topic_filter), topic_filter, owed))

    @precondition(lambda self: self.walks)
    @rule(which=st.integers(0, 2), budget=st.integers(1, 4))
    def take(self, which: int, budget: int) -> None:
        walk = self.walks[which % len(self.walks)]
        messages, is_at_end = walk.cursor.take(budget)
        for message in messages:
            assert self.model[message.topic][0] == message.payload
            assert matches(walk.topic_filter, message.topic)
            assert message.topic not in walk.given
            walk.given.add(message.topic)
        if is_at_end:
            assert walk.owed <= walk.given
            self.walks.remove(walk)

    @precondition(lambda self: self.walks)
    @rule()
    def close_cursor(self) -> None:
        self.walks.pop()  # its last reference

    @invariant()
    def counts_agree(self) -> None:
        assert self.tree.count == len(self.model)
        needed = {path for topic in self.model for path in paths(topic)}
        assert self.tree.node_count >= len(needed)

    def teardown(self) -> None:
        self.walks.clear()
        self.tree.sweep_expired(0, 1_000_000)  # to the end: the sweep holds its place as well
        assert self.tree.node_count == len({path for topic in self.model for path in paths(topic)})
        for topic in self.model:
            assert self.tree.discard(topic)
        assert (self.tree.count, self.tree.bytes_held, self.tree.node_count, self.tree.node_bytes) == (0, 0, 0, 0)


TestRetained = RetainedMachine.TestCase
TestRetained.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
