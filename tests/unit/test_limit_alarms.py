"""Alarms of listeners: raised when a bound is reached, ended when it has not been for a while."""

import pytest

from mqttcore.limit_alarms import LimitAlarms


class Services:
    """Notes alarms as the broker would."""

    def __init__(self) -> None:
        self.alarms: dict[str, str] = {}

    def raise_alarm(self, name: str, text: str) -> None:
        self.alarms[name] = text

    def clear_alarm(self, name: str, text: str = "") -> None:
        self.alarms.pop(name, None)


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def alarms(services: Services) -> LimitAlarms:
    return LimitAlarms(services)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counter", "alarm"),
    [
        ("accept_pauses", "descriptors"),
        ("descriptors_exhausted", "descriptors"),
        ("connections_refused_full", "listeners_full"),
        ("handshakes_evicted", "handshakes_full"),
        ("addresses_overflowed", "addresses_full"),
        ("connections_lingering_cut", "lingering_full"),
        ("http_connections_evicted", "http_full"),
        ("connections_refused_http", "http_full"),
        ("http_keys_throttled", "http_keys"),
        ("http_requests_throttled", "http_rate"),
    ],
)
def test_alarm_lasts_until_there_was_no_case_for_a_while(
    services: Services, alarms: LimitAlarms, counter: str, alarm: str
):
    alarms.look({counter: 0})
    assert not services.alarms
    alarms.look({counter: 1})
    assert list(services.alarms) == [alarm]
    for _ in range(9):
        alarms.look({counter: 1})
    alarms.look({counter: 2})  # another one: it begins anew
    for _ in range(9):
        alarms.look({counter: 2})
    assert list(services.alarms) == [alarm]
    alarms.look({counter: 2})
    assert not services.alarms


@pytest.mark.parametrize(("gauge", "alarm"), [("overloaded", "overload"), ("tls_alarms", "tls_files")])
def test_state_is_an_alarm_as_long_as_it_lasts(services: Services, alarms: LimitAlarms, gauge: str, alarm: str):
    alarms.look({gauge: 0})
    assert not services.alarms
    alarms.look({gauge: 1})
    assert list(services.alarms) == [alarm]
    alarms.look({gauge: 0})
    assert not services.alarms


def test_what_was_counted_before_the_first_look_is_told(services: Services, alarms: LimitAlarms):
    alarms.look({"accept_pauses": 3})
    assert "descriptors" in services.alarms


def test_counter_that_is_gone_has_not_moved(services: Services, alarms: LimitAlarms):
    alarms.look({"connections_lingering_cut": 0})
    for value in ({}, {"connections_lingering_cut": 0}):
        alarms.look(value)
    assert not services.alarms
