"""Unix sockets: who may connect, what is left behind, and what is not taken away from others."""

import asyncio
import shutil
import socket
import stat
from pathlib import Path

import pytest

from mqttcore import Broker, Config, Listener
from mqttcore.client import open_client
from mqttcore.codec import Connect
from mqttcore.config import from_mapping
from mqttcore.errors import ConfigError
from network.conftest import quiet_config

pytestmark = pytest.mark.usefixtures("driver")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mqtt.sock"


def unix_config(path: Path, **listener: object) -> Config:
    return quiet_config(Listener(path=str(path), **listener))


async def test_client_connects_without_address(path: Path):
    async with Broker(unix_config(path)) as broker:
        assert broker.addresses == [("default", str(path), 0)]
        async with await open_client(Connect("c1", keep_alive_s=5), unix_path=str(path)):
            assert broker.client("c1").address is None


@pytest.mark.parametrize("mode", ["0600", "0660", "777"])
async def test_permissions_are_as_configured(path: Path, mode: str):
    async with Broker(unix_config(path, path_mode=mode)):
        assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)


async def test_socket_is_gone_when_the_broker_is(path: Path):
    async with Broker(unix_config(path)):
        assert path.is_socket()
    assert not path.exists()


async def test_socket_that_nobody_listens_on_is_replaced(path: Path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    async with Broker(unix_config(path)), await open_client(Connect("c1"), unix_path=str(path)):
        pass


async def test_socket_in_use_is_left_alone(path: Path):
    async with Broker(unix_config(path)) as first:
        with pytest.raises(OSError, match=f"cannot listen on {path}: somebody listens on it"):
            await Broker(unix_config(path)).start()
        async with await open_client(Connect("c1"), unix_path=str(path)):
            assert first.client("c1").is_connected


async def test_file_that_is_no_socket_is_left_alone(path: Path):
    path.write_text("precious")
    with pytest.raises(OSError, match="there is a file that is no socket"):
        await Broker(unix_config(path)).start()
    assert path.read_text() == "precious"


async def test_socket_that_another_made_meanwhile_is_left_alone(path: Path):
    broker = Broker(unix_config(path))
    await broker.start()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        await broker.stop()
    assert path.is_socket()


async def test_anonymous_clients_are_as_on_loopback(path: Path):
    async with Broker(unix_config(path, allow_anonymous=False)):
        with pytest.raises(Exception, match="refused"):
            await open_client(Connect("c1"), unix_path=str(path))


def test_two_listeners_on_one_path_are_refused(path: Path):
    with pytest.raises(ConfigError, match="is listeners"):
        from_mapping({"listeners": [{"name": "a", "path": str(path)}, {"name": "b", "path": str(path)}]})


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="needs mosquitto_pub")
async def test_mosquitto_pub_publishes_through_it(path: Path):
    async with Broker(unix_config(path)) as broker, broker.subscribe("a") as messages:
        process = await asyncio.create_subprocess_exec("mosquitto_pub", "--unix", str(path), "-t", "a", "-m", "hello")
        assert await process.wait() == 0
        async with asyncio.timeout(60):
            assert (await anext(messages)).payload == b"hello"
