"""What README.md shows is true: its example runs, its configuration is one, its folders and names exist."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from mqttcore import Broker, ReasonCode, Secret
from mqttcore.config import load
from mqttcore.testing import MemoryBroker

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, heading: str) -> str:
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return found


def test_embedding_example_runs():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block("python", "Embedding")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"listening on \[\('default', '127\.0\.0\.1', \d+\)\]", done.stdout)
    assert "Message(topic='room/1', qos=1, retain=False, payload=4 bytes)" in done.stdout


async def test_plugin_lets_in_who_knows_the_password():
    text = block("python", "Plugins")
    module = sys.modules["mqttcore_readme"] = ModuleType("mqttcore_readme")
    exec(compile(text, "README.md", "exec"), vars(module))
    assert len([line for line in text.partition("class Door")[2].splitlines() if line.strip()]) <= 15
    async with MemoryBroker(plugins=[module.Door(module.Door.Config(Secret("open sesame")))]) as broker:
        await broker.connect("a", password=b"open sesame")
        for password in (b"open", None, b"\xff"):
            await broker.connect("b", password=password, expect=ReasonCode.NOT_AUTHORIZED)


def test_configurations_are_ones(tmp_path: Path):
    read = []
    for heading in ("Configuration", "TLS, Unix sockets, proxies"):
        path = tmp_path / "mqttcore.toml"
        path.write_text(block("toml", heading))
        read.append(load(path))
    assert read[0].limits.maximum_packet_size_bytes == 1_000_000
    assert read[1].listeners[0].tls is not None


def test_what_the_map_names_exists():
    table = TEXT.partition("## Where things are")[2]
    paths = [path for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for path in re.findall(r"`(.*?)`", row)]
    assert len(paths) >= 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_services_it_names_exist():
    names = set(re.findall(r"`(?:broker\.)?(\w+)\(\)`", TEXT))
    assert {"clients", "disconnect", "metrics", "attach"} <= names
    assert [name for name in names if not hasattr(Broker, name)] == []
