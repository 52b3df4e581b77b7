"""A store in a process of its own, told what to do by lines: for faults of the disk, which need a library preloaded.

commit N COUNT SIZE   → "ok" or "full: …", "io: …"         keys N*1000+1 … N*1000+COUNT
count                 → records that are alive
check                 → number of things that are wrong
figure NAME           → one of the details of info()
"""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec

from mqttcore import StoreError, records
from mqttcore.plugins.discovery import open_source_tree
from mqttcore.testing.store import make_batch, sample_records

open_source_tree()

from mqttcore_plugins.sqlite import SqliteConfig, SqliteStore, open_file  # noqa: E402


async def answer(store: SqliteStore, words: list[str]) -> str:
    if words[0] == "commit":
        number, count, size = (int(word) for word in words[1:])
        message = msgspec.structs.replace(sample_records()[2][1], payload=bytes(size))
        put = [(number * 1000 + 1 + place, message) for place in range(count)]
        await store.commit(make_batch(number, put))
        return "ok"
    if words[0] == "count":
        return str(sum([records.check(chunk) async for chunk in store.load()]))
    if words[0] == "check":
        return str(len(await store.check()))
    return str((await store.info()).details[words[1]])


async def main() -> None:
    store = open_file(SqliteConfig(**json.loads(sys.argv[1])))
    alarms: list[str] = []
    await store.open(lambda name, is_raised, text: alarms.append(f"{name} {text}"))
    print("open", *alarms, flush=True)  # noqa: T201
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            print(await answer(store, line.split()), flush=True)  # noqa: T201
        except StoreError as error:
            print(f"{error.kind}: {error.reason}", flush=True)  # noqa: T201
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
