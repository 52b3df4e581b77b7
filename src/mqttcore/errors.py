"""The exception tree.

MqttCoreError
 ├── ConfigError             a configuration that cannot be used: path and reason
 ├── PluginError             a plugin that failed or cannot be loaded: plugin and hook
 ├── NotPossible             what was asked for does not go with how things are
 ├── StoreError              a store that could not keep or give what it was asked for
 ├── ClientError             our client could not do what it was asked for
 │    ├── ConnectionRefused  the server answered CONNECT with a code other than success
 │    └── ConnectionLost     the connection ended before the client closed it
 └── ProtocolError           a peer broke the standard: reason code, clause, text
      ├── MalformedPacket    bytes that are no packet (0x81)
      ├── PacketTooLarge     a packet over the size that was agreed (0x95)
      └── QuotaExceeded      a limit of ours was reached (0x97)
"""

from typing import Literal

from mqttcore.constants import ReasonCode

__all__ = [
    "ClientError",
    "ConfigError",
    "ConnectionLost",
    "ConnectionRefused",
    "MalformedPacket",
    "MqttCoreError",
    "NotPossible",
    "PacketTooLarge",
    "PluginError",
    "ProtocolError",
    "QuotaExceeded",
    "StoreError",
    "StoreErrorKind",
]

StoreErrorKind = Literal["full", "io", "corrupt", "version", "closed"]


class MqttCoreError(Exception):
    """Base of every error that mqttcore raises on purpose."""


class ConfigError(MqttCoreError):
    """A configuration that cannot be used.

    path: where it stands, like `listeners[0].port`; empty for the whole document.
    source: the file's name, or None for a configuration that came as objects.
    """

    def __init__(self, path: str, reason: str, source: str | None = None) -> None:
        self.path = path
        self.reason = reason
        self.source = source
        super().__init__(": ".join(part for part in (source, path, reason) if part))


class PluginError(MqttCoreError):
    """A plugin that failed or cannot be loaded; hook is empty when no hook was being called."""

    def __init__(self, plugin: str, hook: str, reason: str) -> None:
        self.plugin = plugin
        self.hook = hook
        self.reason = reason
        super().__init__(f"plugin {plugin}{f', hook {hook}' if hook else ''}: {reason}")


class NotPossible(MqttCoreError):
    """What was asked for does not go with how things are; nothing was changed."""


class StoreError(MqttCoreError):
    """A store that could not keep or give what it was asked for.

    kind: `full` (no space, a quota), `io` (reading or writing failed, or may have), `corrupt` (what is there is no data
    of ours, or damaged), `version` (data of a newer version), `closed` (closed, or given up after an earlier failure).
    """

    def __init__(self, kind: StoreErrorKind, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(f"store: {reason} ({kind})")


class ClientError(MqttCoreError):
    """Our client could not do what it was asked for."""


class ConnectionRefused(ClientError):
    """The server answered CONNECT with a code other than success.

    reason_code: MQTT 5's, in every version. text: its name and the server's Reason String.
    """

    def __init__(self, reason_code: int, text: str) -> None:
        self.reason_code = reason_code
        self.text = text
        super().__init__(f"connection refused: {text} ({reason_code})")


class ConnectionLost(ClientError):
    """The connection ended before the client closed it.

    reason_code: that of the server's DISCONNECT, or None when it went without one.
    """

    def __init__(self, text: str, reason_code: int | None = None) -> None:
        self.reason_code = reason_code
        super().__init__(f"connection lost: {text}")


class ProtocolError(MqttCoreError):
    """A peer broke the standard; carries what is needed to answer it.

    reason_code: the MQTT 5 code. clause: the statement's label like `MQTT-3.1.0-2`, or a section like `§3.1.2.11`.
    protocol_version: for a fault in a CONNECT, its Protocol Version byte as far as that was read; else None.
    maximum_packet_size: for a fault in a CONNECT, bytes that the answer may take; None when it does not say.
    """

    protocol_version: int | None = None
    maximum_packet_size: int | None = None

    def __init__(self, reason_code: int, clause: str, text: str) -> None:
        self.reason_code = ReasonCode(reason_code)
        self.clause = clause
        self.text = text
        super().__init__(f"{text} [{clause}] (reason code 0x{int(reason_code):02X})")


class MalformedPacket(ProtocolError):
    """Bytes that are no packet of the connection's version (reason code 0x81)."""


class PacketTooLarge(ProtocolError):
    """A packet over the size that was agreed (reason code 0x95)."""


class QuotaExceeded(ProtocolError):
    """A limit of the broker was reached (reason code 0x97)."""
