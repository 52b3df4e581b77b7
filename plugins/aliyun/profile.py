"""What the plugins of the profile share: `aliyun_auth` makes it, the others find it by way of the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mqttcore import MqttCoreError

if TYPE_CHECKING:
    from mqttcore import Broker

    from .gate import TokenChecker
    from .registry import Registry

__all__ = ["PROFILE", "Profile", "profile_of"]

PROFILE = "aliyun_auth.profile"


@dataclass(frozen=True, slots=True)
class Profile:
    """The registry of one broker, and who judges its tokens."""

    registry: Registry
    tokens: TokenChecker


def profile_of(broker: Broker) -> Profile:
    """Return the broker's profile. MqttCoreError when `aliyun_auth` has not started before."""
    try:
        profile = broker.service(PROFILE)
    except MqttCoreError as error:
        raise MqttCoreError("needs [plugins.aliyun_auth], in a place before it in the configuration") from error
    assert isinstance(profile, Profile)
    return profile
