"""The OpenAPI document, and requests that schemathesis makes of it: the API does as it says."""

import asyncio
import logging
import warnings
from collections.abc import Callable, Iterator

import pytest

with warnings.catch_warnings():  # of its dependencies
    warnings.simplefilter("ignore")
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

from mqttcore import Broker

from .http_api import Api, api_config


def test_every_operation_has_a_name_of_its_own():
    from mqttcore.http.api.routes import operations

    offered = operations(Broker())
    assert len({one.name for one in offered}) == len(offered) > 20
    assert len({(one.method, one.path) for one in offered}) == len(offered)


@pytest.fixture
def log_level() -> Iterator[None]:
    """It is one of the things that are set."""
    logger = logging.getLogger("mqttcore")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.mark.timeout(600)  # some hundred requests; seconds where nothing else runs
@pytest.mark.usefixtures("log_level")
async def test_schemathesis_finds_nothing():
    async with Broker(api_config()) as broker, Api(broker) as api:
        document = await api.ask("GET", "/openapi.json")
        assert document["openapi"] == "3.1.0"
        loop = asyncio.get_running_loop()
        tried = await loop.run_in_executor(None, _try, document, api.url)
        assert broker.is_ready
    assert tried == len([one for path in document["paths"].values() for one in path])


def _try(document: dict, url: str) -> int:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=f"{url}/api/v1")
    rejections = schema.config.checks.negative_data_rejection
    rejections.expected_statuses = [*rejections.expected_statuses, "413"]  # of what it adds, some is too large as well
    tried = 0
    for result in schema.get_all_operations():
        _check(result.ok())()
        tried += 1
    return tried


def _check(operation) -> Callable[[], None]:
    strategy = operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

    @settings(
        max_examples=10,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def check(case) -> None:
        case.call_and_validate(timeout=60)

    return check
