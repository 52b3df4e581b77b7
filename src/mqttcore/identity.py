"""Who a client is and what it may do: the answers of authentication.

A plugin's `authenticate` returns an `Identity` (accept), a `Refusal` (no) or a `Challenge` (go on, MQTT 5 §4.12), or
None
when it has no opinion. Permissions are compiled when the answer is taken; the engine matches them in C and remembers
the answer per topic, so they cost nothing per message.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Flag
from types import MappingProxyType
from typing import Any

from mqttcore.constants import ReasonCode

__all__ = ["Action", "Challenge", "Identity", "Permission", "Quotas", "Refusal"]


class Action(Flag):
    """What a permission is about."""

    PUBLISH = 1
    SUBSCRIBE = 2
    ALL = PUBLISH | SUBSCRIBE


@dataclass(frozen=True, slots=True)
class Permission:
    """One rule: an action on the topics of a filter, allowed or denied.

    topic_filter: a Topic Filter without `$share`. A leading wildcard does not reach `$` topics [MQTT-4.7.2-1]. In it
    `%c` stands for the client id and `%u` for the user name of the CONNECT; a client whose id or name is empty, has
    `+`, `#`, `/` or NUL, or would begin the filter with `$`, is refused (0x87) where a rule would put it in.
    qos_maximum: highest QoS that is published (more is refused) or granted. retain: whether RETAIN may be set.
    """

    action: Action
    topic_filter: str
    is_allowed: bool = True
    qos_maximum: int = 2
    retain: bool = True


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bounds of one client, besides those of the broker; None: the broker's alone.

    messages_per_s, bytes_per_s: PUBLISH packets from the client, as token buckets that hold one second's worth; a
    client over it is not read for a while, one that goes on is disconnected with 0x96. ignores_extra_subscriptions: a
    subscription over subscriptions_maximum is granted and does not take effect, instead of being refused with 0x97.
    payload_bytes_maximum: a longer message of the client is discarded; told with 0x97 where MQTT 5 has a way to, else
    acknowledged. topic_bytes_maximum: longer topics and filters are denied, if the identity has permissions.
    topic_characters: likewise it may not publish to a topic with other characters in its levels, or with an empty level
    that is not the last; ASCII without `+`, `#`, `/`; None: any.
    """

    messages_per_s: float | None = None
    bytes_per_s: float | None = None
    subscriptions_maximum: int | None = None
    queued_messages_maximum: int | None = None
    queued_bytes_maximum: int | None = None
    ignores_extra_subscriptions: bool = False
    payload_bytes_maximum: int | None = None
    topic_bytes_maximum: int | None = None
    topic_characters: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated client.

    name: who it is, for logs, events and other plugins. A session belongs to the name that began it (setting
    `session_owner`), so it should outlive keys and tokens. permissions: rules in order, the first that matches decides,
    none that matches denies; None: everything is allowed. expires_at_s: seconds of `time.time()` at which the client is
    disconnected (0x87, Not authorized) unless its identity was replaced before; None: never. attributes: what the
    authenticating plugin wants others to know; never secrets. closes_on_refused_subscribe: a SUBSCRIBE with a filter
    that is not authorized closes its connection, whatever the setting `refused_subscribe` says.
    mount_point: prefix of all its topics, which the client neither says nor hears, in the form of the listener's
    setting and instead of it; "": none, None: the listener's. Topics of permissions are whole, with it. It is for the
    life of a session: a later identity of the client has the same, or None.
    user_name: takes the place of the one in CONNECT, for permissions, events, the API and the store; from plugins that
    find a secret there. None: that stays.
    on_refused: called with the ClientView, action and topic when a PUBLISH or SUBSCRIBE is refused with 0x87 by rules,
    hooks or handlers, before the client is answered or disconnected: what `Broker.deliver` gives it then goes out
    first, and it may be disconnected. Once a packet, with its Topic Name or the first filter refused, without `$share`;
    not for wills, nor for what is dropped without a word. A plain function; what it raises is recorded and changes
    nothing.
    """

    name: str
    permissions: tuple[Permission, ...] | None = None
    quotas: Quotas = field(default_factory=Quotas)
    expires_at_s: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    closes_on_refused_subscribe: bool = False
    on_refused: Callable[[Any, Action, str], object] | None = field(default=None, repr=False, compare=False)
    mount_point: str | None = None
    user_name: str | None = None


class Refusal:
    """An answer of authentication: no. reason_code as in CONNACK (MQTT 5 §3.2.2.2)."""

    __slots__ = ("reason", "reason_code")

    def __init__(self, reason_code: int = ReasonCode.NOT_AUTHORIZED, reason: str | None = None) -> None:
        self.reason_code = int(reason_code)  # fails where the mistake is, and there it refuses
        self.reason = None if reason is None else str(reason)


class Challenge:
    """An answer of authentication: go on, with this Authentication Data (MQTT 5 §4.12)."""

    __slots__ = ("data",)

    def __init__(self, data: bytes | None = None) -> None:
        self.data = data
