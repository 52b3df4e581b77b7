"""Other decoders, asked through one face; and our packets in their terms."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mqttcore.codec import Subscription, Will
from mqttcore.constants import PropertyId

HERE = Path(__file__).parent
NODE_MODULES = (
    Path(os.environ.get("MQTTCORE_INTEROP_BUILD", HERE.parent.parent / "build" / "interop")).absolute()
    / "node"
    / "node_modules"
)

Form = dict[str, Any]  # a packet in the terms of one codec


class Refused(Exception):
    """The codec does not take the bytes for a packet; its words."""


class Codec(ABC):
    """A decoder that we did not write, in a process of its own that answers lines; a context manager.

    The process reads lines `VERSION HEX` and writes a JSON object for each: `packet`, or `error` in its own words.
    """

    name: str
    versions: tuple[int, ...]
    command: tuple[str, ...]
    environment: dict[str, str] = {}  # noqa: RUF012 (read only)

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why it cannot be asked here, None when it can."""

    @abstractmethod
    def form_of(self, packet: Any, version: int) -> Form:
        """Return our packet in this codec's terms."""

    def form_of_theirs(self, packet: Form) -> Form:
        """Return what the process told of a packet, as `form_of` tells it."""
        return packet

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self.command,
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def decode(self, cases: list[tuple[int, bytes]]) -> list[Form | Refused]:
        """Decode whole packets of these versions."""
        assert self._process.stdin
        assert self._process.stdout
        answers: list[Form | Refused] = []
        for start in range(0, len(cases), 10):  # so few that neither pipe fills while both sides write
            part = cases[start : start + 10]
            self._process.stdin.write("".join(f"{version} {data.hex()}\n" for version, data in part))
            self._process.stdin.flush()
            for _ in part:
                line = self._process.stdout.readline()
                assert line, f"{self.name} ended at one of {[data.hex() for _, data in part]}"
                answer = json.loads(line)
                if "packet" in answer:
                    answers.append(self.form_of_theirs(answer["packet"]))
                else:
                    answers.append(Refused(answer.get("error", "not complete")))
        return answers


# --- mqtt5: Rust, from PyPI; MQTT 5 only


# attribute -> property and what stands there when the packet has none
MQTT5_PROPERTIES: dict[str, tuple[PropertyId, Any]] = {
    "session_expiry_interval": (PropertyId.SESSION_EXPIRY_INTERVAL, None),
    "authentication_method": (PropertyId.AUTHENTICATION_METHOD, None),
    "authentication_data": (PropertyId.AUTHENTICATION_DATA, None),
    "request_problem_info": (PropertyId.REQUEST_PROBLEM_INFORMATION, 1),
    "request_response_info": (PropertyId.REQUEST_RESPONSE_INFORMATION, 0),
    "receive_max": (PropertyId.RECEIVE_MAXIMUM, 65535),
    "topic_alias_max": (PropertyId.TOPIC_ALIAS_MAXIMUM, 0),
    "max_packet_size": (PropertyId.MAXIMUM_PACKET_SIZE, None),
    "assigned_client_id": (PropertyId.ASSIGNED_CLIENT_IDENTIFIER, None),
    "server_keep_alive": (PropertyId.SERVER_KEEP_ALIVE, None),
    "response_info": (PropertyId.RESPONSE_INFORMATION, None),
    "server_reference": (PropertyId.SERVER_REFERENCE, None),
    "reason_str": (PropertyId.REASON_STRING, None),
    "max_qos": (PropertyId.MAXIMUM_QOS, 2),
    "retain_available": (PropertyId.RETAIN_AVAILABLE, 1),
    "wildcard_subscription_available": (PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE, 1),
    "subscription_id_available": (PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE, 1),
    "shared_subscription_available": (PropertyId.SHARED_SUBSCRIPTION_AVAILABLE, 1),
    "payload_format_indicator": (PropertyId.PAYLOAD_FORMAT_INDICATOR, 0),
    "message_expiry_interval": (PropertyId.MESSAGE_EXPIRY_INTERVAL, None),
    "content_type": (PropertyId.CONTENT_TYPE, None),
    "response_topic": (PropertyId.RESPONSE_TOPIC, None),
    "correlation_data": (PropertyId.CORRELATION_DATA, None),
    "subscription_id": (PropertyId.SUBSCRIPTION_IDENTIFIER, None),
    "subscription_ids": (PropertyId.SUBSCRIPTION_IDENTIFIER, []),
    "topic_alias": (PropertyId.TOPIC_ALIAS, None),
    "will_delay_interval": (PropertyId.WILL_DELAY_INTERVAL, 0),
    "user_properties": (PropertyId.USER_PROPERTY, []),
}
MQTT5_FIELDS = {
    "username": "user_name",
    "keep_alive": "keep_alive_s",
    "duplicate": "dup",
    "topic_filters": "subscriptions",
    "patterns": "topic_filters",
    "pattern": "topic_filter",
    "max_qos": "qos",  # of a TopicFilter; that of CONNACK is a property
}
MQTT5_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "ConnectPacket": (
        "client_id", "username", "password", "clean_start", "will", "keep_alive", "session_expiry_interval",
        "authentication_method", "authentication_data", "request_problem_info", "request_response_info", "receive_max",
        "topic_alias_max", "max_packet_size", "user_properties",
    ),
    "Will": (
        "topic", "payload", "qos", "retain", "payload_format_indicator", "message_expiry_interval", "content_type",
        "response_topic", "correlation_data", "will_delay_interval", "user_properties",
    ),
    "ConnAckPacket": (
        "session_present", "reason_code", "session_expiry_interval", "assigned_client_id", "server_keep_alive",
        "authentication_method", "authentication_data", "response_info", "server_reference", "reason_str",
        "receive_max", "topic_alias_max", "max_qos", "retain_available", "max_packet_size",
        "wildcard_subscription_available", "subscription_id_available", "shared_subscription_available",
        "user_properties",
    ),
    "PublishPacket": (
        "topic", "payload", "qos", "retain", "packet_id", "duplicate", "payload_format_indicator",
        "message_expiry_interval", "content_type", "response_topic", "correlation_data", "subscription_ids",
        "topic_alias", "user_properties",
    ),
    "PubAckPacket": ("packet_id", "reason_code", "reason_str", "user_properties"),
    "PubRecPacket": ("packet_id", "reason_code", "reason_str", "user_properties"),
    "PubRelPacket": ("packet_id", "reason_code", "reason_str", "user_properties"),
    "PubCompPacket": ("packet_id", "reason_code", "reason_str", "user_properties"),
    "SubscribePacket": ("packet_id", "topic_filters", "subscription_id", "user_properties"),
    "TopicFilter": ("pattern", "max_qos", "no_local", "retain_as_published", "retain_handling"),
    "SubAckPacket": ("packet_id", "reason_codes", "reason_str", "user_properties"),
    "UnsubscribePacket": ("packet_id", "patterns", "user_properties"),
    "UnsubAckPacket": ("packet_id", "reason_codes", "reason_str", "user_properties"),
    "PingReqPacket": (),
    "PingRespPacket": (),
    "DisconnectPacket": ("reason_code", "session_expiry_interval", "server_reference", "reason_str", "user_properties"),
    "AuthPacket": ("reason_code", "authentication_method", "authentication_data", "reason_str", "user_properties"),
}  # fmt: skip


class Mqtt5(Codec):
    """The decoder of the package `mqtt5`."""

    name = "mqtt5"
    versions = (5,)
    command = (sys.executable, str(HERE / "drivers" / "mqtt5_packets.py"))
    environment = {"RUST_BACKTRACE": "0"}  # noqa: RUF012 (read only)

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("mqtt5") else "the package mqtt5 is not installed"

    def form_of(self, packet: Any, version: int) -> Form:
        return self._our_form(packet, f"{type(packet).__name__}Packet")

    def _our_form(self, thing: Any, kind: str) -> Form:
        form: Form = {"type": kind}
        for name in MQTT5_ATTRIBUTES[kind]:
            if name in MQTT5_PROPERTIES and not (kind == "TopicFilter" and name == "max_qos"):
                identifier, default = MQTT5_PROPERTIES[name]
                if kind == "ConnectPacket" and name == "session_expiry_interval":
                    default = 0
                value = thing.properties.get(identifier, default)
            else:
                value = getattr(thing, MQTT5_FIELDS.get(name, name))
            form[name] = self._our_value(value)
        if kind == "PublishPacket" and form["qos"] == 0:
            form["packet_id"] = None
        return form

    def _our_value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._our_value(item) for item in value]
        if isinstance(value, tuple):
            return list(value)
        if isinstance(value, bytes):
            return {"hex": value.hex()}
        if isinstance(value, Will):
            return self._our_form(value, "Will")
        if isinstance(value, Subscription):
            return self._our_form(value, "TopicFilter")
        return int(value) if isinstance(value, int) else value


# --- mqtt-packet: JavaScript, what MQTT.js and Aedes use; all versions


class MqttPacket(Codec):
    """The decoder of the npm package `mqtt-packet`."""

    name = "mqtt-packet"
    versions = (3, 4, 5)
    command = ("node", str(HERE / "drivers" / "mqtt_packet.js"))
    environment = {"NODE_PATH": str(NODE_MODULES)}  # noqa: RUF012 (read only)

    @classmethod
    def missing(cls) -> str | None:
        if shutil.which("node") is None:
            return "there is no node"
        if not (NODE_MODULES / "mqtt-packet").exists():
            return "mqtt-packet is not installed; tests/interop/setup.sh does it"
        return None

    def form_of_theirs(self, packet: Form) -> Form:
        kind = packet["cmd"]
        form: Form = {"type": kind, "properties": properties_of_js(packet.get("properties", {}))}
        wanted = JS_FIELDS[kind]
        form |= {name: packet.get(name) for name in wanted}
        if form.get("will"):
            will = form["will"]
            form["will"] = {**will, "properties": properties_of_js(will.get("properties", {}))}
        return form

    def form_of(self, packet: Any, version: int) -> Form:
        kind = type(packet).__name__.lower()
        form: Form = {"type": kind, "properties": js_properties(getattr(packet, "properties", {}))}
        for name in JS_FIELDS[kind]:
            form[name] = self._our_value(packet, name, version)
        return form

    def _our_value(self, packet: Any, name: str, version: int) -> Any:
        if name == "messageId":
            return packet.packet_id if getattr(packet, "qos", 1) else None
        if name == "will" and packet.will is not None:
            will = packet.will
            return {
                "topic": will.topic,
                "payload": {"hex": will.payload.hex()},
                "qos": will.qos,
                "retain": bool(will.retain),
                "properties": js_properties(will.properties),
            }
        if name == "subscriptions":
            return [self._our_subscription(subscription, version) for subscription in packet.subscriptions]
        if name == "granted":
            return list(packet.reason_codes) if packet.reason_codes or version == 5 else None
        if name == "reasonCode":
            return int(packet.reason_code) if version == 5 else None
        if name == "returnCode":
            return None if version == 5 else JS_RETURN_CODES[packet.reason_code]
        value = getattr(packet, JS_FIELDS[type(packet).__name__.lower()][name])
        if isinstance(value, bytes):
            return {"hex": value.hex()}
        if name in ("retain", "dup", "sessionPresent", "clean"):
            return bool(value)
        return value

    def _our_subscription(self, subscription: Subscription, version: int) -> Form:
        form: Form = {"topic": subscription.topic_filter, "qos": subscription.qos}
        if version == 5:
            form |= {
                "nl": subscription.no_local,
                "rap": subscription.retain_as_published,
                "rh": subscription.retain_handling,
            }
        return form


JS_FIELDS: dict[str, dict[str, str]] = {
    "connect": {
        "protocolId": "protocol_name", "protocolVersion": "protocol_version", "clean": "clean_start",
        "keepalive": "keep_alive_s", "clientId": "client_id", "will": "will", "username": "user_name",
        "password": "password",
    },
    "connack": {"sessionPresent": "session_present", "reasonCode": "", "returnCode": ""},
    "publish": {
        "retain": "retain", "qos": "qos", "dup": "dup", "topic": "topic", "payload": "payload", "messageId": "",
    },
    "puback": {"messageId": "", "reasonCode": ""},
    "pubrec": {"messageId": "", "reasonCode": ""},
    "pubrel": {"messageId": "", "reasonCode": ""},
    "pubcomp": {"messageId": "", "reasonCode": ""},
    "subscribe": {"messageId": "", "subscriptions": ""},
    "suback": {"messageId": "", "granted": ""},
    "unsubscribe": {"messageId": "", "unsubscriptions": "topic_filters"},
    "unsuback": {"messageId": "", "granted": ""},
    "pingreq": {},
    "pingresp": {},
    "disconnect": {"reasonCode": ""},
    "auth": {"reasonCode": ""},
}  # fmt: skip
JS_RETURN_CODES = {0x00: 0, 0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}
JS_PROPERTIES = {
    "payloadFormatIndicator": PropertyId.PAYLOAD_FORMAT_INDICATOR,
    "messageExpiryInterval": PropertyId.MESSAGE_EXPIRY_INTERVAL,
    "contentType": PropertyId.CONTENT_TYPE,
    "responseTopic": PropertyId.RESPONSE_TOPIC,
    "correlationData": PropertyId.CORRELATION_DATA,
    "subscriptionIdentifier": PropertyId.SUBSCRIPTION_IDENTIFIER,
    "sessionExpiryInterval": PropertyId.SESSION_EXPIRY_INTERVAL,
    "assignedClientIdentifier": PropertyId.ASSIGNED_CLIENT_IDENTIFIER,
    "serverKeepAlive": PropertyId.SERVER_KEEP_ALIVE,
    "authenticationMethod": PropertyId.AUTHENTICATION_METHOD,
    "authenticationData": PropertyId.AUTHENTICATION_DATA,
    "requestProblemInformation": PropertyId.REQUEST_PROBLEM_INFORMATION,
    "willDelayInterval": PropertyId.WILL_DELAY_INTERVAL,
    "requestResponseInformation": PropertyId.REQUEST_RESPONSE_INFORMATION,
    "responseInformation": PropertyId.RESPONSE_INFORMATION,
    "serverReference": PropertyId.SERVER_REFERENCE,
    "reasonString": PropertyId.REASON_STRING,
    "receiveMaximum": PropertyId.RECEIVE_MAXIMUM,
    "topicAliasMaximum": PropertyId.TOPIC_ALIAS_MAXIMUM,
    "topicAlias": PropertyId.TOPIC_ALIAS,
    "maximumQoS": PropertyId.MAXIMUM_QOS,
    "retainAvailable": PropertyId.RETAIN_AVAILABLE,
    "userProperties": PropertyId.USER_PROPERTY,
    "maximumPacketSize": PropertyId.MAXIMUM_PACKET_SIZE,
    "wildcardSubscriptionAvailable": PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE,
    "subscriptionIdentifiersAvailable": PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    "sharedSubscriptionAvailable": PropertyId.SHARED_SUBSCRIPTION_AVAILABLE,
}


def properties_of_js(properties: Form) -> dict[int, Any]:
    """Return mqtt-packet's properties by identifier; each value that can repeat as a sorted list."""
    found: dict[int, Any] = {}
    for name, value in properties.items():
        identifier = JS_PROPERTIES[name]
        if identifier == PropertyId.USER_PROPERTY:
            # the order between different names is not in its objects
            found[identifier] = sorted(
                [key, item or ""]  # null: it read past the end, which is a difference anyhow
                for key, items in value.items()
                for item in (items if isinstance(items, list) else [items])
            )
        elif identifier == PropertyId.SUBSCRIPTION_IDENTIFIER:
            found[identifier] = sorted(value) if isinstance(value, list) else [value]
        else:
            found[identifier] = int(value) if isinstance(value, bool) else value
    return found


def js_properties(properties: dict[int, Any]) -> dict[int, Any]:
    """Return our properties in the form of `properties_of_js`."""
    found: dict[int, Any] = {}
    for identifier, value in properties.items():
        if identifier == PropertyId.USER_PROPERTY:
            found[identifier] = sorted([key, item] for key, item in value)
        elif identifier == PropertyId.SUBSCRIPTION_IDENTIFIER:
            found[identifier] = sorted(value) if isinstance(value, list) else [value]
        elif isinstance(value, bytes):
            found[identifier] = {"hex": value.hex()}
        else:
            found[identifier] = value
    return found


CODECS: tuple[type[Codec], ...] = (Mqtt5, MqttPacket)
