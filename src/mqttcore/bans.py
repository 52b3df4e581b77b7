"""Bans: clients that are refused for their client id, user name or address, until a time or until they are lifted.

They are asked about each CONNECT, before plugins. Without a file they live as long as the broker object.
"""

from __future__ import annotations

import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from mqttcore.constants import ReasonCode
from mqttcore.errors import ConfigError, QuotaExceeded, StoreError
from mqttcore.identity import Refusal
from mqttcore.private_file import write_private_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mqttcore.codec import Connect
    from mqttcore.engine.client_view import ClientView

__all__ = ["BANS_MAXIMUM", "Ban", "BanKind", "Bans", "host_of"]

BANS_MAXIMUM = 10_000
_MAPPED_BITS = 96  # of an IPv6 address, in front of the IPv4 address that it maps (RFC 4291 §2.5.5.2)
_FILE_BYTES_MAXIMUM = 64 * 1024 * 1024

BanKind = Literal["client_id", "user_name", "address"]
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ban(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ban. value: of an address, also a network. until_s: seconds of `time.time()`; None: until it is lifted."""

    kind: BanKind
    value: Annotated[str, Meta(min_length=1, max_length=65_535)]
    until_s: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    reason: Annotated[str, Meta(max_length=1000)] = ""


class Bans:
    """The bans of one broker. path: of their file; empty: none. Raises ConfigError when the file cannot be used."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._bans: dict[tuple[BanKind, str], Ban] = {}
        self._prefixes: set[tuple[int, int]] = set()  # (version, length) of the networks that there are
        self.refused = 0
        for ban in _read(path) if path else ():
            try:
                self._bans[ban.kind, _canonical(ban.kind, ban.value)] = ban
            except ValueError as error:
                raise ConfigError("http_api.bans_file", f"{path}: {error}") from error
        self._count_prefixes()

    def __len__(self) -> int:
        """Count them, those that have ended and were not cleared away included."""
        return len(self._bans)

    def __iter__(self) -> Iterator[Ban]:
        """Yield those in force."""
        now_s = time.time()
        yield from [ban for ban in self._bans.values() if ban.until_s is None or ban.until_s > now_s]

    def add(self, ban: Ban) -> Ban:
        """Begin a ban, or replace the one of the same kind and value; return it as it is kept.

        Raises ValueError for what is no address or no UTF-8, QuotaExceeded over `BANS_MAXIMUM`, StoreError when the
        file cannot be written; nothing changes then.
        """
        value = _canonical(ban.kind, ban.value)
        (value + ban.reason).encode()
        kept = msgspec.structs.replace(ban, value=value)
        bans = {(one.kind, one.value): one for one in self}
        bans[kept.kind, value] = kept
        if len(bans) > BANS_MAXIMUM:
            raise QuotaExceeded(ReasonCode.QUOTA_EXCEEDED, "", f"there are {BANS_MAXIMUM} bans already")
        self._replace(bans)
        return kept

    def remove(self, kind: BanKind, value: str) -> bool:
        """Lift a ban; False when there is none. Raises ValueError and StoreError as `add` does."""
        key = (kind, _canonical(kind, value))
        bans = {(one.kind, one.value): one for one in self}
        if bans.pop(key, None) is None:
            return False
        self._replace(bans)
        return True

    def admit(self, client: ClientView, connect: Connect) -> Refusal | None:
        """Answer for a CONNECT."""
        if not self._bans:
            return None
        ban = self.find(client_id=client.client_id, user_name=client.user_name, host=host_of(client.address))
        if ban is None:
            return None
        self.refused += 1
        return Refusal(ReasonCode.BANNED, ban.reason or None)

    def find(self, *, client_id: str, user_name: str | None, host: str | None) -> Ban | None:
        """Return the ban in force that such a client comes under."""
        keys: list[tuple[BanKind, str]] = [("client_id", client_id)]
        if user_name is not None:
            keys.append(("user_name", user_name))
        if host is not None and self._prefixes:
            keys += [("address", str(network)) for network in self._networks(host)]
        now_s = time.time()
        for key in keys:
            ban = self._bans.get(key)
            if ban is not None and (ban.until_s is None or ban.until_s > now_s):
                return ban
        return None

    def _networks(self, host: str) -> Iterator[_Network]:
        try:
            address = _unmapped(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:  # of a Unix socket
            return
        for version, length in self._prefixes:
            if version == address.version:
                yield ipaddress.ip_network((address, length), strict=False)

    def _replace(self, bans: dict[tuple[BanKind, str], Ban]) -> None:
        if self._path:
            _write(self._path, list(bans.values()))
        self._bans = bans
        self._count_prefixes()

    def _count_prefixes(self) -> None:
        networks = [ipaddress.ip_network(value) for kind, value in self._bans if kind == "address"]
        self._prefixes = {(network.version, network.prefixlen) for network in networks}


def host_of(address: object) -> str | None:
    """Return the host of a connection's address, None for a path or nothing."""
    return address[0] if isinstance(address, tuple) and address and isinstance(address[0], str) else None


def _unmapped(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _canonical(kind: BanKind, value: str) -> str:
    if kind != "address":
        return value
    if "/" in value:
        network = ipaddress.ip_network(value, strict=False)
        mapped = _unmapped(network.network_address)
        if mapped is not network.network_address and network.prefixlen >= _MAPPED_BITS:
            return str(ipaddress.ip_network((mapped, network.prefixlen - _MAPPED_BITS)))
        return str(network)
    return str(ipaddress.ip_network(_unmapped(ipaddress.ip_address(value.partition("%")[0]))))


def _read(path: str) -> list[Ban]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_FILE_BYTES_MAXIMUM + 1)
        if len(data) > _FILE_BYTES_MAXIMUM:
            raise ConfigError("http_api.bans_file", f"{path} is larger than {_FILE_BYTES_MAXIMUM} bytes")
        return msgspec.json.decode(data, type=list[Ban])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError("http_api.bans_file", f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError("http_api.bans_file", f"{path} is no file of bans: {error}") from error


def _write(path: str, bans: list[Ban]) -> None:
    try:
        write_private_file(path, msgspec.json.encode(bans))
    except OSError as error:
        raise StoreError("io", f"bans cannot be written: {error.strerror or error}") from error
