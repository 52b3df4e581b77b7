"""`mqttcore new-plugin`: the package it makes can be built, installed, enabled and tested, without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from click.testing import CliRunner

import mqttcore
from mqttcore.cli import main

SOURCE = Path(mqttcore.__file__).parents[1]


def run(*command: object, cwd: Path) -> str:
    # The new environment borrows mqttcore, its dependencies and pytest from ours: there is no network.
    paths = os.pathsep.join([str(SOURCE), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": paths, "PASSWORD": "x"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_package_is_built_installed_enabled_and_green(tmp_path: Path):
    made = CliRunner().invoke(main, ["new-plugin", "door_keeper", "--directory", str(tmp_path / "package")])
    assert made.exit_code == 0, made.output
    package = tmp_path / "package"
    assert (package / "src" / "mqttcore_door_keeper.py").is_file()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(
        *pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", tmp_path, package, cwd=tmp_path
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", symlinks=os.name != "nt")
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)

    assert " passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", package / "tests", cwd=tmp_path)
    shown = run(python, "-m", "mqttcore", "plugins", "door_keeper", cwd=tmp_path)
    assert shown.startswith("door_keeper (mqttcore-door-keeper 0.1.0): not enabled\n")
    config = tmp_path / "mqttcore.toml"
    readme = (package / "README.md").read_text()
    config.write_text(readme.partition("```toml\n")[2].partition("```")[0])
    assert "plugins: door_keeper" in run(python, "-m", "mqttcore", "check", config, cwd=tmp_path)


@pytest.mark.parametrize("name", ["Door", "1door", "door-keeper", "", "../x"])
def test_name_that_is_none(name: str, tmp_path: Path):
    result = CliRunner().invoke(main, ["new-plugin", name, "--directory", str(tmp_path / "p")])
    assert result.exit_code == 2
    assert not (tmp_path / "p").exists()


def test_nothing_is_overwritten(tmp_path: Path):
    (tmp_path / "README.md").write_text("mine")
    result = CliRunner().invoke(main, ["new-plugin", "door", "--directory", str(tmp_path)])
    assert result.exit_code == 2
    assert "README.md: there already" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_plugin_is_typed_as_strictly_as_mypy_can(tmp_path: Path):
    pytest.importorskip("mypy", reason="mypy belongs to the extra `lint`")
    assert CliRunner().invoke(main, ["new-plugin", "door", "--directory", str(tmp_path)]).exit_code == 0
    source = tmp_path / "src" / "mqttcore_door.py"
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        source.read_text()
        .replace("class Door", "class Wrong")
        .replace("client: ClientView, connect: Connect", "client: ClientView, connect: int")
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    environment = {**os.environ, "MYPYPATH": str(SOURCE)}

    def checked(path: Path) -> str:
        done = subprocess.run(
            [*command, path.name], cwd=path.parent, env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    assert "Success: no issues found" in checked(source)
    assert '"int" has no attribute "user_name"' in checked(wrong)  # methods with a mark keep their types
