"""Failed logins close the door for a while, but not a user's own."""

from mqttcore_plugins.users.failures import Failures


def test_address_is_closed_after_too_many_failures_and_opens_again():
    failures = Failures(maximum=3, window_s=60)
    for second in range(3):
        assert not failures.is_closed("1.2.3.4", "ann", second)
        failures.failed("1.2.3.4", f"user{second}", second)
    assert failures.is_closed("1.2.3.4", "ann", 3)
    assert not failures.is_closed("5.6.7.8", "ann", 3)
    assert not failures.is_closed("1.2.3.4", "ann", 60.5)  # the first of the three is old


def test_user_is_closed_to_strangers_only():
    failures = Failures(maximum=2, window_s=60)
    failures.succeeded("10.0.0.1", "ann")
    failures.failed("6.6.6.6", "ann", 1)
    failures.failed("7.7.7.7", "ann", 1)
    assert failures.is_closed("8.8.8.8", "ann", 2)
    assert not failures.is_closed("10.0.0.1", "ann", 2)


def test_a_flood_of_addresses_takes_bounded_memory():
    failures = Failures(maximum=2, window_s=60, entries_maximum=100)
    for number in range(10_000):
        failures.failed(f"10.0.{number >> 8}.{number & 255}", f"user{number}", 1)
        failures.succeeded(f"11.0.{number >> 8}.{number & 255}", "ann")
    assert len(failures) <= 100
    assert len(failures._known) <= 100


def test_zero_is_no_limit():
    failures = Failures(maximum=0, window_s=60)
    for _ in range(100):
        failures.failed("1.2.3.4", "ann", 1)
    assert not failures.is_closed("1.2.3.4", "ann", 1)
