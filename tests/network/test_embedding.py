"""`Broker` in somebody's application: its services, under both loops and both drivers."""

import asyncio
import errno
import socket
from pathlib import Path

import msgspec
import pytest

from mqttcore import (
    Broker,
    Config,
    ConfigError,
    Listener,
    MessageStream,
    MqttCoreError,
    PropertyId,
    QuotaExceeded,
    ReasonCode,
)
from mqttcore.client import open_client
from mqttcore.codec import Connect, Subscription
from mqttcore.errors import ConnectionLost, ConnectionRefused
from network.clients import address_of, join, until
from network.conftest import quiet_config

pytestmark = pytest.mark.usefixtures("driver")


# --- publishing and subscribing ---------------------------------------------------------------------------------------


async def test_message_of_the_broker_reaches_a_client(config: Config):
    async with Broker(config) as broker, await join(broker, "reader") as client:
        await client.subscribe([Subscription("room/+", 1)])
        assert await broker.publish("room/1", b"warm", qos=1, properties={PropertyId.CONTENT_TYPE: "text/plain"}) == 1
        message = await client.receive()
    assert (message.topic, message.payload, message.qos) == ("room/1", b"warm", 1)
    assert message.properties[PropertyId.CONTENT_TYPE] == "text/plain"


async def test_message_of_a_client_reaches_the_application(config: Config):
    async with Broker(config) as broker, broker.subscribe("room/#") as messages:
        async with await join(broker, "writer") as client:
            await client.publish("room/1", b"cold", qos=2)
        message = await anext(messages)
    assert (message.topic, message.payload, message.qos, message.retain) == ("room/1", b"cold", 2, False)


async def test_stream_survives_the_last_network_client(config: Config):
    async with Broker(config) as broker, broker.subscribe("a") as messages:
        for number in range(3):
            async with await join(broker, "writer") as client:
                await client.publish("a", b"%d" % number, qos=1)
        assert broker.clients() == []
        assert await broker.publish("a", b"3") == 1
        assert [(await anext(messages)).payload for _ in range(4)] == [b"0", b"1", b"2", b"3"]


async def test_full_stream_drops_the_newest_and_counts(config: Config):
    async with Broker(config) as broker, broker.subscribe("a", messages_maximum=3) as messages:
        for number in range(5):
            await broker.publish("a", b"%d" % number)
        assert messages.dropped == 2
        assert broker.metrics()["messages_dropped_tap_full"] == 2
        assert [message.payload for message in await messages.batch()] == [b"0", b"1", b"2"]
        await broker.publish("a", b"5")
        assert (await anext(messages)).payload == b"5"


async def test_stream_is_bounded_in_bytes(config: Config):
    async with Broker(config) as broker, broker.subscribe("a", bytes_maximum=2500) as messages:
        for _ in range(5):
            await broker.publish("a", bytes(1000))
        assert messages.dropped == 3
        assert len(await messages.batch()) == 2


async def test_iteration_ends_when_the_broker_stops(config: Config):
    broker = Broker(config)
    await broker.start()
    taken = []

    async def read(stream: MessageStream) -> None:
        async with stream as messages:
            taken.extend([message.payload async for message in messages])

    reading = asyncio.create_task(read(broker.subscribe("a")))
    await asyncio.sleep(0)
    await broker.publish("a", b"last")
    await broker.stop()
    async with asyncio.timeout(5):
        await reading
    assert taken == [b"last"]


async def test_stream_with_a_wrong_filter_is_refused(config: Config):
    async with Broker(config) as broker:
        with pytest.raises(ValueError, match="no Topic Filter"):
            await broker.subscribe("a/#/b").__aenter__()
        assert broker.metrics()["taps"] == 0


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b"])
async def test_publishing_to_what_is_no_topic_is_refused(config: Config, topic: str):
    async with Broker(config) as broker:
        with pytest.raises(ValueError, match="no Topic Name"):
            await broker.publish(topic)


async def test_publishing_with_a_wrong_qos_is_refused(config: Config):
    async with Broker(config) as broker:
        with pytest.raises(ValueError, match="qos 3"):
            await broker.publish("a", qos=3)


async def test_retained_messages_are_kept_listed_and_cleared(config: Config):
    async with Broker(config) as broker:
        await broker.publish("a/1", b"x", retain=True)
        await broker.publish("a/2", b"y", retain=True)
        await broker.publish("$hidden", b"z", retain=True)
        assert sorted((m.topic, m.payload) for m in broker.retained()) == [("a/1", b"x"), ("a/2", b"y")]
        assert [m.topic for m in broker.retained("$hidden")] == ["$hidden"]
        await broker.publish("a/1", b"", retain=True)
        assert [m.topic for m in broker.retained("a/+")] == ["a/2"]
        async with await join(broker, "late") as client:
            await client.subscribe([Subscription("a/#")])
            message = await client.receive()
            assert (message.topic, message.retain) == ("a/2", True)


async def test_retained_messages_are_limited():
    async with Broker(quiet_config(retained_messages_maximum=1)) as broker:
        await broker.publish("a", b"x", retain=True)
        with pytest.raises(QuotaExceeded):
            await broker.publish("b", b"x", retain=True)
        assert broker.metrics()["messages_dropped_quota"] == 1


# --- clients and sessions ---------------------------------------------------------------------------------------------


async def test_clients_are_described(config: Config):
    async with Broker(config) as broker:
        properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 60}
        client = await join(broker, "c1", user_name="ada", keep_alive_s=30, properties=properties)
        await client.subscribe([Subscription("a/+"), Subscription("$share/g/b")])
        info = broker.client("c1")
        assert info is not None
        assert broker.clients() == [info]
        assert (info.is_connected, info.user_name, info.protocol_version, info.keep_alive_s) == (True, "ada", 5, 30)
        assert info.subscriptions == ("a/+", "$share/g/b")
        assert info.session_expiry_s == 60
        assert info.address[0] == "127.0.0.1"
        await client.close()
        await broker.publish("a/1", b"x", qos=1)
        away = broker.client("c1")
        assert away is not None
        assert (away.is_connected, away.address, away.protocol_version, away.queued) == (False, None, None, 0)
        assert broker.client("nobody") is None


async def test_session_keeps_messages_while_its_client_is_away(config: Config):
    async with Broker(config) as broker:
        properties = {PropertyId.SESSION_EXPIRY_INTERVAL: 60}
        client = await join(broker, "c1", properties=properties)
        await client.subscribe([Subscription("a", 1)])
        await client.close()
        await broker.publish("a", b"kept", qos=1)
        info = broker.client("c1")
        assert info is not None
        assert info.queued == 1
        assert info.queued_bytes > 0
        async with await join(broker, "c1", clean_start=False, properties=properties) as client:
            assert client.connack.session_present
            assert (await client.receive()).payload == b"kept"


async def test_disconnect_says_why_and_keeps_the_session(config: Config):
    async with Broker(config) as broker:
        client = await join(broker, "c1", properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60})
        assert broker.disconnect("c1", ReasonCode.QUOTA_EXCEEDED, "enough")
        with pytest.raises(ConnectionLost) as caught:
            await client.wait_closed()
        assert caught.value.reason_code == ReasonCode.QUOTA_EXCEEDED
        assert "enough" in str(caught.value)
        info = broker.client("c1")
        assert info is not None
        assert not info.is_connected
        assert not broker.disconnect("c1")
        assert not broker.disconnect("nobody")


async def test_discarded_session_is_gone_with_its_connection(config: Config):
    async with Broker(config) as broker:
        client = await join(broker, "c1", properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60})
        await client.subscribe([Subscription("a", 1)])
        assert broker.discard_session("c1")
        with pytest.raises(ConnectionLost):
            await client.wait_closed()
        assert broker.clients() == []
        assert await broker.publish("a", b"", qos=1) == 0
        assert not broker.discard_session("c1")
        assert broker.metrics()["subscriptions"] == 0


async def test_metrics_count_what_went_through(config: Config):
    async with Broker(config) as broker:
        async with await join(broker, "c1") as client:
            await client.subscribe([Subscription("a", 1)])
            await client.publish("a", b"12345", qos=1)
            assert (await client.receive()).payload == b"12345"
            during = broker.metrics()
        after = broker.metrics()
    assert during["sessions_connected"] == during["connections"] == during["subscriptions"] == 1
    assert during["messages_received_qos1"] == during["messages_sent_qos1"] == 1
    assert during["message_bytes_received"] == during["message_bytes_sent"] == 5
    gauges = ("sessions", "sessions_connected", "subscriptions", "in_flight", "queued", "queued_bytes", "connections")
    assert {name: after[name] for name in gauges} == dict.fromkeys(gauges, 0)
    assert after["connects_accepted"] == 1
    assert after.keys() == during.keys()


# --- attaching --------------------------------------------------------------------------------------------------------


async def test_transport_of_another_server_is_served(config: Config):
    attached = []

    class Doorman(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            transport.pause_reading()
            attached.append(asyncio.ensure_future(broker.attach(transport, allow_anonymous=True, name="door")))

    loop = asyncio.get_running_loop()
    async with Broker(config) as broker:
        server = await loop.create_server(Doorman, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with await open_client(Connect("c1"), host=host, port=port) as client:
            await client.subscribe([Subscription("a", 1)])
            await client.publish("a", b"x", qos=1)
            assert (await client.receive()).payload == b"x"
            info = broker.client("c1")
            assert info is not None
            assert info.address[0] == "127.0.0.1"
        await asyncio.gather(*attached)
        server.close()
        await server.wait_closed()


async def test_transport_whose_peer_is_gone_holds_nothing_up(config: Config):
    loop = asyncio.get_running_loop()
    broker = Broker(config)
    await broker.start()
    ours, theirs = socket.socketpair()
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    transport.abort()
    await asyncio.sleep(0.01)
    await broker.attach(transport, allow_anonymous=True)
    async with asyncio.timeout(5):
        await broker.stop()
    theirs.close()


async def test_attached_transport_is_not_anonymous_unless_allowed(config: Config):
    loop = asyncio.get_running_loop()
    async with Broker(config) as broker:
        ours, theirs = socket.socketpair()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        await broker.attach(transport)
        theirs.setblocking(False)
        await loop.sock_sendall(theirs, Connect("c1").encode(5))
        answer = await loop.sock_recv(theirs, 100)
        assert answer[:2] == b"\x20" + bytes([len(answer) - 2])
        assert answer[3] == ReasonCode.NOT_AUTHORIZED
        theirs.close()


async def test_accepted_socket_is_served(config: Config, driver: str):
    async with Broker(config) as broker:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        host, port = listening.getsockname()
        loop = asyncio.get_running_loop()
        opening = asyncio.ensure_future(open_client(Connect("c1"), host=host, port=port))
        accepted, peer = await loop.sock_accept(listening)
        listening.close()
        if driver == "epoll":
            broker.attach_socket(accepted, allow_anonymous=True)
            assert accepted.fileno() == -1
            async with await opening as client:
                await client.publish("a", b"x", qos=1)
                info = broker.client("c1")
                assert info is not None
                assert info.address == peer
        else:
            with pytest.raises(MqttCoreError, match="Linux"):
                broker.attach_socket(accepted)
            accepted.close()
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)


# --- listening --------------------------------------------------------------------------------------------------------


async def test_socket_with_a_path_has_no_address(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(Broker, "_uses_poller", True)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as peer:
        door.bind("door")
        door.listen()
        peer.bind("p" * 24)  # as long as an IPv6 address
        peer.connect("door")
        async with Broker(config) as broker:
            broker.attach_socket(door.accept()[0], allow_anonymous=True)
            peer.sendall(Connect("c1").encode(5))
            await until(lambda: broker.client("c1") is not None)
            assert broker.client("c1").address is None
            peer.close()  # or the broker would give it two seconds to take DISCONNECT


async def test_listeners_of_both_families_share_one_broker():
    config = quiet_config(Listener(name="four", host="127.0.0.1", port=0), Listener(name="six", host="::1", port=0))
    async with Broker(config) as broker:
        assert [(name, host) for name, host, _ in broker.addresses] == [("four", "127.0.0.1"), ("six", "::1")]
        assert all(port > 0 for *_, port in broker.addresses)
        (_, host4, port4), (_, host6, port6) = broker.addresses
        async with (
            await open_client(Connect("c4"), host=host4, port=port4) as four,
            await open_client(Connect("c6"), host=host6, port=port6) as six,
        ):
            await six.subscribe([Subscription("a", 1)])
            await four.publish("a", b"x", qos=1)
            assert (await six.receive()).payload == b"x"
            info = broker.client("c6")
            assert info is not None
            assert info.address[0] == "::1"


async def test_port_in_use_is_an_error_that_names_the_address(config: Config):
    async with Broker(config) as broker:
        _, port = address_of(broker)
        other = Broker(quiet_config(Listener(name="free", port=0), Listener(port=port)))
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}") as caught:
            await other.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert not other.is_running
        assert other.addresses == []
    await other.start()
    await other.stop()


async def test_address_for_strangers_needs_a_word():
    with pytest.raises(ConfigError, match="allow_anonymous"):
        await Broker(quiet_config(Listener(host="0.0.0.0", port=0))).start()


async def test_brokers_of_one_process_do_not_know_each_other(config: Config):
    async with Broker(config) as one, Broker(config) as two:
        async with await join(one, "same") as first, await join(two, "same") as second:
            await first.subscribe([Subscription("a")])
            assert await two.publish("a") == 0
            assert await one.publish("a") == 1
            assert (await first.receive()).topic == "a"
            assert second.waiting == 0
        assert one.metrics()["takeovers"] == two.metrics()["takeovers"] == 0


async def test_connections_beyond_the_listeners_maximum_are_closed():
    config = quiet_config(Listener(port=0, max_connections=1))
    async with Broker(config) as broker:
        async with await join(broker, "first"):
            host, port = address_of(broker)
            reader, writer = await asyncio.open_connection(host, port)
            with_reset = await asyncio.gather(reader.read(), return_exceptions=True)
            assert with_reset[0] == b"" or isinstance(with_reset[0], ConnectionResetError)
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        async with await join(broker, "second"):
            assert [info.client_id for info in broker.clients()] == ["second"]


async def test_connections_beyond_the_brokers_maximum_are_refused():
    async with Broker(quiet_config(connections_maximum=1)) as broker, await join(broker, "first"):
        with pytest.raises(ConnectionRefused) as caught:
            await join(broker, "second")
        assert caught.value.reason_code == ReasonCode.SERVER_BUSY


async def test_sys_topics_are_published():
    async with Broker(quiet_config(sys_interval_s=1)) as broker, await join(broker, "c1"):
        async with broker.subscribe("$SYS/broker/clients/connected") as messages, asyncio.timeout(60):
            assert (await anext(messages)).payload == b"1"
        assert len(broker.retained("$SYS/#")) > 50


async def test_sys_topics_that_cannot_be_retained_disturb_nothing():
    async with Broker(quiet_config(sys_interval_s=1, retained_messages_maximum=3)) as broker:
        assert len(broker.retained("$SYS/#")) == 3
        async with broker.subscribe("$SYS/broker/metrics/taps") as messages, asyncio.timeout(60):
            assert (await anext(messages)).payload == b"1"  # the last of a round: none stopped it


async def test_stream_of_a_stopped_broker_is_refused(config: Config):
    async with Broker(config) as broker:
        late = broker.subscribe("a")
    with pytest.raises(MqttCoreError, match="not running"):
        await late.__aenter__()


async def test_reloaded_limits_hold_for_new_connections(config: Config):
    async with Broker(config) as broker:
        changed = quiet_config(*config.listeners, maximum_packet_size_bytes=100, topic_levels_maximum=7)
        for _ in range(2):  # told each time, and what the broker says of itself is what holds
            assert await broker.reload(changed) == ["limits.topic_levels_maximum"]
            assert broker.config.limits.topic_levels_maximum == config.limits.topic_levels_maximum
            assert broker.config.limits.maximum_packet_size_bytes == 100
        async with await join(broker, "c1") as client:
            assert client.connack.properties[PropertyId.MAXIMUM_PACKET_SIZE] == 100


async def test_what_needs_a_restart_is_in_force_after_it(config: Config):
    broker = Broker(config)
    changed = msgspec.structs.replace(config, gather_us=7, sys_interval_s=5)
    async with broker:
        for _ in range(2):
            assert await broker.reload(changed) == ["gather_us"]
            assert (broker.config.gather_us, broker.config.sys_interval_s) == (config.gather_us, 5)
        assert await broker.reload(config) == []
        assert await broker.reload(changed) == ["gather_us"]
    async with broker:
        assert broker.config == changed


async def test_services_of_a_stopped_broker_are_refused(config: Config):
    broker = Broker(config)
    for call in (broker.clients, broker.metrics, broker.retained, lambda: broker.publish_nowait("a")):
        with pytest.raises(MqttCoreError, match="not running"):
            call()
    await broker.stop()
    async with broker:
        with pytest.raises(MqttCoreError, match="is running"):
            await broker.start()
