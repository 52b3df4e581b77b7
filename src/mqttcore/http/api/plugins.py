"""Plugins: what is loaded, how it fares, and giving it its settings once more."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from mqttcore.errors import ConfigError, PluginError
from mqttcore.http.api.operation import ApiError, Call, Operation
from mqttcore.http.keys import Role
from mqttcore.plugins.discovery import installed

if TYPE_CHECKING:
    from mqttcore.broker import Broker
    from mqttcore.plugins.state import PluginState

__all__ = ["operations"]


class PluginShown(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin. distribution: what it came with, by name and version; null: the application gave it as an object.

    is_enabled: it is loaded; of one that is only installed, the rest says nothing. has_table: the configuration enables
    it. failures: how often each hook failed; is_failing: its alarm is raised; times are seconds since 1970.
    observing_paused_for_s: how long it is not told of events, having failed at it; null: it is. can_reload: it takes
    settings while it runs, or can be replaced. reload_failed: it did not take the last ones; the log says why. metrics:
    what is counted of it and what it counts.
    """

    name: str
    place: str
    distribution: str | None
    is_enabled: bool
    has_table: bool = False
    hooks: list[str] = []
    failures: dict[str, int] = {}
    is_failing: bool = False
    last_failure_s: float | None = None
    observing_paused_for_s: float | None = None
    can_reload: bool = False
    reloaded_s: float | None = None
    reload_failed: bool = False
    metrics: dict[str, int] = {}


class PluginList(msgspec.Struct, frozen=True):
    """Plugins in the order in which they are asked, then those that are only installed."""

    plugins: list[PluginShown]


class PluginSelection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether those that are installed and not enabled are listed, too."""

    installed: bool = False


def _shown(one: "PluginState", metrics: dict[str, int]) -> PluginShown:
    return PluginShown(
        name=one.name,
        place=one.place,
        distribution=one.distribution,
        is_enabled=True,
        has_table=one.has_table,
        hooks=list(one.hooks),
        failures=dict(one.failures),
        is_failing=one.is_failing,
        last_failure_s=one.last_failure_s,
        observing_paused_for_s=one.observing_paused_for_s,
        can_reload=one.can_reload,
        reloaded_s=None if one.last_reload is None else one.last_reload.ended_s,
        reload_failed=one.last_reload is not None and one.last_reload.error is not None,
        metrics=metrics,
    )


def operations(broker: "Broker") -> list[Operation]:
    """Return the operations on plugins."""

    def existing(name: str) -> PluginShown:
        for one in broker.plugin_states:
            if one.name == name:
                return _shown(one, broker.plugin_metrics().get(name, {}))
        raise ApiError(404, "no such plugin is enabled")

    async def list_plugins(call: Call) -> PluginList:
        wanted: PluginSelection = call.query
        metrics = broker.plugin_metrics()
        shown = [_shown(one, metrics.get(one.name, {})) for one in broker.plugin_states]
        if wanted.installed:
            enabled = {one.name for one in shown}
            offered = await asyncio.to_thread(installed)  # reads the metadata of all packages
            shown += [
                PluginShown(name=one.name, place=one.place, distribution=one.distribution, is_enabled=False)
                for many in offered.values()
                for one in many
                if one.name not in enabled
            ]
        return PluginList(shown)

    async def get_plugin(call: Call) -> PluginShown:
        return existing(call.path["name"])

    async def reload_plugin(call: Call) -> PluginShown:
        name = existing(call.path["name"]).name
        try:
            await broker.reload_plugin(name)
        except (ConfigError, PluginError) as error:
            raise ApiError(409, f"its former settings stay in force: {error}") from None
        return existing(name)

    one = "/plugins/{name}"
    return [
        Operation(
            method="GET",
            path="/plugins",
            role=Role.VIEWER,
            summary="List plugins",
            function=list_plugins,
            query=PluginSelection,
            answer=PluginList,
        ),
        Operation(
            method="GET",
            path=one,
            role=Role.VIEWER,
            summary="Show a plugin that is enabled",
            function=get_plugin,
            answer=PluginShown,
            errors=(404,),
        ),
        Operation(
            method="POST",
            path=f"{one}/reload",
            role=Role.ADMIN,
            summary="Have a plugin take its settings once more, and read anew what they name",
            function=reload_plugin,
            answer=PluginShown,
            errors=(404, 409),
        ),
    ]
