"""Bans: who comes under one is refused, whoever asks for it, until it is lifted or over."""

import asyncio
from pathlib import Path

import pytest

from certificates import Authority
from mqttcore import Broker, ConfigError, QuotaExceeded, ReasonCode, StoreError
from mqttcore.bans import BANS_MAXIMUM, Ban, Bans
from mqttcore.client import Client, ConnectionRefused, open_client
from mqttcore.codec import Connect, Decoder

from .http_api import Api, api_config
from .tls import client_context, tls_config


async def connect(broker: Broker, client_id: str, user_name: str | None = None) -> Client:
    _, host, port = broker.addresses[1]
    return await open_client(Connect(client_id, user_name=user_name), host=host, port=port)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("client_id", "bad"), ("user_name", "ann"), ("address", "127.0.0.1"), ("address", "127.0.0.0/8")],
)
async def test_banned_client_is_cut_off_and_comes_back_when_the_ban_is_lifted(kind: str, value: str):
    async with Broker(api_config()) as broker, Api(broker) as api:
        client = await connect(broker, "bad", "ann")
        given = {"kind": kind, "value": value, "reason": "noise", "for_s": 3600}
        assert (await api.ask("POST", "/bans", json=given))["disconnected"] == 1
        await client.close()
        with pytest.raises(ConnectionRefused) as refused:
            await connect(broker, "bad", "ann")
        assert refused.value.reason_code == ReasonCode.BANNED
        assert broker.metrics()["connects_refused_banned"] == broker.metrics()["bans"] == 1
        (shown,) = (await api.ask("GET", "/bans"))["bans"]
        assert (shown["kind"], shown["reason"]) == (kind, "noise")
        await api.ask("DELETE", "/bans", params={"kind": kind, "value": value}, expect=204)
        await api.ask("DELETE", "/bans", params={"kind": kind, "value": value}, expect=404)
        await (await connect(broker, "bad", "ann")).close()


async def test_others_are_not_refused():
    broker = Broker(api_config())
    for ban in (
        Ban(kind="client_id", value="ann"),
        Ban(kind="user_name", value="bad"),
        Ban(kind="address", value="10.0.0.0/8"),
        Ban(kind="address", value="::1"),
        Ban(kind="client_id", value="bad", until_s=1),  # long over
    ):
        broker.bans.add(ban)
    async with broker:
        await (await connect(broker, "bad", "ann")).close()


async def test_ban_of_a_user_name_is_of_the_one_in_the_certificate(tmp_path: Path):
    authority = Authority(tmp_path)
    shown = client_context(authority, authority.issue("sensor-7"))
    config = tls_config(
        authority.server(),
        client_certificate="required",
        client_ca_file=str(authority.file),
        identity_is_user_name=True,
    )
    async with Broker(config) as broker:
        _, host, port = broker.addresses[0]
        for ban, code in ((None, 0), ("ann", 0), ("sensor-7", ReasonCode.BANNED)):
            if ban is not None:
                broker.bans.add(Ban(kind="user_name", value=ban))
            reader, writer = await asyncio.open_connection(host, port, ssl=shown, server_hostname="localhost")
            writer.write(Connect("c1", user_name="ann").encode(5))
            assert Decoder(5, sender="server").feed(await reader.read(1000))[0].reason_code == code
            writer.transport.abort()
            await asyncio.sleep(0)


@pytest.mark.parametrize("text", [r"\ud800", r"\u0000"])
@pytest.mark.parametrize("key", ["value", "reason"])
async def test_ban_that_no_answer_could_show_is_refused(tmp_path: Path, key: str, text: str):
    path = tmp_path / "bans.json"
    async with Broker(api_config(bans_file=str(path))) as broker, Api(broker) as api:
        given = {"kind": '"client_id"', "value": '"x"', "reason": '""', key: f'"{text}"'}
        body = "{" + ",".join(f'"{name}":{value}' for name, value in given.items()) + "}"
        headers = {"content-type": "application/json"}
        await api.ask("POST", "/bans", data=body, headers=headers, expect=400)
        assert await api.ask("GET", "/bans") == {"bans": []}
        with pytest.raises(ValueError, match="surrogates"):
            broker.bans.add(Ban(kind="client_id", value="x", reason="\ud800"))
    assert not path.exists()


@pytest.mark.parametrize("text", ["::ffff:192.0.2.0/120", "192.0.2.0/24"])
def test_network_of_mapped_addresses_is_one_of_ipv4(text: str):
    bans = Bans()
    assert bans.add(Ban(kind="address", value=text)).value == "192.0.2.0/24"
    for host in ("192.0.2.7", "::ffff:192.0.2.7"):
        assert bans.find(client_id="x", user_name=None, host=host) is not None
    assert bans.find(client_id="x", user_name=None, host="192.0.3.7") is None


def test_file_keeps_them_and_is_private(tmp_path: Path):
    path = tmp_path / "bans.json"
    bans = Bans(str(path))
    bans.add(Ban(kind="address", value="::ffff:192.0.2.1"))
    bans.add(Ban(kind="client_id", value="a", until_s=1))
    bans.add(Ban(kind="client_id", value="ü"))
    assert path.stat().st_mode & 0o777 == 0o600
    again = Bans(str(path))
    assert {one.value for one in again} == {"192.0.2.1/32", "ü"}
    assert again.find(client_id="x", user_name=None, host="192.0.2.1") is not None
    assert again.find(client_id="x", user_name=None, host="::ffff:192.0.2.1") is not None
    assert again.find(client_id="x", user_name=None, host="192.0.2.2") is None
    assert again.remove("address", "192.0.2.1")
    assert {one.value for one in Bans(str(path))} == {"ü"}


@pytest.mark.parametrize("text", ["", "{}", '[{"kind": "king", "value": "a"}]', '[{"kind": "address", "value": "a"}]'])
def test_file_that_is_none_stops_the_start(tmp_path: Path, text: str):
    path = tmp_path / "bans.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"http_api\.bans_file"):
        Broker(api_config(bans_file=str(path)))


def test_what_cannot_be_written_is_not_in_force(tmp_path: Path):
    bans = Bans(str(tmp_path / "nowhere" / "bans.json"))
    with pytest.raises(StoreError):
        bans.add(Ban(kind="client_id", value="a"))
    assert list(bans) == []


def test_there_are_not_endlessly_many():
    bans = Bans()
    bans._bans = {("client_id", str(n)): Ban(kind="client_id", value=str(n)) for n in range(BANS_MAXIMUM)}
    with pytest.raises(QuotaExceeded):
        bans.add(Ban(kind="client_id", value="one more"))
    bans.add(Ban(kind="client_id", value="1", reason="another"))
    assert len(bans) == BANS_MAXIMUM
