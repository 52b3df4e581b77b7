"""Writes what happens into the log, one line an event."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import Event, hookimpl

log = logging.getLogger("mqttcore_examples.log_events")


class LogEvents:
    """Logs events by the names of their classes."""

    @dataclass(frozen=True)
    class Config:
        """Which events."""

        kinds: Annotated[
            frozenset[str], Meta(description="Class names of the events that are logged; none: all of them.")
        ] = frozenset()

    def __init__(self, config: Config) -> None:
        self._kinds = config.kinds

    @hookimpl
    def observe(self, events: Sequence[Event]) -> None:
        """Log those that are wanted."""
        for event in events:
            if not self._kinds or type(event).__name__ in self._kinds:
                log.info("%s", event)

    def reload(self, config: Config) -> None:
        """Take other kinds from now on."""
        self._kinds = config.kinds
