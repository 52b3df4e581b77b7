"""Starting, stopping, time-outs and what slow or silent peers may cost, under both loops and both drivers."""

import asyncio
import contextlib
import functools
import gc
import subprocess
import sys
import textwrap
import time
import types

import pytest

from mqttcore import Broker, Config, ReasonCode
from mqttcore.codec import (
    ConnAck,
    Connect,
    Disconnect,
    PingReq,
    PingResp,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Will,
)
from mqttcore.errors import ConnectionLost
from network.clients import Raw, join, until
from network.conftest import quiet_config

pytestmark = pytest.mark.usefixtures("driver")

BLOCK = bytes(50_000)


PATIENCE_S = 100  # of a broker that is to stop at once
AT_ONCE_S = 30  # or what a busy machine makes of it


async def stop_timed(broker: Broker) -> float:
    """Stop and return the seconds it took."""
    started_s = time.monotonic()
    await broker.stop()
    return time.monotonic() - started_s


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_clients_are_told_that_the_server_shuts_down():
    broker = Broker(quiet_config(shutdown_timeout_s=PATIENCE_S))
    await broker.start()
    new = await join(broker, "new")
    old = await join(broker, "old", protocol_version=4)
    assert await stop_timed(broker) < AT_ONCE_S
    with pytest.raises(ConnectionLost) as caught:
        await new.wait_closed()
    assert caught.value.reason_code == ReasonCode.SERVER_SHUTTING_DOWN
    with pytest.raises(ConnectionLost) as caught:
        await old.wait_closed()
    assert caught.value.reason_code is None


async def test_stop_does_not_wait_for_who_never_connected():
    broker = Broker(quiet_config(shutdown_timeout_s=PATIENCE_S))
    await broker.start()
    async with await Raw.open(broker) as silent:
        await until(lambda: broker.metrics()["connections"] == 1)
        assert await stop_timed(broker) < AT_ONCE_S
        assert await silent.receive() is None


async def test_stop_is_bounded_when_a_client_does_not_read():
    broker = Broker(quiet_config(shutdown_timeout_s=0.3))
    await broker.start()
    async with await deaf_subscriber(broker, "a"):
        for _ in range(200):
            await broker.publish("a", BLOCK)
        await asyncio.sleep(0)
        assert await stop_timed(broker) < AT_ONCE_S


async def test_wills_are_published_when_the_broker_stops(config: Config):
    broker = Broker(config)
    await broker.start()
    taken = []

    async def read() -> None:
        async with broker.subscribe("gone") as messages:
            taken.extend([message.payload async for message in messages])

    reading = asyncio.create_task(read())
    client = await join(broker, "c1", will=Will("gone", b"c1"))
    await broker.stop()
    await reading
    assert taken == [b"c1"]
    with pytest.raises(ConnectionLost):
        await client.wait_closed()


async def test_stop_called_twice_at_once_stops_once(config: Config):
    broker = Broker(config)
    await broker.start()
    client = await join(broker, "c1")
    await asyncio.gather(broker.stop(), broker.stop())
    assert not broker.is_running
    with pytest.raises(ConnectionLost):
        await client.wait_closed()


async def test_cancelled_stop_still_closes():
    broker = Broker(quiet_config(shutdown_timeout_s=60))
    await broker.start()
    async with await deaf_subscriber(broker, "a"):
        for _ in range(200):
            await broker.publish("a", BLOCK)
        await asyncio.sleep(0)
        stopping = asyncio.create_task(broker.stop())
        await asyncio.sleep(0.05)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert not broker.is_running


async def test_output_that_waits_when_the_broker_stops_is_written(config: Config):
    broker = Broker(config)
    await broker.start()
    client = await join(broker, "c1")
    await client.subscribe([Subscription("a")])
    await broker.publish("a", b"last word")
    await broker.stop()
    assert (await client.receive()).payload == b"last word"
    with pytest.raises(ConnectionLost):
        await client.wait_closed()


async def test_a_hundred_lives_leave_nothing(config: Config):
    kinds = {"Engine", "Session", "Connection", "SocketConnection", "StreamConnection", "Poller", "Tap", "Broker"}

    def alive() -> dict[str, int]:
        gc.collect()
        found = dict.fromkeys(kinds, 0)
        for thing in gc.get_objects():
            if type(thing).__name__ in kinds and type(thing).__module__.startswith("mqttcore"):
                found[type(thing).__name__] += 1
        return found

    async def live() -> None:
        async with Broker(config) as broker, broker.subscribe("a/#") as messages:
            client = await join(broker, "c1", properties={0x11: 60})
            await client.subscribe([Subscription("a/+", 2)])
            await client.publish("a/b", b"x", qos=1, retain=True)
            assert (await client.receive()).payload == b"x"
            assert (await anext(messages)).payload == b"x"
            stays = await join(broker, "c2")
            await client.close()
        with pytest.raises(ConnectionLost):
            await stays.wait_closed()

    await live()
    before, tasks = alive(), len(asyncio.all_tasks())
    for _ in range(100):
        await live()
    assert alive() == before
    assert len(asyncio.all_tasks()) == tasks


# --- time-outs --------------------------------------------------------------------------------------------------------


async def test_connection_without_connect_is_closed():
    async with Broker(quiet_config(connect_timeout_s=0.2)) as broker, await Raw.open(broker) as silent:
        assert await silent.receive() is None
        await until(lambda: broker.metrics()["connections"] == 0)


async def test_connection_that_dribbles_its_connect_is_closed():
    async with Broker(quiet_config(connect_timeout_s=0.3)) as broker, await Raw.open(broker) as slow:
        packet = Connect("c1", user_name="u" * 100).encode(5)

        async def dribble() -> None:
            for byte in packet:
                await slow.send_bytes(bytes([byte]))
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        assert await slow.receive() is None
        dribbling.cancel()
        await asyncio.gather(dribbling, return_exceptions=True)


async def test_silent_client_is_disconnected_after_one_and_a_half_keep_alives(config: Config):
    async with Broker(config) as broker, await Raw.open(broker) as silent:
        since_s = time.monotonic()
        await silent.send(Connect("c1", keep_alive_s=1), PingReq())
        assert isinstance(await silent.receive(), ConnAck)
        assert await silent.receive() == PingResp()
        answer = await silent.receive()
        assert isinstance(answer, Disconnect)
        assert answer.reason_code == ReasonCode.KEEP_ALIVE_TIMEOUT
        assert time.monotonic() - since_s > 1.4
        assert await silent.receive() is None
        assert broker.clients() == []


# --- slow readers -----------------------------------------------------------------------------------------------------


async def deaf_subscriber(broker: Broker, topic_filter: str, client_id: str = "deaf") -> Raw:
    """Return a client that has subscribed at QoS 0 and reads nothing more."""
    raw = await Raw.open(broker, receive_buffer_bytes=4096)
    await raw.send(Connect(client_id), Subscribe(1, [Subscription(topic_filter)]))
    await raw.receive()
    assert isinstance(await raw.receive(), SubAck)
    return raw


async def test_slow_reader_costs_no_more_than_its_limits():
    config = quiet_config(queued_messages_maximum=20, queued_bytes_maximum=2_000_000, output_high_water_bytes=65_536)
    async with Broker(config) as broker, await deaf_subscriber(broker, "a"), await join(broker, "quick") as quick:
        await quick.subscribe([Subscription("a", 1)])
        for number in range(400):
            await broker.publish("a", b"%d " % number + BLOCK)
            assert (await quick.receive()).payload.startswith(b"%d " % number)
        info = broker.client("deaf")
        assert info is not None
        assert info.is_connected
        assert info.queued == 20
        assert info.dropped > 200
        assert broker.metrics()["messages_dropped_slow_reader"] == info.dropped
        assert broker.metrics()["queued_bytes"] < 21 * (len(BLOCK) + 200)


async def test_reader_that_wakes_up_gets_what_was_kept_in_order():
    config = quiet_config(queued_messages_maximum=20)
    async with Broker(config) as broker, await deaf_subscriber(broker, "a") as reader:
        for number in range(300):
            await broker.publish("a", b"%03d" % number + BLOCK)
            await asyncio.sleep(0)
        info = broker.client("deaf")
        assert info is not None
        kept = 300 - info.dropped
        numbers = []
        for _ in range(kept):
            packet = await reader.receive()
            assert isinstance(packet, Publish)
            numbers.append(int(packet.payload[:3]))
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 299
        assert broker.metrics()["queued"] == 0


async def test_client_that_was_closed_and_does_not_read_is_cut():
    async with Broker(quiet_config()) as broker, await deaf_subscriber(broker, "a"):
        for _ in range(200):
            await broker.publish("a", BLOCK)
        await asyncio.sleep(0)
        assert broker.disconnect("deaf")
        drivers = {"SocketConnection", "StreamConnection"}

        def is_gone() -> bool:
            return not any(type(thing).__name__ in drivers for thing in gc.get_objects())

        await until(is_gone)


async def test_closed_connections_linger_in_bounded_numbers(monkeypatch: pytest.MonkeyPatch):
    # The peer of a connection that we closed may take its time to close as well, but many may not take it together.
    poller = pytest.importorskip("mqttcore.net.poller").Poller
    monkeypatch.setattr(Broker, "_uses_poller", True)
    monkeypatch.setattr("mqttcore.broker.Poller", functools.partial(poller, lingering_maximum=3))
    async with Broker(quiet_config()) as broker, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await Raw.open(broker)) for _ in range(5)]
        for number, peer in enumerate(peers):
            await peer.send(Connect(f"c{number}"), Connect(f"c{number}"))  # the second one is a protocol error
            assert isinstance(await peer.receive(), ConnAck)
            assert isinstance(await peer.receive(), Disconnect)
        await until(lambda: broker.metrics()["connections_lingering_cut"] == 2)
        assert broker.metrics()["connections_lingering"] == 3
        await until(lambda: "lingering_full" in broker.alarms)
        for peer in peers:
            peer.close()
        await until(lambda: broker.metrics()["connections_lingering"] == 0)


# --- out of descriptors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["mqtt", "http"])
def test_broker_survives_running_out_of_descriptors(driver: str, protocol: str):
    script = f"""
        import asyncio, resource, socket
        from mqttcore import Broker, Config, Listener, open_client
        from mqttcore.codec import Connect

        async def main():
            Broker._uses_poller = {driver == "epoll"}
            # asyncio logs every accept that fails: on a busy machine that is a lag which counts as overload.
            doors = [Listener(port=0), Listener(name="crowded", port=0, protocol={protocol!r})]
            config = Config(listeners=doors, sys_interval_s=0, overload_lag_ms=0)
            async with Broker(config) as broker:
                _, host, port = broker.addresses[0]
                first = await open_client(Connect("first"), host=host, port=port)
                resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
                hoard = []
                try:
                    while True:
                        hoard.append(socket.create_connection(broker.addresses[1][1:]))
                except OSError:
                    pass
                await asyncio.sleep(0.3)
                await first.publish("a", b"still here", qos=1)
                async with asyncio.timeout(60):
                    while "descriptors" not in broker.alarms:
                        await asyncio.sleep(0.05)
                if {driver == "epoll" and protocol == "mqtt"}:  # level-triggered, it would ask for ever
                    assert broker.metrics()["accept_pauses"]
                for sock in hoard:
                    sock.close()
                async with asyncio.timeout(60):
                    await (await open_client(Connect("second"), host=host, port=port)).close()
                await first.close()
            print("served")

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr


def test_fallback_is_chosen_by_the_loop(monkeypatch: pytest.MonkeyPatch):
    """A loop that watches no descriptors, as Windows' proactor, gets transports."""
    monkeypatch.setattr(Broker, "_uses_poller", True)

    async def live() -> None:
        loop = asyncio.get_running_loop()
        real = loop.add_reader

        def add_reader(self: object, fd: int, callback: object, *args: object) -> None:
            if getattr(callback, "__name__", "") == "on_ready":
                raise NotImplementedError
            real(fd, callback, *args)

        loop.add_reader = types.MethodType(add_reader, loop)  # type: ignore[method-assign]
        async with Broker(quiet_config()) as broker, await join(broker, "c1") as client:
            await client.publish("a", b"", qos=1)

    asyncio.run(live())
