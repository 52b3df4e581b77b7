"""`/metrics`, read by Prometheus' own parsers; and the dashboard that asks for them."""

import json
import re
import sys
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mqttcore import Broker, Listener, hookimpl
from mqttcore.http.metric_names import COUNTERS, GAUGES, LABELLED

from .clients import address_of
from .conftest import quiet_config

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Counting:
    """A plugin that counts."""

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        section = broker.plugin_section("counting")
        section.add("greetings", 3)


def web(**settings) -> Listener:
    return Listener(name="web", port=0, protocol="http", **settings)


async def scrape(broker: Broker, accept: str = "") -> tuple[str, str]:
    host, port = address_of(broker)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}/metrics", headers={"accept": accept}) as answer,
    ):
        assert answer.status == 200
        return answer.headers["content-type"], await answer.text()


def samples_of(families) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {(one.name, tuple(one.labels.items())): one.value for family in families for one in family.samples}


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("", "text/plain; version=", parse_text),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4", parse_text),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0", parse_openmetrics),
    ],
)
async def test_format_is_the_one_asked_for_and_can_be_parsed(accept, content_type, parse):
    config = quiet_config(web(), Listener(name="tcp", port=0))
    async with Broker(config, plugins=[Counting()]) as broker:
        broker.raise_alarm("test", "something")
        broker.set_retained("a", b"12345")
        said, text = await scrape(broker, accept)
        assert said.startswith(content_type)
        samples = samples_of(parse(text))
    assert samples["mqttcore_retained_messages", ()] == 1
    assert samples["mqttcore_alarm_raised", (("alarm", "test"),)] == 1
    assert samples["mqttcore_messages_dropped_total", (("reason", "queue_full"),)] == 0
    assert samples["mqttcore_messages_received_total", (("qos", "2"),)] == 0
    assert samples["mqttcore_packets_received_total", (("type", "connect"),)] == 0
    assert samples["mqttcore_listener_connections", (("listener", "web"),)] == 1  # this request
    assert samples["mqttcore_listener_connections", (("listener", "tcp"),)] == 0
    assert samples["mqttcore_plugin_greetings", (("plugin", "counting"),)] == 3
    assert samples["mqttcore_plugin_errors_total", (("plugin", "counting"),)] == 0
    assert not [name for name, _ in samples if "certificate" in name]  # there is none


async def test_every_metric_of_the_broker_is_described_and_none_is_there_twice():
    async with Broker(quiet_config(web())) as broker:
        known = {*COUNTERS, *GAUGES}
        given = set(broker.metrics())
        assert [key for key in given - known if not key.startswith(tuple(LABELLED))] == []
        assert known - given == set()
        _, text = await scrape(broker)
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    described = re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE)
    assert set(names) == set(described)


async def test_dashboard_asks_for_metrics_that_exist():
    async with Broker(quiet_config(web()), plugins=[Counting()]) as broker:
        broker.raise_alarm("test", "something")
        _, text = await scrape(broker)
    there = {name for name, _ in samples_of(parse_text(text))}
    asked = set(re.findall(r"\b(?:mqttcore|process)_\w+", " ".join(expressions(json.loads(DASHBOARD.read_text())))))
    assert len(asked) > 20
    assert asked - there == set()


def expressions(node) -> list[str]:
    if isinstance(node, list):
        return [found for one in node for found in expressions(one)]
    if not isinstance(node, dict):
        return []
    own = [value for key, value in node.items() if key in ("expr", "query") and isinstance(value, str)]
    return own + [found for one in node.values() for found in expressions(one)]


async def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with Broker(quiet_config(web())) as broker, aiohttp.ClientSession() as session:
        host, port = address_of(broker)
        async with session.get(f"http://{host}:{port}/metrics") as answer:
            assert answer.status == 501
            assert "mqttcore[metrics]" in (await answer.json(content_type="application/problem+json"))["detail"]
