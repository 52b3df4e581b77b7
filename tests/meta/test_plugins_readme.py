"""plugins/README.md lists every hook and every plugin of ours, and nothing else."""

import re
import tomllib
from pathlib import Path

from mqttcore import hookspecs
from mqttcore.plugins.hooks import HOOKS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
FRAME = ("When:", "Answer:", "Order:", "Cost:", "On exception")


def rows(heading: str) -> list[str]:
    """Return the first cells of the table below a heading."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| (?:\[)?`(\w+)`", section, re.MULTILINE)


def test_every_hook_has_a_row_in_the_order_of_the_specifications():
    assert rows("Hooks") == list(HOOKS)


def test_every_hook_says_what_it_must():
    for hook in HOOKS:
        text = getattr(hookspecs, hook).__doc__
        assert [word for word in FRAME if word not in text] == [], hook
        assert "ync or async:" in text, hook


def test_every_plugin_has_a_row_and_a_readme():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = project["entry-points"]["mqttcore"]
    assert sorted(rows("Our plugins")) == sorted(names)
    for place in names.values():
        package = place.split(":")[0].split(".")[1]
        assert (ROOT / "plugins" / package / "README.md").is_file(), package


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert [target for target in targets if not (ROOT / "plugins" / target).exists()] == []
    linked = {Path(target).stem for target in targets if target.startswith("examples/")}
    assert linked == {path.stem for path in (ROOT / "plugins" / "examples").glob("*.py")}
