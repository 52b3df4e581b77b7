"""`mqttcore check`: is this file a configuration?"""

import sys
from pathlib import Path

import click
import msgspec

from mqttcore.config import Config, check_exposure, load
from mqttcore.errors import ConfigError

__all__ = ["check"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--show", is_flag=True, help="Print the configuration with all defaults, as JSON.")
def check(file: Path, show: bool) -> None:
    """Validate the configuration FILE.

    Prints file, key path and reason of the first mistake and exits with 2, or prints a summary.
    """
    try:
        config = load(file)
        if not config.plugins:  # with plugins, only they know whether they authenticate: `serve` asks them
            check_exposure(config, has_authentication=False, source=str(file))
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    click.echo(msgspec.json.format(msgspec.json.encode(config)).decode() if show else _summary(file, config))


def _summary(file: Path, config: Config) -> str:
    lines = [f"{file}: ok"]
    lines += [f"listener {one.name}: {one.protocol} on {one.host}, port {one.port}" for one in config.listeners]
    lines.append(f"plugins: {', '.join(config.plugins) or 'none'}")
    return "\n".join(lines)
