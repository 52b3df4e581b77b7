"""Fixtures of the conformance tests: brokers over TCP and in memory, from the conversations' harness."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from conversations.conftest import Start, starter_of


@pytest_asyncio.fixture(params=["tcp", "memory"])
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Start]:
    """Make a broker: `world = await start(receive_maximum=2)`, with fields of config.Limits."""
    async for starter in starter_of(request.param):
        yield starter


@pytest_asyncio.fixture
async def start_clocked() -> AsyncIterator[Start]:
    """As `start`, where the clock can be set (`world.advance(ms)`) and hooks can be given."""
    async for starter in starter_of("memory"):
        yield starter
