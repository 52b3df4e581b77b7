"""Certificates that are replaced, broken, expired or revoked while the broker serves (HARDENING 66)."""

import asyncio
import logging
import socket
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from certificates import Authority, Issued
from mqttcore import Broker
from mqttcore.codec import Connect
from mqttcore.config import KeyPair, Tls, from_mapping
from mqttcore.errors import ConfigError
from mqttcore.net.tls import ServerTls
from network.clients import until
from network.test_tls import Client, refused_by_tls
from network.tls import client_context, overwrite, tls_config

pytestmark = pytest.mark.usefixtures("driver")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def replace(server: Issued, other: Issued) -> None:
    overwrite(other.key, server.key)
    overwrite(other.certificate, server.certificate)


async def serial_shown(broker: Broker, authority: Authority) -> int:
    """Return the serial number of the certificate that a new connection is shown."""
    async with await Client.open(broker, client_context(authority)) as client:
        return int(client.writer.get_extra_info("peercert")["serialNumber"], 16)


async def test_new_certificate_serves_new_connections_and_leaves_old_ones(authority: Authority):
    server = authority.server()
    config = tls_config(server)
    async with Broker(config) as broker, await Client.open(broker, client_context(authority)) as old:
        await old.connect("old")
        fresh = authority.server(file="fresh")
        replace(server, fresh)
        await broker.reload(config)
        assert await serial_shown(broker, authority) == fresh.serial
        await old.send(Connect("again"))  # is answered: a second CONNECT is a fault of the protocol, not of TLS
        assert type(await old.receive()).__name__ == "Disconnect"
        assert broker.metrics()["tls_reloads"] == 1


async def test_change_of_the_files_is_seen_without_being_told(authority: Authority, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mqttcore.broker._LOOK_TICKS", 1)
    server = authority.server()
    async with Broker(tls_config(server)) as broker:
        fresh = authority.server(file="fresh")
        replace(server, fresh)
        await until(lambda: broker.metrics()["tls_reloads"] >= 1)
        assert await serial_shown(broker, authority) == fresh.serial


def empty(server: Issued, authority: Authority) -> None:
    server.certificate.write_bytes(b"")


def torn(server: Issued, authority: Authority) -> None:
    server.certificate.write_bytes(server.certificate.read_bytes()[:200])


def gone(server: Issued, authority: Authority) -> None:
    server.certificate.unlink()


def with_another_key(server: Issued, authority: Authority) -> None:
    overwrite(authority.server(file="fresh").key, server.key)


def out_of_date(server: Issued, authority: Authority) -> None:
    replace(server, authority.issue("localhost", file="old", begins=-3, ends=-1))


def with_a_crl_that_is_none(server: Issued, authority: Authority) -> None:
    authority.crl_file.write_text("no list")


def without_its_crl(server: Issued, authority: Authority) -> None:
    authority.crl_file.unlink()


@pytest.mark.parametrize(
    "spoil", [empty, torn, gone, with_another_key, out_of_date, with_a_crl_that_is_none, without_its_crl]
)
async def test_bad_successor_leaves_the_former_in_force(authority: Authority, spoil, caplog: pytest.LogCaptureFixture):
    server = authority.server()
    serial = server.serial
    config = tls_config(
        server,
        client_ca_file=str(authority.file),
        client_certificate="optional",
        crl_file=str(authority.crl_file),
    )
    async with Broker(config) as broker:
        assert broker.metrics()["tls_alarms"] == 0
        spoil(server, authority)
        await broker.reload(config)
        assert broker.metrics()["tls_alarms"] == 1
        assert "the former certificates stay in force" in caplog.text
        assert await serial_shown(broker, authority) == serial
        replace(server, authority.server(file="fresh"))
        authority.revoke()
        await broker.reload(config)
        assert broker.metrics()["tls_alarms"] == 0


async def test_revocation_reaches_who_could_resume(authority: Authority):
    own = authority.issue("sensor-7")
    config = tls_config(
        authority.server(),
        client_ca_file=str(authority.file),
        client_certificate="required",
        crl_file=str(authority.crl_file),
    )
    context = client_context(authority, own, version=ssl.TLSVersion.TLSv1_2)
    async with Broker(config) as broker:
        async with await Client.open(broker, context) as client:
            await client.connect()
            ticket = client.writer.get_extra_info("ssl_object").session
        authority.revoke(own)
        await broker.reload(config)

        def visit(address: tuple[str, int]) -> None:
            plain = socket.create_connection(address, timeout=60)
            with plain, pytest.raises((ssl.SSLError, ConnectionError)):
                context.wrap_socket(plain, server_hostname="localhost", session=ticket)

        await asyncio.get_running_loop().run_in_executor(None, visit, broker.addresses[0][1:])
        await refused_by_tls(broker, context)
        assert broker.metrics()["connects_accepted"] == 1


async def test_reload_under_traffic_loses_nobody(authority: Authority):
    server = authority.server()
    config = tls_config(server)
    context = client_context(authority)
    is_over = asyncio.Event()

    async def come_and_go(broker: Broker, number: int) -> int:
        visits = 0
        while not is_over.is_set():
            async with await Client.open(broker, context) as client:
                assert (await client.connect(f"c{number}")).reason_code == 0
            visits += 1
        return visits

    async with Broker(config) as broker:
        tasks = [asyncio.create_task(come_and_go(broker, number)) for number in range(4)]
        for number in range(8):
            replace(server, authority.server(file=f"fresh{number}"))
            await broker.reload(config)
            before = broker.metrics()["tls_handshakes"]
            await until(lambda before=before: broker.metrics()["tls_handshakes"] > before + 3)
        is_over.set()
        assert all(await asyncio.gather(*tasks))
        assert broker.metrics()["tls_handshakes_failed"] == 0


# --- at start ---------------------------------------------------------------------------------------------------------


async def test_bad_certificate_at_start_is_an_error_that_names_it(authority: Authority):
    server = authority.server()
    other = authority.server(file="other")
    server.key.write_bytes(other.key.read_bytes())
    with pytest.raises(ConfigError, match=r"listeners\.default\.tls\.certificate_file.*server\.crt"):
        await Broker(tls_config(server)).start()


async def test_missing_file_is_named(authority: Authority):
    server = authority.server()
    server.key.unlink()
    with pytest.raises(ConfigError, match=r"key_file.*server\.key cannot be read"):
        await Broker(tls_config(server)).start()


async def test_expired_certificate_at_start_serves_with_an_alarm(
    authority: Authority, caplog: pytest.LogCaptureFixture
):
    server = authority.issue("localhost", dns=("localhost",), begins=-3, ends=-1)
    async with Broker(tls_config(server)) as broker:
        assert "its certificate has expired" in caplog.text
        assert broker.metrics()["tls_alarms"] == 1
        assert broker.metrics()["tls_certificate_seconds_left"] == 0


async def test_key_open_to_others_is_warned_of(authority: Authority, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    server = authority.server()
    server.key.chmod(0o644)
    async with Broker(tls_config(server)):
        assert "is open to others (mode 0644)" in caplog.text


async def test_encrypted_key_is_refused_and_nobody_is_asked(authority: Authority):
    server = authority.server()
    key = serialization.load_pem_private_key(server.key.read_bytes(), None)
    server.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="unencrypted key"):
        await Broker(tls_config(server)).start()


async def test_certificate_of_a_second_name_that_is_bad_is_named(authority: Authority):
    pair = KeyPair(certificate_file="/nowhere.crt", key_file="/nowhere.key")
    with pytest.raises(ConfigError, match=r"certificates\[0\]\.certificate_file.*/nowhere\.crt"):
        await Broker(tls_config(authority.server(), certificates=[pair])).start()


async def test_changed_settings_are_taken_over(authority: Authority):
    server = authority.server()
    async with Broker(tls_config(server)) as broker:
        assert await broker.reload(tls_config(server, minimum_version="1.3")) == []
        await refused_by_tls(broker, client_context(authority, version=ssl.TLSVersion.TLSv1_2))


def test_settings_that_do_not_belong_together_are_refused(authority: Authority):
    files = {"certificate_file": "a", "key_file": "b"}
    for tls, path in (
        ({"client_certificate": "required"}, "client_ca_file"),
        ({"crl_file": "c"}, "crl_file"),
        ({"identity_is_user_name": True}, "identity_is_user_name"),
    ):
        with pytest.raises(ConfigError) as caught:
            from_mapping({"listeners": [{"tls": files | tls}]})
        assert caught.value.path == f"listeners[0].tls.{path}"
    with pytest.raises(ConfigError, match=r"not one of 1\.2, 1\.3"):
        from_mapping({"listeners": [{"tls": files | {"minimum_version": "1.1"}}]})


def test_unknown_ciphers_are_refused(authority: Authority):
    server = authority.server()
    settings = Tls(certificate_file=str(server.certificate), key_file=str(server.key), ciphers="NONSENSE")
    with pytest.raises(ConfigError, match="ciphers"):
        ServerTls(settings, "x")
