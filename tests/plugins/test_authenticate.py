"""Plugins that say who a client is: at once, later, never, or nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mqttcore import (
    Auth,
    Broker,
    Challenge,
    Config,
    Connect,
    Identity,
    Listener,
    PropertyId,
    ReasonCode,
    Refusal,
    hookimpl,
)
from mqttcore.codec import Decoder, Disconnect, PingReq, PingResp

METHOD = {PropertyId.AUTHENTICATION_METHOD: "riddle"}


class Answering:
    """Answers what a function says: of CONNECT, and of AUTH."""

    def __init__(self, answer: Any, name: str = "answering") -> None:
        self.answer = answer
        self.name = name
        self.asked: list[Any] = []

    @hookimpl
    def authenticate(self, client: Any, connect: Connect) -> Any:
        self.asked.append(client)
        return self.answer(connect)

    @hookimpl
    def continue_authentication(self, client: Any, auth: Auth) -> Any:
        self.asked.append(client)
        return self.answer(auth)


class Peer:
    """A socket that speaks MQTT 5."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder(5, sender="server")
        self.arrived: list[Any] = []

    async def send(self, *packets: Any) -> None:
        self.writer.write(b"".join(packet.encode(5) for packet in packets))
        await self.writer.drain()

    async def receive(self) -> Any:
        while not self.arrived:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            if not data:
                return None
            self.arrived += self.decoder.feed(data)
        return self.arrived.pop(0)

    async def connect(self, client_id: str = "a", **fields: Any) -> int:
        await self.send(Connect(client_id, **fields))
        return (await self.receive()).reason_code


@asynccontextmanager
async def serving(*plugins: object, **settings: Any) -> AsyncIterator[Broker]:
    settings.setdefault("listeners", [Listener(port=0)])
    async with Broker(Config(sys_interval_s=0, **settings), plugins=plugins) as broker:
        yield broker
        for writer in WRITERS:
            writer.transport.abort()
        for writer in WRITERS:
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        WRITERS.clear()


WRITERS: list[asyncio.StreamWriter] = []


async def peer(broker: Broker) -> Peer:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.addresses[0][2])
    WRITERS.append(writer)
    return Peer(reader, writer)


async def later(answer: Any) -> Any:
    await asyncio.sleep(0)
    return answer


def raise_(error: BaseException) -> Any:
    raise error


async def raise_later(error: BaseException) -> Any:
    await asyncio.sleep(0)
    raise error


MINE = Identity("mine")


@pytest.mark.parametrize("wrap", [lambda answer: answer, later], ids=["now", "later"])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (MINE, 0),
        (Refusal(ReasonCode.BANNED), ReasonCode.BANNED),
        (None, ReasonCode.NOT_AUTHORIZED),
        (True, ReasonCode.UNSPECIFIED_ERROR),
        ("yes", ReasonCode.UNSPECIFIED_ERROR),
        (1, ReasonCode.UNSPECIFIED_ERROR),
    ],
)
async def test_only_an_identity_lets_in(wrap: Any, answer: Any, code: int):
    async with serving(Answering(lambda connect: wrap(answer))) as broker:
        assert await (await peer(broker)).connect() == code
        assert broker.metrics()["plugin_answering_errors"] == (code == ReasonCode.UNSPECIFIED_ERROR)
        assert broker.metrics()["sessions"] == (code == 0)


@pytest.mark.parametrize(
    ("raising", "error"),
    [
        (raise_, KeyError("user")),
        (raise_later, KeyError("user")),
        (raise_later, TimeoutError()),
        (raise_later, asyncio.CancelledError()),
    ],
)
async def test_exception_refuses_and_others_are_served(raising: Any, error: BaseException, caplog: Any):
    plugin = Answering(lambda connect: MINE if connect.client_id == "good" else raising(error))
    async with serving(plugin) as broker:
        good = await peer(broker)
        assert await good.connect("good") == 0
        assert await (await peer(broker)).connect("bad") == ReasonCode.UNSPECIFIED_ERROR
        await good.send(PingReq())
        assert isinstance(await good.receive(), PingResp)
        assert broker.metrics()["plugin_answering_errors"] == 1
    assert "plugin answering, hook authenticate" in caplog.text


async def test_first_answer_counts_and_order_is_that_of_the_list():
    said: list[str] = []

    def say(name: str, answer: Any) -> Any:
        return lambda connect: said.append(name) or answer

    plugins = [
        Answering(say("one", None), "one"),
        Answering(lambda connect: later(said.append("two")), "two"),
        Answering(say("three", MINE), "three"),
        Answering(say("four", Refusal()), "four"),
    ]
    async with serving(*plugins) as broker:
        assert await (await peer(broker)).connect() == 0
        assert [*broker.plugins] == ["one", "two", "three", "four"]
    assert said == ["one", "two", "three"]


async def test_slow_answer_delays_only_its_own_client_and_keeps_order():
    may_answer = asyncio.Event()

    async def slow() -> Identity:
        await may_answer.wait()
        return MINE

    plugin = Answering(lambda connect: slow() if connect.client_id == "slow" else MINE)
    async with serving(plugin) as broker:
        waiting = await peer(broker)
        await waiting.send(Connect("slow"), PingReq())
        assert await (await peer(broker)).connect("quick") == 0
        assert broker.metrics()["authentications_waiting"] == 1
        may_answer.set()
        assert (await waiting.receive()).reason_code == 0
        assert isinstance(await waiting.receive(), PingResp)
        assert broker.metrics()["authentications_waiting"] == 0


async def test_late_answer_is_refused_even_when_the_plugin_does_not_listen():
    may_end = asyncio.Event()

    async def deaf() -> Identity:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue
        return MINE

    async with serving(Answering(lambda connect: deaf()), authentication_timeout_s=0.02) as broker:
        client = await peer(broker)
        assert await client.connect() == ReasonCode.SERVER_UNAVAILABLE
        assert await client.receive() is None
        assert broker.metrics()["authentications_timed_out"] == 1
        assert broker.metrics()["authentications_waiting"] == 1  # it still holds its place
        may_end.set()
        async with asyncio.timeout(60):
            while broker.metrics()["authentications_waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert broker.metrics()["sessions"] == 0


async def test_no_more_wait_than_allowed():
    may_answer = asyncio.Event()

    async def slow() -> Identity:
        await may_answer.wait()
        return MINE

    async with serving(Answering(lambda connect: slow()), authentications_maximum=1) as broker:
        first = await peer(broker)
        await first.send(Connect("a"))
        async with asyncio.timeout(60):
            while not broker.metrics()["authentications_waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert await (await peer(broker)).connect("b") == ReasonCode.SERVER_BUSY
        assert broker.metrics()["authentications_refused_busy"] == 1
        may_answer.set()
        assert (await first.receive()).reason_code == 0


async def test_question_is_dropped_when_the_client_goes():
    cancelled = asyncio.Event()

    async def slow() -> Identity:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with serving(Answering(lambda connect: slow())) as broker:
        client = await peer(broker)
        await client.send(Connect("a"))
        async with asyncio.timeout(60):
            while not broker.metrics()["authentications_waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
            # A reset. An orderly end may follow a whole burst of packets that are to be handled once it is let in.
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
            await cancelled.wait()
        assert broker.metrics()["plugin_answering_errors"] == 0


async def test_broker_stops_while_a_client_waits():
    async with serving(Answering(lambda connect: asyncio.Event().wait()), shutdown_timeout_s=0) as broker:
        client = await peer(broker)
        await client.send(Connect("a"))
        async with asyncio.timeout(60):
            while not broker.metrics()["authentications_waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_anonymous_clients_need_the_listeners_word():
    async with serving(Answering(lambda connect: None), allow_anonymous=True) as broker:
        assert await (await peer(broker)).connect() == 0
        client = await peer(broker)
        assert await client.connect(properties=METHOD) == ReasonCode.BAD_AUTHENTICATION_METHOD


async def test_exposed_listener_is_fine_with_authentication():
    async with serving(Answering(lambda connect: MINE), listeners=[Listener(host="0.0.0.0", port=0)]) as broker:
        assert await (await peer(broker)).connect() == 0


@pytest.mark.parametrize("wrap", [lambda answer: answer, later], ids=["now", "later"])
async def test_exchange_and_reauthentication(wrap: Any):
    answers = iter([Challenge(b"1?"), MINE, Challenge(b"2?"), MINE, Refusal(ReasonCode.NOT_AUTHORIZED)])
    async with serving(Answering(lambda packet: wrap(next(answers)))) as broker:
        client = await peer(broker)
        await client.send(Connect("a", properties=METHOD))
        assert (await client.receive()).properties[PropertyId.AUTHENTICATION_DATA] == b"1?"
        await client.send(Auth(0x18, METHOD))
        assert (await client.receive()).reason_code == 0
        await client.send(Auth(0x19, METHOD))
        assert (await client.receive()).properties[PropertyId.AUTHENTICATION_DATA] == b"2?"
        await client.send(Auth(0x18, METHOD))
        assert (await client.receive()) == Auth(0, METHOD)
        await client.send(Auth(0x19, METHOD))
        assert (await client.receive()) == Disconnect(ReasonCode.NOT_AUTHORIZED)


async def test_late_reauthentication_says_what_disconnect_can_say():
    answers = iter([MINE, asyncio.Event().wait()])
    async with serving(Answering(lambda packet: next(answers)), authentication_timeout_s=0.02) as broker:
        client = await peer(broker)
        assert await client.connect(properties=METHOD) == 0
        await client.send(Auth(0x19, METHOD))
        assert (await client.receive()) == Disconnect(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR)
