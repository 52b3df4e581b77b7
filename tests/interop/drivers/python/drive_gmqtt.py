"""Driver for gmqtt."""

from __future__ import annotations

import asyncio
import logging
import ssl
from importlib.metadata import version
from typing import Any

import gmqtt
from lines import Fields, Refused, emit, serve_async

DEADLINE_S = 60
NEVER = -2  # gmqtt: -1 is without end, and 0 is one attempt
NAMES = {
    "session_expiry_s": "session_expiry_interval",
    "receive_maximum": "receive_maximum",
    "topic_alias_maximum": "topic_alias_maximum",
    "user_properties": "user_property",
    "content_type": "content_type",
    "correlation_data": "correlation_data",
    "response_topic": "response_topic",
    "message_expiry_s": "message_expiry_interval",
    "payload_format": "payload_format_id",
    "topic_alias": "topic_alias",
    "will_delay_s": "will_delay_interval",
    "subscription_ids": "subscription_identifier",
    "assigned_client_id": "assigned_client_identifier",
}
LISTS = {"user_properties", "subscription_ids"}


def to_gmqtt(fields: Fields) -> Fields:
    found = {NAMES[name]: value for name, value in fields.items()}
    if "correlation_data" in found:
        found["correlation_data"] = bytes.fromhex(found["correlation_data"])
    if "user_property" in found:
        found["user_property"] = [tuple(pair) for pair in found["user_property"]]
    return found


def from_gmqtt(fields: Fields) -> Fields:
    found = {}
    for name, theirs in NAMES.items():
        if theirs in fields:
            value = fields[theirs]
            found[name] = value if name in LISTS or not isinstance(value, list) else value[0]
    if "correlation_data" in found:
        found["correlation_data"] = bytes(found["correlation_data"]).hex()
    return found


class Connection:
    def __init__(self, command: Fields) -> None:
        self.name = command["name"]
        self.command = command
        self.connack: Fields = {}
        self.closed = asyncio.Event()
        self.acks: dict[int, asyncio.Future[list[int]]] = {}
        will = command["will"]
        message = None
        if will is not None:
            message = gmqtt.Message(
                will["topic"],
                bytes.fromhex(will["payload"]),
                will["qos"],
                will["retain"],
                **to_gmqtt(will["properties"]),
            )
        self.client = gmqtt.Client(
            command["client_id"],
            clean_session=command["clean_start"],
            will_message=message,
            **to_gmqtt(command["properties"]),
        )
        self.client.set_config({"reconnect_retries": NEVER})
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.on_disconnect = self.on_disconnect
        self.client.on_subscribe = lambda client, mid, codes, properties: self.on_ack(mid, codes)
        self.client.on_unsubscribe = lambda client, mid, codes: self.on_ack(mid, codes)

    async def open(self) -> Fields:
        command = self.command
        tls = command["tls"]
        context: ssl.SSLContext | bool = False
        if tls is not None:
            context = ssl.create_default_context(cafile=tls["ca"])
            if "certificate" in tls:
                context.load_cert_chain(tls["certificate"], tls["key"])
        connecting = self.client.connect(
            command["host"],
            command["port"],
            ssl=context,
            keepalive=command["keep_alive_s"],
            version=command["version"],
        )
        opening, ending = asyncio.ensure_future(connecting), asyncio.ensure_future(self.closed.wait())
        try:
            await asyncio.wait({opening, ending}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
            # the end that follows a refusal at once may be told before the refusal
            if not opening.done() and not self.client._connack_received.is_set():
                raise Refused("no CONNACK")
            await opening
        except gmqtt.mqtt.handler.MQTTConnectError as error:
            raise Refused(str(error), error._code) from error
        finally:
            opening.cancel()
            ending.cancel()
        return self.connack

    def on_connect(self, client: Any, flags: int, code: int, properties: Fields) -> None:
        self.connack = {
            "session_present": bool(flags),
            "reason_code": code,
            "properties": from_gmqtt(properties),
        }

    def on_message(self, client: Any, topic: str, payload: bytes, qos: int, properties: Fields) -> int:
        emit(
            event="message",
            name=self.name,
            topic=topic,
            payload=bytes(payload).hex(),
            qos=qos,
            retain=bool(properties["retain"]),
            properties=from_gmqtt(properties),
        )
        return 0

    def on_disconnect(self, client: Any, packet: bytes | None, error: Exception | None = None) -> None:
        if not self.closed.is_set():
            self.closed.set()
            emit(event="closed", name=self.name, reason_code=packet[0] if packet else None)

    def on_ack(self, mid: int, codes: Any) -> None:
        self.acks.pop(mid).set_result(list(codes))

    def ack(self, mid: int) -> asyncio.Future[list[int]]:
        self.acks[mid] = asyncio.get_running_loop().create_future()
        return self.acks[mid]

    async def subscribe(self, command: Fields) -> Fields:
        subscriptions = [
            gmqtt.Subscription(
                one["filter"],
                qos=one["qos"],
                no_local=one["no_local"],
                retain_as_published=one["retain_as_published"],
                retain_handling_options=one["retain_handling"],
                subscription_identifier=command["subscription_id"],
            )
            for one in command["filters"]
        ]
        mid = self.client.subscribe(subscriptions)
        return {"reason_codes": await asyncio.wait_for(self.ack(mid), DEADLINE_S)}

    async def unsubscribe(self, command: Fields) -> None:
        await asyncio.wait_for(self.ack(self.client.unsubscribe(command["filters"])), DEADLINE_S)

    async def publish(self, command: Fields) -> None:
        properties = to_gmqtt(command["properties"])
        self.client.publish(
            command["topic"], bytes.fromhex(command["payload"]), command["qos"], command["retain"], **properties
        )
        # gmqtt has no handle for one message: its store of unacknowledged ones tells
        await asyncio.wait_for(self.client._persistent_storage.wait_empty(), DEADLINE_S)

    async def disconnect(self, command: Fields) -> None:
        await self.client.disconnect(reason_code=command["reason_code"])

    async def drop(self, command: Fields) -> None:
        self.client._is_active = False


CONNECTIONS: dict[str, Connection] = {}


async def handle(command: Fields) -> Fields | None:
    name = command["name"]
    match command["do"]:
        case "connect":
            connection = Connection(command)
            answer = await connection.open()
            CONNECTIONS[name] = connection
            return answer
        case "disconnect" | "drop" as verb:
            await getattr(CONNECTIONS.pop(name), verb)(command)
            return None
        case verb:
            return await getattr(CONNECTIONS[name], verb)(command)


logging.basicConfig(level=logging.ERROR)
asyncio.run(serve_async(f"gmqtt {version('gmqtt')}", handle))
