"""What the broker says of its clients, and does to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mqttcore.constants import ReasonCode
from mqttcore.services import Services

if TYPE_CHECKING:
    from mqttcore.engine.session import Session
    from mqttcore.identity import Identity
    from mqttcore.net.proxy import ProxyInfo
    from mqttcore.net.tls import TlsInfo

__all__ = ["ClientInfo", "ClientServices"]


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """One client as it was when asked. connected_s: since when, in seconds of `time.monotonic()`.

    address: (host, port), a path, or None; what a PROXY header said, if there was one.
    session_expiry_s 4294967295: never. mount_point: prefix of its topics, which it neither says nor hears; "": none.
    """

    client_id: str
    is_connected: bool
    user_name: str | None
    mount_point: str
    address: Any
    protocol_version: int | None
    keep_alive_s: int | None
    connected_s: float
    session_expiry_s: int
    subscriptions: tuple[str, ...]
    subscription_count: int
    in_flight: int
    awaiting_release: int
    queued: int
    queued_bytes: int
    dropped: int
    tls: TlsInfo | None
    proxy: ProxyInfo | None


class ClientServices(Services):
    """Base of Broker."""

    def clients(self) -> list[ClientInfo]:
        """Return all clients that have a session, connected or not."""
        return [_client_info(session) for session in self._running().sessions()]

    def client_ids(self) -> list[str]:
        """Return the ids of all clients that have a session, in no order."""
        return self._running().client_ids()

    def client(self, client_id: str, *, with_subscriptions: bool = True) -> ClientInfo | None:
        """Return one client, or None when it has no session.

        with_subscriptions: filters may be ten thousand; who looks at many clients does without, and has their number.
        """
        session = self._running().session(client_id)
        return None if session is None else _client_info(session, with_subscriptions=with_subscriptions)

    def is_connected(self, client_id: str) -> bool:
        """Say whether a client has a connection; cheaper than `client`, whatever the client has subscribed to."""
        session = self._running().session(client_id)
        return session is not None and session.is_connected

    def disconnect(
        self, client_id: str, reason_code: int = ReasonCode.ADMINISTRATIVE_ACTION, reason: str | None = None
    ) -> bool:
        """Close a client's connection; False when it has none. Its will is published, its session goes on."""
        return self._running().disconnect(client_id, reason_code, reason)

    def discard_session(self, client_id: str) -> bool:
        """End a session with everything it holds, and its connection; False when there is none."""
        return self._running().discard_session(client_id)

    def identity(self, client_id: str) -> Identity | None:
        """Return the identity of a client's session; None when it has none, or there is no session."""
        session = self._running().session(client_id)
        return None if session is None else session.identity

    def set_identity(self, client_id: str, identity: Identity) -> bool:
        """Replace the identity of a client, connected or not; False when it has no session.

        What it does not allow any more goes at once: subscriptions (the client is not told), queued messages. Rates and
        expiry begin anew. Raises TypeError, ValueError or ProtocolError, and changes nothing, when it cannot be used.
        """
        return self._running().set_identity(client_id, identity)


def _client_info(session: Session, *, with_subscriptions: bool = True) -> ClientInfo:
    connection = session.connection
    return ClientInfo(
        client_id=session.client_id,
        is_connected=session.is_connected,
        user_name=session.user_name,
        mount_point=session.mount_point,
        address=connection.peer if connection is not None else None,
        protocol_version=connection.version if connection is not None else None,
        keep_alive_s=connection.keep_alive_s if connection is not None else None,
        connected_s=session.connected_ms / 1000,
        session_expiry_s=session.session_expiry_s,
        subscriptions=session.topic_filters if with_subscriptions else (),
        subscription_count=session.subscription_count,
        in_flight=session.in_flight,
        awaiting_release=session.awaiting_release,
        queued=session.queued,
        queued_bytes=session.queued_bytes_held,
        dropped=session.dropped,
        tls=connection.tls if connection is not None else None,
        proxy=connection.proxy if connection is not None else None,
    )
