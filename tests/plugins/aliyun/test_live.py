"""Live logins and what becomes due for them."""

import asyncio

from mqttcore_plugins.aliyun.gate import Login
from mqttcore_plugins.aliyun.live import Deadlines, LiveLogins
from mqttcore_plugins.aliyun.tokens import Token


def token(name: bytes) -> Token:
    return Token(name, "i", "k", "RW", ("a",), 0, 0)


def login(client_id: str, connection_id: str, **tokens: Token) -> Login:
    return Login(client_id, connection_id, "i", "Token", tokens=tokens)


def test_logins_are_found_by_connection_client_and_token():
    live = LiveLogins(10)
    one = login("c", "1", RW=token(b"x"))
    live.add(one)
    assert live.by_connection("1") is live.by_client("c") is one
    assert live.with_token(b"x") == [one]
    live.remove("1")
    live.remove("1")
    assert (live.by_connection("1"), live.by_client("c"), live.with_token(b"x"), len(live)) == (None, None, [], 0)


def test_newer_connection_of_a_client_counts_whichever_end_comes_first():
    live = LiveLogins(10)
    old, new = login("c", "1"), login("c", "2")
    live.add(old)
    live.add(new)
    assert live.by_client("c") is new
    live.remove("1")
    assert live.by_client("c") is new


def test_replaced_token_is_forgotten_unless_it_serves_another_type():
    live = LiveLogins(10)
    one = login("c", "1", R=token(b"x"), W=token(b"x"))
    live.add(one)
    live.replace_token(one, "R", token(b"y"))
    assert live.with_token(b"x") == live.with_token(b"y") == [one]
    live.replace_token(one, "W", token(b"y"))
    assert live.with_token(b"x") == []


def test_it_is_full_at_its_maximum():
    live = LiveLogins(1)
    assert not live.is_full
    live.add(login("c", "1"))
    assert live.is_full


class Clock:
    """A wall clock that tests move, and timers that see it at once."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


async def test_deadlines_come_in_order_of_time():
    clock, called = Clock(), []
    done = asyncio.Event()

    def call(connection_id: str, kind: str, token_type: str, token_id: bytes) -> None:
        called.append((connection_id, kind, token_type, token_id))
        if len(called) == 3:
            done.set()

    deadlines = Deadlines(clock, call, lambda *_: True)
    deadlines.add(1_030, "3", "late")
    deadlines.add(1_010, "1", "soon", "RW", b"x")
    deadlines.add(900, "0", "past")
    clock.now = 1_030
    async with asyncio.timeout(60):
        await done.wait()
    assert called == [("0", "past", "", b""), ("1", "soon", "RW", b"x"), ("3", "late", "", b"")]
    assert len(deadlines) == 0


async def test_nothing_is_called_before_its_time_by_the_wall_clock():
    clock, called = Clock(), []
    deadlines = Deadlines(clock, lambda *given: called.append(given), lambda *_: True)
    deadlines.add(1_001, "1", "x")
    await asyncio.sleep(0.01)  # the loop's clock goes on, the wall clock stands
    assert called == []
    deadlines.close()
    assert len(deadlines) == 0


async def test_deadlines_of_the_dead_do_not_pile_up():
    deadlines = Deadlines(Clock(), lambda *_: None, lambda connection_id, *_: connection_id == "alive")
    deadlines.add(10**15, "alive", "x")
    for number in range(10_000):
        deadlines.add(10**15 + number, str(number), "x")
    assert len(deadlines) <= 200
    deadlines.close()
