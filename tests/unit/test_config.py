"""The configuration: what is taken, and that every mistake names its key."""

import math
from pathlib import Path

import pytest

from mqttcore.config import Config, Limits, Listener, check_exposure, from_mapping, is_loopback, load, takes_anonymous
from mqttcore.errors import ConfigError


def test_empty_mapping_is_the_default_configuration():
    config = from_mapping({})
    assert config == Config()
    assert config.listeners == [Listener(host="127.0.0.1", port=1883)]
    assert config.limits.receive_maximum == 1024
    assert config.allow_anonymous is None


def test_defaults_lie_within_their_own_ranges():
    limits = {name: getattr(Limits(), name) for name in Limits.__struct_fields__}
    listener = {name: getattr(Listener(), name) for name in Listener.__struct_fields__}
    assert from_mapping({"limits": limits, "listeners": [listener]}) == Config()


def test_values_arrive_in_their_fields(tmp_path: Path):
    file = tmp_path / "broker.toml"
    file.write_text(
        """
        allow_anonymous = true
        shutdown_timeout_s = 2
        [[listeners]]
        name = "lan"
        host = "::"
        port = 0
        [[listeners]]
        name = "local"
        [limits]
        queue_drop = "newest"
        [plugins.passwords]
        file = "users"
        [plugins.audit]
        """,
        encoding="utf-8",
    )
    config = load(file)
    assert config.listeners == [Listener(name="lan", host="::", port=0), Listener(name="local")]
    assert config.limits.queue_drop == "newest"
    assert config.shutdown_timeout_s == 2.0
    assert list(config.plugins.items()) == [("passwords", {"file": "users"}), ("audit", {})]
    assert config.allow_anonymous is True


@pytest.mark.parametrize(
    ("mapping", "path", "reason"),
    [
        ({"lisetners": []}, "lisetners", "unknown key"),
        ({"limits": {"receive_max": 1}}, "limits.receive_max", "unknown key"),
        ({"listeners": [{}, {"prot": 1}]}, "listeners[1].prot", "unknown key"),
        ({"limits": {"receive_maximum": 0}}, "limits.receive_maximum", ">= 1"),
        ({"limits": {"receive_maximum": 65536}}, "limits.receive_maximum", "<= 65535"),
        ({"limits": {"receive_maximum": True}}, "limits.receive_maximum", "got `bool`"),
        ({"limits": {"receive_maximum": "1"}}, "limits.receive_maximum", "got `str`"),
        ({"limits": {"queue_drop": "random"}}, "limits.queue_drop", "'random'"),
        ({"limits": []}, "limits", "a table"),
        ({"listeners": []}, "listeners", "length >= 1"),
        ({"listeners": [{"name": "a"}, {"name": "b", "port": -1}]}, "listeners[1].port", ">= 0"),
        ({"listeners": [{"name": "a b"}]}, "listeners[0].name", "matching"),
        ({"listeners": [{"host": ""}]}, "listeners[0].host", "length >= 1"),
        ({"listeners": [{}, {"port": 1884}]}, "listeners[1].name", "listeners[0] already"),
        ({"listeners": [{}, {"name": "b"}]}, "listeners[1].port", "listeners[0] already"),
        ({"plugins": {"audit": 1}}, "plugins.audit", "a table"),
        ({"plugins": []}, "plugins", "a table"),
        ({"shutdown_timeout_s": math.inf}, "shutdown_timeout_s", "<= 3600"),
        ({"shutdown_timeout_s": math.nan}, "shutdown_timeout_s", ">= 0"),
        ({"log_level": "loud"}, "log_level", "'loud', not one of critical, debug, error, info, warning"),
        ({"listeners": [{"protocol": "amqp"}]}, "listeners[0].protocol", "'amqp', not one of http, mqtt"),
    ],
)
def test_mistake_names_key_path_and_reason(mapping: dict, path: str, reason: str):
    with pytest.raises(ConfigError) as caught:
        from_mapping(mapping, "broker.toml")
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"broker.toml: {path}: ")


def test_listeners_may_share_an_address_with_port_0():
    config = from_mapping({"listeners": [{"name": "a", "port": 0}, {"name": "b", "port": 0}]})
    assert [listener.name for listener in config.listeners] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "blank"),
        (b" \n\n", "blank"),
        (b"log_level = \n", "line 1, column 13"),
        (b"[limits]\nreceive_maximum = 1\nreceive_maximum = 2\n", "line 3"),
        (b"log_level = '\xff'\n", "not UTF-8"),
    ],
)
def test_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes, reason: str):
    file = tmp_path / "broker.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.path == ""
    assert caught.value.source == str(file)
    assert reason in caught.value.reason


def test_missing_file_is_a_config_error(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_hosts(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "broker.example", "127.0.0.1.example", "*"])
def test_hosts_beyond_loopback(host: str):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "allow_anonymous", "has_authentication", "is_refused"),
    [
        ("127.0.0.1", None, False, False),
        ("0.0.0.0", None, False, True),
        ("0.0.0.0", False, False, True),
        ("0.0.0.0", True, False, False),
        ("0.0.0.0", None, True, False),
        ("broker.example", None, False, True),
    ],
)
def test_exposed_listener_needs_authentication_or_consent(
    host: str, allow_anonymous: bool | None, has_authentication: bool, is_refused: bool
):
    config = Config(
        listeners=[Listener(name="inside"), Listener(name="outside", host=host)], allow_anonymous=allow_anonymous
    )
    if not is_refused:
        check_exposure(config, has_authentication)
        return
    with pytest.raises(ConfigError, match="allow_anonymous = true") as caught:
        check_exposure(config, has_authentication)
    assert caught.value.path == "listeners[1].host"


@pytest.mark.parametrize(
    ("listener", "is_refused"),
    [
        ({}, True),
        ({"path": "/run/mqtt"}, True),
        ({"allow_anonymous": True}, False),
        ({"proxy_identity_is_user_name": True}, False),
    ],
)
def test_listener_behind_a_proxy_is_exposed(listener: dict, is_refused: bool):
    behind = Listener(proxy_protocol="v2", proxy_trusted=["127.0.0.1", "unix"], **listener)
    config = Config(listeners=[behind])
    assert takes_anonymous(config, behind, has_authentication=False) == listener.get("allow_anonymous", False)
    if not is_refused:
        check_exposure(config, has_authentication=False)
        return
    with pytest.raises(ConfigError, match="a proxy lets others in") as caught:
        check_exposure(config, has_authentication=False)
    assert caught.value.path == "listeners[0].proxy_protocol"


_TLS = {"certificate_file": "server.crt", "key_file": "server.key"}


@pytest.mark.parametrize(
    ("listener", "path"),
    [
        ({"path_mode": "0660"}, "path_mode"),
        ({"path": "/run/mqtt", "host": "::1"}, "host"),
        ({"path": "/run/mqtt", "port": 0}, "port"),
        ({"websocket_path": "/ws"}, "websocket_path"),
        ({"websocket_origins": ["https://example.com"]}, "websocket_origins"),
        ({"http_body_bytes_maximum": 7}, "http_body_bytes_maximum"),
        ({"proxy_identity_is_user_name": True}, "proxy_identity_is_user_name"),
        (
            {"proxy_protocol": "v1", "proxy_trusted": ["unix"], "proxy_identity_is_user_name": True},
            "proxy_identity_is_user_name",
        ),
        (
            {"proxy_protocol": "v2", "proxy_trusted": ["unix"], "proxy_identity_is_user_name": True, "tls": _TLS},
            "proxy_identity_is_user_name",
        ),
        ({"tls": {**_TLS, "client_ca_file": "ca.crt"}}, "tls.client_ca_file"),
        ({"tls": {**_TLS, "identity": "dn"}}, "tls.identity"),
        ({"tls": {**_TLS, "identity_is_user_name": True}}, "tls.identity_is_user_name"),
    ],
)
def test_what_would_be_without_effect_is_refused(listener: dict, path: str):
    """Whoever writes it counts on it: an authority alone would look like mutual TLS."""
    with pytest.raises(ConfigError) as caught:
        from_mapping({"listeners": [listener]})
    assert caught.value.path == f"listeners[0].{path}"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/api/v1", "/api/v1/clients"])
def test_path_of_the_broker_is_none_for_websocket(path: str):
    with pytest.raises(ConfigError, match="is the broker's own") as caught:
        from_mapping({"listeners": [{"protocol": "http", "websocket_path": path}]})
    assert caught.value.path == "listeners[0].websocket_path"


@pytest.mark.parametrize(
    ("origin", "is_good"),
    [
        ("https://example.com", True),
        ("http://localhost:8000", True),
        ("http://[::1]:8000", True),
        ("capacitor://localhost", True),
        ("file://", True),
        ("null", True),
        ("https://example.com/", False),
        ("https://example.com/page", False),
        ("https://*.example.com", False),
        ("example.com", False),
        ("*", False),
        ("https://", False),
        ("https://a b", False),
    ],
)
def test_origin_is_what_browsers_send(origin: str, is_good: bool):
    """Others would never be equal to one, and nobody would get in."""
    given = {"listeners": [{"protocol": "http", "websocket_origins": ["https://a.example", origin]}]}
    if is_good:
        assert from_mapping(given).listeners[0].websocket_origins[1] == origin
        return
    with pytest.raises(ConfigError, match="is no origin like") as caught:
        from_mapping(given)
    assert caught.value.path == "listeners[0].websocket_origins[1]"
