"""What the plugins of the profile share: `aliyun_auth` makes it, the others find it by way of the broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mqttcore import MqttCoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mqttcore import Broker, ClientView

    from .gate import TokenChecker
    from .registry import Registry

__all__ = ["PROFILE", "Profile", "profile_of"]

PROFILE = "aliyun_auth.profile"


@dataclass(frozen=True, slots=True)
class Profile:
    """The registry of one broker, and who judges its tokens.

    awaits_token: whether a connection, by its id, may do nothing before it uploads a token. when_let_in: called with
    the client when it did, its rights being in force.
    """

    registry: Registry
    tokens: TokenChecker
    awaits_token: Callable[[str], bool]
    when_let_in: list[Callable[[ClientView], None]] = field(default_factory=list)


def profile_of(broker: Broker) -> Profile:
    """Return the broker's profile. MqttCoreError when `aliyun_auth` has not started before."""
    try:
        profile = broker.service(PROFILE)
    except MqttCoreError as error:
        raise MqttCoreError("needs [plugins.aliyun_auth], in a place before it in the configuration") from error
    assert isinstance(profile, Profile)
    return profile
