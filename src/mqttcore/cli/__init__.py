"""The command `mqttcore`. One command per module, imported when it is called: `pub` must not load the broker."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

import click

from mqttcore._version import __version__
from mqttcore.errors import MqttCoreError

if TYPE_CHECKING:
    from mqttcore.plugins.discovery import InstalledPlugin

__all__ = ["main"]


class _Command(NamedTuple):
    place: str  # module:attribute
    help: str


_COMMANDS = {
    "serve": _Command("mqttcore.cli.serve:serve", "Run a broker."),
    "check": _Command("mqttcore.cli.check:check", "Validate a configuration file."),
    "pub": _Command("mqttcore.cli.pub:pub", "Publish messages."),
    "sub": _Command("mqttcore.cli.sub:sub", "Subscribe and print messages."),
    "ctl": _Command("mqttcore.cli.ctl:ctl", "Ask a running broker and tell it what to do."),
    "store": _Command("mqttcore.cli.store:store", "Look at the file of a stopped broker's store, and move it."),
    "certs": _Command("mqttcore.cli.certs:certs", "Make certificates for trying out TLS."),
    "plugins": _Command("mqttcore.cli.plugins:plugins", "List plugins, their hooks and settings."),
    "new-plugin": _Command("mqttcore.cli.new_plugin:new_plugin", "Make a package with a plugin of your own."),
    "bench": _Command("mqttcore.cli.bench:bench", "Measure a broker."),
}


class _LazyGroup(click.Group):
    """Commands by name, ours and those of plugins (entry points `mqttcore.commands`); listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *_of_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return _load_of_plugin(cmd_name)
        module, attribute = _COMMANDS[cmd_name].place.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in _COMMANDS.items()])
        if offered := _of_plugins():
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, f"Of {many[0].distribution}.") for name, many in offered.items()])


def _of_plugins() -> dict[str, list[InstalledPlugin]]:
    # Imported here: a command of ours must not wait until all installed packages have been looked through.
    from mqttcore.plugins.discovery import COMMANDS_GROUP, installed

    return {name: many for name, many in installed(COMMANDS_GROUP).items() if name not in _COMMANDS}


def _load_of_plugin(name: str) -> click.Command | None:
    offered = _of_plugins().get(name, [])
    if not offered:
        return None
    if len(offered) > 1:
        raise click.ClickException(f"several packages offer {name}: {', '.join(one.distribution for one in offered)}")
    try:
        command = offered[0].load()
    except MqttCoreError as error:
        raise click.ClickException(str(error)) from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"{offered[0].place} is no click command")
    return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["--help"]})
@click.version_option(__version__, prog_name="mqttcore", message="%(prog)s %(version)s")
def main() -> None:
    """An MQTT 3.1, 3.1.1 and 5.0 broker and its tools."""
