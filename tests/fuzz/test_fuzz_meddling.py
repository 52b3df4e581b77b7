"""A few rounds of the fuzzer in every run of the tests; fuzz_meddling.py by itself takes as long as it is given."""

from fuzz.fuzz_meddling import fuzz


def test_some_rounds_find_nothing():
    assert fuzz(seed=1, seconds=60, rounds=10) == 10
