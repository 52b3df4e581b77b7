"""The register of who is online, against a model that counts anew each time."""

from hypothesis import given, settings
from hypothesis import strategies as st
from mqttcore_plugins.aliyun.online import Counts, OnlineRegister

CLIENTS = ("GID_A@@@1", "GID_A@@@2", "GID_B@@@1", "plain")
FILTERS = ("t/1", "t/#")

_steps = st.lists(
    st.tuples(
        st.sampled_from(("connect", "resume", "close", "end", "subscribe", "unsubscribe")),
        st.sampled_from(CLIENTS),
        st.booleans(),
        st.sampled_from(FILTERS),
        st.integers(0, 1),
    ),
    max_size=40,
)


class Model:
    """What the register should say, found by looking at every client."""

    def __init__(self) -> None:
        self.connections: dict[str, set[str]] = {}
        self.persistent: dict[str, bool] = {}
        self.filters: dict[str, set[str]] = {}

    def step(self, what: str, client_id: str, is_persistent: bool, topic_filter: str, number: int) -> None:
        known = client_id in self.connections
        if what in ("connect", "resume"):
            self.connections.setdefault(client_id, set()).add(str(number))
            if what == "connect":
                self.filters[client_id] = set()
            self.filters.setdefault(client_id, set())
            self.persistent[client_id] = is_persistent
        elif what == "close" and known and str(number) in self.connections[client_id]:
            self.connections[client_id].discard(str(number))
            if not self.connections[client_id] and not self.persistent[client_id]:
                self.forget(client_id)
        elif what == "end" and known:
            self.filters[client_id] = set()
            if not self.connections[client_id]:
                self.forget(client_id)
        elif what == "subscribe" and known:
            self.filters[client_id].add(topic_filter)
        elif what == "unsubscribe" and known:
            self.filters[client_id].discard(topic_filter)

    def forget(self, client_id: str) -> None:
        del self.connections[client_id], self.persistent[client_id], self.filters[client_id]

    def counts(self, client_ids: list[str]) -> Counts:
        return Counts(
            sum(bool(self.connections[one]) for one in client_ids), sum(self.persistent[one] for one in client_ids)
        )


def play(register: OnlineRegister, what: str, client_id: str, is_persistent: bool, topic_filter: str, n: int) -> None:
    match what:
        case "connect" | "resume":
            register.connected(client_id, str(n), is_persistent=is_persistent, is_resumed=what == "resume")
        case "close":
            register.closed(client_id, str(n))
        case "end":
            register.session_ended(client_id)
        case "subscribe":
            register.subscribed(client_id, topic_filter)
        case "unsubscribe":
            register.unsubscribed(client_id, topic_filter)


@given(_steps)
@settings(max_examples=300, deadline=None)
def test_register_says_what_counting_says(steps: list[tuple[str, str, bool, str, int]]):
    register, model = OnlineRegister(clients_maximum=100, filters_maximum=100), Model()
    for step in steps:
        play(register, *step)
        model.step(*step)
        for client_id in CLIENTS:
            assert register.connections(client_id) == len(model.connections.get(client_id, ()))
        for group_id in ("GID_A", "GID_B"):
            members = [one for one in model.connections if one.startswith(group_id + "@@@")]
            assert register.of_group(group_id) == model.counts(members)
        for topic_filter in FILTERS:
            members = [one for one, filters in model.filters.items() if topic_filter in filters]
            assert register.of_filter(topic_filter) == model.counts(members)
    assert len(register) == len(model.connections)


def test_what_does_not_fit_is_unknown():
    register = OnlineRegister(clients_maximum=1, filters_maximum=1)
    register.connected("GID_A@@@1", "1", is_persistent=True, is_resumed=False)
    register.subscribed("GID_A@@@1", "a")
    assert register.of_filter("b") == (0, 0)
    register.subscribed("GID_A@@@1", "b")
    assert register.of_filter("a") == (1, 1)
    assert register.of_filter("b") == (-1, -1)
    assert register.of_group("GID_B") == (0, 0)
    register.connected("GID_B@@@1", "2", is_persistent=True, is_resumed=False)
    assert register.of_group("GID_B") == (-1, -1)
    assert len(register) == 1


def test_stored_sessions_count_as_persistent():
    register = OnlineRegister(clients_maximum=10, filters_maximum=10)
    register.stored("GID_A@@@1", ("a", "b"))
    assert register.connections("GID_A@@@1") == 0
    assert register.of_group("GID_A") == register.of_filter("a") == (0, 1)
    register.connected("GID_A@@@1", "1", is_persistent=True, is_resumed=True)
    assert register.of_group("GID_A") == register.of_filter("b") == (1, 1)
