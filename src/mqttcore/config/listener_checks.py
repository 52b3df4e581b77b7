"""What must hold between the keys of a listener, and between listeners."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from mqttcore.config.listener import Listener, Tls
from mqttcore.errors import ConfigError
from mqttcore.mount_point import check_mount_point

__all__ = ["check_listeners"]

# What browsers send (RFC 6454 §7): no path, no wildcard; `null` of a page that has none, `file://` in some web views.
_ORIGIN = re.compile(r"null|file://|[A-Za-z][A-Za-z0-9+.-]*://[^/?#*\s]+")
_OWN_PATHS = ("/healthz", "/readyz", "/metrics", "/api/v1")


def check_listeners(listeners: Sequence[Listener], source: str | None) -> None:
    """Refuse listeners of one name or on one address, and keys that do not go together: ConfigError."""
    names: dict[str, int] = {}
    addresses: dict[tuple[str, int], int] = {}
    for index, listener in enumerate(listeners):
        first = names.setdefault(listener.name, index)
        if first != index:
            raise ConfigError(f"listeners[{index}].name", f"`{listener.name}` is listeners[{first}] already", source)
        place = (listener.path, 1) if listener.path else (listener.host, listener.port)
        first = addresses.setdefault(place, index)
        if place[1] and first != index:
            key = "path" if listener.path else "port"
            shown = listener.path or f"{listener.host}:{listener.port}"
            raise ConfigError(f"listeners[{index}].{key}", f"{shown} is listeners[{first}] already", source)
        _check_idle(listener, f"listeners[{index}]", source)
        _check_tls(listener, f"listeners[{index}]", source)
        _check_proxy(listener, f"listeners[{index}]", source)
        _check_http(listener, f"listeners[{index}]", source)
        if listener.mount_point:
            try:
                check_mount_point(listener.mount_point)
            except ValueError as error:
                raise ConfigError(f"listeners[{index}].mount_point", str(error), source) from error


def _check_idle(listener: Listener, path: str, source: str | None) -> None:
    """Refuse what would be taken and do nothing: whoever wrote it counts on it."""
    idle = [] if listener.path else [("path_mode", "belongs to a Unix socket, and there is no path")]
    if listener.path:
        idle += [(key, "a Unix socket has none: path stands in its place") for key in ("host", "port")]
    if listener.protocol != "http":
        of_http = [key for key in Listener.__struct_fields__ if key.startswith(("http_", "websocket_"))]
        idle += [(key, 'belongs to protocol = "http"') for key in of_http]
    if listener.tls is not None:
        idle.append(("proxy_identity_is_user_name", "TLS ends here: it is tls.identity_is_user_name"))
    elif listener.proxy_protocol in ("none", "v1"):
        idle.append(("proxy_identity_is_user_name", "only version 2 of the PROXY protocol knows of certificates"))
    for key, reason in idle:
        if getattr(listener, key) != _default(Listener, key):
            raise ConfigError(f"{path}.{key}", reason, source)


def _default(struct: type[msgspec.Struct], key: str) -> Any:
    field = next(one for one in msgspec.structs.fields(struct) if one.name == key)
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _check_http(listener: Listener, path: str, source: str | None) -> None:
    taken = listener.websocket_path
    if taken in _OWN_PATHS or taken.startswith("/api/v1/"):
        raise ConfigError(f"{path}.websocket_path", f"{taken} is the broker's own", source)
    for number, origin in enumerate(listener.websocket_origins):
        if _ORIGIN.fullmatch(origin) is None:
            reason = f"{origin} is no origin like https://example.com or https://example.com:8443: nothing behind it"
            raise ConfigError(f"{path}.websocket_origins[{number}]", reason, source)


def _check_tls(listener: Listener, path: str, source: str | None) -> None:
    tls = listener.tls
    if tls is None:
        return
    if tls.client_certificate != "none" and not tls.client_ca_file:
        raise ConfigError(f"{path}.tls.client_ca_file", "is needed where client certificates are asked for", source)
    if tls.client_certificate == "none":
        # An authority alone would look like mutual TLS, and everybody would come in.
        for key in ("crl_file", "identity_is_user_name", "identity", "client_ca_file"):
            if getattr(tls, key) != _default(Tls, key):
                reason = "without client certificates has nothing to work on: client_certificate is none"
                raise ConfigError(f"{path}.tls.{key}", reason, source)


def _check_proxy(listener: Listener, path: str, source: str | None) -> None:
    if (listener.proxy_protocol == "none") != (not listener.proxy_trusted):
        raise ConfigError(
            f"{path}.proxy_trusted", "belongs to proxy_protocol: both, or neither; whom to believe must be said", source
        )
    for number, network in enumerate(listener.proxy_trusted):
        if network == "unix":
            continue
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"{path}.proxy_trusted[{number}]", str(error), source) from error
