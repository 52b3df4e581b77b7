"""Clients that show a signed token (JWT, RFC 7519)."""

from .plugin import JwtAuth

__all__ = ["JwtAuth"]
