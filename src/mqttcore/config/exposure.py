"""Who reaches a listener, and whom it may let in without authentication."""

import ipaddress

from mqttcore.config.document import Config
from mqttcore.config.listener import Listener
from mqttcore.errors import ConfigError

__all__ = ["check_exposure", "is_local", "is_loopback", "takes_anonymous", "trusts_machine"]


def is_loopback(host: str) -> bool:
    """Say whether *host* can only be reached from this machine; names other than `localhost` count as no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(listener: Listener) -> bool:
    """Say whether only this machine reaches *listener*: a loopback address or a Unix socket, no proxy before it."""
    return listener.proxy_protocol == "none" and (bool(listener.path) or is_loopback(listener.host))


def takes_anonymous(config: Config, listener: Listener, has_authentication: bool) -> bool:
    """Say whether clients about whom no plugin has an opinion may come in through *listener*."""
    allowed = config.allow_anonymous if listener.allow_anonymous is None else listener.allow_anonymous
    return is_local(listener) and not has_authentication if allowed is None else allowed


def trusts_machine(config: Config, listener: Listener) -> bool:
    """Say whether anonymous clients may use *listener* only because they are on this machine: nobody said they may."""
    return config.allow_anonymous is None and listener.allow_anonymous is None and is_local(listener)


def check_exposure(config: Config, has_authentication: bool, source: str | None = None) -> None:
    """Refuse a listener that would let strangers in by mistake.

    Raises ConfigError for a listener beyond loopback, or behind a proxy, when no plugin authenticates and
    `allow_anonymous` is not true.
    """
    if has_authentication:
        return
    for index, listener in enumerate(config.listeners):
        given = config.allow_anonymous if listener.allow_anonymous is None else listener.allow_anonymous
        by_certificate = (
            listener.proxy_identity_is_user_name
            if listener.tls is None
            else listener.tls.identity_is_user_name and listener.tls.client_certificate == "required"
        )
        if not (given or by_certificate or is_local(listener)):
            key, reached, instead = (
                ("host", f"{listener.host} can be reached by others", ", listen on 127.0.0.1,")
                if listener.proxy_protocol == "none"
                else ("proxy_protocol", "a proxy lets others in", "")
            )
            reason = (
                f"{reached}, and no plugin authenticates clients: enable one{instead} or write allow_anonymous = true"
            )
            raise ConfigError(f"listeners[{index}].{key}", reason, source)
