"""`mqttcore new-plugin`: a package of one's own with a plugin, its entry point and tests that are green."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from string import Template

import click

from mqttcore._version import __version__

__all__ = ["new_plugin"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

_FILES = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "mqttcore-$dashed"
version = "0.1.0"
description = "A plugin of the MQTT broker mqttcore."
requires-python = ">=3.11"
dependencies = ["mqttcore>=$version"]

[project.optional-dependencies]
test = ["pytest>=8"]

# `[plugins.$name]` in the broker's configuration enables it.
[project.entry-points.mqttcore]
$name = "mqttcore_$name:$cls"

[tool.setuptools]
py-modules = ["mqttcore_$name"]
package-dir = { "" = "src" }
""",
    "src/mqttcore_$name.py": '''\
"""What this plugin is for, in a sentence."""

import hmac
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import ClientView, Connect, Identity, ReasonCode, Refusal, Secret, hookimpl


class $cls:
    """Lets in everybody who knows one password."""

    @dataclass(frozen=True)
    class Config:
        """The keys of `[plugins.$name]`; what is not declared here is refused."""

        password: Annotated[Secret, Meta(description="What clients have to know.")]
        user_names: Annotated[tuple[str, ...], Meta(description="Who may come; none: everybody.")] = ()

    def __init__(self, config: Config) -> None:
        self._password = config.password.reveal().encode()
        self._user_names = frozenset(config.user_names)

    @hookimpl
    def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal | None:
        """Say who a client is; None where this plugin has no opinion."""
        if connect.user_name is None:
            return None
        is_right = hmac.compare_digest(connect.password or b"", self._password)
        if not is_right or (self._user_names and connect.user_name not in self._user_names):
            return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        return Identity(connect.user_name)
''',
    "tests/test_$name.py": '''\
"""The plugin, by the contracts of mqttcore and by what it is for."""

from mqttcore_$name import $cls

from mqttcore import ReasonCode, Secret
from mqttcore.testing import (
    AuthenticatorContract,
    Credentials,
    MemoryBroker,
    assert_plugin_is_well_formed,
    async_test,
)


def make(*user_names: str) -> $cls:
    return $cls($cls.Config(Secret("open sesame"), user_names))


def test_plugin_is_well_formed() -> None:
    assert_plugin_is_well_formed($cls)


class Test$cls(AuthenticatorContract):
    good = Credentials("anna", b"open sesame")

    def plugins(self) -> list[object]:
        return [make("anna")]


@async_test
async def test_names_that_are_not_listed_stay_out() -> None:
    async with MemoryBroker(plugins=[make("anna")]) as broker:
        client = await broker.connect("a", user_name="anna", password=b"open sesame")
        assert await client.subscribe("room/#") == [2]
        await broker.connect(
            "b", user_name="bert", password=b"open sesame", expect=ReasonCode.BAD_USER_NAME_OR_PASSWORD
        )
''',
    "README.md": """\
# mqttcore-$dashed

A plugin of the MQTT broker mqttcore. In the broker's configuration:

```toml
[plugins.$name]
password = { env = "PASSWORD" }
```

`mqttcore plugins $name` lists its settings.

To work on it: `pip install -e '.[test]' && pytest`
""",
}


@click.command("new-plugin")
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to; NAME in the current one without.")
def new_plugin(name: str, directory: Path | None) -> None:
    """Make a package with a plugin called NAME: small letters, digits and underscores.

    It authenticates by one password; change it. Its tests run with plain pytest. Nothing that is there is overwritten.
    """
    if not _NAME.fullmatch(name):
        raise click.BadParameter("small letters, digits and underscores, a letter first", param_hint="NAME")
    root = directory if directory is not None else Path(name)
    words = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "version": __version__,
    }
    files = {root / Template(path).substitute(words): Template(text).substitute(words) for path, text in _FILES.items()}
    if there := [str(path) for path in files if path.exists()]:
        click.echo(f"{', '.join(there)}: there already", err=True)
        sys.exit(2)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        click.echo(path)
