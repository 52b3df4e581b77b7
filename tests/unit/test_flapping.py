"""Clients that come and go all the time are counted by client id and address, and refused for a while."""

from types import SimpleNamespace
from typing import Any

from mqttcore import Connect
from mqttcore.config import Flapping
from mqttcore.constants import ReasonCode
from mqttcore.flapping import FlappingWatch

HERE, THERE = ("twin", "192.0.2.1"), ("twin", "192.0.2.2")
SETTINGS = Flapping(connects_maximum=3, window_s=10, refused_s=60, clients_remembered=4)


def test_one_connect_too_many_is_refused_and_so_are_those_after_it():
    watch = FlappingWatch(SETTINGS)
    assert [watch.look(HERE, at) for at in (0, 1, 2)] == [None] * 3
    answer = watch.look(HERE, 3)
    assert answer is not None
    assert answer.reason_code == ReasonCode.CONNECTION_RATE_EXCEEDED
    assert watch.look(HERE, 62.9) is not None
    assert watch.look(HERE, 63) is None
    assert watch.metrics()["connects_refused_flapping"] == 2


def test_slow_returns_are_nobodys_business():
    watch = FlappingWatch(SETTINGS)
    assert [watch.look(HERE, at * 5) for at in range(100)] == [None] * 100


def test_the_same_client_id_elsewhere_is_somebody_else():
    watch = FlappingWatch(SETTINGS)
    for at in range(10):
        watch.look(HERE, at)
    assert watch.look(THERE, 10) is None


def test_alarm_lasts_as_long_as_somebody_is_refused():
    watch = FlappingWatch(SETTINGS)
    for at in range(4):
        watch.look(HERE, at)
    watch.sweep(62)
    assert watch.is_alarming
    watch.sweep(63)
    assert not watch.is_alarming


def test_switching_it_off_lets_everybody_in():
    watch = FlappingWatch(SETTINGS)
    for at in range(4):
        watch.look(HERE, at)
    watch.settings = Flapping()
    watch.sweep(5)
    assert not watch.is_alarming


def test_both_tables_are_bounded():
    watch = FlappingWatch(SETTINGS)
    for number in range(10):
        for at in range(4):
            watch.look((f"c{number}", None), at)
    for number in range(10):
        watch.look((f"d{number}", None), 4)
    counted = watch.metrics()
    assert counted["clients_flapping"] == 4
    assert counted["flapping_watched"] == 4
    assert counted["flapping_forgotten"] == 12


def test_long_client_ids_are_told_apart_and_take_no_room():
    watch = FlappingWatch(SETTINGS)
    for last in "ab":
        client: Any = SimpleNamespace(client_id="x" * 65_534 + last, address=("192.0.2.1", 40_000))
        answers = [watch.admit(client, Connect(client.client_id)) for _ in range(4)]
        assert [answer is None for answer in answers] == [True, True, True, False]
    assert max(len(client_id) for client_id, _ in watch._refused_until_s) < 100
