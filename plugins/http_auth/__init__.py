"""Clients that a web service knows."""

from .plugin import HttpAuth

__all__ = ["HttpAuth"]
