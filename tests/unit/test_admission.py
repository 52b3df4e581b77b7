"""Rates and counts by listener and address; the clock is a number we set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttcore.config import Listener
from mqttcore.net.admission import Admission
from mqttcore.net.overload import OverloadWatch


def test_listener_takes_its_rate_and_refills():
    admission = Admission(Listener(connection_rate=10))
    assert [admission.take(1000) for _ in range(12)] == [True] * 10 + [False] * 2
    assert admission.take(1100)
    assert not admission.take(1100)
    assert [admission.take(60_000) for _ in range(11)].count(True) == 10
    assert admission.rate_refused == 4


def test_address_has_its_own_rate():
    admission = Admission(Listener(connection_rate_per_address=2))
    assert [admission.enter(("192.0.2.1", port), 1000) is None for port in range(3)] == [True, True, False]
    assert admission.enter(("192.0.2.2", 1), 1000) is None
    assert admission.enter(("192.0.2.1", 9), 1500) is None


def test_connections_at_a_time_are_counted_by_address():
    admission = Admission(Listener(connections_per_address=2))
    peers = [("192.0.2.1", 1), ("192.0.2.1", 2), ("192.0.2.1", 3)]
    assert admission.enter(peers[0], 1) is None
    assert admission.enter(peers[1], 1) is None
    assert "more than 2 connections" in admission.enter(peers[2], 1)
    admission.leave(peers[0])
    assert admission.enter(peers[2], 1) is None
    assert admission.address_refused == 1


@pytest.mark.parametrize(
    ("one", "other", "are_alike"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(one: str, other: str, are_alike: bool):
    admission = Admission(Listener(connections_per_address=1))
    assert admission.enter((one, 1), 1) is None
    assert (admission.enter((other, 1), 1) is not None) == are_alike


def test_unix_sockets_have_no_address_to_count():
    admission = Admission(Listener(connections_per_address=1))
    assert [admission.enter(None, 1) for _ in range(3)] == [None] * 3
    assert admission.addresses == 0


def test_table_forgets_who_has_nothing_open():
    admission = Admission(Listener(connections_per_address=1, addresses_remembered=10))
    busy = ("192.0.2.1", 1)
    assert admission.enter(busy, 1) is None
    for number in range(100):
        peer = (f"198.51.100.{number}", 1)
        assert admission.enter(peer, 1) is None
        admission.leave(peer)
    assert admission.addresses <= 10
    assert admission.enter(busy, 1) is not None  # still counted
    assert admission.addresses_overflowed == 0


def test_full_table_of_busy_addresses_lets_new_ones_through_and_tells():
    admission = Admission(Listener(connections_per_address=1, addresses_remembered=10))
    for number in range(20):
        assert admission.enter((f"198.51.100.{number}", 1), 1) is None
    assert admission.addresses == 10
    assert admission.addresses_overflowed == 10


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200))
def test_nothing_is_counted_once_all_have_left(steps: list[tuple[int, bool]]):
    admission = Admission(Listener(connections_per_address=3, connection_rate_per_address=50, addresses_remembered=8))
    inside: list[tuple[str, int]] = []
    for number, comes in steps:
        peer = (f"192.0.2.{number}", 1)
        if comes:
            if admission.enter(peer, 1) is None:
                inside.append(peer)
        elif peer in inside:
            inside.remove(peer)
            admission.leave(peer)
        assert admission.addresses <= 8
    for peer in inside:
        admission.leave(peer)
    assert all(not one.connections for one in admission._addresses.values())


# --- overload ---------------------------------------------------------------------------------------------------------


def test_one_late_call_is_no_overload():
    watch = OverloadWatch(100, 0.1)
    assert not any(watch.is_overloaded(moment) for moment in (0.0, 0.1, 0.9, 1.0, 1.1))


def test_lasting_lag_is_overload_until_it_has_been_good_for_a_while():
    watch = OverloadWatch(100, 0.1)
    now = 0.0
    seen = []
    for step in [0.1] + [0.3] * 4 + [0.1] * 12:
        now += step
        seen.append(watch.is_overloaded(now))
    assert seen == [False] * 3 + [True] * 11 + [False] * 3


def test_zero_means_never():
    watch = OverloadWatch(0, 0.1)
    assert not any(watch.is_overloaded(moment * 10.0) for moment in range(20))
