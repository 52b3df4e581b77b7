"""docs/http.md names the alarms that there are."""

import re
from pathlib import Path

from mqttcore import limit_alarms

ROOT = Path(__file__).parents[2]
RAISED = re.compile(r'(?:raise_alarm|_ALARM =|alarm)[( ]f?"([a-z_]+)["{]')


def test_every_alarm_is_documented():
    table = (ROOT / "docs" / "http.md").read_text(encoding="utf-8").partition("## Alarms")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_]+?)(?:NAME(?:_[a-z]+)?)?`(?=[^|]*\| )", table))
    raised = {*limit_alarms._CASES, *limit_alarms._STATES, "memory"}
    for folder in ("src/mqttcore", "plugins"):
        for path in (ROOT / folder).rglob("*.py"):
            if "examples" not in path.parts:
                raised.update(RAISED.findall(path.read_text(encoding="utf-8")))
    assert {"flapping", "store_full", "store_quarantined", "http_auth", "sink_"} <= raised
    assert raised - documented == set()
