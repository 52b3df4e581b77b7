"""The smaller tables: the store, who comes and goes too often or wants too much, management, traces."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mqttcore.config.bounds import BYTES_MAXIMUM, COUNT_MAXIMUM

__all__ = ["Authorization", "Flapping", "HttpApi", "StoreSettings", "Tracing"]


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the broker uses its store, where it has one; the `[store]` table. Where it is, a plugin's table says."""

    retained: Annotated[bool, Meta(description="Whether retained messages are kept in the store.")] = True
    gather_ms: Annotated[
        float,
        Meta(ge=0, le=1000, description="Shortest time between the beginnings of two commits; one sync serves many."),
    ] = 2.0
    pending_bytes_maximum: Annotated[
        int,
        Meta(
            ge=65_536,
            le=BYTES_MAXIMUM,
            description="Bytes on their way to the store from which on publishers of durable messages are not read.",
        ),
    ] = 16_777_216
    retry_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time after which a commit that failed is tried again.")
    ] = 1.0


class Flapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a client, by client id and address, is refused for connecting too often; the `[flapping]` table."""

    connects_maximum: Annotated[
        int, Meta(ge=0, le=COUNT_MAXIMUM, description="CONNECTs of one client in `window_s`; 0: no limit.")
    ] = 0
    window_s: Annotated[float, Meta(ge=0.01, le=86_400, description="Time in which they are counted.")] = 60.0
    refused_s: Annotated[
        float, Meta(ge=0.01, le=604_800, description="Time for which such a client is refused (0x9F).")
    ] = 300.0
    clients_remembered: Annotated[
        int, Meta(ge=1, le=COUNT_MAXIMUM, description="Clients that are counted, and again that are refused.")
    ] = 65_536


class Authorization(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What becomes of who wants more than it may; the `[authorization]` table."""

    refused_publish: Annotated[
        Literal["disconnect", "drop"],
        Meta(
            description="What a client gets for a refused message where no acknowledgement can say so "
            "(below MQTT 5, and QoS 0): its connection is closed, or the message is dropped without a word."
        ),
    ] = "disconnect"
    refused_subscribe: Annotated[
        Literal["answer", "disconnect"],
        Meta(description="Whether a refused subscription is answered in SUBACK, or closes the connection."),
    ] = "answer"
    subscribe_check: Annotated[
        Literal["covered", "at_delivery"],
        Meta(
            description="`covered`: a permission must allow the whole filter. `at_delivery`: some topic of it, "
            "and each message is checked on delivery; shared subscriptions must be covered all the same."
        ),
    ] = "covered"
    session_owner: Annotated[
        Literal["refuse", "replace", "ignore"],
        Meta(
            description="A client id whose session belongs to another identity: refused (0x85), the session is ended "
            "and a new one begun, or taken over as it is."
        ),
    ] = "refuse"


class HttpApi(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The management API and `/metrics` of HTTP listeners; the `[http_api]` table."""

    enabled: Annotated[bool, Meta(description="Whether HTTP listeners serve them.")] = True
    keys_file: Annotated[
        str,
        Meta(
            max_length=4096,
            description="API keys, hashed, made by `mqttcore ctl keys add`; empty, or no file: none, and only "
            "listeners on loopback addresses and Unix sockets answer, to everybody there; never those with "
            "`proxy_protocol`.",
        ),
    ] = ""
    failures_per_minute: Annotated[
        int, Meta(ge=1, le=COUNT_MAXIMUM, description="Wrong keys of one address (IPv6: /64) in a minute; 429 beyond.")
    ] = 10
    requests_per_s_per_key: Annotated[
        int,
        Meta(
            ge=0,
            le=COUNT_MAXIMUM,
            description="Requests a second of one API key on one listener; 429 beyond; 0: no limit.",
        ),
    ] = 5000
    bans_file: Annotated[
        str, Meta(max_length=4096, description="Where bans are kept; empty: in memory, as long as the broker runs.")
    ] = ""


class Tracing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of traces of a client, an address or a topic, which operators begin; the `[tracing]` table."""

    traces_maximum: Annotated[
        int,
        Meta(ge=1, le=1000, description="Traces at a time; those that have ended make room for new ones."),
    ] = 16
    duration_maximum_s: Annotated[
        float, Meta(ge=1, le=604_800, description="Longest time that a trace may be asked to last.")
    ] = 86_400.0
    entries_maximum: Annotated[
        int, Meta(ge=1, le=100_000, description="Entries that a trace keeps; the oldest make room.")
    ] = 10_000
    bytes_maximum: Annotated[
        int, Meta(ge=1024, le=BYTES_MAXIMUM, description="Bytes of memory that the entries of a trace may take.")
    ] = 8_388_608
    entries_per_s_maximum: Annotated[
        int,
        Meta(
            ge=0,
            le=COUNT_MAXIMUM,
            description="Entries a second of one trace; what is beyond is counted, not recorded; 0: no limit.",
        ),
    ] = 1000
    payload_bytes_maximum: Annotated[
        int, Meta(ge=0, le=1_048_576, description="Bytes of each payload that a trace may be asked to show; 0: none.")
    ] = 1024
