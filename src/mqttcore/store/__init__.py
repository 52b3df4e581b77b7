"""Durable state: the contract of stores, their records, and the store in memory."""

from mqttcore.store import records

__all__ = ["records"]
