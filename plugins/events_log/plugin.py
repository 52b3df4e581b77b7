"""The plugin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import orjson
from msgspec import Meta

from mqttcore import ConfigError, Sink, SinkConfig, as_json

from .rotated_file import RotatedFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mqttcore import SinkRecord

__all__ = ["EventsLog"]


class EventsLogConfig(SinkConfig, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugins.events_log]`; what goes into the file is said by `events` and `topic_filters`."""

    path: Annotated[str, Meta(min_length=1, description="The file; made with mode 0600 when it is not there.")]
    rotate_bytes: Annotated[int, Meta(ge=0, description="Size from which on it is put aside; 0: never.")] = 104_857_600
    rotate_kept: Annotated[int, Meta(ge=0, le=1000, description="Files put aside that are kept.")] = 5
    sync: Annotated[bool, Meta(description="Wait for the disk after each batch.")] = False


class EventsLog(Sink):
    """A line of JSON for each event and message."""

    Config = EventsLogConfig
    name = "events_log"

    def __init__(self, config: EventsLogConfig) -> None:
        super().__init__(config)
        self._file: RotatedFile | None = None

    async def open(self) -> None:
        """Open the file. Raises ConfigError when it cannot be written."""
        try:
            self._file = await asyncio.to_thread(
                RotatedFile,
                self.config.path,
                bytes_maximum=self.config.rotate_bytes,
                kept=self.config.rotate_kept,
                syncs=self.config.sync,
            )
        except OSError as error:
            raise ConfigError(
                "plugins.events_log.path", f"{self.config.path} cannot be written: {error.strerror}"
            ) from error

    async def send(self, records: Sequence[SinkRecord]) -> None:
        """Write the lines."""
        assert self._file is not None
        lines = b"".join(orjson.dumps(as_json(record), option=orjson.OPT_APPEND_NEWLINE) for record in records)
        await asyncio.to_thread(self._file.write, lines)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
