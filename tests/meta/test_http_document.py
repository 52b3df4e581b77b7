"""docs/http.md names every operation of the management API, with the role it takes, and no other."""

import re
from pathlib import Path

from mqttcore import Broker
from mqttcore.config import load
from mqttcore.http.api.routes import operations

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")


def test_table_has_every_operation():
    rows = re.findall(r"^\| ([A-Z]+) `(.*?)` \| .* \| (\w+) \|$", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted((one.method, one.path, one.role.name.lower()) for one in operations(Broker()))


def test_configuration_is_one(tmp_path: Path):
    path = tmp_path / "mqttcore.toml"
    (text,) = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    path.write_text(text)
    assert load(path).http_api.keys_file == "keys"
