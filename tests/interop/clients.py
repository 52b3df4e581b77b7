"""The clients that we did not write: how each is run, what it needs, what it can do and tell."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
BUILD = Path(os.environ.get("MQTTCORE_INTEROP_BUILD", HERE.parent.parent / "build" / "interop")).absolute()

# Capabilities. A behaviour that a client cannot show is not generated for it.
SESSION_PRESENT = "tells Session Present"
UNSUBSCRIBE = "can unsubscribe while it is connected"
PUBLISH_REASON = "tells the reason code of PUBACK"
SUBSCRIBE_OPTIONS = "sends no_local, retain_as_published, retain_handling"
SUBSCRIPTION_ID = "sends and tells subscription identifiers"
ASSIGNED_CLIENT_ID = "tells the client id that the broker chose"
TOPIC_ALIAS = "publishes with a topic alias that the caller chose"
TAKES_ALIASES = "resolves the broker's topic aliases"
DISCONNECT_REASON = "sends a reason code with DISCONNECT"
SERVER_REASON = "tells the reason code of the broker's DISCONNECT"
CLOSED = "tells the end of a connection"
ONE_CONNECTION = "does everything in one network connection"
WILL_DISCARD = "disconnects without publishing its will"
WILL_PROPERTIES = "sends the properties of its will"
TLS_CLOSES = "closes its socket after DISCONNECT over TLS"
ALL = frozenset(
    {
        TLS_CLOSES,
        SESSION_PRESENT,
        UNSUBSCRIBE,
        PUBLISH_REASON,
        SUBSCRIBE_OPTIONS,
        SUBSCRIPTION_ID,
        ASSIGNED_CLIENT_ID,
        TOPIC_ALIAS,
        TAKES_ALIASES,
        DISCONNECT_REASON,
        SERVER_REASON,
        CLOSED,
        ONE_CONNECTION,
        WILL_DISCARD,
        WILL_PROPERTIES,
    }
)


@dataclass(frozen=True)
class Client:
    """versions: protocol levels (3 is MQTT 3.1). needs: programs, files and `module:NAME`s, all to be there."""

    name: str
    command: tuple[str, ...]
    versions: tuple[int, ...]
    can: frozenset[str]
    needs: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    is_websocket: bool = False

    def missing(self) -> str | None:
        """Return why this client cannot run here, None when it can."""
        for need in self.needs:
            kind, _, name = need.rpartition(":")
            if kind == "module":
                is_there = importlib.util.find_spec(name) is not None
            else:
                is_there = Path(need).exists() if need.startswith("/") else shutil.which(need) is not None
            if not is_there:
                return f"{self.name} needs {need}; see tests/interop/setup.sh"
        return None

    def environment(self) -> dict[str, str]:
        return os.environ | dict(self.variables)


def _python(
    name: str, file: str, versions: tuple[int, ...], cannot: set[str], needs: tuple[str, ...], path: str = ""
) -> Client:
    variables = (("PYTHONPATH", path),) if path else ()
    return Client(name, (sys.executable, str(DRIVERS / "python" / file)), versions, ALL - cannot, needs, variables)


def _java(name: str, main: str, versions: tuple[int, ...], cannot: set[str]) -> Client:
    jar = BUILD / "java" / "interop-drivers-1.jar"
    classes = f"{jar}{os.pathsep}{BUILD / 'java' / 'lib'}{os.sep}*"
    command = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", classes, f"interop.{main}")
    return Client(name, command, versions, ALL - cannot, ("java", str(jar)))


def _in_websocket(client: Client) -> Client:
    """Return the client whose driver speaks MQTT in WebSocket, at the path /mqtt."""
    variables = (*client.variables, ("MQTTCORE_INTEROP_WEBSOCKET", "/mqtt"))
    return replace(client, name=f"{client.name}_ws", variables=variables, is_websocket=True)


V5_ONLY = {
    PUBLISH_REASON,
    SUBSCRIBE_OPTIONS,
    SUBSCRIPTION_ID,
    ASSIGNED_CLIENT_ID,
    TOPIC_ALIAS,
    DISCONNECT_REASON,
    SERVER_REASON,
}

_CLIENTS = (
    _python(
        "paho1",
        "drive_paho.py",
        (3, 4, 5),
        {PUBLISH_REASON, TAKES_ALIASES},
        (str(BUILD / "paho1" / "paho"),),
        str(BUILD / "paho1"),
    ),
    _python("paho2", "drive_paho.py", (3, 4, 5), {TAKES_ALIASES}, ("module:paho",)),
    _python(
        "aiomqtt",
        "drive_aiomqtt.py",
        (3, 4, 5),
        {SESSION_PRESENT, ASSIGNED_CLIENT_ID, PUBLISH_REASON, DISCONNECT_REASON, SERVER_REASON, TAKES_ALIASES},
        ("module:aiomqtt",),
    ),
    # gmqtt chooses its client id itself
    _python("gmqtt", "drive_gmqtt.py", (4, 5), {ASSIGNED_CLIENT_ID, PUBLISH_REASON}, ("module:gmqtt",)),
    # mosquitto_sub ends an MQTT 5 connection with reason code 0x04
    _python(
        "mosquitto",
        "drive_mosquitto.py",
        (3, 4, 5),
        {
            SESSION_PRESENT,
            UNSUBSCRIBE,
            ASSIGNED_CLIENT_ID,
            TOPIC_ALIAS,
            DISCONNECT_REASON,
            SUBSCRIBE_OPTIONS,
            PUBLISH_REASON,
            SUBSCRIPTION_ID,
            CLOSED,
            ONE_CONNECTION,
            WILL_DISCARD,
            TAKES_ALIASES,
        },
        ("mosquitto_pub", "mosquitto_sub", "stdbuf"),
    ),
    Client(
        "mqttjs",
        ("node", str(DRIVERS / "node" / "drive.js")),
        (3, 4, 5),
        ALL - {PUBLISH_REASON},
        ("node", str(BUILD / "node" / "node_modules" / "mqtt")),
        (("NODE_PATH", str(BUILD / "node" / "node_modules")),),
    ),
    Client("paho_c", (str(BUILD / "c" / "drive"),), (3, 4), ALL - V5_ONLY, (str(BUILD / "c" / "drive"),)),
    # its blocking face forgets Session Present in MQTT 5
    Client(
        "paho_c_v5",
        (str(BUILD / "c" / "drive"),),
        (5,),
        ALL - {PUBLISH_REASON, SESSION_PRESENT, TAKES_ALIASES},
        (str(BUILD / "c" / "drive"),),
    ),
    Client("paho_go_v3", (str(BUILD / "go" / "pahov3"),), (3, 4), ALL - V5_ONLY, (str(BUILD / "go" / "pahov3"),)),
    # paho.golang leaves all but the delay out of the will's properties
    Client(
        "paho_go_v5",
        (str(BUILD / "go" / "pahov5"),),
        (5,),
        ALL - {WILL_PROPERTIES, TAKES_ALIASES},
        (str(BUILD / "go" / "pahov5"),),
    ),
    _java("paho_java_v3", "PahoV3", (3, 4), V5_ONLY),
    # when the broker closes first, mosquitto too, Paho Java for MQTT 5 forgets its TLS socket and leaves it open
    _java("paho_java_v5", "PahoV5", (5,), {TOPIC_ALIAS, SERVER_REASON, TAKES_ALIASES, TLS_CLOSES}),
    # HiveMQ's client chooses subscription identifiers and topic aliases itself
    _java("hivemq", "HiveMq", (4, 5), {SUBSCRIPTION_ID, TOPIC_ALIAS}),
)

# Those that speak WebSocket, too, do it as clients of their own.
CLIENTS = (*_CLIENTS, *(_in_websocket(one) for one in _CLIENTS if one.name in ("paho2", "aiomqtt", "mqttjs")))
