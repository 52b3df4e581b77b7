"""What the registry keeps: small structs that are stored as JSON. No secret stands in a `repr`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "AccessKey",
    "BlockedClient",
    "CustomIdentity",
    "CustomPermission",
    "DeviceCredential",
    "Group",
    "IdentityType",
    "Instance",
    "ParentTopic",
    "Revocation",
    "Rights",
    "SignMode",
]

Rights = Literal["full", "publish", "subscribe"]
IdentityType = Literal["USER", "CLIENT"]
SignMode = Literal["ORIGIN", "SIGNED"]


class _Secretive(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A record with fields that are not shown."""

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={'…' if 'secret' in name else repr(getattr(self, name))}" for name in self.__struct_fields__
        )
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> Any:
        """Yield what `repr` shows: msgspec's own would give every field away."""
        for name in self.__struct_fields__:
            yield name, "…" if "secret" in name else getattr(self, name)


class Instance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An instance: what groups, topics and credentials belong to."""

    instance_id: str
    created_ms: int = 0


class AccessKey(_Secretive, frozen=True):
    """A key pair and what it may do. Empty lists: all instances, all groups, all parent topics."""

    access_key_id: str
    secret: str
    rights: Rights = "full"
    instances: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    is_enabled: bool = True

    def may_use(self, instance_id: str) -> bool:
        """Say whether the key is good for an instance."""
        return self.is_enabled and (not self.instances or instance_id in self.instances)

    def owns_group(self, group_id: str) -> bool:
        """Say whether clients of a group may use the key."""
        return not self.groups or group_id in self.groups

    def owns_topic(self, parent_topic: str) -> bool:
        """Say whether the key has rights to a parent topic."""
        return not self.topics or parent_topic in self.topics


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of clients."""

    group_id: str
    instance_id: str
    created_ms: int = 0
    updated_ms: int = 0

    def as_result(self) -> dict[str, Any]:
        """Return it as an element of ListGroupId's `Data`."""
        return {
            "GroupId": self.group_id,
            "InstanceId": self.instance_id,
            "CreateTime": self.created_ms,
            "UpdateTime": self.updated_ms,
            "IndependentNaming": True,
            "Tags": [],
        }


class ParentTopic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A first level under which topics may be used."""

    topic: str
    instance_id: str
    created_ms: int = 0


class DeviceCredential(_Secretive, frozen=True):
    """The key pair of one client."""

    client_id: str
    instance_id: str
    device_access_key_id: str
    device_access_key_secret: str
    created_ms: int
    updated_ms: int

    def as_result(self) -> dict[str, Any]:
        """Return it as OpenAPI's `DeviceCredential`, the secret included: for its owner's eyes."""
        return {
            "ClientId": self.client_id,
            "InstanceId": self.instance_id,
            "DeviceAccessKeyId": self.device_access_key_id,
            "DeviceAccessKeySecret": self.device_access_key_secret,
            "CreateTime": self.created_ms,
            "UpdateTime": self.updated_ms,
        }


class CustomIdentity(_Secretive, frozen=True):
    """A user name, or a client id, with a secret of its own."""

    instance_id: str
    identity_type: IdentityType
    user_name: str
    secret: str
    sign_mode: SignMode = "ORIGIN"
    client_id: str = ""

    @property
    def identity(self) -> str:
        """What names it: the client id for CLIENT, the user name for USER."""
        return self.client_id if self.identity_type == "CLIENT" else self.user_name

    def as_result(self) -> dict[str, Any]:
        """Return it as an element of QueryCustomAuthIdentity's `Results`; the secret stays here."""
        return {
            "InstanceId": self.instance_id,
            "IdentityType": self.identity_type,
            "Username": self.user_name,
            "ClientId": self.client_id,
            "SignMode": self.sign_mode,
        }


class CustomPermission(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an identity of custom authentication may do, or may not."""

    instance_id: str
    identity: str
    identity_type: IdentityType
    topic: str
    permit_action: Literal["PUB", "SUB", "PUB_SUB"]
    effect: Literal["ALLOW", "DENY"]

    def as_result(self) -> dict[str, Any]:
        """Return it as an element of QueryCustomAuthPermission's `Results`."""
        return {
            "InstanceId": self.instance_id,
            "Identity": self.identity,
            "IdentityType": self.identity_type,
            "Topic": self.topic,
            "PermitAction": self.permit_action,
            "Effect": self.effect,
        }


class BlockedClient(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A client id that may not connect."""

    instance_id: str
    client_id: str

    def as_result(self) -> dict[str, Any]:
        """Return it as an element of QueryCustomAuthConnectBlack's `Results`."""
        return {
            "InstanceId": self.instance_id,
            "ClientId": self.client_id,
            "PermitAction": "CONNECT",
            "Effect": "DENY",
        }


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A token that is no longer good, remembered until it would have expired. token_id: hexadecimal."""

    token_id: str
    expires_ms: int
