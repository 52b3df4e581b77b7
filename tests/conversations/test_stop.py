"""The broker's end, seen by clients and by the loop."""

import asyncio
from typing import Any

from mqttcore.constants import ReasonCode

from .conftest import Start
from .harness import BrokerWorld


async def test_clients_are_told_and_nothing_goes_on_afterwards(start: Start, version: int):
    world = await start()
    peers = [await world.connect(f"c{i}", version) for i in range(3)]
    idle = await world.open(version)
    if not isinstance(world, BrokerWorld):
        assert world.engine.shut_down() == 3
        for peer in peers:
            await peer.expect_closed(ReasonCode.SERVER_SHUTTING_DOWN if version == 5 else None)
        return
    await world.until(lambda: world.metrics["connections"] == 4)
    complaints: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    await world.broker.stop()
    for peer in peers:
        await peer.expect_closed(ReasonCode.SERVER_SHUTTING_DOWN if version == 5 else None)
    await idle.expect_closed()
    loop.set_exception_handler(None)
    assert not complaints
    await world.broker.start()  # it can be started again; the end looks at its engine
    for peer in world.peers:
        peer.writer.close()
        peer.is_lost = True
