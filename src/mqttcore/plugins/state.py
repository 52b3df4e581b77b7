"""What can be said of a plugin that runs: where it comes from, how it fares, and how its last reload went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PluginState", "Reload"]


@dataclass(frozen=True, slots=True)
class Reload:
    """An attempt to reload a plugin. ended_s: wall clock. error: why its former settings stay; None: it went well."""

    ended_s: float
    error: str | None


@dataclass(frozen=True, slots=True)
class PluginState:
    """One loaded plugin as it was when asked.

    place: `module:class`. distribution: name and version of what it came with; None for one given as an object, as
    has_table, whether the configuration enables it. failures: hook -> how often it failed. is_failing: the alarm is
    raised. last_failure_s: wall clock. observing_paused_for_s: how long it is not told of events yet, for failing at
    it; None: it is. can_reload: it takes settings while it runs, or another instance may take its place.
    """

    name: str
    place: str
    distribution: str | None
    has_table: bool
    hooks: tuple[str, ...]
    failures: Mapping[str, int]
    is_failing: bool
    last_failure_s: float | None
    observing_paused_for_s: float | None
    can_reload: bool
    last_reload: Reload | None
