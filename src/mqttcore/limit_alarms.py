"""Alarms of listeners: bounds that were reached, certificates that cannot be used, a loop that does not keep up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mqttcore.services import Services

__all__ = ["LimitAlarms"]

_QUIET_LOOKS = 10  # without another case: it is over

# Alarm -> the counters that grow with each case, and what to say. Names are what `Broker.metrics()` has.
_CASES = {
    "descriptors": (("accept_pauses", "descriptors_exhausted"), "out of descriptors: connections cannot be accepted"),
    "listeners_full": (("connections_refused_full",), "connections are refused: more than max_connections"),
    "handshakes_full": (("handshakes_evicted",), "silent handshakes are cut off: more than handshakes_maximum"),
    "addresses_full": (("addresses_overflowed",), "new addresses have no limits: more than addresses_remembered"),
    "lingering_full": (("connections_lingering_cut",), "closed connections are cut before their peers have read all"),
    "http_full": (
        ("http_connections_evicted", "connections_refused_http"),
        "connections that speak HTTP are cut or refused: more than http_connections_maximum, or one address's part",
    ),
    "http_keys": (("http_keys_throttled",), "an address is refused for too many wrong API keys"),
    "http_rate": (("http_requests_throttled",), "an API key asks more often than requests_per_s_per_key"),
}
# Alarm -> the gauge that is not 0 while it lasts.
_STATES = {
    "overload": ("overloaded", "the event loop lags: new clients are refused"),
    "tls_files": ("tls_alarms", "new certificate files cannot be used: the old ones stay in force"),
}


class LimitAlarms:
    """Told of the metrics about once a second, it raises alarms and clears them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seen: dict[str, int] = {}  # counter -> its value, when last looked at
        self._quiet: dict[str, int] = {}  # alarm that is raised -> looks without another case

    def look(self, metrics: Mapping[str, int]) -> None:
        """Compare *metrics* with those of the last look. A counter that is missing has not moved."""
        for alarm, (counters, text) in _CASES.items():
            before = [self._seen.get(counter, 0) for counter in counters]
            now = [metrics.get(counter, seen) for counter, seen in zip(counters, before, strict=True)]
            self._seen.update(zip(counters, now, strict=True))
            if now > before:
                self._quiet[alarm] = 0
                self._services.raise_alarm(alarm, text)
            elif alarm in self._quiet:
                self._quiet[alarm] += 1
                if self._quiet[alarm] >= _QUIET_LOOKS:
                    del self._quiet[alarm]
                    self._services.clear_alarm(alarm)
        for alarm, (gauge, text) in _STATES.items():
            if metrics.get(gauge, 0):
                self._services.raise_alarm(alarm, text)
            else:
                self._services.clear_alarm(alarm)
