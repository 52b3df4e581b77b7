"""What a kept message says of itself and of who published it."""

import pytest

from mqttcore.codec import Connect, Publish, Will
from mqttcore.config import Limits
from mqttcore.constants import PropertyId
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.hooks import HookTable
from mqttcore.engine.message import Message, Publisher
from mqttcore.engine.tap import Tap
from mqttcore.identity import Identity

WALL_MS = 1_700_000_000_000


class Door:
    """A listener."""

    name = "unit"
    allow_anonymous = True


class Room:
    """An engine at a known time, with a tap on everything."""

    def __init__(self, hooks: HookTable | None = None) -> None:
        self.engine = Engine(Limits(), hooks, now_ms=1000, node=0xABCD, epoch=7)
        self.engine.set_wall_clock(WALL_MS)
        self.tap = Tap(self.engine, lambda: None, messages_maximum=100, bytes_maximum=100_000)
        self.engine.add_tap(b"#", self.tap)

    def connect(self, client_id: str, **fields: object) -> Connection:
        connection = Connection(self.engine, Door())
        connection.receive(Connect(client_id, **fields).encode(5))
        return connection

    def only(self) -> Message:
        [message] = self.tap.take()
        return message


def test_nobody_makes_them_but_the_broker():
    with pytest.raises(TypeError):
        Message()
    with pytest.raises(TypeError):
        Publisher()


def test_message_names_its_publisher_and_time():
    room = Room()
    connection = room.connect("thermometer")
    room.engine.advance(3500)
    connection.receive(Publish("t", b"21", properties={PropertyId.CONTENT_TYPE: "text"}).encode(5))
    message = room.only()
    assert message.client_id == "thermometer"
    assert message.identity_name is None
    assert message.ordering_key is None
    assert message.received_ms == WALL_MS + 2500
    assert message.properties == {PropertyId.CONTENT_TYPE: "text"}


def test_message_of_the_broker_has_no_publisher():
    room = Room()
    room.engine.publish_bytes(b"t", b"x", 1)
    message = room.only()
    assert (message.client_id, message.identity_name, message.ordering_key) == (None, None, None)
    assert message.received_ms == WALL_MS
    assert message.properties == {}


def test_message_ids_are_node_epoch_and_counter():
    room = Room()
    connection = room.connect("a")
    connection.receive(Publish("t", b"1").encode(5) + Publish("t", b"2").encode(5))
    room.engine.publish_bytes(b"t", b"3")
    ids = [message.message_id for message in room.tap.take()]
    assert ids == [f"0000abcd00000007{number:016x}" for number in (1, 2, 3)]


def test_will_is_as_of_its_publication():
    room = Room()
    connection = room.connect("dying", will=Will("t", b"gone"))
    room.engine.advance(9000)
    connection.connection_lost()
    message = room.only()
    assert message.client_id == "dying"
    assert message.received_ms == WALL_MS + 8000
    assert message.message_id.endswith("1")


def test_identity_is_that_of_the_moment():
    answers = [Identity("first"), Identity("second")]
    room = Room(HookTable(authenticate=lambda client, connect: answers.pop(0)))
    for client_id in "ab":
        connection = room.connect(client_id)
        connection.receive(Publish("t", b"1").encode(5))
        connection.connection_lost()  # a session that goes on belongs to its first identity
    assert [message.identity_name for message in room.tap.take()] == ["first", "second"]


def test_publisher_outlives_an_identity_that_a_hook_replaces():
    def authorize(client, topic, *_):
        if topic == "t":
            room.engine.set_identity("first", Identity("later"))
            other.receive(Publish("other", b"1").encode(5))  # makes a publisher, where there is memory for one
        return True

    room = Room(
        HookTable(authenticate=lambda client, connect: Identity(connect.client_id), authorize_publish=authorize)
    )
    other = room.connect("other")
    room.connect("first").receive(Publish("t", b"1").encode(5))
    seen = {message.topic: (message.client_id, message.identity_name) for message in room.tap.take()}
    assert seen == {"t": ("first", "first"), "other": ("other", "other")}


def test_publisher_outlives_its_session():
    room = Room()
    connection = room.connect("short")
    connection.receive(Publish("t", b"1", retain=True).encode(5))
    connection.connection_lost()
    assert room.engine.session("short") is None
    assert room.only().client_id == "short"
    [retained] = room.engine.retained_messages(b"t")
    assert retained.client_id == "short"
