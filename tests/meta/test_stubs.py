"""Every compiled module has a hand-written stub, and it says what the module is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


def compiled_modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.pyx"))


def test_every_compiled_module_has_a_stub():
    assert [path.name for path in compiled_modules() if not path.with_suffix(".pyi").exists()] == []


def test_stubs_are_true():
    pytest.importorskip("mypy", reason="mypy belongs to the extra `lint`")
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in compiled_modules()]
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--concise", *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=SOURCE.parent,  # where mypy has a cache, with the settings of this project
        env=os.environ | {"MYPYPATH": str(SOURCE), "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
