"""Configuration: strict TOML into frozen structs; a mistake is a ConfigError that names the key.

The constructors do not check what they are given (msgspec checks what it converts): for values from outside use
`load` or `from_mapping`. Every range and every line of documentation stands in the field's `Meta`;
`config_reference.py` makes docs/config.md of them.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mqttcore.errors import ConfigError
from mqttcore.mount_point import check_mount_point
from mqttcore.settings import HIDDEN, convert

__all__ = [
    "Authorization",
    "Config",
    "Flapping",
    "HttpApi",
    "KeyPair",
    "Limits",
    "Listener",
    "LogLevel",
    "StoreSettings",
    "Tls",
    "Tracing",
    "check_exposure",
    "from_mapping",
    "is_local",
    "is_loopback",
    "load",
    "takes_anonymous",
    "trusts_machine",
]

LogLevel = Literal["debug", "info", "warning", "error", "critical"]

# What browsers send (RFC 6454 §7): no path, no wildcard; `null` of a page that has none, `file://` in some web views.
_ORIGIN = re.compile(r"null|file://|[A-Za-z][A-Za-z0-9+.-]*://[^/?#*\s]+")
_OWN_PATHS = ("/healthz", "/readyz", "/metrics", "/api/v1")
_COUNT_MAXIMUM = 2**31 - 1
_BYTES_MAXIMUM = 2**53 - 1


class KeyPair(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A further certificate, for the names it is made out to; a `[[listeners.tls.certificates]]` table."""

    certificate_file: Annotated[
        str, Meta(min_length=1, max_length=4096, description="Certificate chain, PEM, the server's own first.")
    ]
    key_file: Annotated[str, Meta(min_length=1, max_length=4096, description="Its private key, PEM, not encrypted.")]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS of one listener. The files are looked at every few seconds and at SIGHUP; `[listeners.tls]` in its table."""

    certificate_file: Annotated[
        str, Meta(min_length=1, max_length=4096, description="Certificate chain, PEM, the server's own first.")
    ]
    key_file: Annotated[
        str,
        Meta(
            min_length=1, max_length=4096, description="Its private key, PEM, not encrypted; others should not read it."
        ),
    ]
    certificates: Annotated[
        list[KeyPair], Meta(max_length=1024, description="Further certificates, chosen by the name asked for (SNI).")
    ] = []
    minimum_version: Annotated[Literal["1.2", "1.3"], Meta(description="Oldest version of TLS that is spoken.")] = "1.2"
    ciphers: Annotated[
        str,
        Meta(max_length=4096, description="Ciphers of TLS 1.2 in OpenSSL's notation; empty: OpenSSL's secure ones."),
    ] = ""
    client_ca_file: Annotated[
        str,
        Meta(max_length=4096, description="Certificates, PEM, that client certificates must come from; empty: none."),
    ] = ""
    client_certificate: Annotated[
        Literal["none", "optional", "required"],
        Meta(description="Whether clients show a certificate; one that is shown must be good."),
    ] = "none"
    crl_file: Annotated[
        str, Meta(max_length=4096, description="Revoked client certificates, PEM; empty: none are.")
    ] = ""
    identity: Annotated[
        Literal["cn", "dn", "dns", "email", "uri"],
        Meta(description="What of the client's certificate names it: common name, whole subject, or first such SAN."),
    ] = "cn"
    identity_is_user_name: Annotated[
        bool,
        Meta(description="A good client certificate is authentication enough, and its identity the user name."),
    ] = False


class Listener(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One address that accepts connections; a `[[listeners]]` table."""

    name: Annotated[
        str,
        Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name in logs, metrics and plugins; no two alike."),
    ] = "default"
    host: Annotated[
        str,
        Meta(min_length=1, max_length=255, description="Address or host name; `0.0.0.0` and `::` are all addresses."),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port; 0 lets the system choose.")] = 1883
    backlog: Annotated[
        int, Meta(ge=1, le=65535, description="Connections that may wait in the kernel to be accepted.")
    ] = 4096
    max_connections: Annotated[
        int,
        Meta(ge=0, le=_COUNT_MAXIMUM, description="Connections at a time on this listener; 0: no limit of its own."),
    ] = 0
    accept_per_turn: Annotated[
        int, Meta(ge=1, le=65535, description="Connections accepted in one turn of the event loop.")
    ] = 64
    protocol: Annotated[
        Literal["mqtt", "http"],
        Meta(description="What is spoken: MQTT, or HTTP and in it WebSocket."),
    ] = "mqtt"
    websocket_path: Annotated[
        str,
        Meta(
            pattern=r"^(/[A-Za-z0-9._~/-]{0,255})?$",
            description="HTTP: path at which MQTT is spoken in WebSocket; empty: nowhere.",
        ),
    ] = "/mqtt"
    websocket_subprotocol_required: Annotated[
        bool, Meta(description="HTTP: refuse WebSocket clients that offer no sub-protocol; `mqtt` is the standard's.")
    ] = False
    websocket_origins: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=255)]],
        Meta(
            max_length=1024,
            description="HTTP: pages whose scripts may connect, like `https://example.com`; empty: all, but only those "
            "of this machine where clients are anonymous without a word in `allow_anonymous`.",
        ),
    ] = []
    websocket_message_bytes_maximum: Annotated[
        int, Meta(ge=125, le=_BYTES_MAXIMUM, description="HTTP: largest WebSocket message taken; 1009 beyond.")
    ] = 16_777_216
    websocket_pings_per_s_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="HTTP: WebSocket control frames taken in a second; 1008 beyond.")
    ] = 50
    http_header_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="HTTP: time a request's line and headers may take to arrive.")
    ] = 10.0
    http_request_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="HTTP: time from a request's headers to its answer.")
    ] = 30.0
    http_keep_alive_s: Annotated[
        float, Meta(ge=0, le=3600, description="HTTP: time a connection is kept for its next request; 0: none.")
    ] = 75.0
    http_connections_maximum: Annotated[
        Annotated[int, Meta(ge=1, le=_COUNT_MAXIMUM)] | None,
        Meta(
            description="HTTP: connections at a time, WebSocket clients not counted; who waits longest makes room; not "
            "set: 4096, or a quarter of the descriptors the process may have, if that is less."
        ),
    ] = None
    http_connections_per_address: Annotated[
        Annotated[int, Meta(ge=1, le=_COUNT_MAXIMUM)] | None,
        Meta(description="HTTP: those of one client address (IPv6: /64); not set: a quarter of all."),
    ] = None
    http_line_bytes_maximum: Annotated[
        int, Meta(ge=128, le=65536, description="HTTP: longest request line and longest header.")
    ] = 8190
    http_headers_maximum: Annotated[int, Meta(ge=8, le=1024, description="HTTP: headers of a request.")] = 64
    http_body_bytes_maximum: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="HTTP: largest body of a request; 413 beyond.")
    ] = 1_048_576
    mount_point: Annotated[
        str,
        Meta(
            max_length=1024,
            description="Prefix, like `tenant/`, of all topics of the MQTT clients here, who neither say nor hear it; "
            "`${client_id}` and `${user_name}` stand for theirs; empty: none.",
        ),
    ] = ""
    path: Annotated[
        str, Meta(max_length=107, description="Unix socket to listen on, instead of host and port; empty: none.")
    ] = ""
    path_mode: Annotated[
        str, Meta(pattern=r"^0?[0-7]{3}$", description="Who may connect to the Unix socket: permissions in octal.")
    ] = "0600"
    tls: Annotated[Tls | None, Meta(description="TLS, see below; not set: none.")] = None
    allow_anonymous: Annotated[
        bool | None, Meta(description="Clients without authentication here; not set: as at the top level.")
    ] = None
    connect_timeout_s: Annotated[
        Annotated[float, Meta(ge=0.01, le=3600)] | None,
        Meta(description="Time until CONNECT is complete; not set: as in `[limits]`."),
    ] = None
    maximum_packet_size_bytes: Annotated[
        Annotated[int, Meta(ge=16, le=268_435_460)] | None,
        Meta(description="Largest packet taken here; not set, or larger: as in `[limits]`."),
    ] = None
    plugins: Annotated[
        list[str] | None,
        Meta(description="Plugins that may authenticate clients here; not set: all that do."),
    ] = None
    handshake_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time for the PROXY header, and again for the TLS handshake.")
    ] = 10.0
    handshakes_maximum: Annotated[
        int,
        Meta(
            ge=1,
            le=_COUNT_MAXIMUM,
            description="PROXY headers and TLS handshakes under way at a time; more wait, or replace silent ones.",
        ),
    ] = 1000
    connection_rate: Annotated[
        int,
        Meta(ge=0, le=_COUNT_MAXIMUM, description="New connections a second; more are closed at once; 0: no limit."),
    ] = 0
    connection_rate_per_address: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="The same for one client address (IPv6: /64); 0: no limit.")
    ] = 0
    connections_per_address: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="Connections at a time of one client address; 0: no limit.")
    ] = 0
    addresses_remembered: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Client addresses that the two limits above keep count of.")
    ] = 65_536
    proxy_protocol: Annotated[
        Literal["none", "v1", "v2", "any"], Meta(description="PROXY protocol header expected before all else.")
    ] = "none"
    proxy_trusted: Annotated[
        list[Annotated[str, Meta(max_length=64)]],
        Meta(
            max_length=1024,
            description="Networks (`10.0.0.0/8`, or `unix`) whose PROXY headers are believed; others are closed.",
        ),
    ] = []
    proxy_identity_is_user_name: Annotated[
        bool,
        Meta(
            description="A client certificate that the proxy found good is authentication enough; its CN the user name."
        ),
    ] = False


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
        Meta(ge=1, le=_BYTES_MAXIMUM, description="Bytes unacknowledged by one client from which on no more are sent."),
    ] = 16_777_216
    queued_messages_maximum: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="Messages queued per session beyond those in flight.")
    ] = 1000
    queued_bytes_maximum: Annotated[
        int, Meta(ge=0, le=_BYTES_MAXIMUM, description="Bytes queued per session beyond those in flight.")
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
            le=_BYTES_MAXIMUM,
            description="Bytes queued in all sessions together; the oldest make room, unless `queue_drop` is `refuse`.",
        ),
    ] = 1_073_741_824
    queued_resident_messages: Annotated[
        int,
        Meta(
            ge=1,
            le=_COUNT_MAXIMUM,
            description="Queued messages per durable session that are kept in memory; the others in the store alone.",
        ),
    ] = 1000
    queued_resident_bytes: Annotated[
        int, Meta(ge=1, le=_BYTES_MAXIMUM, description="Bytes queued per durable session that are kept in memory.")
    ] = 1_048_576
    output_high_water_bytes: Annotated[
        int,
        Meta(
            ge=1024, le=_COUNT_MAXIMUM, description="Unsent bytes of a connection from which its messages are queued."
        ),
    ] = 262_144
    topic_levels_maximum: Annotated[int, Meta(ge=1, le=65535, description="Levels of a topic name or filter.")] = 128
    topic_bytes_maximum: Annotated[int, Meta(ge=1, le=65535, description="Bytes of a topic name or filter.")] = 65_535
    client_id_bytes_maximum: Annotated[
        int, Meta(ge=23, le=65535, description="Bytes of a client identifier; 23 must be taken [MQTT-3.1.3-5].")
    ] = 65_535
    subscriptions_per_session_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Subscriptions of one session.")
    ] = 10_000
    connections_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Connections at a time, on all listeners.")
    ] = 1_000_000
    sessions_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Sessions, with and without connection.")
    ] = 1_000_000
    retained_messages_maximum: Annotated[int, Meta(ge=0, le=_COUNT_MAXIMUM, description="Retained messages.")] = (
        1_000_000
    )
    retained_bytes_maximum: Annotated[
        int, Meta(ge=0, le=_BYTES_MAXIMUM, description="Bytes of all retained messages.")
    ] = 1_073_741_824
    share_strategy: Annotated[
        Literal["round_robin", "sticky", "hash"],
        Meta(description="How a shared subscription picks its member: in turn, the same while it lives, or by topic."),
    ] = "round_robin"
    publisher_pause_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="How long a publisher is held back at a time because of a full queue.")
    ] = 200
    routes_cached_maximum: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="Topics whose matching subscriptions are remembered.")
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
            le=_BYTES_MAXIMUM,
            description="Bytes on their way to the store from which on publishers of durable messages are not read.",
        ),
    ] = 16_777_216
    retry_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time after which a commit that failed is tried again.")
    ] = 1.0


class Flapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a client, by client id and address, is refused for connecting too often; the `[flapping]` table."""

    connects_maximum: Annotated[
        int, Meta(ge=0, le=_COUNT_MAXIMUM, description="CONNECTs of one client in `window_s`; 0: no limit.")
    ] = 0
    window_s: Annotated[float, Meta(ge=0.01, le=86_400, description="Time in which they are counted.")] = 60.0
    refused_s: Annotated[
        float, Meta(ge=0.01, le=604_800, description="Time for which such a client is refused (0x9F).")
    ] = 300.0
    clients_remembered: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Clients that are counted, and again that are refused.")
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
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Wrong keys of one address (IPv6: /64) in a minute; 429 beyond.")
    ] = 10
    requests_per_s_per_key: Annotated[
        int,
        Meta(
            ge=0,
            le=_COUNT_MAXIMUM,
            description="Requests a second of one API key on one listener; 429 beyond; 0: no limit.",
        ),
    ] = 1000
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
        int, Meta(ge=1024, le=_BYTES_MAXIMUM, description="Bytes of memory that the entries of a trace may take.")
    ] = 8_388_608
    entries_per_s_maximum: Annotated[
        int,
        Meta(
            ge=0,
            le=_COUNT_MAXIMUM,
            description="Entries a second of one trace; what is beyond is counted, not recorded; 0: no limit.",
        ),
    ] = 1000
    payload_bytes_maximum: Annotated[
        int, Meta(ge=0, le=1_048_576, description="Bytes of each payload that a trace may be asked to show; 0: none.")
    ] = 1024


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole configuration; the top of the document."""

    listeners: Annotated[
        list[Listener], Meta(min_length=1, max_length=1024, description="Where connections are accepted.")
    ] = msgspec.field(default_factory=lambda: [Listener()])
    allow_anonymous: Annotated[
        bool | None,
        Meta(
            description="Clients without authentication; "
            "not set: on loopback addresses and Unix sockets without `proxy_protocol` only, and nowhere once a plugin "
            "authenticates."
        ),
    ] = None
    sys_for_anonymous: Annotated[
        bool, Meta(description="Whether clients without authentication may subscribe to `$SYS/`.")
    ] = False
    limits: Annotated[Limits, Meta(description="Bounds of connections, sessions and stored messages.")] = Limits()
    store: Annotated[StoreSettings, Meta(description="How the store is used.")] = StoreSettings()
    flapping: Annotated[Flapping, Meta(description="Clients that connect and disconnect all the time.")] = Flapping()
    authorization: Annotated[Authorization, Meta(description="What becomes of who wants more than it may.")] = (
        Authorization()
    )
    http_api: Annotated[HttpApi, Meta(description="Management over HTTP.")] = HttpApi()
    tracing: Annotated[Tracing, Meta(description="Traces of a client, an address or a topic.")] = Tracing()
    plugins: Annotated[
        dict[str, dict[str, Any]],
        Meta(description="`[plugins.NAME]` enables a plugin, in call order; its keys are the plugin's own."),
    ] = {}
    authentication_timeout_s: Annotated[
        float,
        Meta(
            ge=0.01,
            le=3600,
            description="Time that plugins have to answer a CONNECT, AUTH or SUBSCRIBE; late is refused (0x88, 0x83).",
        ),
    ] = 5.0
    authentications_maximum: Annotated[
        int,
        Meta(
            ge=1,
            le=_COUNT_MAXIMUM,
            description="Clients that wait for a plugin's answer at a time; more are refused (0x89, 0x97).",
        ),
    ] = 1000
    plugin_timeout_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Time that a plugin has to start, to stop, or to take over a reload.")
    ] = 30.0
    events_queued_maximum: Annotated[
        int,
        Meta(ge=1, le=_COUNT_MAXIMUM, description="Events that wait for one plugin that observes; more are dropped."),
    ] = 10_000
    sys_interval_s: Annotated[
        int, Meta(ge=0, le=86_400, description="Time between two rounds of `$SYS` messages; 0: none.")
    ] = 10
    log_level: Annotated[
        LogLevel,
        Meta(description="Least severe records that are logged."),
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="Lines for people, or one JSON object a line.")] = (
        "text"
    )
    shutdown_timeout_s: Annotated[
        float, Meta(ge=0, le=3600, description="Time that connections have to drain when the broker stops.")
    ] = 5.0
    overload_lag_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="Lasting lag of the event loop from which on new clients hear Server busy; 0: never.",
        ),
    ] = 250
    memory_maximum_bytes: Annotated[
        Annotated[int, Meta(ge=0, le=_BYTES_MAXIMUM)] | None,
        Meta(
            description="Resident memory of the process: over 90 % of it there are no new sessions (Server busy), over "
            "all of it queues, retained messages and subscriptions do not grow. 0: no maximum; not set: 80 % of what "
            "the machine or the control group has."
        ),
    ] = None
    gather_us: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Under load, how long packets gather before all sockets are served at once (Linux); 0: not.",
        ),
    ] = 150
    loop: Annotated[
        Literal["auto", "uvloop", "asyncio"], Meta(description="Event loop; auto: uvloop when it can be imported.")
    ] = "auto"

    def __repr__(self) -> str:
        """Show everything but what plugins are told: it may be secret."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["plugins"] = dict.fromkeys(self.plugins, HIDDEN)
        return f"Config({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def load(path: str | os.PathLike[str]) -> Config:
    """Return the configuration in the TOML file *path*.

    Raises ConfigError: file unreadable, blank (a truncated file must not mean "all defaults"), no TOML (the reason has
    line and column), or as `from_mapping` does.
    """
    source = os.fspath(path)
    try:
        text = Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError("", f"cannot be read: {error.strerror or error}", source) from error
    except UnicodeDecodeError as error:
        raise ConfigError("", f"is not UTF-8: {error.reason} at byte {error.start}", source) from error
    if not text.strip():
        raise ConfigError("", "is blank; a file that wants every default needs at least a comment", source)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("", f"is not TOML: {error}", source) from error
    return from_mapping(document, source)


def from_mapping(mapping: Mapping[str, Any], source: str | None = None) -> Config:
    """Return the configuration that *mapping*, shaped like the TOML document, describes.

    source: the file's name for errors. Raises ConfigError: unknown key, wrong type, value out of range, two listeners
    of one name or on one address.
    """
    _check_plugin_tables(mapping, source)
    config = convert(mapping, Config, "", source)
    _check_listeners(config, source)
    return config


def is_loopback(host: str) -> bool:
    """Say whether *host* can only be reached from this machine; names other than `localhost` count as no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(listener: Listener) -> bool:
    """Say whether only this machine reaches *listener*: a loopback address or a Unix socket, no proxy before it."""
    return listener.proxy_protocol == "none" and (bool(listener.path) or is_loopback(listener.host))


def takes_anonymous(config: Config, listener: Listener, has_authentication: bool) -> bool:
    """Say whether clients about whom no plugin has an opinion may come in through *listener*."""
    allowed = config.allow_anonymous if listener.allow_anonymous is None else listener.allow_anonymous
    return is_local(listener) and not has_authentication if allowed is None else allowed


def trusts_machine(config: Config, listener: Listener) -> bool:
    """Say whether anonymous clients may use *listener* only because they are on this machine: nobody said they may."""
    return config.allow_anonymous is None and listener.allow_anonymous is None and is_local(listener)


def check_exposure(config: Config, has_authentication: bool, source: str | None = None) -> None:
    """Refuse a listener that would let strangers in by mistake.

    Raises ConfigError for a listener beyond loopback, or behind a proxy, when no plugin authenticates and
    `allow_anonymous` is not true.
    """
    if has_authentication:
        return
    for index, listener in enumerate(config.listeners):
        given = config.allow_anonymous if listener.allow_anonymous is None else listener.allow_anonymous
        by_certificate = (
            listener.proxy_identity_is_user_name
            if listener.tls is None
            else listener.tls.identity_is_user_name and listener.tls.client_certificate == "required"
        )
        if not (given or by_certificate or is_local(listener)):
            key, reached, instead = (
                ("host", f"{listener.host} can be reached by others", ", listen on 127.0.0.1,")
                if listener.proxy_protocol == "none"
                else ("proxy_protocol", "a proxy lets others in", "")
            )
            reason = (
                f"{reached}, and no plugin authenticates clients: enable one{instead} or write allow_anonymous = true"
            )
            raise ConfigError(f"listeners[{index}].{key}", reason, source)


def _check_plugin_tables(mapping: Mapping[str, Any], source: str | None) -> None:
    # msgspec says `plugins[...]`; only we can say which one.
    plugins = mapping.get("plugins")
    if not isinstance(plugins, dict):
        return
    for name, table in plugins.items():
        if not isinstance(table, dict):
            raise ConfigError(f"plugins.{name}", f"Expected a table, got `{type(table).__name__}`", source)


def _check_listeners(config: Config, source: str | None) -> None:
    names: dict[str, int] = {}
    addresses: dict[tuple[str, int], int] = {}
    for index, listener in enumerate(config.listeners):
        first = names.setdefault(listener.name, index)
        if first != index:
            raise ConfigError(f"listeners[{index}].name", f"`{listener.name}` is listeners[{first}] already", source)
        place = (listener.path, 1) if listener.path else (listener.host, listener.port)
        first = addresses.setdefault(place, index)
        if place[1] and first != index:
            key = "path" if listener.path else "port"
            shown = listener.path or f"{listener.host}:{listener.port}"
            raise ConfigError(f"listeners[{index}].{key}", f"{shown} is listeners[{first}] already", source)
        _check_idle(listener, f"listeners[{index}]", source)
        _check_tls(listener, f"listeners[{index}]", source)
        _check_proxy(listener, f"listeners[{index}]", source)
        _check_http(listener, f"listeners[{index}]", source)
        if listener.mount_point:
            try:
                check_mount_point(listener.mount_point)
            except ValueError as error:
                raise ConfigError(f"listeners[{index}].mount_point", str(error), source) from error


def _check_idle(listener: Listener, path: str, source: str | None) -> None:
    """Refuse what would be taken and do nothing: whoever wrote it counts on it."""
    idle = [] if listener.path else [("path_mode", "belongs to a Unix socket, and there is no path")]
    if listener.path:
        idle += [(key, "a Unix socket has none: path stands in its place") for key in ("host", "port")]
    if listener.protocol != "http":
        of_http = [key for key in Listener.__struct_fields__ if key.startswith(("http_", "websocket_"))]
        idle += [(key, 'belongs to protocol = "http"') for key in of_http]
    if listener.tls is not None:
        idle.append(("proxy_identity_is_user_name", "TLS ends here: it is tls.identity_is_user_name"))
    elif listener.proxy_protocol in ("none", "v1"):
        idle.append(("proxy_identity_is_user_name", "only version 2 of the PROXY protocol knows of certificates"))
    for key, reason in idle:
        if getattr(listener, key) != _default(Listener, key):
            raise ConfigError(f"{path}.{key}", reason, source)


def _default(struct: type[msgspec.Struct], key: str) -> Any:
    field = next(one for one in msgspec.structs.fields(struct) if one.name == key)
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _check_http(listener: Listener, path: str, source: str | None) -> None:
    taken = listener.websocket_path
    if taken in _OWN_PATHS or taken.startswith("/api/v1/"):
        raise ConfigError(f"{path}.websocket_path", f"{taken} is the broker's own", source)
    for number, origin in enumerate(listener.websocket_origins):
        if _ORIGIN.fullmatch(origin) is None:
            reason = f"{origin} is no origin like https://example.com or https://example.com:8443: nothing behind it"
            raise ConfigError(f"{path}.websocket_origins[{number}]", reason, source)


def _check_tls(listener: Listener, path: str, source: str | None) -> None:
    tls = listener.tls
    if tls is None:
        return
    if tls.client_certificate != "none" and not tls.client_ca_file:
        raise ConfigError(f"{path}.tls.client_ca_file", "is needed where client certificates are asked for", source)
    if tls.client_certificate == "none":
        # An authority alone would look like mutual TLS, and everybody would come in.
        for key in ("crl_file", "identity_is_user_name", "identity", "client_ca_file"):
            if getattr(tls, key) != _default(Tls, key):
                reason = "without client certificates has nothing to work on: client_certificate is none"
                raise ConfigError(f"{path}.tls.{key}", reason, source)


def _check_proxy(listener: Listener, path: str, source: str | None) -> None:
    if (listener.proxy_protocol == "none") != (not listener.proxy_trusted):
        raise ConfigError(
            f"{path}.proxy_trusted", "belongs to proxy_protocol: both, or neither; whom to believe must be said", source
        )
    for number, network in enumerate(listener.proxy_trusted):
        if network == "unix":
            continue
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"{path}.proxy_trusted[{number}]", str(error), source) from error
