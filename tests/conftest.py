"""Fixtures for all tests, and the rule that CI skips no client."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from broker_process import BOTH_LISTENERS, BrokerProcess, running_broker
from mqttcore.plugins.discovery import open_source_tree

open_source_tree()  # `mqttcore_plugins` from the tree, installed or not

# How long an example takes is the machine's matter.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
def broker_process(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker in its own process, for one test; it must stop cleanly."""
    with running_broker(tmp_path) as broker:
        yield broker


@pytest.fixture(scope="session")
def session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """One broker process for all tests that use it; each test keeps to topics and client ids of its own."""
    with running_broker(tmp_path_factory.mktemp("broker"), BOTH_LISTENERS) as broker:
        yield broker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """In CI a client that is missing is a failure: a skip in a test marked interop fails."""
    report = yield
    if report.skipped and item.get_closest_marker("interop") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
