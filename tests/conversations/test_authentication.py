"""Authentication: answers at once, later, over several AUTH packets, and again while connected."""

from typing import Any

import pytest

from mqttcore.codec import Auth, Connect, PingReq, PingResp, Publish
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.identity import Challenge, Identity, Refusal

from .conftest import Start

ACCEPT = Identity("tester")
METHOD = {PropertyId.AUTHENTICATION_METHOD: "riddle"}


def auth(reason_code: int, data: bytes | None = None) -> Auth:
    return Auth(reason_code, METHOD if data is None else {**METHOD, PropertyId.AUTHENTICATION_DATA: data})


class Riddle:
    """Hooks that answer from a list and keep what they were asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.client: Any = None
        self.hooks = HookTable(authenticate=self.ask, continue_authentication=self.ask)

    def ask(self, client: Any, packet: Any) -> Any:
        self.client = client
        self.asked.append(packet)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_accepted_at_once(start_clocked: Start, any_version: int):
    riddle = Riddle(ACCEPT)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.connect("a", any_version, user_name="me", password=b"secret")
    assert (riddle.asked[0].user_name, riddle.asked[0].password) == ("me", b"secret")
    await peer.expect_nothing()


async def test_refused(start_clocked: Start, any_version: int):
    world = await start_clocked(hooks=Riddle(Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD, "no")).hooks)
    peer = await world.connect("a", any_version, expect=ReasonCode.BAD_USER_NAME_OR_PASSWORD)
    await peer.expect_closed()
    assert world.metrics["connects_refused"] == 1
    assert peer.connack.properties == ({PropertyId.REASON_STRING: "no"} if any_version == 5 else {})


async def test_reason_string_of_a_refusal_only_when_wanted_and_when_it_fits(start_clocked: Start):
    refusal = Refusal(ReasonCode.BANNED, "a long story about what happened")
    world = await start_clocked(hooks=Riddle(refusal, refusal).hooks)
    quiet = await world.connect("a", expect=ReasonCode.BANNED, properties={PropertyId.REQUEST_PROBLEM_INFORMATION: 0})
    assert quiet.connack.properties == {}
    small = await world.connect("a", expect=ReasonCode.BANNED, properties={PropertyId.MAXIMUM_PACKET_SIZE: 20})
    assert small.connack.properties == {}


@pytest.mark.parametrize("answer", [RuntimeError("broken"), "yes", 1, True])
async def test_what_is_no_answer_refuses(start_clocked: Start, answer: Any):
    world = await start_clocked(hooks=Riddle(answer).hooks)
    peer = await world.connect("a", expect=ReasonCode.UNSPECIFIED_ERROR)
    await peer.expect_closed()
    assert world.metrics["sessions"] == 0


async def test_existing_session_is_not_touched_before_authentication(start_clocked: Start):
    world = await start_clocked(hooks=Riddle(ACCEPT, Refusal(ReasonCode.NOT_AUTHORIZED)).hooks)
    first = await world.connect("a")
    await first.subscribe("t")
    stranger = await world.connect("a", expect=ReasonCode.NOT_AUTHORIZED)
    await stranger.expect_closed()
    await first.publish("t", b"1", qos=1)
    assert (await first.receive_publish()).payload == b"1"


async def test_pending_keeps_what_comes_behind_connect(start_clocked: Start, version: int):
    riddle = Riddle(PENDING, PENDING)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.open(version)
    await peer.send(Connect("a", protocol_version=version), Publish("t", b"kept", qos=1, packet_id=1), PingReq())
    assert peer.connection.is_paused
    assert world.metrics["messages_received_qos1"] == 0
    await peer.send(b"\xc0")
    world.engine.accept(riddle.client, Identity("me"))
    assert (await peer.receive()).reason_code == 0
    assert (await peer.receive()).packet_id == 1
    await peer.expect(PingResp())
    await peer.send(b"\x00")
    await peer.expect(PingResp())
    assert not peer.connection.is_paused
    assert world.engine.session("a").identity.name == "me"


async def test_pending_then_refused(start_clocked: Start, version: int):
    riddle = Riddle(PENDING)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.open(version)
    await peer.send(Connect("a", protocol_version=version), Publish("t", b"lost"))
    world.engine.refuse(riddle.client, ReasonCode.NOT_AUTHORIZED)
    assert (await peer.receive()).reason_code == ReasonCode.NOT_AUTHORIZED
    await peer.expect_closed()
    world.engine.accept(riddle.client)  # too late: without effect
    assert world.metrics["messages_received_qos0"] == 0
    assert world.metrics["sessions"] == 0


async def test_pending_is_bounded_by_the_connect_timeout(start_clocked: Start):
    riddle = Riddle(PENDING)
    world = await start_clocked(hooks=riddle.hooks, connect_timeout_s=10)
    peer = await world.open()
    await peer.send(Connect("a"))
    world.advance(10_100)
    await peer.expect_closed()
    world.engine.accept(riddle.client)
    world.engine.challenge(riddle.client, b"?")
    await peer.expect_closed()


async def test_answer_given_from_within_the_hook(start_clocked: Start):
    world: Any = None

    def authenticate(client: Any, connect: Any) -> Any:
        world.engine.accept(client, Identity("cached"))
        return PENDING

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    peer = await world.connect("a")
    await peer.expect_nothing()


async def test_challenge_without_a_method_refuses(start_clocked: Start, any_version: int):
    refused = ReasonCode.NOT_AUTHORIZED
    world = await start_clocked(hooks=Riddle(Challenge(b"?")).hooks)
    peer = await world.connect("a", any_version, expect=refused)
    await peer.expect_closed()
    riddle = Riddle(PENDING)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.open(any_version)
    await peer.send(Connect("a", protocol_version=any_version))
    world.engine.challenge(riddle.client, b"?")
    assert (await peer.receive()).reason_code == refused
    await peer.expect_closed()


async def test_challenge_and_response(start_clocked: Start):
    riddle = Riddle(Challenge(b"1?"), Challenge(b"2?"), ACCEPT)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.open()
    await peer.send(Connect("a", properties={**METHOD, PropertyId.AUTHENTICATION_DATA: b"hello"}))
    await peer.expect(auth(0x18, b"1?"))
    await peer.send(auth(0x18, b"1!"))
    await peer.expect(auth(0x18, b"2?"))
    await peer.send(auth(0x18, b"2!"), PingReq())
    connack = await peer.receive()
    assert connack.reason_code == 0
    assert connack.properties[PropertyId.AUTHENTICATION_METHOD] == "riddle"
    await peer.expect(PingResp())
    assert [p.properties[PropertyId.AUTHENTICATION_DATA] for p in riddle.asked] == [b"hello", b"1!", b"2!"]


async def test_challenge_given_later_and_answer_pending(start_clocked: Start):
    riddle = Riddle(PENDING, PENDING)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    world.engine.challenge(riddle.client, b"?")
    await peer.expect(auth(0x18, b"?"))
    await peer.send(auth(0x18, b"!"), PingReq())
    assert peer.connection.is_paused
    world.engine.accept(riddle.client, ACCEPT)
    assert (await peer.receive()).reason_code == 0
    await peer.expect(PingResp())


async def test_challenge_then_refused(start_clocked: Start):
    world = await start_clocked(hooks=Riddle(Challenge(), Refusal(ReasonCode.NOT_AUTHORIZED)).hooks)
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    await peer.expect(auth(0x18))
    await peer.send(auth(0x18, b"wrong"))
    assert (await peer.receive()).reason_code == ReasonCode.NOT_AUTHORIZED
    await peer.expect_closed()


@pytest.mark.parametrize(
    "packet",
    [
        Publish("t", b"x"),
        Publish("t", b"x", qos=2, packet_id=1),
        PingReq(),
        b"\x40\x02\x00\x01",
        b"\x62\x02\x00\x01",
        b"\x82\x07\x00\x01\x00\x00\x01t\x00",
        b"\xa2\x06\x00\x01\x00\x00\x01t",
        Connect("a"),
        auth(0x19),
        auth(0x00),
        Auth(0x18, {PropertyId.AUTHENTICATION_METHOD: "other"}),
    ],
    ids=str,
)
async def test_nothing_but_auth_and_disconnect_before_connack(start_clocked: Start, packet: Any):
    world = await start_clocked(hooks=Riddle(Challenge(b"?")).hooks)
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    await peer.expect(auth(0x18, b"?"))
    await peer.send(packet)
    await peer.expect_closed()
    assert world.metrics["sessions"] == 0
    assert world.metrics["messages_received_qos0"] == 0


async def test_client_gives_up_authenticating(start_clocked: Start):
    world = await start_clocked(hooks=Riddle(Challenge(b"?")).hooks)
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    await peer.expect(auth(0x18, b"?"))
    await peer.disconnect()
    assert world.metrics["protocol_errors"] == 0


async def test_method_without_authentication_is_refused(start: Start):
    world = await start()
    peer = await world.connect("a", expect=ReasonCode.BAD_AUTHENTICATION_METHOD, properties=METHOD)
    await peer.expect_closed()


async def test_auth_without_method_is_an_error(start: Start):
    world = await start()
    peer = await world.connect("a")
    await peer.send(auth(0x19))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


async def test_packet_type_15_is_reserved_below_5(start: Start):
    world = await start()
    peer = await world.connect("a", 4)
    await peer.send(b"\xf0\x00")
    await peer.expect_closed()


async def test_reauthentication(start_clocked: Start):
    riddle = Riddle(ACCEPT, Challenge(b"?"), ACCEPT, ACCEPT)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.connect("a", properties=METHOD)
    await peer.send(auth(0x19, b"again"))
    await peer.expect(auth(0x18, b"?"))
    await peer.publish("t", b"goes on")
    await peer.send(auth(0x18, b"!"))
    await peer.expect(auth(0x00))
    await peer.send(auth(0x19, b"once more"))
    await peer.expect(auth(0x00))


async def test_reauthentication_answered_later(start_clocked: Start):
    riddle = Riddle(ACCEPT, PENDING, PENDING)
    world = await start_clocked(hooks=riddle.hooks)
    peer = await world.connect("a", properties=METHOD)
    await peer.send(auth(0x19))
    await peer.expect_nothing()
    world.engine.accept(riddle.client, Identity("tester", attributes={"renewed": True}))
    await peer.expect(auth(0x00))
    assert world.engine.session("a").identity.attributes == {"renewed": True}
    world.engine.accept(riddle.client, Identity("stray"))
    await peer.expect_nothing()
    await peer.send(auth(0x19))
    world.engine.refuse(riddle.client, ReasonCode.NOT_AUTHORIZED, "expired")
    said = await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)
    assert said.properties == {PropertyId.REASON_STRING: "expired"}


@pytest.mark.parametrize("answer", [Refusal(ReasonCode.NOT_AUTHORIZED), RuntimeError("broken"), True, None])
async def test_failed_reauthentication_closes(start_clocked: Start, answer: Any):
    world = await start_clocked(hooks=Riddle(ACCEPT, answer).hooks)
    peer = await world.connect("a", properties=METHOD)
    await peer.send(auth(0x19))
    code = ReasonCode.NOT_AUTHORIZED if answer is None or isinstance(answer, Refusal) else ReasonCode.UNSPECIFIED_ERROR
    await peer.expect_closed(code)


async def test_reauthentication_out_of_order(start_clocked: Start):
    world = await start_clocked(hooks=Riddle(ACCEPT, Challenge(), ACCEPT).hooks)
    peer = await world.connect("a", properties=METHOD)
    await peer.send(auth(0x19))
    await peer.expect(auth(0x18))
    await peer.send(auth(0x19))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)
    peer = await world.connect("a", properties=METHOD)
    await peer.send(auth(0x18))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


async def test_refused_reauthentication_says_what_disconnect_can_say(start_clocked: Start):
    # CONNACK has 0x86, DISCONNECT has not
    world = await start_clocked(hooks=Riddle(ACCEPT, Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)).hooks)
    peer = await world.connect("a", properties=METHOD)
    await peer.send(auth(ReasonCode.RE_AUTHENTICATE))
    await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)
