"""What clients may do: permissions on every way a message takes, in both versions."""

from typing import Any

import pytest

from mqttcore.codec import Auth, Connect, Publish, PubRel, SubAck, Subscribe, Subscription, Will
from mqttcore.config import Authorization
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import HookTable
from mqttcore.errors import ProtocolError
from mqttcore.events import ClientAuthenticated, Unsubscribed
from mqttcore.handlers import Recipients
from mqttcore.identity import Action, Identity, Permission, Quotas

from .conftest import Start
from .harness import Peer

PUBLISH, SUBSCRIBE, ALL = Action.PUBLISH, Action.SUBSCRIBE, Action.ALL
DENIED = ReasonCode.NOT_AUTHORIZED
LASTING = {PropertyId.SESSION_EXPIRY_INTERVAL: 1000}
DROP = Authorization(refused_publish="drop")
AT_DELIVERY = Authorization(subscribe_check="at_delivery")


def allow(topic_filter: str, action: Action = ALL, **more: Any) -> Permission:
    return Permission(action, topic_filter, **more)


def deny(topic_filter: str, action: Action = ALL) -> Permission:
    return Permission(action, topic_filter, is_allowed=False)


class Users:
    """Authentication by client id: the identity that stands for it; others may do everything."""

    def __init__(self, **identities: Identity) -> None:
        self.identities = identities
        self.hooks = HookTable(authenticate=self.authenticate)

    def authenticate(self, client: Any, connect: Any) -> Identity:
        return self.identities.get(client.client_id, Identity("admin"))


def user(*permissions: Permission, **more: Any) -> Identity:
    return Identity("user", permissions, **more)


def lasting(version: int) -> dict[str, Any]:
    """Fields of a CONNECT that keep the session."""
    return {"clean_start": False, "properties": LASTING} if version == 5 else {"clean_start": False}


async def suback(peer: Peer, *filters: str, qos: int = 2) -> list[int]:
    """Subscribe; the reason codes that came back."""
    await peer.send(Subscribe(9, [Subscription(topic_filter, qos) for topic_filter in filters]))
    answer = await peer.receive()
    assert isinstance(answer, SubAck)
    return list(answer.reason_codes)


def refused(version: int) -> int:
    return DENIED if version == 5 else 0x80


async def test_identitys_user_name_takes_the_place_of_a_secret_one(start_clocked: Start, version: int):
    who = user(allow("of/%u"), user_name="ann")
    world = await start_clocked(hooks=Users(a=who).hooks)
    peer = await world.connect("a", version, user_name="aaaa.secret.bbbb")
    assert await suback(peer, "of/ann", "of/aaaa.secret.bbbb") == [2, refused(version)]
    assert world.engine.session("a").user_name == "ann"
    await peer.send(Publish("of/ann", b"x"))
    assert (await peer.receive_publish()).payload == b"x"


@pytest.mark.parametrize("name", [7, "x" * 65_536, "ü" * 40_000])
async def test_identity_with_an_impossible_user_name_is_refused(start_clocked: Start, name: Any):
    world = await start_clocked(hooks=Users(a=user(user_name=name)).hooks)
    peer = await world.open(5)
    await peer.send(Connect("a"))
    assert (await peer.receive()).reason_code == ReasonCode.UNSPECIFIED_ERROR
    assert world.metrics["sessions"] == 0


# --- PUBLISH


@pytest.mark.parametrize("qos", [1, 2])
async def test_refused_publish_is_told_in_the_acknowledgement(start_clocked: Start, qos: int):
    world = await start_clocked(hooks=Users(a=user(allow("mine/#"))).hooks)
    watch = await world.connect("watch")
    await watch.subscribe("#")
    peer = await world.connect("a")
    for _ in range(2):  # the second time the verdict is remembered
        await peer.send(Publish("theirs", b"x", qos=qos, packet_id=7, retain=True))
        assert (await peer.receive()).reason_code == DENIED
    await peer.publish("mine/x", b"1", qos=qos)
    assert (await watch.receive_publish()).topic == "mine/x"
    assert world.metrics["messages_dropped_not_authorized"] == 2
    assert world.metrics["retained"] == world.metrics["awaiting_release"] == 0


@pytest.mark.parametrize(("any_version", "qos"), [(3, 0), (3, 1), (4, 0), (4, 1), (4, 2), (5, 0)])
async def test_refused_publish_that_cannot_be_told_closes(start_clocked: Start, any_version: int, qos: int):
    world = await start_clocked(hooks=Users(a=user(allow("mine"))).hooks)
    watch = await world.connect("watch")
    await watch.subscribe("#")
    peer = await world.connect("a", any_version, **lasting(any_version))
    await peer.send(Publish("theirs", b"x", qos=qos, packet_id=7 if qos else 0), Publish("mine", b"behind"))
    await peer.expect_closed(DENIED if any_version == 5 else None)
    await watch.expect_nothing()
    again = await world.connect("a", any_version, session_present=any_version > 3, **lasting(any_version))
    if qos == 2:  # it was not taken: a resend is no repetition
        await again.send(Publish("theirs", b"x", qos=2, packet_id=7, dup=True))
        await again.expect_closed()


@pytest.mark.parametrize(("any_version", "qos"), [(4, 0), (4, 1), (4, 2), (5, 0), (5, 1), (5, 2)])
async def test_identity_is_told_of_a_refused_publish_first(start_clocked: Start, any_version: int, qos: int):
    told: list[Any] = []

    def tell(client: Any, action: Action, topic: str) -> None:
        told.append((client.client_id, action, topic))
        world.engine.deliver("a", b"notice", topic.encode())

    world = await start_clocked(hooks=Users(a=user(allow("mine"), on_refused=tell)).hooks)
    peer = await world.connect("a", any_version)
    await peer.publish("mine", b"x")
    await peer.send(Publish("theirs", b"x", qos=qos, packet_id=7 if qos else 0))
    notice = await peer.receive()
    assert isinstance(notice, Publish)
    assert (notice.topic, notice.payload) == ("notice", b"theirs")
    assert told == [("a", PUBLISH, "theirs")]
    if any_version == 5 and qos:
        assert (await peer.receive()).reason_code == DENIED
    else:
        await peer.expect_closed(DENIED if any_version == 5 else None)


@pytest.mark.parametrize("policy", ["suback", "disconnect"])
async def test_identity_is_told_of_a_refused_subscribe_first(start_clocked: Start, version: int, policy: Any):
    told: list[Any] = []

    def tell(client: Any, action: Action, topic: str) -> None:
        told.append((client.client_id, action, topic))
        world.engine.deliver("a", b"notice", b"x")

    hooks = Users(a=user(allow("mine"), on_refused=tell)).hooks
    world = await start_clocked(hooks=hooks, authorization=Authorization(refused_subscribe=policy))
    peer = await world.connect("a", version)
    filters = ("mine", "$share/g/one", "two")
    await peer.send(Subscribe(9, [Subscription(topic_filter, 0) for topic_filter in filters]))
    notice = await peer.receive()
    assert isinstance(notice, Publish)
    assert notice.topic == "notice"
    assert told == [("a", SUBSCRIBE, "one")]  # once a packet
    if policy == "suback":
        assert list((await peer.receive()).reason_codes) == [0, refused(version), refused(version)]
    else:
        await peer.expect_closed(DENIED if version == 5 else None)


@pytest.mark.parametrize("does_subscribe", [False, True])
async def test_client_may_be_disconnected_while_its_refusal_is_told(
    start_clocked: Start, version: int, does_subscribe: bool
):
    def tell(client: Any, action: Action, topic: str) -> None:
        assert world.engine.disconnect("a", ReasonCode.QUOTA_EXCEEDED)

    world = await start_clocked(hooks=Users(a=user(on_refused=tell)).hooks)
    peer = await world.connect("a", version, **lasting(version))
    packet = Subscribe(9, [Subscription("t", 0)]) if does_subscribe else Publish("t", b"x", qos=2, packet_id=7)
    await peer.send(packet)
    await peer.expect_closed(ReasonCode.QUOTA_EXCEEDED if version == 5 else None)
    assert world.metrics["awaiting_release"] == 0


async def test_failing_to_tell_changes_nothing_of_the_refusal(start_clocked: Start):
    failed: list[Any] = []

    def tell(client: Any, action: Action, topic: str) -> None:
        raise RuntimeError("told nobody")

    hooks = HookTable(
        authenticate=lambda client, connect: user(on_refused=tell),
        on_failure=lambda hook, error: failed.append((hook, str(error))),
    )
    world = await start_clocked(hooks=hooks)
    peer = await world.connect("a")
    await peer.send(Publish("theirs", b"x", qos=1, packet_id=7))
    assert (await peer.receive()).reason_code == DENIED
    assert await suback(peer, "theirs") == [DENIED]
    assert failed == [("on_refused", "told nobody")] * 2


async def test_nobody_is_told_of_what_is_dropped_without_a_word(start_clocked: Start):
    told: list[Any] = []
    identity = user(on_refused=lambda *said: told.append(said))
    world = await start_clocked(hooks=Users(a=identity).hooks, authorization=DROP)
    peer = await world.connect("a", 4)
    await peer.publish("theirs", b"x")
    await peer.publish("theirs", b"x", qos=1)
    assert told == []


async def test_refused_publish_is_acknowledged_and_dropped_by_setting(start_clocked: Start, version: int):
    world = await start_clocked(hooks=Users(a=user(allow("mine"))).hooks, authorization=DROP)
    watch = await world.connect("watch")
    await watch.subscribe("#")
    peer = await world.connect("a", version)
    await peer.publish("theirs", b"x")
    if version == 4:
        await peer.publish("theirs", b"x", qos=1)
        await peer.publish("theirs", b"x", qos=2)
    await watch.expect_nothing()
    await peer.publish("mine")
    assert (await watch.receive_publish()).topic == "mine"


async def test_highest_qos_and_retain_are_permissions(start_clocked: Start):
    rules = (allow("low", qos_maximum=0), allow("plain", retain=False), allow("#"))
    world = await start_clocked(hooks=Users(a=user(*rules)).hooks)
    peer = await world.connect("a")
    for topic, qos, retain, expected in (
        ("low", 1, False, DENIED),
        ("plain", 1, True, DENIED),
        ("plain", 1, False, ReasonCode.NO_MATCHING_SUBSCRIBERS),
        ("other", 2, True, ReasonCode.NO_MATCHING_SUBSCRIBERS),
    ):
        await peer.send(Publish(topic, b"x", qos=qos, retain=retain, packet_id=5))
        assert (await peer.receive()).reason_code == expected, topic
    await peer.publish("low", b"x", retain=True)
    assert world.metrics["retained"] == 2


async def test_topic_of_an_alias_is_checked(start_clocked: Start):
    world = await start_clocked(hooks=Users(a=user(allow("mine"))).hooks)
    peer = await world.connect("a")
    for topic in ("theirs", ""):
        await peer.send(Publish(topic, b"", qos=1, packet_id=1, properties={PropertyId.TOPIC_ALIAS: 1}))
        assert (await peer.receive()).reason_code == DENIED


async def test_refused_topics_take_no_place_among_routes(start_clocked: Start):
    world = await start_clocked(hooks=Users(a=user()).hooks, authorization=DROP)
    peer = await world.connect("a")
    misses = world.engine.topics.cache_misses
    for number in range(10):
        await peer.publish(f"t/{number}")
    assert world.engine.topics.cache_misses == misses


async def test_case_hardening_acl_bypass_by_names_with_wildcards(start_clocked: Start, version: int):
    # CVE-2017-7650
    world = await start_clocked(hooks=HookTable(authenticate=lambda *_: user(allow("devices/%c/#"), allow("u/%u"))))
    for client_id, user_name in (
        ("#", "u"),
        ("+", "u"),
        ("a/b", "u"),
        ("a", "#"),
        ("a", "+"),
        ("a", "b/c"),
        ("a", None),
    ):
        peer = await world.open(version)
        await peer.send(Connect(client_id, protocol_version=version, user_name=user_name))
        assert (await peer.receive()).reason_code == DENIED
        await peer.expect_closed()
    peer = await world.connect("a", version, user_name="u")
    assert await suback(peer, "devices/a/#", "u/u", "devices/#") == [2, 2, refused(version)]
    assert world.metrics["sessions"] == 1


# --- wills


async def test_hardening_will_is_checked_at_connect(start_clocked: Start, version: int):
    world = await start_clocked(hooks=Users(a=user(allow("mine/#", qos_maximum=1, retain=False))).hooks)
    first = await world.connect("a", version, will=Will("mine/x", b"1", qos=1))
    for will in (Will("theirs", b""), Will("mine/x", b"", qos=2), Will("mine/x", b"", retain=True)):
        peer = await world.open(version)
        await peer.send(Connect("a", protocol_version=version, will=will))
        assert (await peer.receive()).reason_code == DENIED
        await peer.expect_closed()
    await first.expect_nothing()  # nobody took its session over


async def test_hardening_will_is_checked_again_when_it_is_published(start_clocked: Start, version: int):
    world = await start_clocked(hooks=Users(a=user(allow("#"))).hooks)
    watch = await world.connect("watch")
    await watch.subscribe("#")
    peer = await world.connect("a", version, will=Will("theirs", b"gone"))
    world.engine.set_identity("a", user(allow("mine")))
    await peer.lose()
    await watch.expect_nothing()
    assert world.metrics["messages_dropped_not_authorized"] == 1


async def test_will_of_a_client_that_may_is_published(start_clocked: Start, version: int):
    world = await start_clocked(hooks=Users(a=user(allow("theirs"))).hooks)
    watch = await world.connect("watch")
    await watch.subscribe("#")
    await (await world.connect("a", version, will=Will("theirs", b"gone"))).lose()
    assert (await watch.receive_publish()).payload == b"gone"


# --- SUBSCRIBE


async def test_hardening_every_filter_of_a_subscribe_is_checked_by_itself(start_clocked: Start, version: int):
    # dojot#2529
    world = await start_clocked(
        hooks=Users(a=user(deny("a/secret/#"), allow("a/#"), allow("low", qos_maximum=0))).hooks
    )
    peer = await world.connect("a", version)
    no = refused(version)
    assert await suback(peer, "a/b", "b", "a/secret", "a/#", "low", "a/b/+", "#", "+/b") == [
        2,
        no,
        no,
        no,
        0,
        2,
        no,
        no,
    ]
    assert world.metrics["subscriptions"] == 3
    assert world.metrics["subscriptions_refused"] == 5
    admin = await world.connect("admin")
    await admin.publish("a/b", b"1", qos=1)
    await admin.publish("low", b"2", qos=1)
    await admin.publish("a/secret", b"3", qos=1)
    assert [(await peer.receive_publish()).qos for _ in range(2)] == [1, 0]
    await peer.expect_nothing()


@pytest.mark.parametrize("settings", [Authorization(), AT_DELIVERY], ids=["covered", "at delivery"])
async def test_hardening_side_namespaces_are_no_bypass(start_clocked: Start, version: int, settings: Authorization):
    world = await start_clocked(hooks=Users(a=user(allow("a"), allow("#", PUBLISH))).hooks, authorization=settings)
    peer = await world.connect("a", version)
    no = refused(version)
    filters = ("$share/g/a", "$share/g/b", "$share/g/#", "$share/a/b", "$SYS/#", "$SYS", "$share/g/$SYS/#", "$other")
    assert await suback(peer, *filters) == [2, no, no, no, no, no, no, no]
    admin = await world.connect("admin")
    await admin.publish("b", b"1")
    await peer.expect_nothing()


async def test_sys_needs_a_permission_of_an_identity(start_clocked: Start):
    world = await start_clocked(hooks=Users(a=user(allow("$SYS/broker/#"))).hooks, sys_for_anonymous=True)
    peer = await world.connect("a")
    assert await suback(peer, "$SYS/broker/+", "$SYS/#", "$SYS/other") == [2, DENIED, DENIED]
    assert await suback(await world.connect("admin"), "$SYS/#") == [2]


async def test_refused_subscription_closes_by_setting(start_clocked: Start, version: int):
    settings = Authorization(refused_subscribe="disconnect")
    world = await start_clocked(hooks=Users(a=user(allow("a"))).hooks, authorization=settings)
    peer = await world.connect("a", version)
    assert await suback(peer, "a") == [2]
    await peer.send(Subscribe(1, [Subscription("a"), Subscription("b")]))
    await peer.expect_closed(DENIED if version == 5 else None)


async def test_refused_subscription_closes_by_identity(start_clocked: Start, version: int):
    strict = Identity("strict", permissions=(allow("a"),), closes_on_refused_subscribe=True)
    world = await start_clocked(hooks=Users(strict=strict, a=user(allow("a"))).hooks)
    peer = await world.connect("strict", version)
    assert await suback(peer, "a") == [2]
    await peer.send(Subscribe(1, [Subscription("a"), Subscription("b")]))
    await peer.expect_closed(DENIED if version == 5 else None)
    assert world.metrics["subscriptions"] == 0
    assert await suback(await world.connect("a", version), "b") == [DENIED if version == 5 else 0x80]


async def test_extra_subscriptions_are_refused_or_have_no_effect(start_clocked: Start):
    strict = Identity("user", quotas=Quotas(subscriptions_maximum=1))
    lenient = Identity("user", quotas=Quotas(subscriptions_maximum=1, ignores_extra_subscriptions=True))
    world = await start_clocked(hooks=Users(strict=strict, lenient=lenient).hooks)
    peer = await world.connect("strict")
    assert await suback(peer, "a", "b", "a") == [2, ReasonCode.QUOTA_EXCEEDED, 2]
    quiet = await world.connect("lenient")
    assert await suback(quiet, "a", "b", "a", qos=1) == [1, 1, 1]
    await (await world.connect("admin")).publish("b", b"x")
    await quiet.expect_nothing()
    assert world.metrics["subscriptions"] == 2
    assert world.metrics["subscriptions_ignored"] == 1


# --- delivery


async def test_check_at_delivery(start_clocked: Start, version: int):
    rules = (deny("a/secret/#"), allow("a/+", qos_maximum=1), allow("b"))
    world = await start_clocked(hooks=Users(a=user(*rules)).hooks, authorization=AT_DELIVERY)
    admin = await world.connect("admin")
    for topic in ("a/old", "a/secret", "c"):
        await admin.publish(topic, b"kept", qos=2, retain=True)
    peer = await world.connect("a", version, **lasting(version))
    no = refused(version)
    assert await suback(peer, "a/#", "c", "a/secret/#", "$share/g/a/#") == [2, no, no, no]
    message = await peer.receive_publish()
    assert (message.topic, message.qos, message.retain) == ("a/old", 1, True)
    for topic in ("a/secret", "a/x", "a/x/y"):
        await admin.publish(topic, b"live", qos=2)
    message = await peer.receive_publish()
    assert (message.topic, message.qos, message.retain) == ("a/x", 1, False)
    await peer.expect_nothing()
    await peer.lose()
    for topic in ("a/secret", "a/y"):
        await admin.publish(topic, b"away", qos=1)
    assert world.metrics["queued"] == 1
    peer = await world.connect("a", version, session_present=True, **lasting(version))
    assert (await peer.receive_publish()).topic == "a/y"
    await peer.expect_nothing()
    assert world.metrics["messages_dropped_not_authorized"] == 4


async def test_filter_over_the_clients_own_length_is_refused_however_it_is_checked(start_clocked: Start, version: int):
    short = user(allow("a/#"), quotas=Quotas(topic_bytes_maximum=5))
    for authorization in (Authorization(), AT_DELIVERY):
        world = await start_clocked(hooks=Users(a=short).hooks, authorization=authorization)
        peer = await world.connect("a", version)
        assert await suback(peer, "a/345", "a/3456", "+/3456") == [2, refused(version), refused(version)]


# --- rights that are taken away


async def test_hardening_stored_subscriptions_are_checked_on_resume(start_clocked: Start, version: int):
    # CVE-2021-34434
    users = Users(a=user(allow("#")))
    world = await start_clocked(hooks=users.hooks)
    peer = await world.connect("a", version, **lasting(version))
    await peer.subscribe("ours", "theirs/#", "low", "$share/g/theirs")
    await peer.lose()
    users.identities["a"] = user(allow("ours"), allow("low", qos_maximum=0))
    peer = await world.connect("a", version, session_present=True, **lasting(version))
    admin = await world.connect("admin")
    for topic in ("theirs/x", "theirs", "ours", "low"):
        await admin.publish(topic, b"x", qos=1)
    assert [((m := await peer.receive_publish()).topic, m.qos) for _ in range(2)] == [("ours", 1), ("low", 0)]
    await peer.expect_nothing()
    assert world.engine.session("a").topic_filters == ("ours", "low")


async def test_hardening_queued_messages_are_checked_on_resume(start_clocked: Start, version: int):
    # CVE-2018-12546
    users = Users(a=user(allow("#")))
    world = await start_clocked(hooks=users.hooks)
    peer = await world.connect("a", version, **lasting(version))
    await peer.subscribe("#")
    await peer.lose()
    admin = await world.connect("admin")
    for topic in ("theirs", "ours", "theirs"):
        await admin.publish(topic, topic.encode(), qos=1)
    users.identities["a"] = user(allow("ours"))
    peer = await world.connect("a", version, session_present=True, **lasting(version))
    assert (await peer.receive_publish()).payload == b"ours"
    await peer.expect_nothing()
    assert world.metrics["queued"] == world.metrics["queued_bytes"] == 0
    assert world.metrics["messages_dropped_not_authorized"] == 2


@pytest.mark.parametrize("qos", [1, 2])
async def test_hardening_messages_in_flight_are_checked_before_they_are_sent_again(
    start_clocked: Start, version: int, qos: int
):
    users = Users(a=user(allow("#")))
    world = await start_clocked(hooks=users.hooks)
    peer = await world.connect("a", version, **lasting(version))
    await peer.subscribe("#")
    admin = await world.connect("admin")
    for topic in ("theirs", "ours"):
        await admin.publish(topic, topic.encode(), qos=qos)
        await peer.receive_publish(acknowledge=False)
    await peer.lose()
    users.identities["a"] = user(allow("ours"))
    peer = await world.connect("a", version, session_present=True, **lasting(version))
    message = await peer.receive_publish()
    assert (message.payload, message.dup) == (b"ours", True)
    await peer.expect_nothing()
    assert world.metrics["in_flight"] == 0


async def test_release_goes_on_whatever_the_rights(start_clocked: Start):
    users = Users(a=user(allow("#")))
    world = await start_clocked(hooks=users.hooks)
    peer = await world.connect("a", **lasting(5))
    await peer.subscribe("#")
    await (await world.connect("admin")).publish("theirs", b"1", qos=2)
    message = await peer.receive_publish(acknowledge=False)
    await peer.send(b"\x50\x02" + message.packet_id.to_bytes(2, "big"))
    assert isinstance(await peer.receive(), PubRel)
    await peer.lose()
    users.identities["a"] = user()
    peer = await world.connect("a", session_present=True, **lasting(5))
    assert isinstance(await peer.receive(), PubRel)


async def test_hardening_retained_messages_need_a_subscription_that_is_allowed(start_clocked: Start, version: int):
    users = Users(a=user(allow("#")))
    world = await start_clocked(hooks=users.hooks)
    await (await world.connect("admin")).publish("theirs", b"kept", retain=True)
    users.identities["a"] = user(allow("ours"))
    peer = await world.connect("a", version)
    assert await suback(peer, "theirs", "#") == [refused(version)] * 2
    await peer.expect_nothing()


async def test_message_to_a_named_client_needs_no_permission_to_read(start_clocked: Start):
    users = Users(a=user(allow("mine")))
    world = await start_clocked(hooks=users.hooks, authorization=AT_DELIVERY)
    world.engine.add_handler(b"p2p/+", lambda client, message: Recipients(["a"]))
    peer = await world.connect("a", **lasting(5))
    admin = await world.connect("admin")
    await admin.publish("p2p/a", b"1", qos=1)
    assert (await peer.receive_publish(acknowledge=False)).payload == b"1"
    await peer.lose()
    await admin.publish("p2p/a", b"2", qos=1)
    users.identities["a"] = user(allow("other"))
    peer = await world.connect("a", session_present=True, **lasting(5))
    assert [(await peer.receive_publish()).payload for _ in range(2)] == [b"1", b"2"]


# --- identities replaced


async def test_identity_replaced_while_connected(start_clocked: Start, version: int):
    world = await start_clocked(hooks=Users(a=user(allow("#"))).hooks, in_flight_maximum=1)
    peer = await world.connect("a", version)
    await peer.subscribe("ours", "theirs")
    admin = await world.connect("admin")
    for topic in ("ours", "theirs", "ours"):
        await admin.publish(topic, topic.encode(), qos=1)
    first = await peer.receive_publish(acknowledge=False)
    assert world.engine.set_identity("a", user(allow("ours")))
    await peer.send(b"\x40\x02" + first.packet_id.to_bytes(2, "big"))
    assert (await peer.receive_publish()).payload == b"ours"
    await admin.publish("theirs", b"x", qos=1)
    await peer.expect_nothing()
    await peer.send(Publish("theirs", b"x"))
    await peer.expect_closed(DENIED if version == 5 else None)


async def test_rights_given_back_are_in_force_at_once(start_clocked: Start):
    world = await start_clocked(hooks=Users(a=user()).hooks)
    peer = await world.connect("a")
    await peer.send(Publish("t", b"", qos=1, packet_id=1))
    assert (await peer.receive()).reason_code == DENIED
    world.engine.set_identity("a", Identity("user"))
    await peer.publish("t", b"", qos=1)
    await peer.subscribe("t")


async def test_identity_that_cannot_be_used_changes_nothing(start_clocked: Start):
    before = user(allow("#"))
    world = await start_clocked(hooks=Users(**{"a+": before}).hooks)
    peer = await world.connect("a+")
    with pytest.raises(ProtocolError):
        world.engine.set_identity("a+", user(allow("x/%c")))
    with pytest.raises(ValueError, match="permission"):
        world.engine.set_identity("a+", user(allow("#/x")))
    with pytest.raises(ValueError, match="expires"):
        world.engine.set_identity("a+", user(expires_at_s=float("nan")))
    with pytest.raises(TypeError):
        world.engine.set_identity("a+", "somebody")
    assert not world.engine.set_identity("nobody", before)
    assert world.engine.session("a+").identity is before
    await peer.publish("t", b"", qos=1)


async def test_identity_that_cannot_be_used_refuses(start_clocked: Start):
    world = await start_clocked(hooks=Users(a=user(allow("#/x")), b=user(expires_at_s=float("nan"))).hooks)
    for client_id in ("a", "b"):
        peer = await world.connect(client_id, expect=ReasonCode.UNSPECIFIED_ERROR)
        await peer.expect_closed()
    assert world.metrics["sessions"] == 0


async def test_reauthentication_replaces_rights(start_clocked: Start):
    method = {PropertyId.AUTHENTICATION_METHOD: "m"}
    answers = [user(allow("#")), user(allow("ours"))]
    hooks = HookTable(authenticate=lambda *_: answers.pop(0), continue_authentication=lambda *_: answers.pop(0))
    world = await start_clocked(hooks=hooks)
    peer = await world.connect("a", properties=method)
    await peer.subscribe("ours", "theirs")
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, method))
    await peer.expect(Auth(ReasonCode.SUCCESS, method))
    assert world.engine.session("a").topic_filters == ("ours",)


# --- whose a session is


async def test_case_43_session_of_another_identity_is_refused(start_clocked: Start, version: int):
    users = Users(a=Identity("first"))
    world = await start_clocked(hooks=users.hooks)
    peer = await world.connect("a", version, **lasting(version))
    await peer.subscribe("t")
    users.identities["a"] = Identity("second")
    for clean_start in (False, True):
        stranger = await world.connect(
            "a", version, expect=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, clean_start=clean_start
        )
        await stranger.expect_closed()
    await peer.expect_nothing()
    await peer.lose()
    await world.connect("a", version, expect=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, **lasting(version))
    users.identities["a"] = Identity("first")
    await world.connect("a", version, session_present=True, **lasting(version))


async def test_session_of_another_identity_is_replaced_by_setting(start_clocked: Start):
    users = Users(a=Identity("first"))
    world = await start_clocked(hooks=users.hooks, authorization=Authorization(session_owner="replace"))
    peer = await world.connect("a", **lasting(5))
    await peer.subscribe("t")
    users.identities["a"] = Identity("second")
    heir = await world.connect("a", session_present=False, **lasting(5))
    await peer.expect_closed(ReasonCode.SESSION_TAKEN_OVER)
    assert world.engine.session("a").topic_filters == ()
    assert world.engine.session("a").owner == "second"
    await heir.expect_nothing()


async def test_session_of_another_identity_is_taken_over_by_setting(start_clocked: Start):
    users = Users(a=Identity("first"))
    world = await start_clocked(hooks=users.hooks, authorization=Authorization(session_owner="ignore"))
    peer = await world.connect("a", **lasting(5))
    await peer.subscribe("t")
    users.identities["a"] = user(allow("u"), allow("#", PUBLISH))
    await world.connect("a", session_present=True, **lasting(5))
    assert world.engine.session("a").topic_filters == ()  # what the new identity may not have goes


async def test_session_of_nobody_is_whose_who_authenticates_first(start_clocked: Start):
    answers: list[Identity | None] = [None, Identity("first"), None]
    world = await start_clocked(hooks=HookTable(authenticate=lambda *_: answers.pop(0)))
    await (await world.connect("a", **lasting(5))).subscribe("t")
    await world.connect("a", session_present=True, **lasting(5))
    await world.connect("a", expect=ReasonCode.CLIENT_IDENTIFIER_NOT_VALID, **lasting(5))


# --- expiry


async def test_identity_expires(start_clocked: Start, version: int):
    users = Users()
    world = await start_clocked(hooks=users.hooks)
    watch = await world.connect("watch")
    await watch.subscribe("will")
    users.identities["a"] = user(allow("#"), expires_at_s=world.wall_s + 60)
    peer = await world.connect("a", version, will=Will("will", b"gone"), **lasting(version))
    world.advance(59_000)
    await peer.expect_nothing()
    world.advance(1_200)
    said = await peer.expect_closed(DENIED if version == 5 else None)
    if said is not None:
        assert said.properties == {PropertyId.REASON_STRING: "identity expired"}
    assert (await watch.receive_publish()).payload == b"gone"
    refusal = await world.connect("a", version, expect=DENIED, **lasting(version))
    await refusal.expect_closed()
    users.identities["a"] = user(allow("#"))
    await world.connect("a", version, session_present=True, **lasting(version))


async def test_identity_replaced_in_time_lives_on(start_clocked: Start):
    users = Users()
    world = await start_clocked(hooks=users.hooks)
    users.identities["a"] = user(allow("#"), expires_at_s=world.wall_s + 60)
    peer = await world.connect("a", **lasting(5))
    world.advance(30_000)
    world.engine.set_identity("a", user(allow("#"), expires_at_s=world.wall_s + 60))
    world.advance(59_000)
    await peer.expect_nothing()
    world.advance(1_200)
    await peer.expect_closed(DENIED)
    world.engine.set_identity("a", user(allow("#"), expires_at_s=world.wall_s + 1))
    users.identities["a"] = user(allow("#"), expires_at_s=3e9)
    world.advance(10_000)  # without a connection nothing rings
    peer = await world.connect("a", session_present=True, **lasting(5))
    world.advance(900_000)
    await peer.expect_nothing()


async def test_expiry_of_the_identity_is_not_that_of_the_session(start_clocked: Start):
    users = Users()
    world = await start_clocked(hooks=users.hooks)
    users.identities["a"] = user(allow("#"), expires_at_s=world.wall_s + 60)
    peer = await world.connect("a", **lasting(5))
    await peer.lose()
    world.advance(999_000)
    assert world.metrics["sessions"] == 1
    world.advance(1_200)
    assert world.metrics["sessions"] == 0


# --- bounds of the queue


async def test_queue_has_the_quota_of_the_identity(start_clocked: Start):
    users = Users(
        few=Identity("user", quotas=Quotas(queued_messages_maximum=2)),
        small=Identity("user", quotas=Quotas(queued_bytes_maximum=600)),
    )
    world = await start_clocked(hooks=users.hooks)
    for client_id in ("few", "small"):
        peer = await world.connect(client_id, **lasting(5))
        await peer.subscribe("t")
        await peer.lose()
    admin = await world.connect("admin")
    for number in range(5):
        await admin.publish("t", bytes([number]) * 200, qos=1)
    few, small = (world.engine.session(client_id) for client_id in ("few", "small"))
    assert few.queued == 2
    assert 0 < small.queued_bytes_held <= 600


async def test_replaced_identity_is_an_event(start_clocked: Start):
    world = await start_clocked(hooks=Users(a=user(allow("a"), allow("b"))).hooks)
    peer = await world.connect("a")
    await peer.subscribe("a", "b")
    world.engine.events.observe((ClientAuthenticated, Unsubscribed), None, 10)
    world.engine.set_identity("a", user(allow("a")))
    withdrawn, replaced = world.engine.events.take(world.now_ms)
    assert (withdrawn.client_id, withdrawn.topic_filter) == ("a", "b")
    assert (replaced.client_id, replaced.identity_name) == ("a", "user")
