import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttcore.bench.histogram import Histogram
from mqttcore.bench.ledger import Ledger


def test_messages_once_and_in_order_leave_no_trace() -> None:
    ledger = Ledger(2)
    for number in range(5000):
        assert ledger.note(0, number)
        assert ledger.note(1, number)
    assert (ledger.received, ledger.duplicated, ledger.reordered) == (10000, 0, 0)


def test_second_arrival_is_a_duplicate_and_not_received_again() -> None:
    ledger = Ledger(1)
    assert [ledger.note(0, number) for number in (0, 1, 1, 2, 0)] == [True, True, False, True, False]
    assert (ledger.received, ledger.duplicated, ledger.reordered) == (3, 2, 0)


def test_arrival_after_a_later_message_is_reordered_once() -> None:
    ledger = Ledger(1)
    for number in (0, 2, 1, 3):
        ledger.note(0, number)
    assert (ledger.received, ledger.duplicated, ledger.reordered) == (4, 0, 1)


def test_gap_is_neither_reordered_nor_received() -> None:
    ledger = Ledger(1)
    for number in (0, 1, 70_000):
        ledger.note(0, number)
    assert (ledger.received, ledger.duplicated, ledger.reordered) == (3, 0, 0)


def test_flows_do_not_mix() -> None:
    ledger = Ledger(2)
    assert ledger.note(0, 7)
    assert ledger.note(1, 7)
    with pytest.raises(IndexError):
        ledger.note(2, 0)


def test_forget_starts_flows_anew() -> None:
    ledger = Ledger(1)
    ledger.note(0, 3)
    ledger.note(0, 3)
    ledger.forget()
    assert ledger.note(0, 0)
    assert (ledger.received, ledger.duplicated, ledger.reordered) == (1, 1, 0)


@given(st.lists(st.integers(0, 5000)))
def test_ledger_agrees_with_a_set(arrivals: list[int]) -> None:
    ledger = Ledger(1)
    seen: set[int] = set()
    duplicated = reordered = 0
    for number in arrivals:
        duplicated += number in seen
        reordered += number not in seen and number < max(seen, default=-1)
        seen.add(number)
        ledger.note(0, number)
    assert (ledger.received, ledger.duplicated, ledger.reordered) == (len(seen), duplicated, reordered)


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1), st.sampled_from([0.01, 0.5, 0.99, 1.0]))
def test_percentile_is_within_a_64th(values: list[int], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = next(v for at, v in enumerate(sorted(values), 1) if at >= share * len(values))
    assert abs(histogram.percentile(share) - exact) <= exact / 64
    assert histogram.count == len(values)


def test_histogram_takes_negative_as_zero_and_can_be_cleared() -> None:
    histogram = Histogram()
    histogram.add(-5)
    assert (histogram.count, histogram.percentile(1.0)) == (1, 0)
    histogram.clear()
    assert histogram.count == 0
