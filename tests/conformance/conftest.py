"""Fixtures of the conformance tests, and the report that a run writes when asked with --conformance-report."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from conversations.conftest import Start, starter_of

from . import report

RESULTS: pytest.StashKey[dict[str, str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option; it is known when pytest is started on this folder."""
    parser.addoption(
        "--conformance-report", action="store_true", help="write docs/conformance.md from this run of all tests"
    )
    parser.addoption(
        "--label", action="append", metavar="VERSION:LABEL", help="only tests that prove it, mqtt5:3.1.2-24"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin without results."""
    config.stash[RESULTS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests that carry one of the labels asked for."""
    if not (wanted := config.getoption("label", default=None)):
        return
    chosen, others = [], []
    for item in items:
        carried = {f"{mark.name}:{label}" for mark in item.iter_markers() for label in mark.args}
        (chosen if carried & set(wanted) else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Note the worst result of each test over its parameters and phases."""
    outcome = yield
    if outcome.when == "call" or not outcome.passed:
        results = item.config.stash.setdefault(RESULTS, {})
        test_id = report.id_of_test(item.nodeid)
        both = {results.get(test_id, "passed"), outcome.outcome}
        results[test_id] = next(result for result in ("failed", "skipped", "passed") if result in both)
    return outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report."""
    if session.config.getoption("conformance_report", default=False):
        report.WRITTEN.write_text(report.render(session.config.stash[RESULTS]), encoding="utf-8")


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


@pytest_asyncio.fixture
async def start_tcp() -> AsyncIterator[Start]:
    """As `start`, where the driver's part counts: sockets only."""
    async for starter in starter_of("tcp"):
        yield starter
