"""What the tests of TLS share: listeners with it, and clients that speak it."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

from certificates import Authority, Issued
from mqttcore import Broker, Config, Listener
from mqttcore.config import Tls
from network.conftest import quiet_config


def tls_config(
    server: Issued, *, listener: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **tls: Any
) -> Config:
    """Return a configuration with one TLS listener."""
    settings = Tls(certificate_file=str(server.certificate), key_file=str(server.key), **tls)
    return quiet_config(Listener(port=0, tls=settings, **(listener or {})), **(limits or {}))


def client_context(
    authority: Authority, own: Issued | None = None, *, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """Return a client's context that trusts *authority* and shows *own*."""
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def streams(
    broker: Broker, context: ssl.SSLContext | None, *, server_hostname: str = "localhost"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with asyncio's own TLS."""
    _, host, port = broker.addresses[0]
    return await asyncio.open_connection(
        host, port, ssl=context, server_hostname=server_hostname if context is not None else None
    )


def overwrite(source: Path, target: Path) -> None:
    """Replace *target* in one step, as tools that rotate certificates do."""
    fresh = target.with_suffix(".new")
    fresh.write_bytes(source.read_bytes())
    fresh.chmod(0o600)
    fresh.replace(target)
