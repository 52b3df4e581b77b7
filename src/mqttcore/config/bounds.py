"""Ends of ranges that have no reason of their own."""

__all__ = ["BYTES_MAXIMUM", "COUNT_MAXIMUM"]

COUNT_MAXIMUM = 2**31 - 1
BYTES_MAXIMUM = 2**53 - 1
