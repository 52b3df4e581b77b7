"""Enhanced authentication: MQTT 5 §4.12."""

from typing import Any

import pytest

from conversations.conftest import Start
from mqttcore.codec import Auth, Connect
from mqttcore.constants import PropertyId, ReasonCode
from mqttcore.engine.hooks import PENDING, HookTable
from mqttcore.identity import Challenge, Refusal

from .authentication import ACCEPT, answering
from .peers import read_until_closed

METHOD = {PropertyId.AUTHENTICATION_METHOD: "riddle"}
OTHER = {PropertyId.AUTHENTICATION_METHOD: "Riddle"}


def with_data(data: bytes) -> dict[int, Any]:
    return {**METHOD, PropertyId.AUTHENTICATION_DATA: data}


@pytest.mark.mqtt5("4.12.0-1")
async def test_method_that_is_not_supported_is_refused_and_closes(start: Start):
    world = await start()
    peer = await world.connect("a", expect=ReasonCode.BAD_AUTHENTICATION_METHOD, properties=METHOD)
    await peer.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("4.12.0-1")
@pytest.mark.parametrize("reason_code", [ReasonCode.BAD_AUTHENTICATION_METHOD, ReasonCode.NOT_AUTHORIZED])
async def test_method_that_the_authenticator_does_not_support_closes(start_clocked: Start, reason_code: ReasonCode):
    world = await start_clocked(hooks=answering(Refusal(reason_code)))
    peer = await world.connect("a", expect=reason_code, properties=METHOD)
    await peer.expect_closed()


@pytest.mark.mqtt5("4.12.0-2", "4.12.0-5")
async def test_every_challenge_continues_and_everything_names_the_method(start_clocked: Start):
    world = await start_clocked(hooks=answering(Challenge(b"1?"), Challenge(), Challenge(b"3?"), ACCEPT))
    peer = await world.open()
    await peer.send(Connect("a", properties=with_data(b"hello")))
    for challenge in (with_data(b"1?"), METHOD, with_data(b"3?")):
        await peer.expect(Auth(ReasonCode.CONTINUE_AUTHENTICATION, challenge))
        await peer.send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, with_data(b"!")))
    connack = await peer.receive()
    assert connack.reason_code == ReasonCode.SUCCESS
    assert connack.properties[PropertyId.AUTHENTICATION_METHOD] == "riddle"
    assert PropertyId.AUTHENTICATION_DATA not in connack.properties


@pytest.mark.mqtt5("4.12.0-5")
@pytest.mark.parametrize(
    "packet",
    [
        Auth(ReasonCode.SUCCESS, METHOD),
        Auth(ReasonCode.RE_AUTHENTICATE, METHOD),
        Auth(ReasonCode.CONTINUE_AUTHENTICATION, OTHER),
        b"\xf0\x00",
        b"\xf0\x01\x18",
        b"\xf0\x02\x18\x00",
        b"\xf0\x06\x18\x04\x16\x00\x01!",
    ],
    ids=["success", "re-authenticate", "other method", "empty", "code only", "no properties", "data only"],
)
async def test_answer_that_does_not_continue_with_the_method_closes(start_clocked: Start, packet: Any):
    world = await start_clocked(hooks=answering(Challenge(b"?"), ACCEPT))
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    await peer.expect(Auth(ReasonCode.CONTINUE_AUTHENTICATION, with_data(b"?")))
    await peer.send(packet)
    assert await read_until_closed(peer) == b""
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("4.12.0-4")
@pytest.mark.parametrize("rounds", [0, 1, 3])
async def test_authentication_can_be_refused_at_any_point(start_clocked: Start, rounds: int):
    world = await start_clocked(
        hooks=answering(*[Challenge(b"?")] * rounds, Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD))
    )
    peer = await world.open()
    await peer.send(Connect("a", properties=METHOD))
    for _ in range(rounds):
        assert isinstance(await peer.receive(), Auth)
        await peer.send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, METHOD))
    assert (await peer.receive()).reason_code == ReasonCode.BAD_USER_NAME_OR_PASSWORD
    await peer.expect_closed()
    assert world.metrics["sessions"] == 0


@pytest.mark.mqtt5("4.12.0-6")
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_client_without_a_method_is_never_sent_auth(start_clocked: Start, version: int, later: bool):
    asked: list[Any] = []

    def authenticate(connection: Any, connect: Any) -> Any:
        asked.append(connection)
        return PENDING if later else Challenge(b"?")

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    peer = await world.open(version)
    await peer.send(Connect("a", protocol_version=version))
    if later:
        world.engine.challenge(asked[0], b"?")
    assert (await peer.receive()).reason_code == ReasonCode.NOT_AUTHORIZED
    await peer.expect_closed()
    assert world.metrics["packets_sent_auth"] == 0


@pytest.mark.mqtt5("4.12.0-6")
async def test_connack_names_no_method_to_a_client_that_named_none(start_clocked: Start):
    world = await start_clocked(hooks=answering(ACCEPT))
    peer = await world.connect("a", user_name="me", password=b"secret")
    assert PropertyId.AUTHENTICATION_METHOD not in peer.connack.properties
    assert PropertyId.AUTHENTICATION_DATA not in peer.connack.properties


@pytest.mark.mqtt5("4.12.0-6")
async def test_no_auth_out_of_the_blue(start_clocked: Start):
    asked: list[Any] = []

    def authenticate(connection: Any, connect: Any) -> Any:
        asked.append(connection)
        return ACCEPT

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    without, named = await world.connect("a"), await world.connect("b", properties=METHOD)
    for connection in asked:
        world.engine.challenge(connection, b"?")
    await without.expect_nothing()
    await named.expect_nothing()


@pytest.mark.parametrize("reason_code", [0x00, 0x18, 0x19], ids=hex)
async def test_auth_of_a_client_without_a_method_closes(start_clocked: Start, reason_code: int):
    world = await start_clocked(hooks=answering(ACCEPT, ACCEPT))
    peer = await world.connect("a")
    await peer.send(Auth(reason_code, METHOD))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("4.12.0-2", "4.12.0-5")
async def test_reauthentication_with_the_same_method(start_clocked: Start):
    world = await start_clocked(hooks=answering(ACCEPT, ACCEPT, Challenge(b"?"), ACCEPT))
    peer = await world.connect("a", properties=METHOD)
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, with_data(b"again")))
    await peer.expect(Auth(ReasonCode.SUCCESS, METHOD))
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, METHOD))
    await peer.expect(Auth(ReasonCode.CONTINUE_AUTHENTICATION, with_data(b"?")))
    await peer.send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, with_data(b"!")))
    await peer.expect(Auth(ReasonCode.SUCCESS, METHOD))
    await peer.expect_nothing()


@pytest.mark.mqtt5("4.12.0-5")
async def test_reauthentication_with_another_method_closes(start_clocked: Start):
    world = await start_clocked(hooks=answering(ACCEPT, ACCEPT))
    peer = await world.connect("a", properties=METHOD)
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, OTHER))
    await peer.expect_closed(ReasonCode.PROTOCOL_ERROR)


@pytest.mark.mqtt5("4.12.1-2")
@pytest.mark.parametrize("rounds", [0, 2])
async def test_failed_reauthentication_closes(start_clocked: Start, rounds: int):
    world = await start_clocked(
        hooks=answering(ACCEPT, *[Challenge(b"?")] * rounds, Refusal(ReasonCode.NOT_AUTHORIZED, "no longer"))
    )
    peer = await world.connect("a", properties=METHOD)
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, METHOD))
    for _ in range(rounds):
        assert isinstance(await peer.receive(), Auth)
        await peer.send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, METHOD))
    said = await peer.expect_closed(ReasonCode.NOT_AUTHORIZED)
    assert said.properties == {PropertyId.REASON_STRING: "no longer"}


@pytest.mark.mqtt5("4.12.1-2")
@pytest.mark.parametrize("reason_code", [0x86, 0x8A, 0x93, 0x00, 0x18, 0xFF, -1, 1000])
async def test_refusal_with_a_code_of_another_packet_closes_as_well(start_clocked: Start, reason_code: Any):
    world = await start_clocked(hooks=answering(ACCEPT, Refusal(reason_code), Refusal(reason_code)))
    peer = await world.connect("a", properties=METHOD)
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, METHOD))
    in_disconnect = ReasonCode.RECEIVE_MAXIMUM_EXCEEDED
    await peer.expect_closed(reason_code if reason_code == in_disconnect else ReasonCode.NOT_AUTHORIZED)
    in_connack = (ReasonCode.BAD_USER_NAME_OR_PASSWORD, ReasonCode.BANNED)
    peer = await world.connect("a", expect=reason_code if reason_code in in_connack else ReasonCode.NOT_AUTHORIZED)
    await peer.expect_closed()


@pytest.mark.parametrize("connected", [False, True], ids=["connecting", "re-authenticating"])
async def test_challenge_that_the_client_cannot_take_is_a_refusal(start_clocked: Start, connected: bool):
    answers = [ACCEPT, Challenge(bytes(100))] if connected else [Challenge(bytes(100))]
    world = await start_clocked(hooks=answering(*answers))
    limit = {**METHOD, PropertyId.MAXIMUM_PACKET_SIZE: 100}
    if not connected:
        peer = await world.connect("a", expect=ReasonCode.PACKET_TOO_LARGE, properties=limit)
        await peer.expect_closed()
        return
    peer = await world.connect("a", properties=limit)
    await peer.send(Auth(ReasonCode.RE_AUTHENTICATE, METHOD))
    await peer.expect_closed(ReasonCode.PACKET_TOO_LARGE)


async def test_refusal_without_a_code_refuses_as_any_broken_hook(start_clocked: Start):
    def authenticate(connection: Any, connect: Any) -> Any:
        return Refusal(None)  # type: ignore[arg-type]

    world = await start_clocked(hooks=HookTable(authenticate=authenticate))
    peer = await world.connect("a", expect=ReasonCode.UNSPECIFIED_ERROR)
    await peer.expect_closed()
