"""Notices of connections, in the service's form."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from mqttcore_plugins.aliyun.presence import REGISTER, Presence, StatusEvent, address_text
from mqttcore_plugins.aliyun.settings import PresenceConfig

from mqttcore import ClientConnected, ClientDisconnected, ConnectionClosed, SessionEnded, Subscribed, Unsubscribed

from .doubles import BrokerDouble

CHANNEL = "2b9b1281046046faafe5e0b458e4abcd"


def of_connection(client_id: str = "GID_XXX@@@YYYYY", time_ms: int = 1212121212000) -> dict[str, Any]:
    return {
        "client_id": client_id,
        "time_ms": time_ms,
        "connection_id": CHANNEL,
        "address": ("192.168.0.1", 13300),
    }


def connected(client_id: str = "GID_XXX@@@YYYYY", **changes: Any) -> ClientConnected:
    said: dict[str, Any] = of_connection(client_id) | {
        "identity_name": None,
        "user_name": None,
        "listener": "default",
        "protocol_version": 4,
        "clean_start": True,
        "session_present": False,
        "session_expiry_s": 0,
        "keep_alive_s": 90,
    }
    return ClientConnected(**(said | changes))


def started(**settings: Any) -> tuple[Presence, BrokerDouble]:
    presence, broker = Presence(PresenceConfig(**settings)), BrokerDouble()
    presence.startup(broker)
    return presence, broker


def test_clean_exit_is_connect_disconnect_tcpclean():
    presence, broker = started()
    presence.observe(
        [
            connected(),
            ClientDisconnected(**of_connection(), reason_code=0),
            ConnectionClosed(**of_connection(), reason_code=None, reason="closed"),
        ]
    )
    assert [one.tag for one in broker.emitted] == ["connect", "disconnect", "tcpclean"]
    assert {(one.topic, one.group_id, one.client_id) for one in broker.emitted} == {
        ("GID_XXX_MQTT", "GID_XXX", "GID_XXX@@@YYYYY")
    }
    assert broker.emitted[0].body == (
        b'{"clientId":"GID_XXX@@@YYYYY","time":1212121212000,"eventType":"connect",'
        b'"channelId":"2b9b1281046046faafe5e0b458e4abcd","clientIp":"192.168.0.1:13300"}'
    )
    assert [(topic, json.loads(body)["eventType"], qos) for topic, body, qos in broker.published] == [
        ("GID_XXX_MQTT/connect", "connect", 0),
        ("GID_XXX_MQTT/disconnect", "disconnect", 0),
        ("GID_XXX_MQTT/tcpclean", "tcpclean", 0),
    ]
    assert presence.event_types() == [StatusEvent]


def test_topic_is_configurable_and_may_be_none():
    presence, broker = started(topic="status/{event}/{group}", qos=1)
    presence.observe([connected()])
    assert [(topic, qos) for topic, _, qos in broker.published] == [("status/connect/GID_XXX", 1)]
    presence, broker = started(topic="")
    presence.observe([connected()])
    assert broker.published == []
    assert len(broker.emitted) == 1


def test_client_without_group_has_no_notices_but_is_in_the_register():
    presence, broker = started()
    presence.observe([connected("plain")])
    assert (broker.emitted, broker.published) == ([], [])
    assert presence.register.connections("plain") == 1


def test_group_that_makes_no_topic_harms_nobody(caplog: pytest.LogCaptureFixture):
    presence, broker = started()
    presence.observe([connected("a#@@@1"), connected()])
    assert [topic for topic, _, _ in broker.published] == ["GID_XXX_MQTT/connect"]
    assert "no notice" in caplog.text


def test_register_follows_the_events():
    presence, broker = started()
    assert broker.provided[REGISTER] is presence.register
    client_id = "GID_XXX@@@YYYYY"
    presence.observe(
        [
            connected(session_expiry_s=100, clean_start=False),
            Subscribed(time_ms=1, client_id=client_id, topic_filter="a/#", options=1, subscription_id=0),
            Subscribed(time_ms=1, client_id=client_id, topic_filter="b", options=1, subscription_id=0),
            Unsubscribed(time_ms=1, client_id=client_id, topic_filter="b"),
        ]
    )
    assert presence.register.of_filter("a/#") == (1, 1)
    assert presence.register.of_filter("b") == (0, 0)
    presence.observe([ConnectionClosed(**of_connection(), reason_code=None, reason="lost")])
    assert presence.register.of_filter("a/#") == presence.register.of_group("GID_XXX") == (0, 1)
    presence.observe([SessionEnded(time_ms=1, client_id=client_id)])
    assert presence.register.of_filter("a/#") == presence.register.of_group("GID_XXX") == (0, 0)


def test_sessions_from_before_are_in_the_register():
    presence, broker = Presence(PresenceConfig()), BrokerDouble()
    broker.known = [SimpleNamespace(client_id="GID_XXX@@@1", subscriptions=("a",))]
    presence.startup(broker)
    assert presence.register.of_filter("a") == (0, 1)


def test_without_access_keys_there_is_no_route():
    presence, broker = started()
    assert presence.http_routes(broker) == []


@pytest.mark.parametrize(
    ("address", "text"),
    [(("10.0.0.1", 5), "10.0.0.1:5"), (("::1", 5, 0, 0), "[::1]:5"), ("/run/mqtt", "/run/mqtt"), (None, "")],
)
def test_address(address: Any, text: str):
    assert address_text(address) == text
