"""`$SYS/broker/…` messages, under the names that mosquitto's users know, with more below them."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from mqttcore._version import __version__

__all__ = ["SysTopics"]

_LOAD_MINUTES = (1, 5, 15)
_LOADS = {
    "messages/received": "packets_received",
    "messages/sent": "packets_sent",
    "publish/received": "packets_received_publish",
    "publish/sent": "packets_sent_publish",
    "bytes/received": "bytes_received",
    "bytes/sent": "bytes_sent",
    "connections": "connects_accepted",
}


class SysTopics:
    """Makes the messages from `Broker.metrics()`; keeps what the moving averages need."""

    def __init__(self) -> None:
        self._loads = {(name, minutes): 0.0 for name in _LOADS for minutes in _LOAD_MINUTES}
        self._before: dict[str, int] = {}
        self._clients_maximum = 0

    def messages(
        self,
        metrics: Mapping[str, int],
        uptime_s: float,
        interval_s: float,
        sections: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    ) -> Iterator[tuple[str, str]]:
        """Yield (topic, payload) for one round.

        uptime_s: since start; interval_s: since the last round. sections: what plugins count, by plugin and key.
        """
        sums = dict(metrics)
        sums["packets_received"] = sum(v for k, v in metrics.items() if k.startswith("packets_received_"))
        sums["packets_sent"] = sum(v for k, v in metrics.items() if k.startswith("packets_sent_"))
        dropped = sum(v for k, v in metrics.items() if k.startswith("messages_dropped_"))
        self._clients_maximum = max(self._clients_maximum, sums["sessions_connected"])
        base = "$SYS/broker/"
        yield base + "version", f"mqttcore version {__version__}"
        yield base + "uptime", f"{int(uptime_s)} seconds"
        yield base + "clients/connected", str(sums["sessions_connected"])
        yield base + "clients/disconnected", str(sums["sessions"] - sums["sessions_connected"])
        yield base + "clients/total", str(sums["sessions"])
        yield base + "clients/maximum", str(self._clients_maximum)
        yield base + "messages/received", str(sums["packets_received"])
        yield base + "messages/sent", str(sums["packets_sent"])
        yield base + "publish/messages/received", str(sums["packets_received_publish"])
        yield base + "publish/messages/sent", str(sums["packets_sent_publish"])
        yield base + "publish/messages/dropped", str(dropped)
        yield base + "publish/bytes/received", str(sums["message_bytes_received"])
        yield base + "publish/bytes/sent", str(sums["message_bytes_sent"])
        yield base + "bytes/received", str(sums["bytes_received"])
        yield base + "bytes/sent", str(sums["bytes_sent"])
        yield base + "subscriptions/count", str(sums["subscriptions"])
        yield base + "shared_subscriptions/count", str(sums["shared_groups"])
        yield base + "retained messages/count", str(sums["retained"])
        yield base + "store/messages/count", str(sums["queued"] + sums["in_flight"] + sums["retained"])
        yield base + "store/messages/bytes", str(sums["queued_bytes"] + sums["retained_bytes"])
        for name, key in _LOADS.items():
            per_minute = (sums[key] - self._before.get(key, 0)) * 60 / interval_s
            for minutes in _LOAD_MINUTES:
                weight = min(1.0, interval_s / (minutes * 60))
                self._loads[name, minutes] += (per_minute - self._loads[name, minutes]) * weight
                yield f"{base}load/{name}/{minutes}min", f"{self._loads[name, minutes]:.2f}"
        # Everything else under its own name.
        for key, value in metrics.items():
            yield f"{base}metrics/{key}", str(value)
        for name, values in sections.items():
            for key, value in values.items():
                yield f"{base}plugins/{name}/{key}", str(value)
        self._before = sums
