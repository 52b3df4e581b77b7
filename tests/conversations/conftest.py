"""Fixtures of the conversations: `start` makes a broker on each carrier, `start_clocked` on those with a clock."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from .harness import World, make_world

Start = Callable[..., Awaitable[World]]


async def starter_of(carrier: str) -> AsyncIterator[Start]:
    worlds: list[World] = []

    async def start(**arguments: object) -> World:
        world = await make_world(carrier, **arguments)
        worlds.append(world)
        return world

    yield start
    try:
        for world in worlds:
            await world.end()
    finally:
        for world in worlds:
            await world.close()


@pytest_asyncio.fixture(params=["memory", "bytewise", "tcp", "stream", "websocket"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Make a broker: `await start(receive_maximum=2)`, with fields of config.Limits."""
    async for starter in starter_of(request.param):
        yield starter


@pytest_asyncio.fixture(params=["memory", "bytewise"])
async def start_clocked(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """As `start`, where the clock can be set and hooks can be given."""
    async for starter in starter_of(request.param):
        yield starter


@pytest.fixture(params=[4, 5], ids=["v3.1.1", "v5"])
def version(request: pytest.FixtureRequest) -> int:
    """Protocol version of the clients."""
    return request.param


@pytest.fixture(params=[3, 4, 5], ids=["v3.1", "v3.1.1", "v5"])
def any_version(request: pytest.FixtureRequest) -> int:
    """Every protocol version there is."""
    return request.param
