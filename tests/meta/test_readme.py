"""What README.md shows is true: its example runs, its configuration is one, its folders and names exist."""

import re
import subprocess
import sys
from pathlib import Path

from mqttcore import Broker
from mqttcore.config import load

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_embedding_example_runs():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", blocks("python")[0]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"listening on \[\('default', '127\.0\.0\.1', \d+\)\]", done.stdout)
    assert "Message(topic='room/1', qos=1, retain=False, payload=4 bytes)" in done.stdout


def test_configurations_are_ones(tmp_path: Path):
    read = []
    for text in blocks("toml"):
        path = tmp_path / "mqttcore.toml"
        path.write_text(text)
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
