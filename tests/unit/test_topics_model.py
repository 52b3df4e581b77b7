"""The subscription trie against a list of filters and a naive matcher."""

from collections import Counter
from operator import itemgetter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from topic_model import filters, matches, paths, shared_filters, split_share, topics

from mqttcore.engine.subscriber import Subscriber
from mqttcore.engine.topics import SubscriptionCursor, TopicTree

PEOPLE = 5
NO_LOCAL = 0x04
RETAIN_AS_PUBLISHED = 0x08

any_filter = filters() | shared_filters
options_bytes = st.builds(lambda qos, bits: qos | bits, st.integers(0, 2), st.sampled_from([0, 4, 8, 12, 0x10, 0x2C]))
subids = st.sampled_from([0, 1, 127, 128, 16_384, 268_435_455])
person = st.integers(0, PEOPLE - 1)


class Walk:
    """An open cursor and what it owes."""

    def __init__(self, cursor: SubscriptionCursor, owed: set[tuple[str, Subscriber]]) -> None:
        self.cursor = cursor
        self.owed = owed
        self.given: set[tuple[str, Subscriber]] = set()


class TrieMachine(RuleBasedStateMachine):
    """Subscribe, unsubscribe and match at random; the dict is the truth."""

    @initialize(routes=st.sampled_from([0, 3, 1000]), strategy=st.sampled_from(["round_robin", "sticky", "hash"]))
    def start(self, routes: int, strategy: str) -> None:
        self.tree = TopicTree(routes_maximum=routes, share_strategy=strategy)
        self.routes = routes
        self.people = [Subscriber(is_online=i % 2 == 0) for i in range(PEOPLE)]
        self.model: dict[tuple[str, Subscriber], tuple[int, int]] = {}
        self.walks: list[Walk] = []
        self.asked: list[str] = []

    @rule(
        topic_filter=any_filter, who=person, options=options_bytes, subid=st.sampled_from([0, 1, 127, 128, 268435455])
    )
    def subscribe(self, topic_filter: str, who: int, options: int, subid: int) -> None:
        key = (topic_filter, self.people[who])
        assert self.tree.add(*key, options, subid) == (key not in self.model)
        self.model[key] = (options, subid)

    @rule(names=st.lists(filters(), min_size=4, max_size=8), options=options_bytes)
    def subscribe_all(self, names: list[str], options: int) -> None:
        for topic_filter in names:
            for who in range(PEOPLE):
                self.subscribe(topic_filter, who, options, who)

    @rule(topic_filter=any_filter, who=person)
    def unsubscribe_any(self, topic_filter: str, who: int) -> None:
        self._discard((topic_filter, self.people[who]))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def unsubscribe_known(self, data: st.DataObject) -> None:
        self._discard(data.draw(st.sampled_from(list(self.model))))

    def _discard(self, key: tuple[str, Subscriber]) -> None:
        assert self.tree.discard(*key) == (key in self.model)
        self.model.pop(key, None)
        for walk in self.walks:
            walk.owed.discard(key)

    @rule(who=person, is_online=st.booleans())
    def turn(self, who: int, is_online: bool) -> None:
        self.people[who].__init__(is_online=is_online)

    @precondition(lambda self: len(self.model) > 20)
    @rule()
    def clear(self) -> None:
        self.tree.clear()
        self.model.clear()
        for walk in self.walks:
            walk.owed.clear()

    @rule(topic=topics)
    def match(self, topic: str) -> None:
        self.asked = [topic, *self.asked[:9]]
        self._check(topic)

    @rule()
    def match_again(self) -> None:
        """Topics whose routes may still be cached from before the last changes."""
        for topic in self.asked:
            self._check(topic)

    def _check(self, topic: str) -> None:
        expected = {}
        for (topic_filter, who), (options, subid) in self.model.items():
            name, rest = split_share(topic_filter)
            if name is None and matches(rest, topic):
                expected.setdefault(who, []).append((options, subid))
        for _ in range(2):
            found = self.tree.match(topic)
            assert len(found) == len(expected)
            for who, qos, subids, own_qos, own_subids, retain_as_published in found:
                subscriptions = expected[who]
                own = [pair for pair in subscriptions if not pair[0] & NO_LOCAL]
                assert qos == max(options & 3 for options, _ in subscriptions)
                assert own_qos == max((options & 3 for options, _ in own), default=None)
                assert sorted(subids) == sorted(subid for _, subid in subscriptions if subid)
                assert sorted(own_subids) == sorted(subid for _, subid in own if subid)
                assert retain_as_published == any(options & RETAIN_AS_PUBLISHED for options, _ in subscriptions)
            assert self.tree.is_cached(topic) == (self.routes > 0)

    @rule(topic=topics)
    def pick(self, topic: str) -> None:
        groups: dict[str, dict[Subscriber, tuple[int, int]]] = {}
        for (topic_filter, who), subscription in self.model.items():
            name, rest = split_share(topic_filter)
            if name is not None and matches(rest, topic):
                groups.setdefault(topic_filter, {})[who] = subscription
        picked = self.tree.pick_shared(topic)
        assert Counter(map(itemgetter(0), picked)) == Counter(split_share(topic_filter)[0] for topic_filter in groups)
        for name, who, qos, subids in picked:
            candidates = [
                members
                for topic_filter, members in groups.items()
                if split_share(topic_filter)[0] == name
                and who in members
                and qos == members[who][0] & 3
                and subids == ((members[who][1],) if members[who][1] else ())
                and (who.is_online or not any(member.is_online for member in members))
            ]
            assert candidates

    @precondition(lambda self: len(self.walks) < 3)
    @rule()
    def open_cursor(self) -> None:
        self.walks.append(Walk(self.tree.subscriptions(), set(self.model)))

    @precondition(lambda self: self.walks)
    @rule(which=st.integers(0, 2), maximum=st.integers(1, 4))
    def take(self, which: int, maximum: int) -> None:
        walk = self.walks[which % len(self.walks)]
        rows = walk.cursor.take(maximum)
        for topic_filter, who, options, subid in rows:
            assert self.model[topic_filter, who] == (options, subid)
            assert (topic_filter, who) not in walk.given
            walk.given.add((topic_filter, who))
        if not rows:
            assert walk.owed <= walk.given
            self.walks.remove(walk)

    @precondition(lambda self: self.walks)
    @rule()
    def close_cursor(self) -> None:
        self.walks.pop().cursor.close()

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "tree"):
            return
        assert self.tree.count == len(self.model)
        assert self.tree.share_groups == len({key[0] for key in self.model if key[0].startswith("$share/")})
        if not self.walks:
            assert self.tree.node_count == len({path for key in self.model for path in paths(split_share(key[0])[1])})

    def teardown(self) -> None:
        for walk in self.walks:
            walk.cursor.close()
        for key in list(self.model):
            assert self.tree.discard(*key)
        assert (self.tree.count, self.tree.node_count, self.tree.node_bytes, self.tree.share_groups) == (0, 0, 0, 0)


TestTrie = TrieMachine.TestCase
TestTrie.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
