"""Driver for aiomqtt."""

from __future__ import annotations

import asyncio
import contextlib
import os
from importlib.metadata import version
from typing import Any

import aiomqtt
from lines import Fields, Refused, emit, serve_async
from paho.mqtt.subscribeoptions import SubscribeOptions
from paho_properties import PacketTypes, from_paho, to_paho

DEADLINE_S = 60


class Connection:
    def __init__(self, command: Fields) -> None:
        self.name = command["name"]
        self.version = command["version"]
        will = command["will"]
        options: dict[str, Any] = {}
        if will is not None:
            properties = to_paho(PacketTypes.WILLMESSAGE, will["properties"]) if self.version == 5 else None
            options["will"] = aiomqtt.Will(
                will["topic"], bytes.fromhex(will["payload"]), will["qos"], will["retain"], properties
            )
        if self.version == 5:
            options["clean_start"] = command["clean_start"]
            options["properties"] = to_paho(PacketTypes.CONNECT, command["properties"])
        else:
            options["clean_session"] = command["clean_start"]
        if path := os.environ.get("MQTTCORE_INTEROP_WEBSOCKET"):
            options |= {"transport": "websockets", "websocket_path": path}
        tls = command["tls"]
        if tls is not None:
            options["tls_params"] = aiomqtt.TLSParameters(tls["ca"], tls.get("certificate"), tls.get("key"))
        self.client = aiomqtt.Client(
            command["host"],
            command["port"],
            identifier=command["client_id"],
            keepalive=command["keep_alive_s"],
            protocol=aiomqtt.ProtocolVersion(self.version),
            timeout=DEADLINE_S,
            **options,
        )

    async def open(self) -> Fields:
        # Of a connection that ends before CONNACK it would only say that it timed out.
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        theirs = self.client._client.on_socket_close

        def on_socket_close(*given: Any) -> None:
            theirs(*given)
            loop.call_soon_threadsafe(lambda: closed.done() or closed.set_result(None))

        self.client._client.on_socket_close = on_socket_close
        opening = asyncio.ensure_future(self.client.__aenter__())
        await asyncio.wait({opening, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
            raise Refused("the connection ended before CONNACK")
        try:
            await opening
        except aiomqtt.MqttConnectError as error:
            raise Refused(str(error), getattr(error.rc, "value", error.rc)) from error
        self.reader = asyncio.create_task(self.read())
        return {"reason_code": 0}

    async def read(self) -> None:
        try:
            async for message in self.client.messages:
                emit(
                    event="message",
                    name=self.name,
                    topic=message.topic.value,
                    payload=message.payload.hex(),
                    qos=message.qos,
                    retain=message.retain,
                    properties=from_paho(message.properties),
                )
        except aiomqtt.MqttError:
            emit(event="closed", name=self.name, reason_code=None)

    async def subscribe(self, command: Fields) -> Fields:
        filters: Any = [(one["filter"], one["qos"]) for one in command["filters"]]
        properties = None
        if self.version == 5:
            filters = [
                (
                    one["filter"],
                    SubscribeOptions(one["qos"], one["no_local"], one["retain_as_published"], one["retain_handling"]),
                )
                for one in command["filters"]
            ]
            if command["subscription_id"]:
                properties = to_paho(PacketTypes.SUBSCRIBE, {"subscription_ids": command["subscription_id"]})
        codes = await self.client.subscribe(filters, properties=properties)
        return {"reason_codes": [getattr(code, "value", code) for code in codes]}

    async def unsubscribe(self, command: Fields) -> None:
        await self.client.unsubscribe(command["filters"])

    async def publish(self, command: Fields) -> None:
        properties = to_paho(PacketTypes.PUBLISH, command["properties"]) if self.version == 5 else None
        await self.client.publish(
            command["topic"],
            bytes.fromhex(command["payload"]),
            command["qos"],
            command["retain"],
            properties=properties,
        )

    async def disconnect(self, command: Fields) -> None:
        self.reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.reader
        await self.client.__aexit__(None, None, None)

    async def drop(self, command: Fields) -> None:
        await self.reader
        with contextlib.suppress(aiomqtt.MqttError):
            await self.client.__aexit__(None, None, None)


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


asyncio.run(serve_async(f"aiomqtt {version('aiomqtt')}", handle))
