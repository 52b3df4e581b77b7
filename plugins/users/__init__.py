"""Users and what they may do, from files."""

from .plugin import Users

__all__ = ["Users"]
