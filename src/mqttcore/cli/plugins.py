"""`mqttcore plugins`: what is installed, what a configuration enables, hooks and settings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson

from mqttcore.config import Config, load
from mqttcore.errors import ConfigError, PluginError
from mqttcore.plugins.discovery import installed
from mqttcore.plugins.loading import enabled
from mqttcore.plugins.reference import DescribedPlugin, Setting, describe, settings_reference
from mqttcore.settings import visible

__all__ = ["plugins"]


@click.command()
@click.argument("name", required=False)
@click.option("--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="Say what this file enables.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--markdown", is_flag=True, help="Print the settings as the table of a README.")
def plugins(name: str | None, path: Path | None, as_json: bool, markdown: bool) -> None:
    """List installed plugins, or show NAME alone: hooks, and settings with their defaults.

    Plugins are imported but not made. With --config: which are enabled, in their order and with their settings;
    secrets are not shown. Exit code 2: the file is wrong, or there is no plugin NAME.
    """
    config = Config()
    try:
        if path is not None:
            config = load(path)
        settings = {one.name: visible(one.settings) for one in enabled(config, str(path))}
    except (ConfigError, PluginError) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    found = [describe(one) for many in installed().values() for one in many if name in (None, one.name)]
    if name is not None and not found:
        click.echo(f"there is no plugin {name}", err=True)
        sys.exit(2)
    order = [*settings]
    found.sort(key=lambda one: (order.index(one.name) if one.name in settings else len(order), one.name))
    if as_json:
        documents = [_document(one, settings) for one in found]
        click.echo(orjson.dumps(documents, option=orjson.OPT_INDENT_2).decode())
    elif markdown:
        click.echo("\n".join(settings_reference(one) for one in found), nl=False)
    elif not found:
        click.echo("no plugins are installed")
    else:
        click.echo("\n\n".join("\n".join(_lines(one, settings)) for one in found))


def _document(one: DescribedPlugin, settings: dict[str, Any]) -> dict[str, Any]:
    document = {
        "name": one.name,
        "place": one.place,
        "distribution": one.distribution,
        "summary": one.summary,
        "hooks": one.hooks,
        "enabled": one.name in settings,
        "config": [_setting(setting) for setting in one.settings],
        "error": one.error or None,
    }
    if one.name in settings:
        document["values"] = settings[one.name]
    return document


def _setting(one: Setting) -> dict[str, Any]:
    document: dict[str, Any] = {"key": one.key, "value": one.kind, "default": one.default, "meaning": one.description}
    if one.fields:
        document["fields"] = [_setting(field) for field in one.fields]
    return document


def _lines(one: DescribedPlugin, settings: dict[str, Any]) -> list[str]:
    place = f", number {[*settings].index(one.name) + 1}" if one.name in settings else ""
    state = f"enabled{place}" if place else "cannot be used" if one.error else "not enabled"
    lines = [f"{one.name} ({one.distribution}): {state}"]
    if one.error:
        return [*lines, f"  {one.error}"]
    if one.summary:
        lines.append(f"  {one.summary}")
    lines.append(f"  hooks: {', '.join(one.hooks)}")
    values = settings.get(one.name) or {}
    for setting in one.settings:
        given = f" = {values[setting.key]!r}" if setting.key in values else ""
        default = "required" if setting.default is None else f"default {setting.default}" if setting.default else ""
        said = "; ".join(part for part in (setting.kind, default) if part)
        lines.append(f"  {setting.key}{given} ({said})  {setting.description}".rstrip())
    return lines
