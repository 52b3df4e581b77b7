"""What each listener has of its own: limits, rates, who may be anonymous; overload."""

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import msgspec
import pytest

from mqttcore import Broker, Config, Listener, ReasonCode
from mqttcore.client import open_client
from mqttcore.codec import ConnAck, Connect, Disconnect, Publish
from mqttcore.constants import PropertyId
from mqttcore.errors import ConfigError, ConnectionRefused
from network.clients import Raw, join, until
from network.conftest import quiet_config

pytestmark = pytest.mark.usefixtures("driver")


async def connack_of(broker: Broker, client_id: str = "c1") -> ConnAck | None:
    async with await Raw.open(broker) as raw:
        await raw.send(Connect(client_id))
        return await raw.receive()


# --- settings of its own ----------------------------------------------------------------------------------------------


async def test_packet_size_is_the_listeners_and_is_told():
    config = quiet_config(Listener(port=0, maximum_packet_size_bytes=100), maximum_packet_size_bytes=10_000)
    async with Broker(config) as broker, await Raw.open(broker) as raw:
        await raw.send(Connect("c1"))
        assert (await raw.receive()).properties[PropertyId.MAXIMUM_PACKET_SIZE] == 100
        await raw.send(Publish("a", bytes(100)))
        answer = await raw.receive()
        assert isinstance(answer, Disconnect)
        assert answer.reason_code == ReasonCode.PACKET_TOO_LARGE


async def test_listener_cannot_take_more_than_the_limits():
    config = quiet_config(Listener(port=0, maximum_packet_size_bytes=10_000), maximum_packet_size_bytes=100)
    async with Broker(config) as broker:
        assert (await connack_of(broker)).properties[PropertyId.MAXIMUM_PACKET_SIZE] == 100


async def test_connect_timeout_is_the_listeners():
    config = quiet_config(Listener(port=0, connect_timeout_s=0.2))
    async with Broker(config) as broker, await Raw.open(broker) as raw:
        assert await raw.receive() is None


async def test_anonymous_clients_are_the_listeners_matter():
    config = Config(
        listeners=[Listener(name="open", port=0), Listener(name="closed", port=0, allow_anonymous=False)],
        sys_interval_s=0,
    )
    async with Broker(config) as broker:
        ports = {name: port for name, _, port in broker.addresses}
        async with await open_client(Connect("c1"), host="127.0.0.1", port=ports["open"]):
            with pytest.raises(ConnectionRefused):
                await open_client(Connect("c2"), host="127.0.0.1", port=ports["closed"])


async def test_plugins_permitted_must_be_enabled(driver: str):
    broker = Broker(quiet_config(Listener(port=0, plugins=["tokens"])))
    with pytest.raises(ConfigError, match="no plugin tokens is enabled") as caught:
        await broker.start()
    assert caught.value.path == "listeners[0].plugins[0]"
    assert not broker.is_running


# --- admission --------------------------------------------------------------------------------------------------------


async def test_connections_over_the_rate_are_closed():
    async with Broker(quiet_config(Listener(port=0, connection_rate=3))) as broker:
        began_s = time.monotonic()
        taken = 0
        while await connack_of(broker) is not None:
            taken += 1
        assert 3 <= taken <= 3 + 3 * (time.monotonic() - began_s)
        assert broker.metrics()["connections_refused_rate"] == 1


async def test_connections_of_an_address_are_counted_and_let_go():
    async with Broker(quiet_config(Listener(port=0, connections_per_address=2))) as broker:
        first, second = await join(broker, "c1"), await join(broker, "c2")
        assert await connack_of(broker, "c3") is None
        await first.close()
        await until(lambda: broker.metrics()["connections"] == 1)
        third = await join(broker, "c3")
        await second.close()
        await third.close()
        assert broker.metrics()["connections_refused_address"] == 1
        assert broker.metrics()["addresses_counted"] == 1


async def test_connections_over_the_listeners_maximum_are_closed():
    async with Broker(quiet_config(Listener(port=0, max_connections=1))) as broker:
        async with await join(broker, "c1"):
            assert await connack_of(broker, "c2") is None
        await until(lambda: broker.metrics()["connections"] == 0)
        assert (await connack_of(broker, "c2")).reason_code == 0
        assert broker.metrics()["connections_refused_full"] == 1


# --- half-open --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no TCP_USER_TIMEOUT")
async def test_kernel_gives_up_on_what_is_not_acknowledged_with_the_keep_alive():
    """The accepted sockets are in this process: they are found by their peer."""
    async with Broker(quiet_config()) as broker, await join(broker, "c1", keep_alive_s=20):
        address = broker.client("c1").address
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                sock = socket.socket(fileno=int(entry.name))
                try:
                    if sock.getpeername() == address:
                        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
                        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                        return
                finally:
                    sock.detach()
        pytest.fail("the broker's end of the connection was not found")


# --- overload ---------------------------------------------------------------------------------------------------------


async def test_lagging_loop_refuses_new_clients_first_and_recovers():
    config = Config(listeners=[Listener(port=0)], sys_interval_s=0, overload_lag_ms=50)
    async with Broker(config) as broker, await join(broker, "old", keep_alive_s=0) as old:
        deadline_s = time.monotonic() + 60
        while not broker.metrics()["overloaded"] and time.monotonic() < deadline_s:
            time.sleep(0.2)  # noqa: ASYNC251  the point
            await asyncio.sleep(0)
        assert (await connack_of(broker)).reason_code == ReasonCode.SERVER_BUSY
        assert broker.metrics()["connects_shed"] == 1
        await old.publish("a", b"still here", qos=1)
        await until(lambda: not broker.metrics()["overloaded"])
        assert (await connack_of(broker)).reason_code == 0


async def test_reload_lets_nobody_in_who_was_to_stay_out():
    async with Broker(quiet_config()) as broker, await join(broker, "c1"):
        strict = msgspec.structs.replace(broker.config, allow_anonymous=False)
        assert await broker.reload(strict) == []
        assert (await connack_of(broker, "c2")).reason_code == ReasonCode.NOT_AUTHORIZED
        assert broker.client("c1").is_connected  # what stands has been let in
        assert await broker.reload(msgspec.structs.replace(strict, allow_anonymous=None)) == []
        async with await join(broker, "c3"):
            pass


@pytest.mark.parametrize(
    ("wanted", "paths"),
    [
        ({"proxy_protocol": "any", "proxy_trusted": ["127.0.0.0/8"], "allow_anonymous": True}, ["proxy_protocol"]),
        ({"host": "127.0.0.2", "allow_anonymous": True}, ["host"]),
        ({"protocol": "mqtt", "backlog": 7}, ["backlog", "http_body_bytes_maximum", "protocol"]),
        ({"websocket_origins": ["https://shop.example"]}, ["websocket_origins"]),
        ({"http_body_bytes_maximum": 5}, ["http_body_bytes_maximum"]),
    ],
)
async def test_what_a_listener_cannot_change_is_told_each_time_and_not_done_by_half(wanted: dict, paths: list[str]):
    web = Listener(name="web", port=0, protocol="http", http_body_bytes_maximum=6, allow_anonymous=False)
    async with Broker(quiet_config(web)) as broker:
        changed = quiet_config(msgspec.structs.replace(web, **wanted))
        for _ in range(2):
            found = await broker.reload(changed)
            assert {f"listeners.web.{key}" for key in paths} <= {*found}
            assert all(path.startswith("listeners.web.") for path in found)
            (shown,) = broker.config.listeners
            assert [getattr(shown, key) for key in paths] == [getattr(web, key) for key in paths]
        (bound,) = broker._listening
        assert (bound.proxy_version, bound.allow_anonymous) == (None, False)
        assert await broker.reload(quiet_config(web)) == []


async def test_listeners_that_come_go_or_change_places_are_named():
    one, two, three = (Listener(name=name, port=0) for name in ("one", "two", "three"))
    async with Broker(quiet_config(one, two)) as broker:
        assert await broker.reload(quiet_config(two, one)) == ["listeners"]
        assert await broker.reload(quiet_config(one, three)) == ["listeners.three", "listeners.two"]
        assert [shown.name for shown in broker.config.listeners] == ["one", "two"]


async def test_settings_of_who_has_no_account_need_a_restart():
    async with Broker(quiet_config()) as broker:
        assert await broker.reload(msgspec.structs.replace(broker.config, sys_for_anonymous=True)) == [
            "sys_for_anonymous"
        ]
