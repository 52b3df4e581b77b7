"""A client that connects too often is refused by a running broker, which says so (HARDENING 43)."""

import msgspec

from mqttcore import Broker
from mqttcore.codec import Connect
from mqttcore.config import Flapping
from network.clients import Raw, until
from network.conftest import quiet_config


async def test_client_that_comes_and_goes_is_refused_and_others_are_not(driver: str):
    flapping = Flapping(connects_maximum=3, refused_s=3)
    async with Broker(msgspec.structs.replace(quiet_config(), flapping=flapping)) as broker:

        async def connect(client_id: str) -> int:
            async with await Raw.open(broker) as raw:
                await raw.send(Connect(client_id))
                return (await raw.receive()).reason_code

        assert [await connect("twin") for _ in range(5)] == [0, 0, 0, 0x9F, 0x9F]
        assert await connect("other") == 0
        metrics = broker.metrics()
        assert metrics["connects_refused_flapping"] == 2
        assert metrics["clients_flapping"] == 1
        await until(lambda: "flapping" in broker.alarms)
        await until(lambda: "flapping" not in broker.alarms and broker.metrics()["clients_flapping"] == 0)
        assert await connect("twin") == 0


async def test_two_devices_of_one_name_are_both_stopped(driver: str):
    flapping = Flapping(connects_maximum=5)
    async with Broker(msgspec.structs.replace(quiet_config(), flapping=flapping)) as broker:
        answers = []
        async with await Raw.open(broker) as last:
            await last.send(Connect("twin"))
            answers.append((await last.receive()).reason_code)
            for _ in range(6):
                async with await Raw.open(broker) as raw:
                    await raw.send(Connect("twin"))
                    answers.append((await raw.receive()).reason_code)
        assert answers == [0] * 5 + [0x9F] * 2
        assert broker.alarms.keys() <= {"flapping"}
