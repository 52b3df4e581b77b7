"""The tables of the plugins, as they stand in a configuration."""

from pathlib import Path
from typing import Any

import pytest
from mqttcore_plugins.aliyun.auth import AliyunAuth
from mqttcore_plugins.aliyun.ordered import Ordered
from mqttcore_plugins.aliyun.p2p import P2P
from mqttcore_plugins.aliyun.presence import Presence
from mqttcore_plugins.aliyun.token_http import AliyunToken

from mqttcore import Broker, Config, ConfigError, Listener, MqttCoreError, PluginError

SECRET = "very-secret-text"
ALL: dict[str, dict[str, Any]] = {"aliyun_auth": {}, "aliyun_token": {}, "p2p": {}, "ordered": {}, "presence": {}}


def config(**tables: dict[str, Any]) -> Config:
    return Config(listeners=[Listener(port=0)], sys_interval_s=0, plugins=ALL | tables)


async def test_all_are_found_by_name_and_start_with_defaults():
    async with Broker(config()) as broker:
        kinds = {name: type(plugin) for name, plugin in broker.plugins.items()}
    assert kinds == {
        "aliyun_auth": AliyunAuth,
        "aliyun_token": AliyunToken,
        "p2p": P2P,
        "ordered": Ordered,
        "presence": Presence,
    }


async def test_every_setting_can_be_given(tmp_path: Path):
    auth: dict[str, Any] = {
        "path": str(tmp_path / "registry.json"),
        "instances": [{"id": "mqtt-xxxxx", "groups": ["GID_Test"], "topics": ["TopicA"]}],
        "access_keys": [
            {"id": "YYYYY", "secret": SECRET, "rights": "publish", "instances": ["mqtt-xxxxx"], "topics": ["TopicA"]}
        ],
        "auto_create_groups": True,
        "messages_per_s": 20,
        "token_keys": ["a key of sixteen bytes"],
        "listener_instances": {"default": "mqtt-xxxxx"},
    }
    async with Broker(config(aliyun_auth=auth)) as broker:
        registry = broker.plugins["aliyun_auth"].registry
        assert registry.topics_of("mqtt-xxxxx") == ["TopicA"]
        assert registry.access_key("YYYYY", "mqtt-xxxxx").rights == "publish"
        assert SECRET not in repr(broker.plugins["aliyun_auth"].__dict__)
    assert (tmp_path / "registry.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"unknown": 1}, "plugins.aliyun_auth.unknown"),
        ({"instances": [{"id": "a b"}]}, "plugins.aliyun_auth.instances[0].id"),
        ({"access_keys": [{"id": "a|b", "secret": SECRET}]}, "plugins.aliyun_auth.access_keys[0].id"),
        ({"access_keys": [{"id": "a"}]}, "plugins.aliyun_auth.access_keys[0].secret"),
        ({"access_keys": [{"id": "a", "secret": SECRET, "rights": "x"}]}, "plugins.aliyun_auth.access_keys[0].rights"),
        ({"messages_per_s": 0}, "plugins.aliyun_auth.messages_per_s"),
    ],
)
async def test_mistakes_name_their_place(table: dict[str, Any], path: str):
    with pytest.raises(ConfigError) as raised:
        await Broker(config(aliyun_auth=table)).start()
    assert raised.value.path == path
    assert SECRET not in str(raised.value)


async def test_short_token_key_does_not_start():
    with pytest.raises((PluginError, ConfigError), match="16 bytes") as raised:
        await Broker(config(aliyun_auth={"token_keys": ["short-secret"]})).start()
    assert "short-secret" not in str(raised.value)


async def test_token_service_before_the_registry_does_not_start():
    tables = {"aliyun_token": {}, "aliyun_auth": {}}
    with pytest.raises(MqttCoreError, match=r"needs \[plugins.aliyun_auth\], in a place before it"):
        await Broker(Config(listeners=[Listener(port=0)], plugins=tables)).start()


async def test_damaged_registry_does_not_start(tmp_path: Path):
    path = tmp_path / "registry.json"
    path.write_text("{")
    path.chmod(0o600)
    with pytest.raises(PluginError, match=r"registry.json"):
        await Broker(config(aliyun_auth={"path": str(path)})).start()
