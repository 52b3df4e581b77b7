"""Credentials of single devices (ALIYUN: unique certificate per device): one per client id, the latest counts."""

from __future__ import annotations

import secrets
from itertools import islice
from typing import TYPE_CHECKING, Any

from .names import group_of, is_client_id
from .records import DeviceCredential
from .table import RegistryError, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from .registry import Registry
    from .storage import Storage

__all__ = ["DeviceCredentials"]

_PAGE_MAXIMUM = 100
_ID_MAXIMUM = 64


class DeviceCredentials:
    """The device credentials of a registry. when_changed: called with the client id that lost or changed its own."""

    def __init__(self, registry: Registry, storage: Storage, *, maximum: int) -> None:
        self._registry = registry
        self._table = Table(
            "device_credentials",
            DeviceCredential,
            lambda one: (one.instance_id, one.client_id),
            maximum=maximum,
            storage=storage,
        )
        self._by_key: dict[str, DeviceCredential] = {}
        self._by_group: dict[tuple[str, str], dict[str, None]] = {}
        self.when_changed: list[Callable[[str, str], object]] = []

    @property
    def tables(self) -> tuple[Table[DeviceCredential], ...]:
        """The tables that it keeps."""
        return (self._table,)

    def index(self) -> None:
        """Make the indexes anew."""
        self._by_key = {one.device_access_key_id: one for one in self._table}
        self._by_group = {}
        for one in self._table:
            self._by_group.setdefault((one.instance_id, group_of(one.client_id) or ""), {})[one.client_id] = None

    def by_access_key(self, device_access_key_id: str) -> DeviceCredential | None:
        """Return the credential that has this key, or None."""
        return self._by_key.get(device_access_key_id)

    async def register(self, instance_id: str, client_id: str) -> DeviceCredential:
        """Give a client a new credential; one that it had is no longer good (RegisterDeviceCredential)."""
        self._registry.check_instance(instance_id)
        group_id = group_of(client_id)
        needs_prefix = self._registry.needs_group_prefix
        if group_id is None or not is_client_id(client_id, length_maximum=_ID_MAXIMUM, needs_prefix=needs_prefix):
            raise RegistryError("InvalidParameter.ClientId", "the client id is not made of a group and a device")
        if (instance_id, group_id) not in self._registry.groups and not self._registry.auto_create_groups:
            raise RegistryError("InvalidParameter.GroupId", f"there is no group {group_id}")
        now_ms = self._registry.now_ms()
        return await self._put(instance_id, client_id, created_ms=now_ms)

    async def refresh(self, instance_id: str, client_id: str) -> DeviceCredential:
        """Give a client that has a credential a new key pair (RefreshDeviceCredential)."""
        kept = self.find(instance_id, client_id)
        return await self._put(instance_id, client_id, created_ms=kept.created_ms)

    async def unregister(self, instance_id: str, client_id: str) -> None:
        """Take a client's credential away (UnRegisterDeviceCredential)."""
        kept = self.find(instance_id, client_id)
        self._table.remove(instance_id, client_id)
        self._by_key.pop(kept.device_access_key_id, None)
        group = (instance_id, group_of(client_id) or "")
        members = self._by_group.get(group, {})
        members.pop(client_id, None)
        if not members:
            self._by_group.pop(group, None)
        self._changed(instance_id, client_id)
        await self._registry.saved()

    def find(self, instance_id: str, client_id: str) -> DeviceCredential:
        """Return a client's credential (GetDeviceCredential). RegistryError when it has none."""
        self._registry.check_instance(instance_id)
        kept = self._table.find(instance_id, client_id)
        if kept is None:
            raise RegistryError("InvalidParameter.ClientId", "the client has no credential")
        return kept

    def list_client_ids(
        self, instance_id: str, group_id: str, *, page_size: int = 10, page: int = 1, next_token: str | None = None
    ) -> dict[str, Any]:
        """Return one page as ListDeviceCredentialClientId's `DeviceCredentialClientIdList`.

        next_token: of the page before; it counts before the page's number, which begins at 1.
        """
        self._registry.check_instance(instance_id)
        if not 1 <= page_size <= _PAGE_MAXIMUM:
            raise RegistryError("InvalidParameter.PageSize", f"the page size is not 1 to {_PAGE_MAXIMUM}")
        start = (page - 1) * page_size
        if next_token:
            if not next_token.isascii() or not next_token.isdecimal() or len(next_token) > 12:
                raise RegistryError("InvalidParameter.NextToken", "the token is not one of ours")
            start = int(next_token)
        if start < 0:
            raise RegistryError("InvalidParameter.PageNo", "pages begin at 1")
        members = self._by_group.get((instance_id, group_id), {})
        found = list(islice(members, start, start + page_size))
        end = start + len(found)
        return {
            "ClientIdList": found,
            "NextToken": str(end) if end < len(members) else "",
            "PageNo": start // page_size + 1,
            "PageSize": page_size,
            "Total": len(members),
        }

    async def _put(self, instance_id: str, client_id: str, *, created_ms: int) -> DeviceCredential:
        before = self._table.find(instance_id, client_id)
        credential = DeviceCredential(
            client_id=client_id,
            instance_id=instance_id,
            device_access_key_id=f"DC.{secrets.token_urlsafe(16)}",
            device_access_key_secret=f"DC.{secrets.token_urlsafe(24)}",
            created_ms=created_ms,
            updated_ms=self._registry.now_ms(),
        )
        self._table.put(credential)
        if before is not None:
            self._by_key.pop(before.device_access_key_id, None)
        self._by_key[credential.device_access_key_id] = credential
        self._by_group.setdefault((instance_id, group_of(client_id) or ""), {})[client_id] = None
        self._changed(instance_id, client_id)
        await self._registry.saved()
        return credential

    def _changed(self, instance_id: str, client_id: str) -> None:
        for call in self.when_changed:
            call(instance_id, client_id)
