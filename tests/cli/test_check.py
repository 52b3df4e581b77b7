"""`mqttcore check`, and what the group does by itself."""

import json
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner

from mqttcore import Secret, hookimpl
from mqttcore._version import __version__
from mqttcore.cli import main
from mqttcore.plugins import loading
from mqttcore.plugins.discovery import InstalledPlugin


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


class Audit:
    @hookimpl
    def observe(self, events): ...


class Passwords:
    @dataclass(frozen=True)
    class Config:
        key: Secret = field(default_factory=lambda: Secret("hunter2"))

    def __init__(self, config: Config) -> None:
        raise AssertionError("checking makes no plugin")

    @hookimpl
    def authenticate(self, client, connect): ...


@pytest.fixture
def offered(monkeypatch):
    places = {"audit": f"{__name__}:Audit", "passwords": f"{__name__}:Passwords", "half": "mqttcore_is_not_here:Half"}
    found = {name: [InstalledPlugin(name, place, "tests 1")] for name, place in places.items()}
    monkeypatch.setattr(loading, "installed", lambda: found)


def test_good_file_is_summarised(config_file, offered):
    path = config_file('[[listeners]]\nname = "lan"\nport = 1884\n[plugins.audit]\n')
    result = invoke("check", path)
    assert result.exit_code == 0
    assert result.stdout == f"{path}: ok\nlistener lan: mqtt on 127.0.0.1, port 1884\nplugins: audit\n"


def test_show_prints_every_value_as_json(config_file):
    result = invoke("check", config_file("[limits]\nreceive_maximum = 7\n"), "--show")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["limits"]["receive_maximum"] == 7
    assert shown["limits"]["maximum_qos"] == 2
    assert shown["listeners"][0]["port"] == 1883


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[[listeners]]\nprot = 1\n", "listeners[0].prot: unknown key"),
        ("x = = 1\n", "is not TOML: Invalid value (at line 1, column 5)"),
        ('[[listeners]]\nhost = "0.0.0.0"\n', "listeners[0].host: 0.0.0.0 can be reached by others"),
    ],
)
def test_mistake_is_named_with_exit_code_2(config_file, text, error):
    path = config_file(text)
    result = invoke("check", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"{path}: {error}")


def test_exposed_listener_needs_a_plugin_that_authenticates(config_file, offered):
    exposed = '[[listeners]]\nhost = "0.0.0.0"\n'
    assert invoke("check", config_file(f"{exposed}[plugins.passwords]\n")).exit_code == 0
    result = invoke("check", config_file(f"{exposed}[plugins.audit]\n"))
    assert result.exit_code == 2
    assert "no plugin authenticates clients" in result.stderr


def test_plugin_tables_are_checked_and_their_secrets_hidden(config_file, offered):
    path = config_file("[plugins.passwords]\nkye = 1\n")
    result = invoke("check", path)
    assert (result.exit_code, result.stderr) == (2, f"{path}: plugins.passwords.kye: unknown key\n")
    path = config_file("[plugins.half]\n")
    result = invoke("check", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{path}: plugin half: cannot be imported: No module named 'mqttcore_is_not_here'")
    result = invoke("check", config_file('[plugins.passwords]\nkey = "hunter2"\n'), "--show")
    assert json.loads(result.stdout)["plugins"] == {"passwords": {"key": "(secret)"}}


def test_version():
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"mqttcore {__version__}\n")


def test_help_names_the_commands():
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in ("serve", "check", "pub", "sub", "bench"))


def test_unknown_command_is_wrong_usage():
    assert invoke("sreve").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], ["mqttcore.broker", "mqttcore.codec", "mqttcore.config", "asyncio"]),
        (["pub", "--help"], ["mqttcore.broker", "mqttcore.engine", "mqttcore.cli.serve", "aiohttp", "uvloop"]),
        (["check", "--help"], ["mqttcore.broker", "mqttcore.codec", "asyncio"]),
    ],
)
def test_command_imports_only_what_it_needs(arguments, absent):
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('loaded', [name for name in {absent!r} if name in sys.modules]))\n"
        "from mqttcore.cli import main\n"
        f"main({arguments!r})\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.endswith("loaded []\n")


def test_certificates_are_read_and_tried_out(config_file, tmp_path):
    (tmp_path / "server.crt").write_text("no certificate")
    (tmp_path / "server.key").write_text("no key")
    for key in ("nowhere.key", "server.key"):
        tls = f'certificate_file = "{tmp_path}/server.crt"\nkey_file = "{tmp_path}/{key}"\n'
        result = invoke("check", config_file(f'[[listeners]]\nname = "lan"\n[listeners.tls]\n{tls}'))
        assert result.exit_code == 2
        assert "listeners.lan.tls" in result.stderr
        assert key in result.stderr


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[http_api]\nkeys_file = "{path}"\n', "http_api.keys_file: {path} can be read by others"),
        ('[http_api]\nbans_file = "{path}"\n', "http_api.bans_file: {path} is no file of bans"),
        ('[[listeners]]\nplugins = ["audit"]\n', "listeners[0].plugins[0]: no plugin audit is enabled"),
    ],
)
def test_what_the_start_would_stumble_over_is_found(config_file, offered, tmp_path, text, error):
    path = tmp_path / "file"
    path.write_text("nonsense")
    path.chmod(0o644)
    result = invoke("check", config_file(text.format(path=path)))
    assert result.exit_code == 2
    assert result.stderr.startswith(error.format(path=path))
