"""`__all__` is sorted and true, here and in every module that has one; importing mqttcore is cheap."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mqttcore

PACKAGE = Path(mqttcore.__file__).parent


def modules_with_all() -> list[str]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__" for n in tree.body):
            parts = ("mqttcore", *path.relative_to(PACKAGE).with_suffix("").parts)
            found.append(".".join(part for part in parts if part != "__init__"))
    return found


def kind_and_name(name: str) -> tuple[int, str]:
    """Constants first, then classes, then the rest: the order of ruff's RUF022."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", modules_with_all())
def test_all_is_sorted_and_true(name: str):
    if sys.platform != "linux" and name.startswith("mqttcore.bench"):
        pytest.skip("the load generator needs Linux")
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__), key=kind_and_name)
    for public in module.__all__:
        assert getattr(module, public) is not None
    assert set(module.__all__) <= set(dir(module))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Brokr'"):
        _ = mqttcore.Brokr


def test_importing_mqttcore_loads_no_broker():
    script = (
        "import sys, mqttcore; "
        "heavy = {'asyncio', 'msgspec', 'mqttcore.broker', 'mqttcore.codec', 'aiohttp'} & set(sys.modules); "
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["records", "trace_entries"])
def test_public_module_is_found_by_who_has_imported_nothing_else(name: str):
    done = subprocess.run(
        [sys.executable, "-c", f"from mqttcore import {name}; print({name}.__name__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f".{name}")
