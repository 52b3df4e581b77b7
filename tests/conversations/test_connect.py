"""CONNECT, CONNACK, takeover, keep alive and the end of connections."""

from mqttcore.codec import Connect, PingReq, PingResp, Publish
from mqttcore.constants import PropertyId, ReasonCode

from .conftest import Start


async def test_connect_ping_disconnect(start: Start, any_version: int):
    world = await start()
    peer = await world.connect("a", any_version)
    await peer.send(PingReq(), PingReq())
    await peer.expect(PingResp(), PingResp())
    assert world.metrics["sessions_connected"] == 1
    await peer.disconnect()
    assert world.metrics["sessions"] == 0


async def test_publish_before_connack_is_handled_after_it(start: Start, version: int):
    world = await start()
    other = await world.connect("b", version)
    await other.subscribe("t")
    peer = await world.open(version)
    await peer.send(Connect("a", protocol_version=version), Publish("t", b"early"), PingReq())
    assert (await peer.receive()).reason_code == 0
    await peer.expect(PingResp())
    await other.expect(Publish("t", b"early"))


async def test_second_connection_takes_the_session_over(start: Start, version: int):
    world = await start()
    fields = (
        {"clean_start": False, "properties": {PropertyId.SESSION_EXPIRY_INTERVAL: 100}}
        if version == 5
        else {"clean_start": False}
    )
    first = await world.connect("a", version, **fields)
    await first.subscribe("t")
    second = await world.connect("a", version, session_present=True, **fields)
    await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER if version == 5 else None)
    other = await world.connect("b", version)
    await other.publish("t", b"1", qos=1)
    assert (await second.receive_publish()).payload == b"1"
    assert world.metrics["takeovers"] == 1


async def test_clean_takeover_ends_the_old_session(start: Start, any_version: int):
    world = await start()
    first = await world.connect("a", any_version)
    await first.subscribe("t")
    second = await world.connect("a", any_version)
    await first.expect_closed(ReasonCode.SESSION_TAKEN_OVER if any_version == 5 else None)
    await second.publish("t", b"1")
    await second.expect_nothing()
    assert world.metrics["sessions"] == 1
