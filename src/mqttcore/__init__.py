"""mqttcore: an MQTT 3.1, 3.1.1 and 5.0 broker to embed in Python applications."""

from typing import TYPE_CHECKING, Any

from mqttcore._version import __version__
from mqttcore.constants import (
    ConnectReturnCode,
    PacketType,
    PropertyId,
    ProtocolVersion,
    QoS,
    ReasonCode,
    RetainHandling,
)
from mqttcore.errors import (
    ClientError,
    ConfigError,
    ConnectionLost,
    ConnectionRefused,
    MalformedPacket,
    MqttCoreError,
    PacketTooLarge,
    PluginError,
    ProtocolError,
    QuotaExceeded,
    StoreError,
)

if TYPE_CHECKING:
    from mqttcore.broker import Broker, ClientInfo
    from mqttcore.client import Client, open_client
    from mqttcore.config import Config, Limits, Listener, load
    from mqttcore.engine.message import Message
    from mqttcore.subscription import MessageStream

__all__ = [
    "Broker",
    "Client",
    "ClientError",
    "ClientInfo",
    "Config",
    "ConfigError",
    "ConnectReturnCode",
    "ConnectionLost",
    "ConnectionRefused",
    "Limits",
    "Listener",
    "MalformedPacket",
    "Message",
    "MessageStream",
    "MqttCoreError",
    "PacketTooLarge",
    "PacketType",
    "PluginError",
    "PropertyId",
    "ProtocolError",
    "ProtocolVersion",
    "QoS",
    "QuotaExceeded",
    "ReasonCode",
    "RetainHandling",
    "StoreError",
    "__version__",
    "load",
    "open_client",
]

# Imported when they are first asked for: a tool that wants the codec or the client must not pay for the broker.
_PLACES = {
    "Broker": "mqttcore.broker",
    "Client": "mqttcore.client",
    "ClientInfo": "mqttcore.broker",
    "Config": "mqttcore.config",
    "Limits": "mqttcore.config",
    "Listener": "mqttcore.config",
    "Message": "mqttcore.engine.message",
    "MessageStream": "mqttcore.subscription",
    "load": "mqttcore.config",
    "open_client": "mqttcore.client",
}


def __getattr__(name: str) -> Any:
    """Return a public name that is imported late."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
