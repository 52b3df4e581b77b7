"""Messages and events to a URL, in batches."""

from .plugin import Webhook

__all__ = ["Webhook"]
