"""Custom authentication: identities with secrets of their own, what they may do, and clients that may not connect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .names import is_resource
from .records import BlockedClient, CustomIdentity, CustomPermission, IdentityType, SignMode
from .table import RegistryError, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from .registry import Registry
    from .storage import Storage

__all__ = ["CustomAuth"]

_PAGE_MAXIMUM = 100
_TEXT_MAXIMUM = 256  # characters of user names, client ids and secrets
_TOPIC_MAXIMUM = 1024


class CustomAuth:
    """The custom identities of a registry. when_changed: called with (instance, kind, name) whose rights changed."""

    def __init__(self, registry: Registry, storage: Storage, *, maximum: int) -> None:
        self._registry = registry
        self._identities = Table(
            "custom_identities",
            CustomIdentity,
            lambda one: (one.instance_id, one.identity_type, one.identity),
            maximum=maximum,
            storage=storage,
        )
        self._permissions = Table(
            "custom_permissions",
            CustomPermission,
            lambda one: (one.instance_id, one.identity_type, one.identity, one.topic),
            maximum=maximum,
            storage=storage,
        )
        self._blocked = Table(
            "blocked_clients",
            BlockedClient,
            lambda one: (one.instance_id, one.client_id),
            maximum=maximum,
            storage=storage,
        )
        self._topics_of: dict[tuple[str, str, str], dict[str, None]] = {}
        self.when_changed: list[Callable[[str, str, str], object]] = []

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        """The tables that it keeps."""
        return (self._identities, self._permissions, self._blocked)

    def index(self) -> None:
        """Make the indexes anew."""
        self._topics_of = {}
        for one in self._permissions:
            self._topics_of.setdefault((one.instance_id, one.identity_type, one.identity), {})[one.topic] = None

    # --- what is asked at login -----------------------------------------------------------------------------------

    def identity(self, instance_id: str, identity_type: IdentityType, name: str) -> CustomIdentity | None:
        """Return an identity by user name (USER) or client id (CLIENT), or None."""
        return self._identities.find(instance_id, identity_type, name)

    def permissions(self, instance_id: str, identity_type: IdentityType, name: str) -> list[CustomPermission]:
        """Return the rules of an identity, oldest first."""
        topics = self._topics_of.get((instance_id, identity_type, name), {})
        found = (self._permissions.find(instance_id, identity_type, name, topic) for topic in topics)
        return [one for one in found if one is not None]

    def is_blocked(self, instance_id: str, client_id: str) -> bool:
        """Say whether a client may not connect."""
        return (instance_id, client_id) in self._blocked

    # --- identities -------------------------------------------------------------------------------------------------

    async def add_identity(
        self,
        instance_id: str,
        identity_type: IdentityType,
        user_name: str,
        secret: str,
        sign_mode: SignMode = "ORIGIN",
        client_id: str = "",
    ) -> CustomIdentity:
        """Add an identity (AddCustomAuthIdentity). RegistryError: there already, or a value that cannot be."""
        identity = self._new_identity(instance_id, identity_type, user_name, secret, sign_mode, client_id)
        if self.identity(instance_id, identity_type, identity.identity) is not None:
            raise RegistryError("ParameterCheckFailed", "the identity is there already")
        await self._put_identity(identity)
        return identity

    async def update_identity(
        self,
        instance_id: str,
        identity_type: IdentityType,
        user_name: str,
        secret: str,
        sign_mode: SignMode = "ORIGIN",
        client_id: str = "",
    ) -> CustomIdentity:
        """Replace an identity's secret and way of signing (UpdateCustomAuthIdentity)."""
        identity = self._new_identity(instance_id, identity_type, user_name, secret, sign_mode, client_id)
        self._existing(instance_id, identity_type, identity.identity)
        await self._put_identity(identity)
        return identity

    async def delete_identity(
        self, instance_id: str, identity_type: IdentityType, user_name: str, client_id: str = ""
    ) -> None:
        """Remove an identity with its permissions (DeleteCustomAuthIdentity)."""
        name = client_id if identity_type == "CLIENT" else user_name
        self._existing(instance_id, identity_type, name)
        self._identities.remove(instance_id, identity_type, name)
        for topic in self._topics_of.pop((instance_id, identity_type, name), {}):
            self._permissions.remove(instance_id, identity_type, name, topic)
        await self._changed(instance_id, identity_type, name)

    def query_identities(
        self,
        instance_id: str,
        *,
        name: str | None = None,
        identity_type: str | None = None,
        user_name: str | None = None,
        client_id: str | None = None,
        page_size: int = 100,
        next_token: str | None = None,
    ) -> dict[str, Any]:
        """Return `Data` of QueryCustomAuthIdentity: those of an instance that have all that is given."""
        self._registry.check_instance(instance_id)
        found = (
            one.as_result()
            for one in self._identities
            if one.instance_id == instance_id
            and name in (None, one.identity)
            and identity_type in (None, one.identity_type)
            and user_name in (None, one.user_name)
            and client_id in (None, one.client_id)
        )
        return _page(list(found), page_size, next_token)

    # --- permissions ------------------------------------------------------------------------------------------------

    async def put_permission(self, permission: CustomPermission, *, is_new: bool | None = None) -> None:
        """Add or update a rule (Add-, UpdateCustomAuthPermission). is_new: whether it must or must not be there."""
        try:
            msgspec.convert(msgspec.to_builtins(permission), CustomPermission)
        except msgspec.ValidationError as error:
            raise RegistryError("ParameterCheckFailed", str(error)) from error
        if not is_resource(permission.topic, length_maximum=_TOPIC_MAXIMUM, any_character=True):
            raise RegistryError("InvalidParameter.Topic", "the topic is no filter below a parent topic")
        owner = (permission.instance_id, permission.identity_type, permission.identity)
        self._existing(*owner)
        known = permission.topic in self._topics_of.get(owner, {})
        if is_new is not None and is_new == known:
            text = "there already" if known else "not there"
            raise RegistryError("ParameterCheckFailed", f"the permission is {text}")
        self._permissions.put(permission)
        self._topics_of.setdefault(owner, {})[permission.topic] = None
        await self._changed(*owner)

    async def delete_permission(self, instance_id: str, identity_type: IdentityType, identity: str, topic: str) -> None:
        """Remove a rule (DeleteCustomAuthPermission)."""
        if self._permissions.remove(instance_id, identity_type, identity, topic) is None:
            raise RegistryError("ParameterCheckFailed", "there is no such permission")
        self._topics_of[instance_id, identity_type, identity].pop(topic, None)
        await self._changed(instance_id, identity_type, identity)

    def query_permissions(
        self,
        instance_id: str,
        *,
        identity: str | None = None,
        identity_type: str | None = None,
        topic: str | None = None,
        page_size: int = 100,
        next_token: str | None = None,
    ) -> dict[str, Any]:
        """Return `Data` of QueryCustomAuthPermission."""
        self._registry.check_instance(instance_id)
        found = (
            one.as_result()
            for one in self._permissions
            if one.instance_id == instance_id
            and identity in (None, one.identity)
            and identity_type in (None, one.identity_type)
            and topic in (None, one.topic)
        )
        return _page(list(found), page_size, next_token)

    # --- clients that may not connect -------------------------------------------------------------------------------

    async def block(self, instance_id: str, client_id: str) -> None:
        """Keep a client from connecting (AddCustomAuthConnectBlack)."""
        self._registry.check_instance(instance_id)
        if not client_id or len(client_id) > _TEXT_MAXIMUM or "\n" in client_id:
            raise RegistryError("InvalidParameter.ClientId", "no client id")
        self._blocked.put(BlockedClient(instance_id=instance_id, client_id=client_id))
        await self._changed(instance_id, "BLOCKED", client_id)

    async def unblock(self, instance_id: str, client_id: str) -> None:
        """Let a client connect again (DeleteCustomAuthConnectBlack)."""
        self._registry.check_instance(instance_id)
        if self._blocked.remove(instance_id, client_id) is None:
            raise RegistryError("InvalidParameter.ClientId", "the client is not blocked")
        await self._registry.saved()

    def query_blocked(
        self, instance_id: str, *, client_id: str | None = None, page_size: int = 100, next_token: str | None = None
    ) -> dict[str, Any]:
        """Return `Data` of QueryCustomAuthConnectBlack."""
        self._registry.check_instance(instance_id)
        found = (
            one.as_result()
            for one in self._blocked
            if one.instance_id == instance_id and client_id in (None, one.client_id)
        )
        return _page(list(found), page_size, next_token)

    # ----------------------------------------------------------------------------------------------------------------

    def _new_identity(
        self,
        instance_id: str,
        identity_type: IdentityType,
        user_name: str,
        secret: str,
        sign_mode: SignMode,
        client_id: str,
    ) -> CustomIdentity:
        self._registry.check_instance(instance_id)
        if identity_type not in ("USER", "CLIENT"):
            raise RegistryError("InvalidParameter.IdentityType", "the identity type is neither USER nor CLIENT")
        if sign_mode not in ("ORIGIN", "SIGNED"):
            raise RegistryError("InvalidParameter.SignMode", "the sign mode is neither ORIGIN nor SIGNED")
        if not secret or len(secret) > _TEXT_MAXIMUM:
            raise RegistryError("InvalidParameter.Secret", f"the secret has no or over {_TEXT_MAXIMUM} characters")
        needed = (user_name, client_id) if identity_type == "CLIENT" else (user_name,)
        if any(not text or len(text) > _TEXT_MAXIMUM or "\n" in text for text in needed):
            raise RegistryError("InvalidParameter.Username", "no user name or client id, or too long a one")
        return CustomIdentity(
            instance_id=instance_id,
            identity_type=identity_type,
            user_name=user_name,
            secret=secret,
            sign_mode=sign_mode,
            client_id=client_id if identity_type == "CLIENT" else "",
        )

    def _existing(self, instance_id: str, identity_type: IdentityType, name: str) -> None:
        self._registry.check_instance(instance_id)
        if self.identity(instance_id, identity_type, name) is None:
            raise RegistryError("ParameterCheckFailed", "there is no such identity")

    async def _put_identity(self, identity: CustomIdentity) -> None:
        self._identities.put(identity)
        await self._changed(identity.instance_id, identity.identity_type, identity.identity)

    async def _changed(self, instance_id: str, kind: str, name: str) -> None:
        for call in self.when_changed:
            call(instance_id, kind, name)
        await self._registry.saved()


def _page(results: list[dict[str, Any]], page_size: int, next_token: str | None) -> dict[str, Any]:
    if not 1 <= page_size <= _PAGE_MAXIMUM:
        raise RegistryError("InvalidParameter.Size", f"the page size is not 1 to {_PAGE_MAXIMUM}")
    start = 0
    if next_token:
        if not next_token.isascii() or not next_token.isdecimal() or len(next_token) > 12:
            raise RegistryError("InvalidParameter.NextToken", "the token is not one of ours")
        start = int(next_token)
    end = start + page_size
    return {"NextToken": str(end) if end < len(results) else "", "Results": results[start:end]}
