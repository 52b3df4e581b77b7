"""`mqttcore plugins`, and commands that come with plugins."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import click
import pytest
from click.testing import CliRunner
from msgspec import Meta

from mqttcore import Secret, hookimpl
from mqttcore.cli import main
from mqttcore.cli import plugins as command
from mqttcore.plugins import discovery, loading
from mqttcore.plugins.discovery import InstalledPlugin


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Server:
    url: Annotated[str, Meta(description="Where it is.")]


class Audit:
    """Writes down what happens.

    And more.
    """

    @dataclass(frozen=True)
    class Config:
        key: Annotated[Secret, Meta(description="Seals the book.")]
        mode: Annotated[Literal["all", "some"], Meta(description="How much.")] = "all"
        limit: Annotated[int, Meta(ge=1, le=10, description="Lines.")] = 5
        ratio: Annotated[float | None, Meta(description="Of lines.")] = None
        servers: Annotated[list[Server], Meta(description="Copies.")] = field(default_factory=list)
        backup: Annotated[Server, Meta(description="One more.")] = Server("x")

    def __init__(self, config: Config) -> None:
        raise AssertionError("listing makes no plugin")

    @hookimpl
    def observe(self, events): ...

    @hookimpl
    def startup(self, broker): ...


class Bare:
    @hookimpl
    def startup(self, broker): ...


@click.command()
def count():
    """Count something."""
    click.echo("1 2 3")


NO_COMMAND = 5


@pytest.fixture(autouse=True)
def offered(monkeypatch):
    places = {"audit": "Audit", "bare": "Bare", "half": "Gone"}
    plugins = {name: [InstalledPlugin(name, f"{__name__}:{cls}", "tests 1")] for name, cls in places.items()}
    commands = {
        "count": [InstalledPlugin("count", f"{__name__}:count", "tests 1")],
        "number": [InstalledPlugin("number", f"{__name__}:NO_COMMAND", "tests 1")],
        "gone": [InstalledPlugin("gone", "mqttcore_is_not_here:x", "tests 1", ("users",))],
        "twice": [InstalledPlugin("twice", f"{__name__}:count", one) for one in ("a 1", "b 2")],
        "serve": [InstalledPlugin("serve", f"{__name__}:count", "tests 1")],
    }

    def installed(group="mqttcore"):
        return plugins if group == "mqttcore" else commands

    for module in (discovery, loading, command):
        monkeypatch.setattr(module, "installed", installed)


def test_list_of_what_is_installed():
    result = invoke("plugins")
    assert result.exit_code == 0
    assert result.stdout == (
        "audit (tests 1): not enabled\n"
        "  Writes down what happens.\n"
        "  hooks: observe, startup\n"
        "  key (secret text; required)  Seals the book.\n"
        '  mode ("all", "some"; default "all")  How much.\n'
        "  limit (1…10; default 5)  Lines.\n"
        "  ratio (number; default not set)  Of lines.\n"
        "  servers (tables; default [])  Copies.\n"
        "  backup (table)  One more.\n"
        "\n"
        "bare (tests 1): not enabled\n"
        "  hooks: startup\n"
        "\n"
        "half (tests 1): cannot be used\n"
        f"  {__name__}:Gone does not exist: module '{__name__}' has no attribute 'Gone'\n"
    )


def test_what_a_file_enables_in_its_order_and_without_secrets(config_file):
    path = config_file('[plugins.bare]\n[plugins.audit]\nkey = "hunter2"\nlimit = 7\n')
    result = invoke("plugins", "--config", path)
    assert "hunter2" not in result.stdout
    assert result.stdout.startswith("bare (tests 1): enabled, number 1\n")
    assert "audit (tests 1): enabled, number 2\n" in result.stdout
    assert "  key = '(secret)' (secret text; required)" in result.stdout
    assert "  limit = 7 (1…10; default 5)" in result.stdout


def test_json_has_everything(config_file):
    path = config_file('[plugins.audit]\nkey = "hunter2"\n')
    audit, bare, half = json.loads(invoke("plugins", "--json", "--config", path).stdout)
    assert (audit["enabled"], bare["enabled"], half["enabled"]) == (True, False, False)
    assert audit["values"]["key"] == "(secret)"
    assert audit["config"][4]["fields"] == [{"key": "url", "value": "text", "default": None, "meaning": "Where it is."}]
    assert "does not exist" in half["error"]
    assert bare["error"] is None


def test_markdown_of_one():
    result = invoke("plugins", "audit", "--markdown")
    assert "## `[plugins.audit]`\n\nWrites down what happens.\n\n| key | value |" in result.stdout
    assert "| `key` | secret text | required | Seals the book. |\n" in result.stdout
    assert "| `servers[].url` | text | required | Where it is. |\n" in result.stdout
    assert "| `backup.url` | text | required | Where it is. |\n" in result.stdout
    assert invoke("plugins", "bare", "--markdown").stdout == "`[plugins.bare]` has no keys.\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [("[plugins.audit]\n", "plugins.audit.key: missing"), ("[plugins.aduit]\n", "did you mean audit?")],
)
def test_wrong_file_is_exit_code_2(config_file, text, error):
    result = invoke("plugins", "--config", config_file(text))
    assert result.exit_code == 2
    assert error in result.stderr


def test_unknown_name_is_exit_code_2():
    result = invoke("plugins", "nothing")
    assert (result.exit_code, result.stderr) == (2, "there is no plugin nothing\n")


def test_commands_of_plugins_are_listed_and_called():
    assert invoke("count").stdout == "1 2 3\n"
    shown = invoke("--help").stdout
    assert "Commands of plugins:\n  count   Of tests 1.\n" in shown
    assert shown.count("serve") == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("number", "is no click command"),
        ("gone", "No module named 'mqttcore_is_not_here'; it needs an extra: pip install 'tests[users]'"),
        ("twice", "several packages offer twice: a 1, b 2"),
    ],
)
def test_command_that_cannot_be_used(name, error):
    result = invoke(name)
    assert result.exit_code == 1
    assert error in result.stderr
