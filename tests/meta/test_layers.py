"""Who may import whom (docs/development.md, "Layers"): read from every file, imports and cimports alike."""

import ast
import re
from pathlib import Path

import pytest

import mqttcore

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "mqttcore"

# Lowest first; a module may use its own layer and those below it.
LAYERS = (
    ("_version",),
    ("constants",),
    ("errors", "private_file"),
    ("codec",),
    (
        "settings",
        "config",
        "events",
        "handlers",
        "hookspecs",
        "identity",
        "mount_point",
        "permission_rules",
        "placeholders",
        "store",
        "trace_entries",
        "trace_packets",
    ),
    ("engine",),
    ("net",),
    (
        "persistence",
        "subscription",
        "bans",
        "batches",
        "observers",
        "repeating",
        "sections",
        "sys_topics",
        "tracing",
        "client",
        "client_websocket",
        "flapping",
        "inspection",
    ),
    ("client_services", "connections", "publishing", "services"),
    ("broker", "limit_alarms", "listening", "memory_guard", "plugins", "sinks"),
    ("bench", "cli", "http", "config_reference", "testing"),
)
# The package itself names what is public, and __main__ starts the command line.
FREE = {"__init__", "__main__"}
# Loads nothing of the broker: a load generator must not share its code with what it measures.
ALONE = {"bench": {"_version", "constants", "errors", "codec", "bench", "client"}}
# Sans-io: bytes and a clock come in from outside.
FORBIDDEN = {
    "codec": {"asyncio", "socket", "time", "logging", "pluggy"},
    "engine": {"asyncio", "socket", "time", "pluggy"},
}

CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+(?:c?import)\b|c?import\s+([\w.]+))", re.MULTILINE)


# Contracts say what others give and take: their annotations name layers above them, their code must not.
CONTRACTS = {"handlers.py", "hookspecs.py"}


class _WithoutTypeChecking(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imports_of(path: Path) -> set[str]:
    """Return the dotted names that a .py, .pyx or .pxd file imports; those under TYPE_CHECKING as well."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        found = set()
        tree: ast.AST = ast.parse(text)
        if path.name in CONTRACTS:
            tree = _WithoutTypeChecking().visit(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                found.add(node.module or "")
        return found
    return {first or second for first, second in CIMPORT.findall(text)}


def layer_of(part: str) -> int:
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def sources(folder: Path) -> list[Path]:
    return sorted(path for suffix in ("py", "pyx", "pxd") for path in folder.rglob(f"*.{suffix}"))


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_uses_its_own_layer_and_lower_ones(path: Path):
    part = path.relative_to(PACKAGE).parts[0].partition(".")[0]
    if part in FREE:
        return
    found = imports_of(path)
    for name in found:
        package, _, rest = name.partition(".")
        if package == "mqttcore" and rest:
            used = rest.partition(".")[0]
            assert layer_of(used) <= layer_of(part), f"{part} imports {name}"
            assert used in ALONE.get(part, {used}), f"{part} imports {name}"
    assert not {name.partition(".")[0] for name in found} & FORBIDDEN.get(part, set())


def test_plugins_use_only_what_mqttcore_exports():
    for path in sources(ROOT / "plugins"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not any(alias.name.startswith("mqttcore.") for alias in node.names), path
            elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mqttcore":
                assert node.module == "mqttcore", f"{path}: {node.module}"
                assert {alias.name for alias in node.names} <= set(mqttcore.__all__), path
