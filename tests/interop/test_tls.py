"""Every client over TLS, and with a certificate of its own; mosquitto is no peer here, its TLS is not ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from broker_process import BrokerProcess, running_broker
from certificates import Authority, Issued
from interop import clients as can
from interop.clients import Client
from interop.driver import Driver, Failed, Message
from interop.wire import Wire, for_clients

# Clients that speak WebSocket come to the second listener.
NAMES = (("tls", "mqtt"), ("wss", "http"))
CONFIG = """\
[[listeners]]
name = "{name}"
protocol = "{protocol}"
host = "127.0.0.1"
port = 0
[listeners.tls]
certificate_file = "{server.certificate}"
key_file = "{server.key}"
"""
MUTUAL = """\
client_ca_file = "{authority.file}"
client_certificate = "required"
identity_is_user_name = true
"""


def config_of(server: Issued, further: str = "") -> str:
    return "".join(CONFIG.format(name=name, protocol=protocol, server=server) + further for name, protocol in NAMES)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Issued:
    return authority.issue("sensor-7")


@pytest.fixture(scope="module")
def tls_broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    config = config_of(authority.server())
    with running_broker(tmp_path_factory.mktemp("tls"), config, kind="mqttcore") as broker:
        yield broker


@pytest.fixture(scope="module")
def mutual_broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    config = config_of(authority.server(file="mutual"), MUTUAL.format(authority=authority))
    with running_broker(tmp_path_factory.mktemp("mutual"), config, kind="mqttcore") as broker:
        yield broker


@pytest.fixture
def wire(
    request: pytest.FixtureRequest,
    driver_of: Callable[[Client], Driver],
    authority: Authority,
    own: Issued,
) -> Iterator[Wire]:
    client, version = request.param
    tls = {"ca": str(authority.file)}
    is_mutual = "mutual" in request.node.name
    if is_mutual and "nobody" not in request.node.name:
        tls |= {"certificate": str(own.certificate), "key": str(own.key)}
    broker = request.getfixturevalue("mutual_broker" if is_mutual else "tls_broker")
    held = Wire(broker, driver_of(client), version, tls)
    try:
        yield held
    finally:
        held.close()


def exchange(wire: Wire) -> None:
    subscriber, publisher = wire.connect(), wire.connect()
    topic = f"{wire.root}/t"
    subscriber.subscribe(topic, qos=2)
    for qos in (0, 1, 2):
        for size in (0, 10, 100_000):
            payload = bytes([qos]) * size
            publisher.publish(topic, payload, qos)
            assert subscriber.receive() == Message(topic, payload, qos, False)


@for_clients()
def test_messages_pass_over_tls(wire: Wire) -> None:
    exchange(wire)


@for_clients()
def test_messages_pass_over_mutual_tls(wire: Wire) -> None:
    exchange(wire)


@for_clients(can.CLOSED)
def test_session_goes_on_over_tls(wire: Wire) -> None:
    client_id, topic = wire.client_id(), f"{wire.root}/t"
    first = wire.connect_lasting(client_id)
    first.subscribe(topic, qos=1)
    first.kill()
    wire.connect().publish(topic, b"kept", 1)
    assert wire.connect_lasting(client_id).receive().payload == b"kept"


@for_clients()
def test_client_with_nobodys_certificate_is_refused_by_mutual_tls(wire: Wire) -> None:
    with pytest.raises((Failed, AssertionError)):
        wire.connect()
