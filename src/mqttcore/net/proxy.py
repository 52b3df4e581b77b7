"""What a PROXY protocol header says, and whose is believed."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mqttcore.net.tls import TlsInfo

__all__ = ["ProxyInfo", "ProxyTrust"]


@dataclass(frozen=True, slots=True)
class ProxyInfo:
    """The header of one connection.

    source: the client's address as (host, port) or path; None: the proxy itself speaks.
    tls: what the proxy says of the client's TLS, or None; certificate and alternative names are not transmitted.
    """

    version: int
    source: Any = None
    destination: Any = None
    authority: str | None = None
    unique_id: bytes | None = None
    alpn: str | None = None
    tls: TlsInfo | None = None


class ProxyTrust:
    """The networks from which headers are believed. networks: as `proxy_trusted`; `unix` means Unix sockets."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._has_unix = "unix" in networks
        self._networks = [ipaddress.ip_network(one) for one in networks if one != "unix"]

    def covers(self, peer: Any) -> bool:
        """Say whether *peer*, (host, port) or what a Unix socket has, is trusted."""
        if not isinstance(peer, tuple):
            return self._has_unix
        try:
            address = ipaddress.ip_address(peer[0].partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)
