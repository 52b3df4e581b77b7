"""Other systems are not broken by construction: without what only Linux has, all is imported, and the broker serves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

import mqttcore
from certificates import Authority
from mqttcore.client import open_client
from mqttcore.codec import Connect, Subscription

SCRIPT = str(Path(__file__).with_name("other_platform.py"))
SYSTEMS = ("darwin", "win32")
CONFIG = """\
[[listeners]]
port = 0
[[listeners]]
name = "tls"
port = 0
[listeners.tls]
certificate_file = "{0.certificate}"
key_file = "{0.key}"
[[listeners]]
name = "web"
port = 0
protocol = "http"
[[listeners]]
name = "webtls"
port = 0
protocol = "http"
[listeners.tls]
certificate_file = "{0.certificate}"
key_file = "{0.key}"
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="is another system itself")


def command(system: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error::ImportWarning", "-W", "always::ResourceWarning", SCRIPT, system, *arguments]


@pytest.fixture
def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(mqttcore.__file__).parents[1])}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_can_be_imported(system: str, environment: dict[str, str]):
    done = subprocess.run(
        command(system, "modules"), env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 150


@pytest.mark.parametrize("system", SYSTEMS)
async def test_broker_serves_every_door_with_its_store(system: str, environment: dict[str, str], tmp_path: Path):
    authority = Authority(tmp_path)
    config = tmp_path / "all.toml"
    config.write_text(CONFIG.format(authority.server()))
    serve = command(system, "serve", "--config", str(config), "--store", str(tmp_path / "broker.db"))
    process = await asyncio.create_subprocess_exec(
        *serve, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            ports = []
            for _ in range(4):
                line = (await process.stdout.readline()).decode()
                found = re.search(r"listening on 127\.0\.0\.1:(\d+)", line)
                assert found, (line, await process.communicate())
                ports.append(int(found[1]))
            tls, https = (ssl.create_default_context(cafile=str(authority.file)) for _ in range(2))
            https.set_alpn_protocols(["http/1.1"])
            doors = [(tls_of, path) for path in (None, "/mqtt") for tls_of in (None, https if path else tls)]
            for port, (context, path) in zip(ports, doors, strict=True):
                connect = Connect(f"c{port}", clean_start=False)
                async with await open_client(connect, port=port, tls=context, websocket_path=path) as client:
                    await client.subscribe([Subscription("a", qos=1)])
                    assert await client.publish("a", b"hello", qos=1) == 0
                    assert (await client.receive()).payload == b"hello"
            process.send_signal(signal.SIGINT)
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, b"Traceback" in errors, b"ResourceWarning" in errors) == (0, False, False), errors


@pytest.mark.parametrize(
    "arguments", ["serve --config unix.toml", "pub --unix a.sock -t a -n", "ctl --url unix:/a.sock clients"]
)
def test_unix_sockets_are_missed_in_words(arguments: str, environment: dict[str, str], tmp_path: Path):
    (tmp_path / "unix.toml").write_text('[[listeners]]\npath = "a.sock"\n')
    done = subprocess.run(
        command("win32", *arguments.split()),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Unix sockets" in done.stderr
    assert "Traceback" not in done.stderr
