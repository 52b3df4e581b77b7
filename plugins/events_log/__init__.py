"""Messages and events as lines of JSON in a file."""

from .plugin import EventsLog

__all__ = ["EventsLog"]
