"""Run as a program: open many connections, spread over source addresses, and hold them. Spoken to by lines on stdin.

    idle_clients.py HOST PORT COUNT FIRST AT_ONCE

Connects COUNT clients named idle<FIRST> and up, AT_ONCE at a time, from 127.0.1.1 and up, one address for every 5,000.
Prints `ready SECONDS`; then for each line on stdin pings all and prints `alive COUNT`; at its end disconnects.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from load import wire

PINGREQ = b"\xc0\x00"
PINGRESP_PACKET = b"\xd0\x00"
PER_ADDRESS = 5000

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(host: str, port: int, number: int, turn: asyncio.Semaphore) -> Pair:
    source = f"127.0.1.{1 + number // PER_ADDRESS}"
    async with turn:
        reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0), limit=1024)
        writer.write(wire.connect(f"idle{number}", clean_session=True))
        connack = await reader.readexactly(4)
        assert connack == b"\x20\x02\x00\x00", f"idle{number}: CONNACK {connack.hex()}"
        return reader, writer


async def ping(pair: Pair) -> bool:
    reader, writer = pair
    writer.write(PINGREQ)
    return await reader.readexactly(2) == PINGRESP_PACKET


async def main(host: str, port: int, count: int, first: int, at_once: int) -> None:
    loop = asyncio.get_running_loop()
    turn = asyncio.Semaphore(at_once)
    started = time.monotonic()
    pairs = await asyncio.gather(*(connect(host, port, first + index, turn) for index in range(count)))
    sys.stdout.write(f"ready {time.monotonic() - started:.3f}\n")
    sys.stdout.flush()
    while await loop.run_in_executor(None, sys.stdin.readline):
        alive = sum(await asyncio.gather(*map(ping, pairs)))
        sys.stdout.write(f"alive {alive}\n")
        sys.stdout.flush()
    for _, writer in pairs:
        writer.write(wire.disconnect())
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in pairs))


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
