"""`mqttcore check`: is this file a configuration?"""

import sys
from pathlib import Path

import click
import msgspec

from mqttcore.bans import Bans
from mqttcore.config import Config, check_exposure, load
from mqttcore.errors import ConfigError, PluginError
from mqttcore.net.tls import build_context
from mqttcore.plugins.loading import EnabledPlugin, enabled, narrowed_listeners
from mqttcore.settings import visible

__all__ = ["check"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--show", is_flag=True, help="Print the configuration with all defaults, as JSON.")
def check(file: Path, show: bool) -> None:
    """Validate the configuration FILE.

    Prints file, key path and reason of the first mistake and exits with 2, or prints a summary. Certificates, keys and
    bans are read and tried out; plugins are loaded, not made.
    """
    try:
        config = load(file)
        plugins = enabled(config, str(file))
        authenticates = any("authenticate" in plugin.hooks for plugin in plugins)
        check_exposure(config, has_authentication=authenticates, source=str(file))
        narrowed_listeners(config, [plugin.name for plugin in plugins])
        Bans(config.http_api.bans_file)
        if config.http_api.keys_file:
            from mqttcore.http.keys import read_keys  # and with it all of aiohttp

            read_keys(config.http_api.keys_file)
        for listener in config.listeners:
            if listener.tls is not None:
                build_context(listener.tls, listener.name)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except PluginError as error:
        click.echo(f"{file}: {error}", err=True)
        sys.exit(2)
    click.echo(_everything(config, plugins) if show else _summary(file, config))


def _everything(config: Config, plugins: list[EnabledPlugin]) -> str:
    # Of plugins, what their tables mean with defaults and without secrets, not what they say.
    settings = {plugin.name: {} if plugin.settings is None else visible(plugin.settings) for plugin in plugins}
    shown = visible(msgspec.structs.replace(config, plugins=settings))
    return msgspec.json.format(msgspec.json.encode(shown)).decode()


def _summary(file: Path, config: Config) -> str:
    lines = [f"{file}: ok"]
    for one in config.listeners:
        place = one.path or f"{one.host}, port {one.port}"
        lines.append(f"listener {one.name}: {one.protocol}{' over TLS' if one.tls else ''} on {place}")
    lines.append(f"plugins: {', '.join(config.plugins) or 'none'}")
    return "\n".join(lines)
