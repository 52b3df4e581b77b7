"""Compiled permissions against a model that goes through topics level by level."""

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqttcore.engine.permissions import Rights, Rulebook
from mqttcore.errors import ProtocolError
from mqttcore.identity import Action, Identity, Permission, Quotas

LEVELS = ["a", "b", "", "$s"]
TOPICS = ["/".join(levels) for depth in (1, 2, 3) for levels in product(LEVELS, repeat=depth) if levels != ("",)]


def matches(topic_filter: str, topic: str) -> bool:
    """Say whether a filter matches a topic (MQTT 5 §4.7), slowly."""
    wanted, given_ = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i == len(given_) or level not in ("+", given_[i]):
            return False
    return len(wanted) == len(given_) or wanted[len(given_) :] == ["#"]


def decide(permissions: tuple[Permission, ...], action: Action, topic: str) -> Permission | None:
    """Return the permission that decides, None: none does."""
    return next((p for p in permissions if p.action & action and matches(p.topic_filter, topic)), None)


levels = st.sampled_from([*LEVELS, "+"])
filters = st.builds(
    lambda parts, rest: "/".join([*parts, *(["#"] if rest else [])]), st.lists(levels, max_size=3), st.booleans()
).filter(bool)
permissions = st.lists(
    st.builds(
        Permission,
        st.sampled_from([Action.PUBLISH, Action.SUBSCRIBE, Action.ALL]),
        filters,
        st.booleans(),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=6,
).map(tuple)


def compiled(rules: tuple[Permission, ...], client_id: str = "c", user_name: str | None = "u") -> Rights:
    rights = Rulebook(16).rights(Identity("x", rules), client_id, user_name)
    assert rights is not None
    return rights


@settings(max_examples=150, deadline=None)
@given(permissions)
def test_topics_are_judged_by_the_first_rule_that_matches(rules: tuple[Permission, ...]):
    rights = compiled(rules)
    for topic in TOPICS:
        rule = decide(rules, Action.PUBLISH, topic)
        for qos, retain in ((0, False), (1, True), (2, False)):
            expected = rule is not None and rule.is_allowed and qos <= rule.qos_maximum and (rule.retain or not retain)
            assert rights.may_publish(topic, qos, retain) == expected, topic
        rule = decide(rules, Action.SUBSCRIBE, topic)
        assert rights.may_receive(topic) == (rule is not None and rule.is_allowed), topic


def reached(topic_filter: str) -> Iterator[str]:
    return (topic for topic in TOPICS if matches(topic_filter, topic))


@settings(max_examples=150, deadline=None)
@given(permissions, filters)
def test_granted_filter_reaches_nothing_that_is_denied(rules: tuple[Permission, ...], topic_filter: str):
    rights = compiled(rules)
    qos = rights.subscribe_qos(topic_filter)
    if qos is None:
        return
    for topic in reached(topic_filter):
        rule = decide(rules, Action.SUBSCRIBE, topic)
        assert rule is not None, topic
        assert rule.is_allowed, topic
        assert qos <= rule.qos_maximum, topic


@settings(max_examples=150, deadline=None)
@given(filters, filters.filter(lambda topic_filter: not topic_filter.endswith("#")))
def test_filter_is_granted_when_a_rule_covers_it(allowed: str, topic_filter: str):
    topics = set(reached(topic_filter))  # all there are: without `#` it reaches nothing deeper
    if topics:
        is_covered = all(matches(allowed, topic) for topic in topics)
        assert (compiled((Permission(Action.ALL, allowed),)).subscribe_qos(topic_filter) == 2) == is_covered


@pytest.mark.parametrize(
    ("allowed", "topic_filter", "is_covered"),
    [
        ("#", "#", True),
        ("#", "a/+/#", True),
        ("a/#", "a/#", True),
        ("a/#", "a", True),
        ("a/#", "a/b/#", True),
        ("a/+/#", "a/+/#", True),
        ("a/+/#", "a/#", False),  # which reaches `a`
        ("a/+", "a/#", False),
        ("+/+", "+/#", False),
        ("a/b/#", "a/#", False),
        ("a/b/#", "a/+/#", False),
    ],
)
def test_covering_filters_without_end(allowed: str, topic_filter: str, is_covered: bool):
    assert (compiled((Permission(Action.ALL, allowed),)).subscribe_qos(topic_filter) == 2) == is_covered


@settings(max_examples=150, deadline=None)
@given(permissions, filters)
def test_filter_of_which_a_topic_is_allowed_is_allowed_in_part(rules: tuple[Permission, ...], topic_filter: str):
    rights = compiled(rules)
    for topic in reached(topic_filter):
        rule = decide(rules, Action.SUBSCRIBE, topic)
        if rule is not None and rule.is_allowed:
            assert rights.allows_part_of(topic_filter), topic


def test_everything_is_allowed_without_permissions_and_nothing_with_none():
    assert Rulebook().rights(Identity("x")) is None
    assert Rulebook().rights(None) is None
    rights = compiled(())
    assert not rights.may_publish("a")
    assert not rights.may_receive("a")
    assert rights.subscribe_qos("a") is None
    assert not rights.allows_part_of("a")


def test_wildcards_do_not_reach_dollar_topics():
    rights = compiled((Permission(Action.ALL, "#"), Permission(Action.ALL, "+/x")))
    assert not rights.may_publish("$SYS/x")
    assert rights.subscribe_qos("$SYS/#") is None
    assert rights.subscribe_qos("#") == 2


# --- substitution


def test_names_are_put_in():
    rules = (Permission(Action.ALL, "c/%c/#"), Permission(Action.ALL, "u%u/%c"), Permission(Action.ALL, "%d/%"))
    rights = compiled(rules, "me%u", "my$name")
    assert rights.may_publish("c/me%u/x")
    assert rights.may_publish("umy$name/me%u")
    assert rights.may_publish("%d/%")
    assert not rights.may_publish("c/my$name/x")


@pytest.mark.parametrize("name", ["+", "#", "a/b", "a+", "x#", "/", "a\0b", ""])
@pytest.mark.parametrize("place", ["%c", "%u"])
def test_names_that_are_patterns_are_refused(name: str, place: str):
    # CVE-2017-7650
    rules = (Permission(Action.ALL, f"devices/{place}/#"),)
    names = {"client_id": "fine", "user_name": "fine"} | {"client_id" if place == "%c" else "user_name": name}
    with pytest.raises(ProtocolError) as caught:
        compiled(rules, **names)
    assert caught.value.reason_code == 0x87
    assert compiled((Permission(Action.ALL, "devices/#"),), **names).may_publish("devices/x")


def test_name_does_not_open_dollar_topics():
    with pytest.raises(ProtocolError):
        compiled((Permission(Action.ALL, "%c/#"),), "$SYS")
    assert compiled((Permission(Action.ALL, "x%c/#"),), "$SYS").may_publish("x$SYS/a")


def test_client_without_the_name_is_refused():
    with pytest.raises(ProtocolError):
        compiled((Permission(Action.ALL, "%u"),), "c", None)


# --- what is no permission


@pytest.mark.parametrize(
    "permission",
    [
        Permission(Action.ALL, "a#"),
        Permission(Action.ALL, ""),
        Permission(Action.ALL, "a/#/b"),
        Permission(Action.ALL, "$share/g/t"),
        Permission(Action.ALL, "x" * 65_536),
        Permission(Action.ALL, "t", qos_maximum=3),
        Permission(Action.ALL, "t", qos_maximum=-1),
    ],
    ids=lambda permission: permission.topic_filter[:10],
)
def test_bad_rule_is_an_error(permission: Permission):
    with pytest.raises(ValueError, match="permission"):
        compiled((permission,))


def test_what_is_no_permission_is_an_error():
    with pytest.raises(TypeError):
        compiled(("t",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="10001 permissions"):
        compiled((Permission(Action.ALL, "t"),) * 10_001)


@pytest.mark.parametrize(
    "quotas",
    [
        Quotas(messages_per_s=0),
        Quotas(bytes_per_s=-1),
        Quotas(messages_per_s=float("nan")),
        Quotas(messages_per_s=float("inf")),
        Quotas(subscriptions_maximum=-1),
        Quotas(queued_messages_maximum=1.5),  # type: ignore[arg-type]
        Quotas(queued_bytes_maximum=-1),
        Quotas(topic_characters="a+"),
        Quotas(topic_characters="é"),
        Quotas(topic_characters=b"a"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_bad_quota_is_an_error(quotas: Quotas):
    with pytest.raises(ValueError, match="quota"):
        Rulebook().rights(Identity("x", quotas=quotas))


@pytest.mark.parametrize(
    ("topic", "is_fit"),
    [("a", True), ("a/z~/", True), ("a/b", False), ("/", False), ("/a", False), ("a//z", False), ("aé", False)],
)
def test_characters_and_levels_of_topics_to_publish_to_are_bounded(topic: str, is_fit: bool):
    quotas = Quotas(topic_characters="az~@")
    rights = Rulebook(16).rights(Identity("x", (Permission(Action.ALL, "#"),), quotas))
    assert rights is not None
    assert rights.may_publish(topic) is is_fit
    assert rights.may_receive(topic)
    assert rights.subscribe_qos(topic) == 2


# --- sharing and remembering


def test_equal_rules_are_compiled_once_while_somebody_holds_them():
    book = Rulebook()
    held = [book.rights(Identity(f"u{i}", (Permission(Action.ALL, "a/#"),)), f"c{i}") for i in range(1000)]
    assert all(rights is held[0] for rights in held)
    assert book.shared_count == 1
    own = [book.rights(Identity("u", (Permission(Action.ALL, "a/%c"),)), f"c{i}") for i in range(10)]
    assert len({id(rights) for rights in own}) == 10
    assert book.shared_count == 1
    held.clear()
    assert book.shared_count == 0


def test_quotas_tell_rights_apart():
    book = Rulebook()
    rules = (Permission(Action.ALL, "a"),)
    plain = book.rights(Identity("x", rules))
    bounded = book.rights(Identity("x", rules, quotas=Quotas(subscriptions_maximum=3)))
    assert plain is not bounded
    assert bounded is not None
    assert bounded.subscriptions_maximum == 3
    only_quota = book.rights(Identity("x", quotas=Quotas(messages_per_s=5.5)))
    assert only_quota is not None
    assert not only_quota.has_rules
    assert only_quota.may_publish("anything", 2, True)
    assert only_quota.messages_per_s == 5.5
