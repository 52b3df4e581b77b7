"""One call of an action: its parameters, and what its access key may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..names import group_of
from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mqttcore import Broker

    from ..records import AccessKey
    from ..registry import Registry
    from ..settings import OpenApiConfig
    from ..token_service import TokenService

__all__ = ["Call", "Services"]


@dataclass(frozen=True, slots=True)
class Services:
    """What actions work with."""

    broker: Broker
    registry: Registry
    tokens: TokenService
    config: OpenApiConfig


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was signed with *key*. Every method raises ApiError when the answer is no."""

    key: AccessKey
    parameters: Mapping[str, str] = field(repr=False)  # secrets may be among them
    services: Services

    def text(self, name: str) -> str:
        """Return a parameter that must be there."""
        value = self.parameters.get(name, "")
        if not value:
            raise ApiError(f"InvalidParameter.{name}", f"{name} is missing")
        return value

    def optional(self, name: str) -> str | None:
        """Return a parameter, None when it is missing or empty."""
        return self.parameters.get(name) or None

    def number(self, name: str, default: int | None = None) -> int:
        """Return a parameter that is a number, 0 or more. default: of one that may be missing."""
        value = self.parameters.get(name, "")
        if not value and default is not None:
            return default
        if not (value.isascii() and value.isdecimal() and len(value) <= 18):
            raise ApiError(f"InvalidParameter.{name}", f"{name} is no number")
        return int(value)

    def instance(self) -> str:
        """Return `InstanceId`, when the key is good for it. Whether there is such an instance is not told."""
        instance_id = self.text("InstanceId")
        if not self.services.registry.has_instance(instance_id) or not self.key.may_use(instance_id):
            raise ApiError("InstancePermissionCheckFailed", "the access key is not good for this instance")
        return instance_id

    def own_group(self, group_id: str) -> str:
        """Return a group id, when the key may do with it."""
        if not self.key.owns_group(group_id):
            raise ApiError("PermissionCheckFailed", "the access key is not good for this group")
        return group_id

    def own_client(self, client_id: str) -> str:
        """Return a client id, when the key is good for its group. One without group needs a key for all groups."""
        self.own_group(group_of(client_id) or "")
        return client_id

    def manages(self, *, everything: bool = False) -> None:
        """Refuse a key that may not manage: what can be made so has rights to all topics, and so must its maker.

        everything: it is not about one group, so the key must be good for all.
        """
        key, managers = self.key, self.services.config.managers
        if (
            (managers and key.access_key_id not in managers)
            or key.rights != "full"
            or key.topics
            or (everything and key.groups)
        ):
            raise ApiError("PermissionCheckFailed", "the access key may not manage this")
