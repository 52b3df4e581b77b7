"""The interpreter ends while a broker is alive, or is not the only one in the process."""

import subprocess
import sys
import textwrap

import pytest

SETUP = """
import asyncio, gc, sys
from mqttcore import Broker, Limits, PropertyId
from mqttcore.codec import Connect, Publish, Subscribe, Subscription, Will
from mqttcore.config import Config, Listener
from mqttcore.engine.connection import Connection
from mqttcore.engine.engine import Engine
from mqttcore.engine.keeper import Keeper
from mqttcore.engine.tap import Tap

class Door:
    name = "unit"
    allow_anonymous = True

engine = Engine(Limits(in_flight_maximum=2), now_ms=1000)
keeper = Keeper(engine, wall_ms=1_800_000_000_000)
tap = Tap(engine, list, messages_maximum=10, bytes_maximum=10_000)
engine.add_tap(b"#", tap)
engine.add_handler(b"handled", print)
connections = []
for name in "abc":
    connection = Connection(engine, Door(), ("peer", 1))
    connection.receive(Connect(name, clean_start=False, keep_alive_s=60, will=Will("will", b"x"),
                               properties={PropertyId.SESSION_EXPIRY_INTERVAL: 60}).encode(5))
    connection.receive(Subscribe(1, [Subscription("t/#", 2), Subscription("$share/g/t/#", 1)]).encode(5))
    connections.append(connection)
for number in range(10):
    connections[0].receive(Publish("t/x", b"x" * 9000, qos=1, packet_id=number + 1, retain=True).encode(5))
connections[1].receive(b"\\x30\\xff")
engine.publish_bytes(b"t/x", b"y" * 9000, 2)
connections[2].connection_lost()
cursors = [engine.retained_cursor(b"#")]
engine.take_retained(cursors[0], 1)
waiting = tap.take(2)
"""

ENDS = {
    "everything in globals": "",
    "the engine first": "del engine, keeper; gc.collect()",
    "the connections first": "connections.clear(); gc.collect()",
    "in a cycle": "knot = [engine, connections, tap, keeper]; knot.append(knot); del engine, connections, tap, keeper",
    "kept by sys": "sys.kept = [engine, connections, tap, cursors, waiting]",
    "closed, then used": """
        engine.close()
        gc.collect()
        for connection in connections:
            connection.receive(Publish("t/x", b"late").encode(5))
            connection.take_output()
        engine.advance(10_000_000)
    """,
    "within a callback": """
        loop = asyncio.new_event_loop()
        loop.call_soon(sys.exit)
        loop.run_forever()
    """,
    "in a finalizer": """
        class Last:
            def __init__(self): self.engine, self.connections, self.cycle = engine, connections, self
            def __del__(self):
                for connection in self.connections:
                    connection.connection_lost()
                self.engine.publish_bytes(b"t/x", b"last", 1)
                self.engine.advance(5_000_000)
        last = Last()
        del engine, connections, connection, keeper, cursors, waiting, tap, last
    """,
    "a broker that serves": """
        async def main():
            broker = Broker(Config(listeners=[Listener(port=0)]))
            await broker.start()
            reader, writer = await asyncio.open_connection(*broker.addresses[0][1:])
            writer.write(Connect("z", keep_alive_s=60).encode(5))
            await reader.readexactly(2)
            sys.kept = broker, reader, writer
            sys.exit(0)
        asyncio.run(main())
    """,
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore::ResourceWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("end", ENDS)
def test_interpreter_ends_with_everything_open(end: str):
    ended = run(SETUP + textwrap.dedent(ENDS[end]))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_second_interpreter_is_refused():
    ended = run(
        textwrap.dedent("""
        import _xxsubinterpreters as interpreters
        import mqttcore.codec
        other = interpreters.create()
        try:
            interpreters.run_string(other, "import mqttcore.codec")
        except interpreters.RunFailedError as error:
            print(error)
        interpreters.destroy(other)
        print(mqttcore.codec.PingReq().encode(5))
        """)
    )
    assert ended.returncode == 0, ended.stderr
    refusal, alive = ended.stdout.splitlines()
    assert "ImportError" in refusal
    assert alive == repr(b"\xc0\x00")
