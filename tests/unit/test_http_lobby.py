"""Connections that speak HTTP: how many, how many of one address, and who makes room. The clock is a number."""

import pytest

from mqttcore.config import Listener
from mqttcore.http import lobby as module
from mqttcore.http.lobby import Lobby
from mqttcore.net.listeners import BoundListener


class Clock:
    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Guest:
    is_cut = False

    def cut(self) -> None:
        self.is_cut = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def listener() -> BoundListener:
    return BoundListener("web", False, 0, 1, 1)


def lobby_of(listener: BoundListener, maximum: int | None = None, per_address: int | None = None) -> Lobby:
    settings = Listener(protocol="http", http_connections_maximum=maximum, http_connections_per_address=per_address)
    return Lobby(listener, settings)


def peer(number: int) -> tuple[str, int]:
    return (f"192.0.2.{number}", 40_000)


def counts(listener: BoundListener) -> tuple[int, int, int]:
    return listener.http_connections, listener.http_evicted, listener.http_refused


@pytest.mark.parametrize(
    ("descriptors", "maximum", "per_address"), [(None, 4096, 1024), (1_000_000, 4096, 1024), (1024, 256, 64), (2, 1, 1)]
)
def test_bounds_depend_on_the_descriptors_there_are(
    monkeypatch: pytest.MonkeyPatch,
    listener: BoundListener,
    descriptors: int | None,
    maximum: int,
    per_address: int,
):
    monkeypatch.setattr(module, "descriptors_maximum", lambda: descriptors)
    lobby = lobby_of(listener)
    assert (lobby.maximum, lobby.per_address) == (maximum, per_address)


def test_who_waited_longest_makes_room(clock: Clock, listener: BoundListener):
    lobby, guests = lobby_of(listener, 3, 3), [Guest() for _ in range(5)]
    for number, guest in enumerate(guests[:3]):
        assert lobby.enter(guest, peer(number))
        clock.now_s += 1
    lobby.waits(guests[0])  # its request came whole, or was answered
    assert lobby.enter(guests[3], peer(3))
    assert [guest.is_cut for guest in guests] == [False, True, False, False, False]
    assert lobby.enter(guests[4], peer(4))
    assert [guest.is_cut for guest in guests] == [False, True, True, False, False]
    assert counts(listener) == (3, 2, 0)


def test_who_came_just_now_stays(clock: Clock, listener: BoundListener):
    lobby, first, second = lobby_of(listener, 1), Guest(), Guest()
    assert lobby.enter(first, peer(1))
    clock.now_s += 0.9
    assert not lobby.enter(second, peer(2))
    assert counts(listener) == (1, 0, 1)
    clock.now_s += 0.1
    assert lobby.enter(second, peer(2))
    assert (first.is_cut, counts(listener)) == (True, (1, 1, 1))


def test_who_showed_a_good_key_stays_until_it_waits_again(clock: Clock, listener: BoundListener):
    lobby, known, other = lobby_of(listener, 1), Guest(), Guest()
    assert lobby.enter(known, peer(1))
    lobby.vouch(known)
    clock.now_s += 100
    assert not lobby.enter(other, peer(2))
    lobby.waits(known)
    assert not lobby.enter(other, peer(2))
    clock.now_s += 1
    assert lobby.enter(other, peer(2))
    assert known.is_cut


@pytest.mark.parametrize("second", ["2001:db8::1", "2001:db8::ffff:1"])
def test_address_over_its_part_makes_room_itself(clock: Clock, listener: BoundListener, second: str):
    """Of IPv6 a network of 64 bits is one: whoever has one address there has them all."""
    lobby, others, own = lobby_of(listener, 10, 2), [Guest(), Guest()], [Guest() for _ in range(3)]
    for number, guest in enumerate(others):
        assert lobby.enter(guest, peer(number))
    clock.now_s += 10
    for guest in own[:2]:
        assert lobby.enter(guest, ("2001:db8::1", 40_000, 0, 0))
    assert not lobby.enter(own[2], (second, 40_001, 0, 0))
    clock.now_s += 1
    assert lobby.enter(own[2], (second, 40_001, 0, 0))
    assert [guest.is_cut for guest in (*others, *own)] == [False, False, True, False, False]


def test_unix_sockets_have_no_address(clock: Clock, listener: BoundListener):
    lobby = lobby_of(listener, 3, 1)
    assert all(lobby.enter(Guest(), "") for _ in range(3))
    assert not lobby.enter(Guest(), "")


def test_nothing_is_left_of_who_has_left(clock: Clock, listener: BoundListener):
    lobby, guests = lobby_of(listener, 2, 2), [Guest() for _ in range(6)]
    for guest in guests:
        clock.now_s += 1
        assert lobby.enter(guest, peer(1))
    for guest in guests:
        lobby.leave(guest)  # those that were cut, once more
        lobby.waits(guest)  # an answer that ends after its connection
    assert counts(listener) == (0, 4, 0)
    assert not any((lobby._here, lobby._waiting, lobby._addresses))
