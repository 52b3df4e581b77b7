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
    NotPossible,
    PacketTooLarge,
    PluginError,
    ProtocolError,
    QuotaExceeded,
    StoreError,
)

if TYPE_CHECKING:
    from mqttcore import trace_entries
    from mqttcore.batches import BatchTap
    from mqttcore.broker import Broker
    from mqttcore.client import Client, open_client
    from mqttcore.client_services import ClientInfo
    from mqttcore.codec import Auth, Connect, Will, require_topic_filter, require_topic_name
    from mqttcore.config import Authorization, Config, Flapping, Limits, Listener, load
    from mqttcore.engine.client_view import ClientView
    from mqttcore.engine.handler import Handler
    from mqttcore.engine.message import Message
    from mqttcore.events import (
        AlarmChanged,
        ClientAuthenticated,
        ClientConnected,
        ClientDisconnected,
        ConnectionClosed,
        ConnectRefused,
        Event,
        MessageDropped,
        PluginFailed,
        SessionEnded,
        Subscribed,
        Unsubscribed,
    )
    from mqttcore.handlers import CONSUMED, Consumed, PublishChange, Recipients, TopicHandler
    from mqttcore.hookspecs import hookimpl
    from mqttcore.identity import Action, Challenge, Identity, Permission, Quotas, Refusal
    from mqttcore.inspection import FilterInfo, InFlightMessage, QueuedMessage
    from mqttcore.listening import ListenerInfo
    from mqttcore.net.admission import address_key
    from mqttcore.observers import EventStream
    from mqttcore.permission_rules import parse_permissions
    from mqttcore.plugins.state import PluginState
    from mqttcore.private_file import read_private_file, write_private_file
    from mqttcore.repeating import RepeatingCall
    from mqttcore.sections import Section
    from mqttcore.services import SubscriptionInfo
    from mqttcore.settings import Secret
    from mqttcore.sinks import EventRecord, MessageRecord, Sink, SinkConfig, SinkRecord, SinkRejected, as_json
    from mqttcore.store import records
    from mqttcore.store.contract import SessionStore, StoreAlarm, StoreBatch, StoreInfo
    from mqttcore.subscription import MessageStream
    from mqttcore.tracing import Trace, Traces

__all__ = [
    "CONSUMED",
    "Action",
    "AlarmChanged",
    "Auth",
    "Authorization",
    "BatchTap",
    "Broker",
    "Challenge",
    "Client",
    "ClientAuthenticated",
    "ClientConnected",
    "ClientDisconnected",
    "ClientError",
    "ClientInfo",
    "ClientView",
    "Config",
    "ConfigError",
    "Connect",
    "ConnectRefused",
    "ConnectReturnCode",
    "ConnectionClosed",
    "ConnectionLost",
    "ConnectionRefused",
    "Consumed",
    "Event",
    "EventRecord",
    "EventStream",
    "FilterInfo",
    "Flapping",
    "Handler",
    "Identity",
    "InFlightMessage",
    "Limits",
    "Listener",
    "ListenerInfo",
    "MalformedPacket",
    "Message",
    "MessageDropped",
    "MessageRecord",
    "MessageStream",
    "MqttCoreError",
    "NotPossible",
    "PacketTooLarge",
    "PacketType",
    "Permission",
    "PluginError",
    "PluginFailed",
    "PluginState",
    "PropertyId",
    "ProtocolError",
    "ProtocolVersion",
    "PublishChange",
    "QoS",
    "QueuedMessage",
    "QuotaExceeded",
    "Quotas",
    "ReasonCode",
    "Recipients",
    "Refusal",
    "RepeatingCall",
    "RetainHandling",
    "Secret",
    "Section",
    "SessionEnded",
    "SessionStore",
    "Sink",
    "SinkConfig",
    "SinkRecord",
    "SinkRejected",
    "StoreAlarm",
    "StoreBatch",
    "StoreError",
    "StoreInfo",
    "Subscribed",
    "SubscriptionInfo",
    "TopicHandler",
    "Trace",
    "Traces",
    "Unsubscribed",
    "Will",
    "__version__",
    "address_key",
    "as_json",
    "hookimpl",
    "load",
    "open_client",
    "parse_permissions",
    "read_private_file",
    "records",
    "require_topic_filter",
    "require_topic_name",
    "trace_entries",
    "write_private_file",
]

# Imported when they are first asked for: a tool that wants the codec or the client must not pay for the broker.
_PLACES = {
    "Action": "mqttcore.identity",
    "AlarmChanged": "mqttcore.events",
    "Auth": "mqttcore.codec",
    "Authorization": "mqttcore.config",
    "BatchTap": "mqttcore.batches",
    "Broker": "mqttcore.broker",
    "CONSUMED": "mqttcore.handlers",
    "Challenge": "mqttcore.identity",
    "Client": "mqttcore.client",
    "ClientAuthenticated": "mqttcore.events",
    "ClientConnected": "mqttcore.events",
    "ClientDisconnected": "mqttcore.events",
    "ClientInfo": "mqttcore.client_services",
    "ClientView": "mqttcore.engine.client_view",
    "Config": "mqttcore.config",
    "Connect": "mqttcore.codec",
    "ConnectRefused": "mqttcore.events",
    "ConnectionClosed": "mqttcore.events",
    "Consumed": "mqttcore.handlers",
    "Event": "mqttcore.events",
    "EventRecord": "mqttcore.sinks",
    "EventStream": "mqttcore.observers",
    "FilterInfo": "mqttcore.inspection",
    "Flapping": "mqttcore.config",
    "Handler": "mqttcore.engine.handler",
    "Identity": "mqttcore.identity",
    "InFlightMessage": "mqttcore.inspection",
    "Limits": "mqttcore.config",
    "Listener": "mqttcore.config",
    "ListenerInfo": "mqttcore.listening",
    "Message": "mqttcore.engine.message",
    "MessageDropped": "mqttcore.events",
    "MessageRecord": "mqttcore.sinks",
    "MessageStream": "mqttcore.subscription",
    "Permission": "mqttcore.identity",
    "PluginFailed": "mqttcore.events",
    "PluginState": "mqttcore.plugins.state",
    "PublishChange": "mqttcore.handlers",
    "QueuedMessage": "mqttcore.inspection",
    "Quotas": "mqttcore.identity",
    "Recipients": "mqttcore.handlers",
    "Refusal": "mqttcore.identity",
    "RepeatingCall": "mqttcore.repeating",
    "Secret": "mqttcore.settings",
    "Section": "mqttcore.sections",
    "SessionEnded": "mqttcore.events",
    "SessionStore": "mqttcore.store.contract",
    "Sink": "mqttcore.sinks",
    "SinkConfig": "mqttcore.sinks",
    "SinkRecord": "mqttcore.sinks",
    "SinkRejected": "mqttcore.sinks",
    "StoreAlarm": "mqttcore.store.contract",
    "StoreBatch": "mqttcore.store.contract",
    "StoreInfo": "mqttcore.store.contract",
    "Subscribed": "mqttcore.events",
    "SubscriptionInfo": "mqttcore.services",
    "TopicHandler": "mqttcore.handlers",
    "Trace": "mqttcore.tracing",
    "Traces": "mqttcore.tracing",
    "Unsubscribed": "mqttcore.events",
    "Will": "mqttcore.codec",
    "address_key": "mqttcore.net.admission",
    "as_json": "mqttcore.sinks",
    "hookimpl": "mqttcore.hookspecs",
    "load": "mqttcore.config",
    "open_client": "mqttcore.client",
    "parse_permissions": "mqttcore.permission_rules",
    "read_private_file": "mqttcore.private_file",
    "records": "mqttcore.store",
    "require_topic_filter": "mqttcore.codec",
    "require_topic_name": "mqttcore.codec",
    "trace_entries": "mqttcore.trace_entries",
    "write_private_file": "mqttcore.private_file",
}


def __getattr__(name: str) -> Any:
    """Return a public name that is imported late."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_PLACES[name])
    value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
