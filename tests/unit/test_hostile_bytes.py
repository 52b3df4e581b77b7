"""Packets right, odd and broken, in any order, cut anywhere: the engine raises nothing and keeps nothing."""

import contextlib
import logging
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqttcore.codec import (
    Auth,
    Connect,
    Disconnect,
    PingReq,
    PubAck,
    PubComp,
    Publish,
    PubRec,
    PubRel,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from mqttcore.config import Authorization, Limits
from mqttcore.constants import PropertyId
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.errors import ProtocolError
from mqttcore.handlers import PublishChange
from mqttcore.identity import Action, Challenge, Identity, Permission, Quotas, Refusal

METHOD = {PropertyId.AUTHENTICATION_METHOD: "m"}
TOPICS = ["a", "a/b", "a/b/c", "$x/y", "$SYS/z", "/", "ü"]
FILTERS = ["#", "+", "a/+", "a/#", "a/b", "$share/g/a/#", "$share/h/#", "$x/#", "a#", "$share//x"]

ACCEPT = Identity("tester")
LIMITS = Limits(
    in_flight_maximum=3,
    queued_messages_maximum=4,
    maximum_packet_size_bytes=20_000,
    topic_alias_maximum=3,
    output_high_water_bytes=1024,
    retained_messages_maximum=4,
    receive_maximum=3,
    session_expiry_maximum_s=50,
)

ids = st.integers(1, 6)
qos = st.integers(0, 2)
versions = st.sampled_from([3, 4, 5, 5, 5])


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """A packet that a client may send; often wrong for its connection's version or state."""
    version = draw(versions)
    kind = draw(st.sampled_from(["connect", "publish", "publish", "publish", "ack", "ack", "subscribe", "other"]))
    properties: dict[int, Any] = {}
    if kind == "connect":
        if version == 5:
            properties = draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        PropertyId.SESSION_EXPIRY_INTERVAL: st.sampled_from([0, 5, 0xFFFFFFFF]),
                        PropertyId.RECEIVE_MAXIMUM: st.integers(1, 5),
                        PropertyId.MAXIMUM_PACKET_SIZE: st.sampled_from([1, 5, 30, 100]),
                        PropertyId.TOPIC_ALIAS_MAXIMUM: st.integers(0, 3),
                        PropertyId.AUTHENTICATION_METHOD: st.just("m"),
                    },
                )
            )
        will = Will(draw(st.sampled_from(TOPICS)), b"gone", qos=draw(qos), retain=draw(st.booleans()))
        if version == 5 and draw(st.booleans()):
            will.properties[PropertyId.WILL_DELAY_INTERVAL] = draw(st.integers(0, 9))
        return Connect(
            draw(st.sampled_from(["", "x", "y", "z"])),
            protocol_version=version,
            clean_start=draw(st.booleans()),
            keep_alive_s=draw(st.sampled_from([0, 1, 10])),
            will=will if draw(st.booleans()) else None,
            properties=properties,
        ).encode(version)
    if kind == "publish":
        level = draw(qos)
        if version == 5:
            properties = draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        PropertyId.TOPIC_ALIAS: st.integers(1, 4),
                        PropertyId.MESSAGE_EXPIRY_INTERVAL: st.integers(0, 9),
                        PropertyId.USER_PROPERTY: st.just([("k", "v")]),
                    },
                )
            )
        topic = draw(st.sampled_from(TOPICS))
        if PropertyId.TOPIC_ALIAS in properties and draw(st.booleans()):
            topic = ""
        payload = bytes(draw(st.sampled_from([0, 1, 50, 900, 9000])))
        return Publish(
            topic,
            payload,
            qos=level,
            retain=draw(st.booleans()),
            dup=bool(level) and draw(st.booleans()),
            packet_id=draw(ids) if level else 0,
            properties=properties,
        ).encode(version)
    if kind == "ack":
        return draw(st.sampled_from([PubAck, PubRec, PubRel, PubComp]))(draw(ids)).encode(version)
    if kind == "subscribe":
        filters = draw(st.lists(st.sampled_from(FILTERS), min_size=1, max_size=3))
        if draw(st.integers(0, 3)) == 0:
            return Unsubscribe(draw(ids), filters).encode(version)
        if version == 5 and draw(st.booleans()):
            properties = {PropertyId.SUBSCRIPTION_IDENTIFIER: draw(st.integers(1, 300))}
        options = [
            Subscription(
                f,
                draw(qos),
                no_local=draw(st.booleans()),
                retain_as_published=draw(st.booleans()),
                retain_handling=draw(st.integers(0, 2)),
            )
            for f in filters
        ]
        return Subscribe(draw(ids), options, properties).encode(version)
    return draw(
        st.sampled_from(
            [
                PingReq().encode(5),
                Disconnect().encode(4),
                Disconnect(4, {PropertyId.SESSION_EXPIRY_INTERVAL: 3}).encode(5),
                Auth(0x18, METHOD).encode(5),
                Auth(0x19, METHOD).encode(5),
                b"\x20\x02\x00\x00",
                b"\x00\x00",
            ]
        )
    )


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Some packets, now and then with a byte changed, removed or put in."""
    data = bytearray(b"".join(draw(st.lists(packets(), min_size=1, max_size=4))))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(["change", "remove", "put in", "cut"]))
        if how == "change":
            data[at] = draw(st.integers(0, 255))
        elif how == "remove":
            del data[at]
        elif how == "put in":
            data.insert(at, draw(st.integers(0, 255)))
        else:
            del data[at:]
    return bytes(data)


class Door:
    """A listener."""

    name = "hostile"
    allow_anonymous = True


steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), hostile()),
        st.tuples(st.just("send"), st.integers(0, 3), hostile()),
        st.tuples(st.just("bytewise"), st.integers(0, 3), packets()),
        st.tuples(st.just("open"), st.integers(0, 3), packets()),
        st.tuples(st.sampled_from(["lose", "read", "accept", "refuse", "challenge"]), st.integers(0, 3), st.none()),
        st.tuples(st.just("wait"), st.integers(0, 20_000), st.none()),
    ),
    max_size=40,
)
answers = st.lists(
    st.sampled_from([ACCEPT, ACCEPT, None, PENDING, Challenge(b"?"), Refusal(0x87)]), min_size=1, max_size=6
)


def play(engine: Engine, steps: list[tuple[str, int, Any]]) -> None:
    """Take the steps with four connections, then see that nothing is left."""
    now_ms = engine.clock_ms
    places = [Connection(engine, Door()) for _ in range(4)]
    opened = list(places)
    for place in places:
        place.receive(Connect("x" if place is places[0] else "", clean_start=True).encode(5))
    for what, number, data in steps:
        if what == "wait":
            now_ms += number
            engine.advance(now_ms)
            continue
        connection = places[number]
        if what == "send":
            connection.receive(data)
        elif what == "bytewise":
            for i in range(len(data)):
                connection.receive(data[i : i + 1])
        elif what == "open":
            places[number] = Connection(engine, Door())
            opened.append(places[number])
            places[number].receive(data)
        elif what == "lose":
            connection.connection_lost()
        elif what == "read":
            connection.take_output()
        elif what == "accept":
            engine.accept(connection)
        elif what == "refuse":
            connection.refuse(0x87)
        elif not connection.is_closed and connection.authentication_method is not None:
            engine.challenge(connection, b"?")
        engine.flush()
    for connection in opened:
        connection.connection_lost()
    engine.advance(now_ms + 60_000)
    engine.retained.clear()
    engine.flush()
    metrics = engine.metrics()
    for gauge in (
        "awaiting_release",
        "connections",
        "in_flight",
        "queued",
        "queued_bytes",
        "retained",
        "retained_bytes",
        "sessions",
        "sessions_connected",
        "shared_groups",
        "subscriptions",
    ):
        assert metrics[gauge] == 0, gauge
    assert engine.topics.count == 0


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps, answers)
def test_engine_withstands(steps: list[tuple[str, int, Any]], answers: list[Any]):
    asked = 0

    def answer(client: Any, packet: Any) -> Any:
        nonlocal asked
        asked += 1
        return answers[asked % len(answers)]

    engine = Engine(LIMITS, HookTable(authenticate=answer, continue_authentication=answer), now_ms=1000)
    play(engine, steps)


rules = st.lists(
    st.builds(
        Permission,
        st.sampled_from([Action.PUBLISH, Action.SUBSCRIBE, Action.ALL]),
        st.sampled_from(["#", "+", "a", "a/#", "b", "$SYS/#", "%c", "x/%u"]),
        st.booleans(),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=4,
).map(tuple)
identities = st.builds(
    Identity,
    st.sampled_from(["tester", "other"]),
    st.one_of(st.none(), rules),
    st.builds(Quotas, messages_per_s=st.sampled_from([None, 3.0]), subscriptions_maximum=st.sampled_from([None, 1])),
    st.sampled_from([None, 5.0]),
)
mischief = ["disconnect", "discard", "publish", "identity"]
verdicts = [True, None, None, False, 1, 0x97, "nonsense", OSError("broken")]
changes = [PublishChange(topic="a"), PublishChange(payload=b"other", qos=1), PublishChange(topic="+")]
opinions = st.lists(st.sampled_from([*verdicts, *changes, *mischief]), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps, st.lists(identities, min_size=1, max_size=4), opinions, st.booleans())
def test_engine_withstands_hooks(
    steps: list[tuple[str, int, Any]], who: list[Identity], opinions: list[Any], at_delivery: bool
):
    asked = depth = 0

    def opinion(client: Any, *arguments: Any) -> Any:
        # What is asked for may do anything to anybody, also while it is asked for something else.
        nonlocal asked, depth
        asked += 1
        said = opinions[asked % len(opinions)]
        if isinstance(said, OSError):
            raise said
        if said not in mischief:
            return said
        if depth < 2:
            depth += 1
            clients = [session.client_id for session in engine.sessions()] or ["nobody"]
            victim = clients[asked % len(clients)]
            if said == "disconnect":
                engine.disconnect(victim, 0x98)
            elif said == "discard":
                engine.discard_session(victim)
            elif said == "publish":
                for topic in (b"a", b"b", b"a"):
                    engine.publish_bytes(topic, b"more", asked % 3, False)
            else:
                with contextlib.suppress(ProtocolError):
                    engine.set_identity(victim, who[asked % len(who)])
            depth -= 1
        return None

    def subscribe(client: Any, topic_filter: str, qos: int) -> Any:
        if len(waiting) > 1:
            engine.answer_subscribe(waiting.pop(0), opinions[0])
        waiting.append(client)
        return PENDING if asked % 2 else opinion(client)

    waiting: list[Any] = []
    hooks = HookTable(
        authenticate=lambda client, connect: who[len(connect.client_id) % len(who)],
        authorize_publish=opinion,
        authorize_subscribe=subscribe,
        authorize_deliver=opinion,
        transform_publish=opinion,
    )
    authorization = Authorization(
        subscribe_check="at_delivery" if at_delivery else "covered",
        session_owner="ignore" if len(who) % 2 else "refuse",
        refused_publish="drop",
    )
    engine = Engine(LIMITS, hooks, now_ms=1000, authorization=authorization)
    logging.disable(logging.CRITICAL)
    try:
        for start in range(0, len(steps), 10):
            play(engine, steps[start : start + 10])
            for client in waiting:
                engine.answer_subscribe(client, opinions[0])
            waiting.clear()
    finally:
        logging.disable(logging.NOTSET)
