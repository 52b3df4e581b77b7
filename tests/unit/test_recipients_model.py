"""Remembered recipients against a model, while clients come, go, take over, subscribe and expire."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqttcore.codec import Connect, Decoder, Disconnect, PubAck, Publish, Subscribe, Subscription
from mqttcore.config import Limits
from mqttcore.constants import PropertyId
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.handlers import Recipients

CLIENTS = ("a", "b", "c")
EXPIRY_S = 30

clients = st.sampled_from(CLIENTS)


class Door:
    """A listener."""

    name = "model"
    allow_anonymous = True


class Client:
    """A session as it should be: its connection, and what waits for it."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.decoder = Decoder(5, sender="server")
        self.lasts = False  # the session outlives the connection
        self.ends_ms: int | None = None  # when it expires
        self.due: list[tuple[bytes, int]] = []  # payload and QoS, in order


class RecipientsModel(RuleBasedStateMachine):
    """Messages to p2p/NAME go to NAME; those to all/NAMES to several; nobody else gets any."""

    @initialize(routes=st.sampled_from([0, 1, 2, 100]), is_fixed=st.booleans(), stores_offline=st.booleans())
    def begin(self, routes: int, is_fixed: bool, stores_offline: bool) -> None:
        self.now_ms = 1000
        self.engine = Engine(Limits(routes_cached_maximum=routes), now_ms=self.now_ms)
        self.stores_offline = stores_offline
        self.sessions: dict[str, Client] = {}
        self.number = 0
        self.calls = 0
        self.changes = 0  # sessions made and ended, subscriptions
        self.is_fixed = is_fixed

        def recipients(client: object, message: object) -> Recipients:
            self.calls += 1
            names = message.topic.split("/")[1].split(",")  # type: ignore[attr-defined]
            return Recipients(names, is_fixed=is_fixed, stores_offline=stores_offline)

        self.engine.add_handler(b"p2p/+", recipients)
        self.publisher = Connection(self.engine, Door())
        self.publisher.receive(Connect("publisher", keep_alive_s=0).encode(5))
        self.publisher.take_output()

    @rule(name=clients, clean_start=st.booleans(), lasts=st.booleans())
    def connect(self, name: str, clean_start: bool, lasts: bool) -> None:
        self.read(name)
        connection = Connection(self.engine, Door())
        before = self.sessions.get(name)
        if before is not None and (clean_start or (before.connection is not None and not before.lasts)):
            before = None
        client = before or Client()
        if before is None:
            self.changes += 1
        client.connection = connection
        client.decoder = Decoder(5, sender="server")
        client.lasts, client.ends_ms = lasts, None
        properties = {PropertyId.SESSION_EXPIRY_INTERVAL: EXPIRY_S} if lasts else None
        connection.receive(Connect(name, clean_start=clean_start, keep_alive_s=0, properties=properties).encode(5))
        self.sessions[name] = client
        connack, *packets = client.decoder.feed(connection.take_output())
        assert connack.session_present == (before is not None)
        self._check(client, packets)

    def _check(self, client: Client, packets: list[object]) -> None:
        # Everything that is due came, in order, and nothing else.
        assert client.connection is not None
        got = []
        while packets:
            messages = [packet for packet in packets if isinstance(packet, Publish)]
            got += [(message.payload, message.qos) for message in messages]
            client.connection.receive(b"".join(PubAck(m.packet_id).encode(5) for m in messages if m.qos))
            packets = client.decoder.feed(client.connection.take_output())
        assert got == client.due
        client.due = []

    @rule(names=st.lists(clients, min_size=1, max_size=3, unique=True), qos=st.integers(0, 1))
    def publish(self, names: list[str], qos: int) -> None:
        self.number += 1
        payload = b"%d" % self.number
        topic = "p2p/" + ",".join(names)
        self.publisher.receive(Publish(topic, payload, qos=qos, packet_id=7 if qos else 0).encode(5))
        reached = False
        for name in names:
            client = self.sessions.get(name)
            if client is not None and (client.connection is not None or (qos and self.stores_offline)):
                client.due.append((payload, qos))
                reached = True
        answer = self.publisher.take_output()
        assert answer == (PubAck(7, 0 if reached else 0x10).encode(5) if qos else b"")

    @rule(name=clients, says_goodbye=st.booleans())
    def leave(self, name: str, says_goodbye: bool) -> None:
        client = self.sessions.get(name)
        if client is None or client.connection is None:
            return
        self.read(name)
        if says_goodbye:
            client.connection.receive(Disconnect().encode(5))
        else:
            client.connection.connection_lost()
        client.connection = None
        if client.lasts:
            client.ends_ms = self.now_ms + EXPIRY_S * 1000
        else:
            del self.sessions[name]
            self.changes += 1

    @rule(name=clients)
    def discard(self, name: str) -> None:
        assert self.engine.discard_session(name) == (name in self.sessions)
        if self.sessions.pop(name, None) is not None:
            self.changes += 1

    @rule(ms=st.sampled_from([1000, 20_000, 40_000]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.engine.advance(self.now_ms)
        for name, client in list(self.sessions.items()):
            if client.ends_ms is not None and client.ends_ms <= self.now_ms:
                del self.sessions[name]
                self.changes += 1

    @rule(name=clients, topic_filter=st.sampled_from(["#", "p2p/a", "p2p/+", "other"]))
    def subscribe(self, name: str, topic_filter: str) -> None:
        client = self.sessions.get(name)
        if client is not None and client.connection is not None:
            self.read(name)
            client.connection.receive(Subscribe(1, [Subscription(topic_filter, 1)]).encode(5))
            self.engine.flush()
            client.decoder.feed(client.connection.take_output())
            self.changes += 1

    @rule(name=clients)
    def read(self, name: str) -> None:
        client = self.sessions.get(name)
        if client is not None and client.connection is not None:
            self._check(client, client.decoder.feed(client.connection.take_output()))

    @precondition(lambda self: self.is_fixed)
    @rule(name=clients)
    def same_topic_twice_costs_one_question(self, name: str) -> None:
        if self.engine.limits_source.routes_cached_maximum < 100:
            return
        self.publish([name], 0)
        calls = self.calls
        self.publish([name], 0)
        assert self.calls == calls

    @invariant()
    def sessions_are_those_of_the_model(self) -> None:
        if hasattr(self, "engine"):
            assert {session.client_id for session in self.engine.sessions()} == {"publisher", *self.sessions}
            if self.is_fixed and self.engine.limits_source.routes_cached_maximum == 100:
                assert self.calls <= self.number

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            for name in CLIENTS:
                self.read(name)
            self.engine.close()


RecipientsModel.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRecipients = RecipientsModel.TestCase
