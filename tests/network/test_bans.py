"""Bans: who comes under one is refused, whoever asks for it, until it is lifted or over."""

from pathlib import Path

import pytest

from mqttcore import Broker, ConfigError, QuotaExceeded, ReasonCode, StoreError
from mqttcore.bans import BANS_MAXIMUM, Ban, Bans
from mqttcore.client import Client, ConnectionRefused, open_client
from mqttcore.codec import Connect

from .http_api import Api, api_config


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
