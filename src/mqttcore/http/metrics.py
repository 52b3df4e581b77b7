"""`/metrics`: the broker's counters and gauges for Prometheus, by its own client library."""

import importlib.util
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from mqttcore._version import __version__
from mqttcore.http.metric_names import COUNTERS, GAUGES, LABELLED, PLUGIN_COUNTERS, PLUGIN_GAUGES
from mqttcore.http.replies import SERVER, problem

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler
    from prometheus_client.metrics_core import Metric

    from mqttcore.broker import Broker

__all__ = ["BrokerCollector", "handler"]

_SECONDS_UNKNOWN = -1  # of certificates: there is none


class BrokerCollector:
    """What a `prometheus_client` registry collects from one broker, for registries of one's own as well."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker

    def collect(self) -> "Iterator[Metric]":
        """Yield one family after another; of a broker that does not run, none."""
        from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, UnknownMetricFamily

        broker = self._broker
        if not broker.is_running:
            return
        yield InfoMetricFamily("mqttcore_build", "Version of the broker.", {"version": __version__})
        alarm = GaugeMetricFamily("mqttcore_alarm_raised", "1 for each alarm that is raised.", labels=["alarm"])
        for name in broker.alarms:
            alarm.add_metric([name], 1)
        yield alarm
        of_plugins = broker.plugin_metrics()
        theirs = {f"plugin_{name}_{key}" for name, values in of_plugins.items() for key in values}
        values = {key: value for key, value in broker.metrics().items() if key not in theirs}
        yield from _labelled(values)
        for key, value in values.items():
            if key in GAUGES:
                named = GAUGES[key]
                if key != "tls_certificate_seconds_left" or value != _SECONDS_UNKNOWN:
                    yield GaugeMetricFamily(f"mqttcore_{named.name}", named.help, value * named.scale)
            elif key in COUNTERS:
                named = COUNTERS[key]
                yield _counter(named.name, named.help, value * named.scale)
            else:
                yield UnknownMetricFamily(f"mqttcore_{key}", "Not described.", value)
        yield from _of_listeners(self._broker)
        yield from _of_plugins(of_plugins)


def _counter(name: str, text: str, value: float) -> "Metric":
    from prometheus_client.metrics_core import CounterMetricFamily

    return CounterMetricFamily(f"mqttcore_{name}", text, value)


def _labelled(values: dict[str, int]) -> "Iterator[Metric]":
    """Yield the families whose keys differ in a label, and take them out of *values*."""
    from prometheus_client.metrics_core import CounterMetricFamily

    for prefix, (name, label, text) in LABELLED.items():
        family = CounterMetricFamily(f"mqttcore_{name}", text, labels=[label])
        for key in [key for key in values if key.startswith(prefix)]:
            family.add_metric([key.removeprefix(prefix)], values.pop(key))
        yield family


def _of_listeners(broker: "Broker") -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    labels = ["listener"]
    connections = GaugeMetricFamily("mqttcore_listener_connections", "Connections.", labels=labels)
    refused = CounterMetricFamily("mqttcore_listener_refused", "Connections that were one too many.", labels=labels)
    accepting = GaugeMetricFamily("mqttcore_listener_accepting", "0 for a listener that was stopped.", labels=labels)
    for listener in broker.listeners:
        accepting.add_metric([listener.name], listener.is_listening)
        connections.add_metric([listener.name], listener.connections)
        refused.add_metric([listener.name], listener.refused)
    yield accepting
    yield connections
    yield refused


def _of_plugins(of_plugins: dict[str, dict[str, int]]) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, UnknownMetricFamily

    by_key: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for plugin, values in of_plugins.items():
        for key, value in values.items():
            by_key[key][plugin] = value
    for key, by_plugin in by_key.items():
        family: Metric
        if (named := PLUGIN_COUNTERS.get(key)) is not None:
            family = CounterMetricFamily(f"mqttcore_{named.name}", named.help, labels=["plugin"])
        elif (named := PLUGIN_GAUGES.get(key)) is not None:
            family = GaugeMetricFamily(f"mqttcore_{named.name}", named.help, labels=["plugin"])
        else:
            family = UnknownMetricFamily(f"mqttcore_plugin_{key}", "Counted by plugins.", labels=["plugin"])
        for plugin, value in by_plugin.items():
            family.add_metric([plugin], value)
        yield family


def handler(broker: "Broker") -> "Handler":
    """Return what answers `/metrics`; without the library that is 501, with what to install."""
    if not _is_installed():

        async def missing(request: web.Request) -> web.Response:
            return problem(501, "metrics need the package prometheus-client: pip install 'mqttcore[metrics]'")

        return missing

    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(BrokerCollector(broker))
    ProcessCollector(registry=registry)

    async def metrics(request: web.Request) -> web.Response:
        """Answer in the format that Accept asks for: Prometheus' text, or OpenMetrics."""
        encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.SERVER: SERVER}
        return web.Response(body=encode(registry), headers=headers)

    return metrics


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("prometheus_client") is not None
    except ValueError:  # it was taken away
        return False
