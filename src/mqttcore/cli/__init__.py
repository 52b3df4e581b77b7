"""The command `mqttcore`. One command per module, imported when it is called: `pub` must not load the broker."""

import importlib
from typing import NamedTuple

import click

from mqttcore._version import __version__

__all__ = ["main"]


class _Command(NamedTuple):
    place: str  # module:attribute
    help: str


_COMMANDS = {
    "serve": _Command("mqttcore.cli.serve:serve", "Run a broker."),
    "check": _Command("mqttcore.cli.check:check", "Validate a configuration file."),
    "pub": _Command("mqttcore.cli.pub:pub", "Publish messages."),
    "sub": _Command("mqttcore.cli.sub:sub", "Subscribe and print messages."),
    "certs": _Command("mqttcore.cli.certs:certs", "Make certificates for trying out TLS."),
    "bench": _Command("mqttcore.cli.bench:bench", "Measure a broker."),
}


class _LazyGroup(click.Group):
    """Commands by name; listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name].place.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["--help"]})
@click.version_option(__version__, prog_name="mqttcore", message="%(prog)s %(version)s")
def main() -> None:
    """An MQTT 3.1, 3.1.1 and 5.0 broker and its tools."""
