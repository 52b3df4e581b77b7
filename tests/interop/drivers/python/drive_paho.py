"""Driver for paho-mqtt; the same file runs 1.x and 2.x, which differ in their callbacks."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from concurrent.futures import Future
from typing import Any

import paho.mqtt
import paho.mqtt.client as mqtt
from lines import Fields, Refused, emit, serve
from paho.mqtt.subscribeoptions import SubscribeOptions
from paho_properties import PacketTypes, from_paho, to_paho

IS_V2 = hasattr(mqtt, "CallbackAPIVersion")
DEADLINE_S = 60


def number_of(code: Any) -> int:
    return int(getattr(code, "value", code))


class Connection:
    def __init__(self, command: Fields) -> None:
        self.name = command["name"]
        self.version = command["version"]
        self.connack: Future[Fields] = Future()
        self.closed = threading.Event()
        self.acks: dict[int, Future[list[int]]] = {}
        self.lock = threading.Lock()
        path = os.environ.get("MQTTCORE_INTEROP_WEBSOCKET")
        common = {
            "transport": "websockets" if path else "tcp",
            "client_id": command["client_id"],
            "protocol": self.version,
            "reconnect_on_failure": False,
        }
        if self.version < 5:
            common["clean_session"] = command["clean_start"]
        if IS_V2:
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, **common)
            client.on_connect = lambda c, u, flags, code, props: self.on_connack(flags.session_present, code, props)
            client.on_disconnect = lambda c, u, flags, code, props: self.on_close(code)
            client.on_publish = lambda c, u, mid, code, props: self.on_ack(mid, [code])
            client.on_unsubscribe = lambda c, u, mid, codes, props: self.on_ack(mid, codes)
        else:
            client = mqtt.Client(**common)
            client.on_connect = lambda c, u, flags, code, props=None: self.on_connack(
                bool(flags["session present"]), code, props
            )
            client.on_disconnect = lambda c, u, code, props=None: self.on_close(code)
            client.on_publish = lambda c, u, mid: self.on_ack(mid, [])
            client.on_unsubscribe = lambda c, u, mid, *rest: self.on_ack(mid, [])
        client.on_subscribe = lambda c, u, mid, codes, props=None: self.on_ack(mid, codes)
        client.on_message = self.on_message
        self.client = client
        if path:
            client.ws_set_options(path)
        will = command["will"]
        if will is not None:
            extra = {"properties": to_paho(PacketTypes.WILLMESSAGE, will["properties"])} if self.version == 5 else {}
            client.will_set(will["topic"], bytes.fromhex(will["payload"]), will["qos"], will["retain"], **extra)
        tls = command["tls"]
        if tls is not None:
            client.tls_set(tls["ca"], tls.get("certificate"), tls.get("key"))
        how: dict[str, Any] = {}
        if self.version == 5:
            how["clean_start"] = command["clean_start"]
            how["properties"] = to_paho(PacketTypes.CONNECT, command["properties"])
        client.connect(command["host"], command["port"], command["keep_alive_s"], **how)
        client.loop_start()

    def opened(self) -> Fields:
        """Wait for CONNACK; the thread of paho 1 dies of a TLS alert without a word to anybody."""
        until = time.monotonic() + DEADLINE_S
        while self.client._thread.is_alive() and time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                return self.connack.result(0.2)
        return self.connack.result(0)

    def on_connack(self, session_present: bool, code: Any, properties: Any) -> None:
        if self.connack.done():
            return
        if number_of(code):
            self.connack.set_exception(Refused(str(code), number_of(code)))
        else:
            self.connack.set_result(
                {"session_present": session_present, "reason_code": 0, "properties": from_paho(properties)}
            )

    def on_close(self, code: Any) -> None:
        self.closed.set()
        if not self.connack.done():
            self.connack.set_exception(Refused(f"the connection ended before CONNACK: {code}"))
        emit(event="closed", name=self.name, reason_code=number_of(code))

    def ack(self, mid: int) -> Future[list[int]]:
        with self.lock:  # the acknowledgement may come before the call that sent the packet returns
            return self.acks.setdefault(mid, Future())

    def on_ack(self, mid: int, codes: Any) -> None:
        codes = codes if isinstance(codes, (list, tuple)) else [codes]
        self.ack(mid).set_result([number_of(code) for code in codes])

    def wait_ack(self, mid: int) -> list[int]:
        codes = self.ack(mid).result(DEADLINE_S)
        del self.acks[mid]
        return codes

    def on_message(self, client: Any, userdata: Any, message: Any) -> None:
        emit(
            event="message",
            name=self.name,
            topic=message.topic,
            payload=message.payload.hex(),
            qos=message.qos,
            retain=bool(message.retain),
            properties=from_paho(getattr(message, "properties", None)),
        )

    def subscribe(self, command: Fields) -> Fields:
        if self.version == 5:
            filters = [
                (
                    one["filter"],
                    SubscribeOptions(one["qos"], one["no_local"], one["retain_as_published"], one["retain_handling"]),
                )
                for one in command["filters"]
            ]
            extra = {}
            if command["subscription_id"]:
                extra["properties"] = to_paho(PacketTypes.SUBSCRIBE, {"subscription_ids": command["subscription_id"]})
            result, mid = self.client.subscribe(filters, **extra)
        else:
            result, mid = self.client.subscribe([(one["filter"], one["qos"]) for one in command["filters"]])
        if result:
            raise Refused(mqtt.error_string(result))
        return {"reason_codes": self.wait_ack(mid)}

    def unsubscribe(self, command: Fields) -> None:
        result, mid = self.client.unsubscribe(command["filters"])
        if result:
            raise Refused(mqtt.error_string(result))
        self.wait_ack(mid)

    def publish(self, command: Fields) -> Fields:
        extra = {}
        if self.version == 5:
            extra["properties"] = to_paho(PacketTypes.PUBLISH, command["properties"])
        info = self.client.publish(
            command["topic"], bytes.fromhex(command["payload"]), command["qos"], command["retain"], **extra
        )
        if info.rc:
            raise Refused(mqtt.error_string(info.rc))
        codes = self.wait_ack(info.mid)
        return {"reason_code": codes[0] if codes else None}

    def disconnect(self, command: Fields) -> None:
        if self.version == 5 and command["reason_code"]:
            reason = mqtt.ReasonCodes if not IS_V2 else mqtt.ReasonCode
            self.client.disconnect(reason(PacketTypes.DISCONNECT, identifier=command["reason_code"]))
        else:
            self.client.disconnect()
        self.closed.wait(DEADLINE_S)
        self.client.loop_stop()

    def drop(self, command: Fields) -> None:
        self.client.loop_stop()


CONNECTIONS: dict[str, Connection] = {}


def handle(command: Fields) -> Fields | None:
    name = command["name"]
    match command["do"]:
        case "connect":
            connection = Connection(command)
            answer = connection.opened()
            CONNECTIONS[name] = connection
            return answer
        case "disconnect" | "drop" as verb:
            getattr(CONNECTIONS.pop(name), verb)(command)
            return None
        case verb:
            return getattr(CONNECTIONS[name], verb)(command)


serve(f"paho-mqtt {paho.mqtt.__version__}", handle)
