"""The tables `[plugins.aliyun_auth]` and those of the others of the profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mqttcore import Secret

from .records import Rights

__all__ = [
    "AccessKeyConfig",
    "AuthConfig",
    "InstanceConfig",
    "OfflineConfig",
    "OpenApiConfig",
    "OrderedConfig",
    "P2PConfig",
    "PresenceConfig",
    "TokenConfig",
]

_COUNT_MAXIMUM = 2**31 - 1
_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class InstanceConfig(_Settings, frozen=True):
    """An instance; an `[[plugins.aliyun_auth.instances]]` table."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Name, as in user names.")]
    groups: Annotated[tuple[_Name, ...], Meta(description="Group ids that are there from the start.")] = ()
    topics: Annotated[tuple[_Name, ...], Meta(description="Parent topics that are there from the start.")] = ()


class AccessKeyConfig(_Settings, frozen=True):
    """A key pair; an `[[plugins.aliyun_auth.access_keys]]` table."""

    id: Annotated[str, Meta(pattern=r"^[^|\s]{1,128}$", description="AccessKey id, as in user names.")]
    secret: Annotated[Secret, Meta(description="AccessKey secret.")]
    rights: Annotated[Rights, Meta(description="What clients with this key may do.")] = "full"
    instances: Annotated[tuple[_Name, ...], Meta(description="Instances it is good for; none: all.")] = ()
    groups: Annotated[tuple[_Name, ...], Meta(description="Groups whose clients may use it; none: all.")] = ()
    topics: Annotated[tuple[_Name, ...], Meta(description="Parent topics it has rights to; none: all.")] = ()


class AuthConfig(_Settings, frozen=True):
    """The table `[plugins.aliyun_auth]`: the registry, and how clients log in."""

    path: Annotated[
        Path | None,
        Meta(description="File (0600) of what is made at run time; not set: it is gone with the process, tokens too."),
    ] = None
    instances: Annotated[tuple[InstanceConfig, ...], Meta(description="Instances.")] = ()
    access_keys: Annotated[tuple[AccessKeyConfig, ...], Meta(description="AccessKey pairs.")] = ()
    auto_create_groups: Annotated[bool, Meta(description="Make a group when its first client comes.")] = False
    auto_create_topics: Annotated[bool, Meta(description="Take every parent topic, created or not.")] = False
    needs_group_prefix: Annotated[bool, Meta(description="Whether group ids begin with `GID_` or `GID-`.")] = True
    records_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Bound of each table of groups, credentials and revocations.")
    ] = 100_000
    topics_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Bound of parent topics, of instances and of access keys.")
    ] = 10_000
    client_id_length_maximum: Annotated[int, Meta(ge=1, le=65535, description="Characters of a client id.")] = 64
    topic_length_maximum: Annotated[
        int, Meta(ge=1, le=65535, description="Characters of a topic or filter; more closes the connection.")
    ] = 128
    any_topic_character: Annotated[
        bool, Meta(description="Take topics and filters with other characters than letters, digits, `-` and `_`.")
    ] = False
    payload_bytes_maximum: Annotated[
        int, Meta(ge=0, le=268_435_455, description="Bytes of a payload; a longer message is discarded.")
    ] = 65_536
    subscriptions_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Subscriptions of a client; more do not take effect.")
    ] = 30
    messages_per_s: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="PUBLISH packets of a client in a second; not set: no limit of its own."),
    ] = None
    grants_qos2_persistent: Annotated[
        bool, Meta(description="Grant QoS 2 to clients with cleanSession=false; the service does not.")
    ] = False
    refuses_unknown: Annotated[
        bool,
        Meta(description="Refuse user names that are not ours; false: leave them to the plugins behind."),
    ] = True
    legacy_signature: Annotated[
        bool, Meta(description="Take the login of 2017: the user name is the AccessKey id, the group id is signed.")
    ] = False
    legacy_token: Annotated[
        bool, Meta(description="Take the login of 2017 without user name: a token is uploaded after CONNECT.")
    ] = False
    legacy_token_timeout_s: Annotated[
        float, Meta(gt=0, le=3600, description="Time such a client has to upload its token.")
    ] = 30.0
    custom_instance: Annotated[
        str, Meta(description="Instance of identities of custom authentication; empty: the only one there is.")
    ] = ""
    listener_instances: Annotated[
        dict[str, str], Meta(description="Listener name -> the one instance that its clients may name.")
    ] = {}
    p2p_rights: Annotated[
        Literal["parent", "resource"],
        Meta(
            description="Who may send peer to peer below a parent topic: who may publish anywhere below it, or only who"
            " has a right that says so."
        ),
    ] = "parent"
    token_keys: Annotated[
        tuple[Secret, ...],
        Meta(description="Keys of tokens, 16 bytes at least: the first signs, all verify; none: one in `path`."),
    ] = ()
    token_expire_notice_s: Annotated[
        float, Meta(ge=0, le=86_400, description="How long before a token expires its client is told.")
    ] = 300.0
    logins_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Clients logged in at a time; more are refused.")
    ] = 1_000_000


class TokenConfig(_Settings, frozen=True):
    """The table `[plugins.aliyun_token]`: the token service."""

    lifetime_minimum_s: Annotated[float, Meta(ge=0, le=86_400, description="Shortest life that can be asked for.")] = 60
    lifetime_maximum_s: Annotated[
        float, Meta(gt=0, le=315_360_000, description="Longest life; what is asked beyond is cut to it.")
    ] = 2_592_000
    resources_maximum: Annotated[int, Meta(ge=1, le=1000, description="Resources of one token.")] = 100
    applications_per_s: Annotated[float, Meta(gt=0, description="`/token/apply` of one access key.")] = 1000
    queries_per_s: Annotated[float, Meta(gt=0, description="`/token/query` of one access key.")] = 1000
    revocations_per_minute: Annotated[float, Meta(gt=0, description="`/token/revoke` of one access key.")] = 1
    body_bytes_maximum: Annotated[int, Meta(ge=1024, le=1_048_576, description="Bytes of a request's body.")] = 65_536


class OpenApiConfig(_Settings, frozen=True):
    """The table `[plugins.aliyun_openapi]`: the RPC endpoint that SDKs call."""

    path: Annotated[str, Meta(pattern=r"^/[A-Za-z0-9_/-]{0,127}$", description="Where it is; SDKs ask for `/`.")] = "/"
    managers: Annotated[
        tuple[str, ...],
        Meta(
            description="Access keys that may manage groups, credentials, identities and connections; none: all with"
            " full rights to all topics."
        ),
    ] = ()
    region: Annotated[str, Meta(max_length=64, description="`RegionId` of the instances.")] = "private"
    timestamp_window_s: Annotated[
        float, Meta(gt=0, le=86_400, description="How far the time of a request may be off.")
    ] = 900.0
    nonces_maximum: Annotated[
        int,
        Meta(
            ge=1,
            le=_COUNT_MAXIMUM,
            description="Requests remembered so that none counts twice; more wait, and so does an access key that holds"
            " as many of them as are free.",
        ),
    ] = 2_000_000
    calls_per_s: Annotated[
        float, Meta(gt=0, description="All actions of one access key together, those that there are not too.")
    ] = 5000
    message_qos: Annotated[int, Meta(ge=0, le=2, description="QoS of SendMessage.")] = 1
    decodes_base64: Annotated[
        bool, Meta(description="Payloads of SendMessage are Base64 of what is published; the service publishes them.")
    ] = False
    topic_length_maximum: Annotated[int, Meta(ge=1, le=65535, description="Characters of SendMessage's topic.")] = 128
    payload_bytes_maximum: Annotated[int, Meta(ge=0, le=268_435_455, description="Bytes of SendMessage's payload.")] = (
        65_536
    )
    messages_per_s: Annotated[float, Meta(gt=0, description="SendMessage of one access key.")] = 1000
    session_queries_per_s: Annotated[float, Meta(gt=0, description="QuerySessionByClientId of one access key.")] = 500
    batch_queries_per_s: Annotated[float, Meta(gt=0, description="BatchQuerySessionByClientIds of one access key.")] = (
        100
    )
    token_calls_per_s: Annotated[
        float, Meta(gt=0, description="ApplyToken, QueryToken and RevokeToken of one access key, each.")
    ] = 100
    device_calls_per_s: Annotated[
        float, Meta(gt=0, description="Actions on device credentials of one access key, each.")
    ] = 500
    other_calls_per_s: Annotated[float, Meta(gt=0, description="Any other action of one access key.")] = 100
    old_calls_per_minute: Annotated[
        float, Meta(gt=0, description="Actions of 2017 to 2019 of one access key, each.")
    ] = 30


class P2PConfig(_Settings, frozen=True):
    """The table `[plugins.p2p]`: messages to one client."""

    word: Annotated[
        str, Meta(pattern=r"^[^+#/\x00]{1,64}$", description="The level that makes a topic one for a single client.")
    ] = "p2p"
    level: Annotated[int, Meta(ge=1, le=16, description="Where that level stands; 2: below the parent topic.")] = 2
    stores_offline: Annotated[
        bool, Meta(description="Keep QoS 1 and 2 for a client that is away, when the sender's own session persists.")
    ] = True


class OrderedConfig(_Settings, frozen=True):
    """The table `[plugins.ordered]`: messages in order."""

    topic: Annotated[str, Meta(min_length=1, max_length=128, description="Control topic that switches it on.")] = (
        "$SYS/enableOrderMsg"
    )


class OfflineConfig(_Settings, frozen=True):
    """The table `[plugins.aliyun_offline]`: what waited for a client that was away."""

    topic: Annotated[str, Meta(min_length=1, max_length=128, description="Control topic of pulls.")] = (
        "$SYS/getOfflineMsg"
    )
    batch: Annotated[int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Messages that come at once, by themselves.")] = 30
    interval_s: Annotated[float, Meta(gt=0, le=86_400, description="Time between such batches.")] = 5.0
    start_delay_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Time before the first batch, for a client to pull before it.")
    ] = 0.0
    pull_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Messages of one pull; what asks for more gets so many.")
    ] = 30
    pulls_per_s: Annotated[
        int, Meta(ge=1, le=1000, description="Pulls of a client in a second; more are acknowledged, without effect.")
    ] = 5
    first_period_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Time to choose pulling, for a client without keep alive; else that is it."),
    ] = 90.0
    retention_s: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="Age from which a message is not sent any more; not set: `limits.queued_age_maximum_s` alone."
        ),
    ] = 259_200.0


class PresenceConfig(_Settings, frozen=True):
    """The table `[plugins.presence]`: who is online, and notices of it."""

    topic: Annotated[
        str,
        Meta(
            max_length=256,
            description="Topic of the notices, with `{group}` and `{event}`; empty: none are published.",
        ),
    ] = "{group}_MQTT/{event}"
    qos: Annotated[int, Meta(ge=0, le=2, description="QoS of the notices.")] = 0
    clients_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Clients in the register; others count as unknown.")
    ] = 1_000_000
    topics_maximum: Annotated[
        int, Meta(ge=1, le=_COUNT_MAXIMUM, description="Filters that are counted; others count as unknown.")
    ] = 1_000_000
    status_window_s: Annotated[
        float, Meta(gt=0, le=86_400, description="How far the time of a status query may be off.")
    ] = 300.0
