"""The registry: what is made stays, what is full says so, and nothing shows a secret."""

import asyncio
import json
import stat
from pathlib import Path

import msgspec
import pytest
from mqttcore_plugins.aliyun.records import AccessKey, CustomPermission, Group, Instance
from mqttcore_plugins.aliyun.registry import Registry
from mqttcore_plugins.aliyun.storage import FileStorage, MemoryStorage, Storage
from mqttcore_plugins.aliyun.table import RegistryError

from mqttcore import StoreError

INSTANCE = "mqtt-xxxxx"
SECRET = "very-secret-text"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


def make(storage: Storage | None = None, **settings: object) -> Registry:
    registry = Registry(storage or MemoryStorage(), **settings)
    registry.load(instances=[Instance(instance_id=INSTANCE)], groups=[Group(group_id="GID_Test", instance_id=INSTANCE)])
    return registry


async def test_what_was_made_is_there_after_a_restart(tmp_path: Path):
    path = tmp_path / "registry.json"
    first = make(FileStorage(path))
    await first.create_group(INSTANCE, "GID_Other")
    await first.create_topic(INSTANCE, "parent")
    await first.create_instance("mqtt-second")
    await first.put_access_key(AccessKey(access_key_id="AK", secret=SECRET, rights="publish"))
    device = await first.devices.register(INSTANCE, "GID_Test@@@1")
    await first.custom.add_identity(INSTANCE, "USER", "alice", SECRET)
    await first.custom.put_permission(permission("alice", "room/#"))
    await first.custom.block(INSTANCE, "bad")
    first.revocations.add(b"\x01\x02", 2**50)
    await first.saved()

    second = make(FileStorage(path))
    assert [one.group_id for one in second.list_groups(INSTANCE)] == ["GID_Test", "GID_Other"]
    assert second.topics_of(INSTANCE) == ["parent"]
    assert second.has_instance("mqtt-second")
    assert second.access_key("AK", INSTANCE) == AccessKey(access_key_id="AK", secret=SECRET, rights="publish")
    assert second.devices.by_access_key(device.device_access_key_id) == device
    assert second.custom.identity(INSTANCE, "USER", "alice").secret == SECRET
    assert [one.topic for one in second.custom.permissions(INSTANCE, "USER", "alice")] == ["room/#"]
    assert second.custom.is_blocked(INSTANCE, "bad")
    assert b"\x01\x02" in second.revocations
    assert second.token_key == first.token_key
    assert len(second.token_key) == 32


def permission(identity: str, topic: str, effect: str = "ALLOW") -> CustomPermission:
    return CustomPermission(
        instance_id=INSTANCE,
        identity=identity,
        identity_type="USER",
        topic=topic,
        permit_action="PUB_SUB",
        effect=effect,
    )


def test_file_is_for_its_owner_only(tmp_path: Path):
    path = tmp_path / "registry.json"
    asyncio.run(make(FileStorage(path)).saved())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    path.chmod(0o640)
    with pytest.raises(StoreError, match="chmod 600"):
        make(FileStorage(path))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version":1,"tables":{"groups":{"a":{"group_id":1}}}}', '{"version":2,"tables":{}}']
)
async def test_damaged_file_is_not_read_in_part(tmp_path: Path, text: str):
    path = tmp_path / "registry.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StoreError):
        make(FileStorage(path))
    assert path.read_text() == text


async def test_error_in_file_does_not_tell_secrets(tmp_path: Path):
    path = tmp_path / "registry.json"
    record = {"access_key_id": "AK", "secret": SECRET, "unknown": 1}
    path.write_text(json.dumps({"version": 1, "tables": {"access_keys": {"AK": record}}}))
    path.chmod(0o600)
    with pytest.raises(StoreError) as raised:
        make(FileStorage(path))
    assert SECRET not in str(raised.value)


async def test_many_changes_are_few_writings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mqttcore_plugins.aliyun import storage

    writings = []
    replace = storage.write_private_file
    monkeypatch.setattr(storage, "write_private_file", lambda *given: (writings.append(1), replace(*given)))
    registry = make(FileStorage(tmp_path / "registry.json"))
    await asyncio.gather(*(registry.create_group(INSTANCE, f"GID_{number:04}") for number in range(500)))
    assert len(writings) <= 3
    assert len(make(FileStorage(tmp_path / "registry.json")).groups) == 501


async def test_failed_writing_reaches_who_waits_and_is_made_up_for(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "gone"
    registry = make(FileStorage(folder / "registry.json"))
    with pytest.raises(StoreError, match="cannot be written"):
        await registry.create_group(INSTANCE, "GID_Other")
    assert "not saved" in caplog.text
    folder.mkdir()
    await registry.saved()
    assert len(make(FileStorage(folder / "registry.json")).groups) == 2


async def test_tables_are_bounded():
    registry = make(records_maximum=2)
    await registry.create_group(INSTANCE, "GID_Other")
    with pytest.raises(RegistryError, match="2 are there"):
        await registry.create_group(INSTANCE, "GID_Third")
    assert len(registry.groups) == 2
    registry = make(records_maximum=1, auto_create_groups=True)
    assert not registry.take_group(INSTANCE, "GID_Other")


async def test_configured_records_are_not_changed():
    registry = make()
    with pytest.raises(RegistryError, match="configuration"):
        await registry.delete_group(INSTANCE, "GID_Test")
    registry.load(access_keys=[AccessKey(access_key_id="AK", secret=SECRET)])
    with pytest.raises(RegistryError, match="configuration"):
        await registry.put_access_key(AccessKey(access_key_id="AK", secret="other"))


async def test_groups_are_created_listed_and_deleted():
    registry = make(now_ms=Clock())
    group = await registry.create_group(INSTANCE, "GID_Other")
    assert group.as_result() == {
        "GroupId": "GID_Other",
        "InstanceId": INSTANCE,
        "CreateTime": 1_000_000,
        "UpdateTime": 1_000_000,
        "IndependentNaming": True,
        "Tags": [],
    }
    with pytest.raises(RegistryError, match="already"):
        await registry.create_group(INSTANCE, "GID_Other")
    with pytest.raises(RegistryError, match="GID_"):
        await registry.create_group(INSTANCE, "Other")
    with pytest.raises(RegistryError) as raised:
        await registry.create_group("mqtt-none", "GID_Other")
    assert raised.value.code == "InstancePermissionCheckFailed"
    await registry.delete_group(INSTANCE, "GID_Other")
    assert len(registry.list_groups(INSTANCE)) == 1
    with pytest.raises(RegistryError, match="no group"):
        await registry.delete_group(INSTANCE, "GID_Other")


async def test_groups_and_topics_are_made_by_use_where_that_is_on():
    registry = make(auto_create_groups=True, auto_create_topics=True)
    assert registry.take_group(INSTANCE, "GID_New")
    assert registry.take_topic(INSTANCE, "new")
    assert (INSTANCE, "GID_New") in registry.groups
    assert registry.topics_of(INSTANCE) == ["new"]
    registry = make()
    assert not registry.take_group(INSTANCE, "GID_New")
    assert not registry.take_topic(INSTANCE, "new")
    assert registry.take_group(INSTANCE, "GID_Test")


async def test_access_key_is_good_for_its_instances_while_enabled():
    registry = make()
    await registry.put_access_key(AccessKey(access_key_id="AK", secret=SECRET, instances=(INSTANCE,)))
    assert registry.access_key("AK", INSTANCE) is not None
    assert registry.access_key("AK", "mqtt-other") is None
    assert registry.access_key("none", INSTANCE) is None
    await registry.put_access_key(AccessKey(access_key_id="AK", secret=SECRET, is_enabled=False))
    assert registry.access_key("AK", INSTANCE) is None
    await registry.delete_access_key("AK")
    assert registry.access_keys.find("AK") is None


async def test_device_credential_lives_from_register_to_unregister():
    clock = Clock()
    registry = make(now_ms=clock)
    changed = []
    registry.devices.when_changed.append(lambda *who: changed.append(who))
    first = await registry.devices.register(INSTANCE, "GID_Test@@@1")
    assert first.device_access_key_id.startswith("DC.")
    assert first.device_access_key_secret.startswith("DC.")
    assert registry.devices.find(INSTANCE, "GID_Test@@@1") == first
    clock.now += 5
    second = await registry.devices.register(INSTANCE, "GID_Test@@@1")
    assert registry.devices.by_access_key(first.device_access_key_id) is None
    assert registry.devices.by_access_key(second.device_access_key_id) == second
    clock.now += 5
    third = await registry.devices.refresh(INSTANCE, "GID_Test@@@1")
    assert third.created_ms == second.created_ms == 1_000_005
    assert third.updated_ms == 1_000_010
    assert third.as_result() == {
        "ClientId": "GID_Test@@@1",
        "InstanceId": INSTANCE,
        "DeviceAccessKeyId": third.device_access_key_id,
        "DeviceAccessKeySecret": third.device_access_key_secret,
        "CreateTime": 1_000_005,
        "UpdateTime": 1_000_010,
    }
    await registry.devices.unregister(INSTANCE, "GID_Test@@@1")
    assert registry.devices.by_access_key(third.device_access_key_id) is None
    for ask in (registry.devices.refresh, registry.devices.unregister):
        with pytest.raises(RegistryError, match="no credential"):
            await ask(INSTANCE, "GID_Test@@@1")
    assert changed == [(INSTANCE, "GID_Test@@@1")] * 4


async def test_device_credential_needs_a_group():
    registry = make()
    with pytest.raises(RegistryError, match="no group GID_None"):
        await registry.devices.register(INSTANCE, "GID_None@@@1")
    with pytest.raises(RegistryError, match="not made of"):
        await registry.devices.register(INSTANCE, "plain")


async def test_device_credentials_are_listed_in_pages():
    registry = make()
    for number in range(5):
        await registry.devices.register(INSTANCE, f"GID_Test@@@{number}")
    page = registry.devices.list_client_ids(INSTANCE, "GID_Test", page_size=2)
    assert page == {
        "ClientIdList": ["GID_Test@@@0", "GID_Test@@@1"],
        "NextToken": "2",
        "PageNo": 1,
        "PageSize": 2,
        "Total": 5,
    }
    page = registry.devices.list_client_ids(INSTANCE, "GID_Test", page_size=2, next_token=page["NextToken"])
    assert page["ClientIdList"] == ["GID_Test@@@2", "GID_Test@@@3"]
    page = registry.devices.list_client_ids(INSTANCE, "GID_Test", page_size=2, page=3)
    assert (page["ClientIdList"], page["NextToken"]) == (["GID_Test@@@4"], "")
    for wrong in ({"page_size": 0}, {"page_size": 101}, {"next_token": "x"}, {"page": 0}):
        with pytest.raises(RegistryError):
            registry.devices.list_client_ids(INSTANCE, "GID_Test", **wrong)


async def test_custom_identity_and_permissions_live_together():
    registry = make()
    changed = []
    registry.custom.when_changed.append(lambda *who: changed.append(who))
    await registry.custom.add_identity(INSTANCE, "USER", "alice", SECRET, "SIGNED")
    with pytest.raises(RegistryError, match="already"):
        await registry.custom.add_identity(INSTANCE, "USER", "alice", SECRET)
    await registry.custom.update_identity(INSTANCE, "USER", "alice", SECRET + "2")
    assert registry.custom.identity(INSTANCE, "USER", "alice").secret == SECRET + "2"
    await registry.custom.put_permission(permission("alice", "room/#"), is_new=True)
    with pytest.raises(RegistryError, match="there already"):
        await registry.custom.put_permission(permission("alice", "room/#"), is_new=True)
    await registry.custom.put_permission(permission("alice", "room/#", "DENY"), is_new=False)
    assert registry.custom.query_permissions(INSTANCE) == {
        "NextToken": "",
        "Results": [
            {
                "InstanceId": INSTANCE,
                "Identity": "alice",
                "IdentityType": "USER",
                "Topic": "room/#",
                "PermitAction": "PUB_SUB",
                "Effect": "DENY",
            }
        ],
    }
    found = registry.custom.query_identities(INSTANCE)["Results"]
    assert [one["Username"] for one in found] == ["alice"]
    assert SECRET not in str(found)
    await registry.custom.delete_identity(INSTANCE, "USER", "alice")
    assert registry.custom.permissions(INSTANCE, "USER", "alice") == []
    assert {table.name: len(table) for table in registry.tables}["custom_permissions"] == 0
    assert set(changed) == {(INSTANCE, "USER", "alice")}


async def test_custom_client_identity_is_named_by_its_client_id():
    registry = make()
    await registry.custom.add_identity(INSTANCE, "CLIENT", "alice", SECRET, client_id="phone")
    assert registry.custom.identity(INSTANCE, "CLIENT", "phone").user_name == "alice"
    with pytest.raises(RegistryError):
        await registry.custom.add_identity(INSTANCE, "CLIENT", "alice", SECRET)


async def test_custom_permission_is_checked():
    registry = make()
    with pytest.raises(RegistryError, match="no such identity"):
        await registry.custom.put_permission(permission("bob", "room/#"))
    await registry.custom.add_identity(INSTANCE, "USER", "bob", SECRET)
    with pytest.raises(RegistryError, match="no filter"):
        await registry.custom.put_permission(permission("bob", "#"))
    with pytest.raises(RegistryError):
        await registry.custom.put_permission(permission("bob", "room/#", "MAYBE"))
    with pytest.raises(RegistryError, match="no such permission"):
        await registry.custom.delete_permission(INSTANCE, "USER", "bob", "room/#")


async def test_blocked_clients_are_told_and_unblocked():
    registry = make()
    await registry.custom.block(INSTANCE, "bad")
    assert registry.custom.query_blocked(INSTANCE)["Results"][0]["PermitAction"] == "CONNECT"
    await registry.custom.unblock(INSTANCE, "bad")
    assert not registry.custom.is_blocked(INSTANCE, "bad")
    with pytest.raises(RegistryError, match="not blocked"):
        await registry.custom.unblock(INSTANCE, "bad")


async def test_revocation_is_forgotten_when_the_token_has_expired():
    clock = Clock()
    registry = make(now_ms=clock, records_maximum=1)
    told = []
    registry.revocations.when_revoked.append(told.append)
    registry.revocations.add(b"\x01", clock.now + 10)
    registry.revocations.add(b"\x01", clock.now + 10)
    assert told == [b"\x01"]
    with pytest.raises(RegistryError):  # none may be forgotten before its time
        registry.revocations.add(b"\x02", clock.now + 10)
    clock.now += 10
    registry.revocations.add(b"\x02", clock.now + 10)
    assert b"\x01" not in registry.revocations
    assert b"\x02" in registry.revocations


async def test_no_repr_shows_a_secret():
    registry = make()
    device = await registry.devices.register(INSTANCE, "GID_Test@@@1")
    identity = await registry.custom.add_identity(INSTANCE, "USER", "alice", SECRET)
    key = AccessKey(access_key_id="AK", secret=SECRET)
    for record in (device, identity, key, [key]):
        text = repr(record)
        assert SECRET not in text
        assert device.device_access_key_secret not in text
        assert "…" in text
    with pytest.raises(msgspec.ValidationError) as raised:
        msgspec.convert({"access_key_id": "AK", "secret": SECRET, "rights": SECRET}, AccessKey)
    assert "rights" in str(raised.value)
