"""Durable state: the contract of stores, and the one in memory."""
