"""The registry that all plugins of the profile share: instances, access keys, groups, topics, credentials, tokens.

What the configuration names is there from the start and is not changed at run time; what is made at run time is kept in
the storage. Methods of OpenAPI's names are coroutines: they return when what they did is on disk.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from .custom_auth import CustomAuth
from .device_credentials import DeviceCredentials
from .names import is_group_id, is_name
from .records import AccessKey, Group, Instance, ParentTopic, Revocation
from .revocations import Revocations
from .table import RegistryError, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .storage import Storage

__all__ = ["Registry"]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Registry:
    """The records of one broker, and what they mean together.

    auto_create_groups, auto_create_topics: whether what is not there is made when a client first uses it.
    records_maximum: bound of each table that clients or their owners fill. generation: changes with every change of
    what permissions are made of.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        auto_create_groups: bool = False,
        auto_create_topics: bool = False,
        needs_group_prefix: bool = True,
        records_maximum: int = 100_000,
        topics_maximum: int = 10_000,
        now_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        self._storage = storage
        self.auto_create_groups = auto_create_groups
        self.auto_create_topics = auto_create_topics
        self.needs_group_prefix = needs_group_prefix
        self.now_ms = now_ms
        self.generation = 0
        self.token_key = b""
        self.when_key_changed: list[Callable[[str], object]] = []  # called with the id of an access key
        self.instances = Table(
            "instances", Instance, lambda one: (one.instance_id,), maximum=topics_maximum, storage=storage
        )
        self.access_keys = Table(
            "access_keys", AccessKey, lambda one: (one.access_key_id,), maximum=topics_maximum, storage=storage
        )
        self.groups = Table(
            "groups", Group, lambda one: (one.instance_id, one.group_id), maximum=records_maximum, storage=storage
        )
        self.topics = Table(
            "topics", ParentTopic, lambda one: (one.instance_id, one.topic), maximum=topics_maximum, storage=storage
        )
        self.devices = DeviceCredentials(self, storage, maximum=records_maximum)
        self.custom = CustomAuth(self, storage, maximum=records_maximum)
        self.revocations = Revocations(
            Table("revocations", Revocation, lambda one: (one.token_id,), maximum=records_maximum, storage=storage),
            now_ms,
        )

    def load(
        self,
        *,
        instances: Iterable[Instance] = (),
        access_keys: Iterable[AccessKey] = (),
        groups: Iterable[Group] = (),
        topics: Iterable[ParentTopic] = (),
    ) -> None:
        """Take over what the storage has, and what the configuration says. StoreError: damaged or not ours alone."""
        stored = self._storage.load()
        configured: dict[str, Iterable[Any]] = {
            self.instances.name: instances,
            self.access_keys.name: access_keys,
            self.groups.name: groups,
            self.topics.name: topics,
        }
        for table in self.tables:
            table.load(stored.get(table.name, {}), configured.get(table.name, ()))
        self.devices.index()
        self.custom.index()
        kept = stored.get("keys", {}).get("token")
        if kept is None:
            kept = secrets.token_hex(32)
            self._storage.put("keys", "token", kept)
        self.token_key = bytes.fromhex(kept)
        self.changed()

    def changed(self) -> None:
        """Say that permissions made before are no longer right."""
        self.generation += 1

    async def saved(self) -> None:
        """Return when all changes are safe. Raises StoreError."""
        await self._storage.saved()

    # --- what is asked at login -----------------------------------------------------------------------------------

    def has_instance(self, instance_id: str) -> bool:
        """Say whether there is an instance."""
        return (instance_id,) in self.instances

    def access_key(self, access_key_id: str, instance_id: str) -> AccessKey | None:
        """Return a key that is good for an instance, or None."""
        key = self.access_keys.find(access_key_id)
        return key if key is not None and key.may_use(instance_id) else None

    def take_group(self, instance_id: str, group_id: str) -> bool:
        """Say whether there is a group; makes it where groups are made by use."""
        if (instance_id, group_id) in self.groups:
            return True
        if not self.auto_create_groups or len(self.groups) >= self.groups.maximum:
            return False
        now_ms = self.now_ms()
        self.groups.put(Group(group_id=group_id, instance_id=instance_id, created_ms=now_ms, updated_ms=now_ms))
        return True

    def take_topic(self, instance_id: str, parent_topic: str) -> bool:
        """Say whether there is a parent topic; makes it where topics are made by use."""
        if (instance_id, parent_topic) in self.topics:
            return True
        if not self.auto_create_topics or len(self.topics) >= self.topics.maximum:
            return False
        self.topics.put(ParentTopic(topic=parent_topic, instance_id=instance_id, created_ms=self.now_ms()))
        return True  # no change of permissions: they allow all topics there

    def topics_of(self, instance_id: str) -> list[str]:
        """Return the parent topics of an instance."""
        return [one.topic for one in self.topics if one.instance_id == instance_id]

    # --- groups, topics, keys ---------------------------------------------------------------------------------------

    async def create_group(self, instance_id: str, group_id: str) -> Group:
        """Create a group (CreateGroupId). RegistryError: no such instance, no group id, there already."""
        self.check_instance(instance_id)
        if not is_group_id(group_id, needs_prefix=self.needs_group_prefix):
            raise RegistryError("InvalidParameter.GroupId", "a group id begins with GID_ or GID-, 7 to 64 characters")
        if (instance_id, group_id) in self.groups:
            raise RegistryError("InvalidParameter.GroupId", f"group {group_id} is there already")
        now_ms = self.now_ms()
        group = Group(group_id=group_id, instance_id=instance_id, created_ms=now_ms, updated_ms=now_ms)
        self.groups.put(group)
        await self.saved()
        return group

    async def delete_group(self, instance_id: str, group_id: str) -> None:
        """Delete a group (DeleteGroupId); its clients are refused from their next CONNECT on."""
        self.check_instance(instance_id)
        if self.groups.remove(instance_id, group_id) is None:
            raise RegistryError("InvalidParameter.GroupId", f"there is no group {group_id}")
        await self.saved()

    def list_groups(self, instance_id: str) -> list[Group]:
        """Return the groups of an instance, oldest first (ListGroupId)."""
        self.check_instance(instance_id)
        return [one for one in self.groups if one.instance_id == instance_id]

    async def create_topic(self, instance_id: str, parent_topic: str) -> ParentTopic:
        """Create a parent topic; harmless when it is there."""
        self.check_instance(instance_id)
        if not is_name(parent_topic) or len(parent_topic) > 64:
            raise RegistryError("InvalidParameter.Topic", "a parent topic has letters, digits, - and _, at most 64")
        topic = self.topics.find(instance_id, parent_topic)
        if topic is None:
            topic = ParentTopic(topic=parent_topic, instance_id=instance_id, created_ms=self.now_ms())
            self.topics.put(topic)
            self.changed()
        await self.saved()
        return topic

    async def delete_topic(self, instance_id: str, parent_topic: str) -> None:
        """Delete a parent topic; rights to it end with the next login."""
        self.check_instance(instance_id)
        if self.topics.remove(instance_id, parent_topic) is None:
            raise RegistryError("InvalidParameter.Topic", f"there is no parent topic {parent_topic}")
        self.changed()
        await self.saved()

    async def put_access_key(self, key: AccessKey) -> None:
        """Add an access key or replace it, to disable it, say."""
        if not key.access_key_id or "|" in key.access_key_id or not key.secret:
            raise RegistryError("InvalidParameter.AccessKey", "an access key has an id without | and a secret")
        self.access_keys.put(key)
        await self._key_changed(key.access_key_id)

    async def delete_access_key(self, access_key_id: str) -> None:
        """Remove an access key."""
        if self.access_keys.remove(access_key_id) is None:
            raise RegistryError("InvalidParameter.AccessKey", "there is no such access key")
        await self._key_changed(access_key_id)

    async def _key_changed(self, access_key_id: str) -> None:
        self.changed()
        for call in self.when_key_changed:
            call(access_key_id)
        await self.saved()

    async def create_instance(self, instance_id: str) -> Instance:
        """Create an instance; harmless when it is there."""
        if not is_name(instance_id) or len(instance_id) > 64:
            raise RegistryError(
                "InvalidParameter.InstanceId", "an instance id has letters, digits, - and _, at most 64"
            )
        instance = self.instances.find(instance_id)
        if instance is None:
            instance = Instance(instance_id=instance_id, created_ms=self.now_ms())
            self.instances.put(instance)
        await self.saved()
        return instance

    def check_instance(self, instance_id: str) -> None:
        """Raise RegistryError when there is no such instance."""
        if not self.has_instance(instance_id):
            raise RegistryError("InstancePermissionCheckFailed", f"there is no instance {instance_id!r}")

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        """All tables, for metrics."""
        return (
            self.instances,
            self.access_keys,
            self.groups,
            self.topics,
            *self.devices.tables,
            *self.custom.tables,
            *self.revocations.tables,
        )
