"""Where connections are accepted: `[[listeners]]`, and TLS there."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mqttcore.config.bounds import BYTES_MAXIMUM, COUNT_MAXIMUM

__all__ = ["KeyPair", "Listener", "Tls"]


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
        Meta(ge=0, le=COUNT_MAXIMUM, description="Connections at a time on this listener; 0: no limit of its own."),
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
        int, Meta(ge=125, le=BYTES_MAXIMUM, description="HTTP: largest WebSocket message taken; 1009 beyond.")
    ] = 16_777_216
    websocket_pings_per_s_maximum: Annotated[
        int, Meta(ge=1, le=COUNT_MAXIMUM, description="HTTP: WebSocket control frames taken in a second; 1008 beyond.")
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
        Annotated[int, Meta(ge=1, le=COUNT_MAXIMUM)] | None,
        Meta(
            description="HTTP: connections at a time, WebSocket clients not counted; who waits longest makes room; not "
            "set: 4096, or a quarter of the descriptors the process may have, if that is less."
        ),
    ] = None
    http_connections_per_address: Annotated[
        Annotated[int, Meta(ge=1, le=COUNT_MAXIMUM)] | None,
        Meta(description="HTTP: those of one client address (IPv6: /64); not set: a quarter of all."),
    ] = None
    http_line_bytes_maximum: Annotated[
        int, Meta(ge=128, le=65536, description="HTTP: longest request line and longest header.")
    ] = 8190
    http_headers_maximum: Annotated[int, Meta(ge=8, le=1024, description="HTTP: headers of a request.")] = 64
    http_body_bytes_maximum: Annotated[
        int, Meta(ge=0, le=COUNT_MAXIMUM, description="HTTP: largest body of a request; 413 beyond.")
    ] = 1_048_576
    http_requests_bytes_maximum: Annotated[
        int,
        Meta(
            ge=65_536,
            le=BYTES_MAXIMUM,
            description="HTTP: bytes of all requests over 16 KiB under way; beyond, the one so large first is cut.",
        ),
    ] = 67_108_864
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
            le=COUNT_MAXIMUM,
            description="PROXY headers and TLS handshakes under way at a time; more wait, or replace silent ones.",
        ),
    ] = 1000
    connection_rate: Annotated[
        int,
        Meta(ge=0, le=COUNT_MAXIMUM, description="New connections a second; more are closed at once; 0: no limit."),
    ] = 0
    connection_rate_per_address: Annotated[
        int, Meta(ge=0, le=COUNT_MAXIMUM, description="The same for one client address (IPv6: /64); 0: no limit.")
    ] = 0
    connections_per_address: Annotated[
        int, Meta(ge=0, le=COUNT_MAXIMUM, description="Connections at a time of one client address; 0: no limit.")
    ] = 0
    addresses_remembered: Annotated[
        int, Meta(ge=1, le=COUNT_MAXIMUM, description="Client addresses that the two limits above keep count of.")
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
