"""Bounds of connections, sessions and stored messages: `[limits]`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mqttcore.config.bounds import BYTES_MAXIMUM, COUNT_MAXIMUM

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of connections, sessions and stored messages; the `[limits]` table."""

    connect_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time a new connection has until its CONNECT is complete.")
    ] = 10.0
    maximum_packet_size_bytes: Annotated[
        int, Meta(ge=16, le=268_435_460, description="Largest packet taken from a client, fixed header included.")
    ] = 2_000_000
    receive_maximum: Annotated[
        int, Meta(ge=1, le=65535, description="Unacknowledged QoS 1 and 2 messages a client may have under way to us.")
    ] = 1024
    enforce_receive_maximum: Annotated[
        bool, Meta(description="Disconnect a client that exceeds `receive_maximum` (MQTT 5: reason code 0x93).")
    ] = True
    topic_alias_maximum: Annotated[
        int, Meta(ge=0, le=65535, description="Topic aliases a client may set; 0: none.")
    ] = 32
    topic_alias_maximum_out: Annotated[
        int,
        Meta(ge=0, le=65535, description="Topic aliases we set per client, besides the client's own maximum; 0: none."),
    ] = 32
    maximum_qos: Annotated[int, Meta(ge=0, le=2, description="Highest QoS that is taken and granted.")] = 2
    retain_available: Annotated[bool, Meta(description="Whether messages may be retained.")] = True
    wildcard_subscription_available: Annotated[bool, Meta(description="Whether topic filters may have wildcards.")] = (
        True
    )
    subscription_identifier_available: Annotated[
        bool, Meta(description="Whether subscriptions may have identifiers.")
    ] = True
    shared_subscription_available: Annotated[bool, Meta(description="Whether `$share/…` filters are taken.")] = True
    session_expiry_maximum_s: Annotated[
        int,
        Meta(ge=0, le=0xFFFFFFFF, description="Longest life of a session without connection; 4294967295: for ever."),
    ] = 604_800
    keep_alive_maximum_s: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="Longest keep alive, set by Server Keep Alive in MQTT 5; 0: the client's choice.",
        ),
    ] = 0
    in_flight_maximum: Annotated[
        int, Meta(ge=1, le=65535, description="Unacknowledged messages to one client, besides its own Receive Maximum.")
    ] = 1024
    in_flight_bytes_maximum: Annotated[
        int,
        Meta(ge=1, le=BYTES_MAXIMUM, description="Bytes unacknowledged by one client from which on no more are sent."),
    ] = 16_777_216
    incomplete_bytes_maximum: Annotated[
        int,
        Meta(
            ge=65_536,
            le=BYTES_MAXIMUM,
            description="Bytes of large packets that have not come whole, of all connections; beyond, the one whose "
            "packet began first is closed (0x97).",
        ),
    ] = 268_435_456
    queued_messages_maximum: Annotated[
        int, Meta(ge=0, le=COUNT_MAXIMUM, description="Messages queued per session beyond those in flight.")
    ] = 1000
    queued_bytes_maximum: Annotated[
        int, Meta(ge=0, le=BYTES_MAXIMUM, description="Bytes queued per session beyond those in flight.")
    ] = 16_777_216
    queued_age_maximum_s: Annotated[
        int, Meta(ge=0, le=0xFFFFFFFF, description="Longest time a message stays queued for a session; 0: no limit.")
    ] = 604_800
    queue_drop: Annotated[
        Literal["newest", "oldest", "refuse"],
        Meta(
            description="Which message a full queue drops, after those of QoS 0; refuse: the new one is not taken from "
            "its publisher (reason code 0x97; before MQTT 5, its connection is closed)."
        ),
    ] = "oldest"
    queue_qos0_offline: Annotated[bool, Meta(description="Queue QoS 0 messages for sessions without connection.")] = (
        False
    )
    queued_total_bytes_maximum: Annotated[
        int,
        Meta(
            ge=0,
            le=BYTES_MAXIMUM,
            description="Bytes queued in all sessions together; the oldest make room, unless `queue_drop` is `refuse`.",
        ),
    ] = 1_073_741_824
    queued_resident_messages: Annotated[
        int,
        Meta(
            ge=1,
            le=COUNT_MAXIMUM,
            description="Queued messages per durable session that are kept in memory; the others in the store alone.",
        ),
    ] = 1000
    queued_resident_bytes: Annotated[
        int, Meta(ge=1, le=BYTES_MAXIMUM, description="Bytes queued per durable session that are kept in memory.")
    ] = 1_048_576
    output_high_water_bytes: Annotated[
        int,
        Meta(ge=1024, le=COUNT_MAXIMUM, description="Unsent bytes of a connection from which its messages are queued."),
    ] = 262_144
    topic_levels_maximum: Annotated[int, Meta(ge=1, le=65535, description="Levels of a topic name or filter.")] = 128
    topic_bytes_maximum: Annotated[int, Meta(ge=1, le=65535, description="Bytes of a topic name or filter.")] = 65_535
    client_id_bytes_maximum: Annotated[
        int, Meta(ge=23, le=65535, description="Bytes of a client identifier; 23 must be taken [MQTT-3.1.3-5].")
    ] = 65_535
    subscriptions_per_session_maximum: Annotated[
        int, Meta(ge=1, le=COUNT_MAXIMUM, description="Subscriptions of one session.")
    ] = 10_000
    connections_maximum: Annotated[
        int, Meta(ge=1, le=COUNT_MAXIMUM, description="Connections at a time, on all listeners.")
    ] = 1_000_000
    sessions_maximum: Annotated[
        int, Meta(ge=1, le=COUNT_MAXIMUM, description="Sessions, with and without connection.")
    ] = 1_000_000
    retained_messages_maximum: Annotated[int, Meta(ge=0, le=COUNT_MAXIMUM, description="Retained messages.")] = (
        1_000_000
    )
    retained_bytes_maximum: Annotated[
        int, Meta(ge=0, le=BYTES_MAXIMUM, description="Bytes of all retained messages.")
    ] = 1_073_741_824
    share_strategy: Annotated[
        Literal["round_robin", "sticky", "hash"],
        Meta(description="How a shared subscription picks its member: in turn, the same while it lives, or by topic."),
    ] = "round_robin"
    publisher_pause_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="How long a publisher is held back at a time because of a full queue.")
    ] = 200
    routes_cached_maximum: Annotated[
        int, Meta(ge=0, le=COUNT_MAXIMUM, description="Topics whose matching subscriptions are remembered.")
    ] = 65_536
    verdicts_cached_maximum: Annotated[
        int, Meta(ge=0, le=2**24, description="Topics for which is remembered what a client's permissions say of them.")
    ] = 65_536
    connect_packet_bytes_maximum: Annotated[
        int, Meta(ge=1024, le=268_435_460, description="Largest packet taken from a client that is not accepted yet.")
    ] = 131_072
    messages_per_s: Annotated[
        float,
        Meta(
            ge=0,
            le=1e9,
            description="PUBLISH packets a second from one client, with a second's worth at once; 0: any.",
        ),
    ] = 0.0
    bytes_per_s: Annotated[
        float,
        Meta(ge=0, le=1e12, description="Bytes of PUBLISH packets a second taken from one client, likewise; 0: any."),
    ] = 0.0
    rate_excess_maximum_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="How long a client may press against its rates before it is disconnected (0x96); 0: for ever.",
        ),
    ] = 10.0
    response_information: Annotated[
        str,
        Meta(max_length=1024, description="Prefix of response topics, given to clients that ask for it; empty: none."),
    ] = ""
