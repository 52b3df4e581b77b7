"""Subscription trie and retained tree with a million topics: time, memory, and whether a match stays as cheap.

    python benchmarks/load/topics_million.py [--filters 1000000] [--retained 1000000]

Prints CSV: measure, shape, entries, value, unit. RSS is the growth of the process, without the filters' Python strings
(they are made one at a time) and with one subscriber per 100 filters. `match_fixed_N` matches the same N topics in
every tree, `match_spread` topics from all over it, which also pays for memory that no cache holds, and `match_nobody`
topics that no filter covers.
"""

import argparse
import gc
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mqttcore.engine.retained import RetainedTree
from mqttcore.engine.subscriber import Subscriber
from mqttcore.engine.topics import TopicTree

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ROUNDS = 5

SHAPES: dict[str, Callable[[int], str]] = {
    "device": lambda i: f"tenant/dev{i}/cmd",
    "plus": lambda i: f"site{i % 1000}/dev{i}/+",
    "unshared": lambda i: f"a{i}/b{i}/c{i}",
}
TOPICS: dict[str, Callable[[int], str]] = SHAPES | {"plus": lambda i: f"site{i % 1000}/dev{i}/temp"}


def rss_bytes() -> int:
    """Resident set size of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def row(measure: str, shape: str, entries: int, value: float, unit: str) -> None:
    """Print one line."""
    print(f"{measure},{shape},{entries},{value:.3f},{unit}")
    sys.stdout.flush()


def match_us(tree: TopicTree, topics: list[str]) -> float:
    """Return the best of some rounds of matching, less what the call and the list cost on a tree that is empty."""
    empty = TopicTree(routes_maximum=0)
    best = {}
    for name, subject in (("full", tree), ("empty", empty)):
        spent = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for topic in topics:
                subject.match(topic)
            spent.append(time.perf_counter() - start)
        best[name] = min(spent)
    return (best["full"] - best["empty"]) / len(topics) * 1e6


def filters(shape: str, sizes: Iterable[int]) -> None:
    """Fill a trie step by step."""
    name = SHAPES[shape]
    tree = TopicTree(routes_maximum=0)
    sizes = sorted(sizes)
    people = [Subscriber() for _ in range(sizes[-1] // 100 + 1)]
    chance = random.Random(7)
    gc.collect()
    before = rss_bytes()
    done = 0
    spent = 0.0
    for size in sizes:
        start = time.perf_counter()
        for i in range(done, size):
            tree.add(name(i), people[i // 100])
        spent += time.perf_counter() - start
        done = size
        row("filter_memory", shape, size, (rss_bytes() - before) / size, "bytes")
        row("filter_nodes", shape, size, tree.node_count / size, "nodes")
        row("filter_insert", shape, size, spent / size * 1e6, "us")
        for fixed in (100, 1000):
            same = [TOPICS[shape](i * (10_000 // fixed)) for i in range(fixed)]
            row(f"match_fixed_{fixed}", shape, size, match_us(tree, same), "us")
        spread = [TOPICS[shape](chance.randrange(size)) for _ in range(20_000)]
        row("match_spread", shape, size, match_us(tree, spread), "us")
        row("match_nobody", shape, size, match_us(tree, [f"other/dev{i}/temp" for i in range(1000)]), "us")
    start = time.perf_counter()
    for i in range(done):
        tree.discard(name(i), people[i // 100])
    row("filter_remove", shape, done, (time.perf_counter() - start) / done * 1e6, "us")
    row("nodes_left", shape, done, tree.node_count, "nodes")


def retained(size: int) -> None:
    """Fill a retained tree and read it by filter."""
    tree = RetainedTree(count_maximum=size)
    gc.collect()
    before = rss_bytes()
    payload = b"x" * 16
    start = time.perf_counter()
    for i in range(size):
        tree.set(f"site{i % 1000}/dev{i}/temp", payload)
    row("retained_put", "site", size, (time.perf_counter() - start) / size * 1e6, "us")
    row("retained_memory", "site", size, (rss_bytes() - before) / size, "bytes")
    row("retained_message", "site", size, tree.bytes_held / size, "bytes")
    start = time.perf_counter()
    cursor = tree.cursor("#")
    count = longest = 0
    is_at_end = False
    while not is_at_end:
        begun = time.perf_counter()
        messages, is_at_end = cursor.take(1000)
        longest = max(longest, time.perf_counter() - begun)
        count += len(messages)
    row("retained_walk", "site", count, (time.perf_counter() - start) / size * 1e6, "us")
    row("retained_slice_longest", "site", 1000, longest * 1e6, "us")
    start = time.perf_counter()
    for i in range(1000):
        tree.matching(f"site{i}/dev{i}/+")
    row("retained_matching", "site", size, (time.perf_counter() - start) / 1000 * 1e6, "us")
    start = time.perf_counter()
    for i in range(size):
        tree.discard(f"site{i % 1000}/dev{i}/temp")
    row("retained_remove", "site", size, (time.perf_counter() - start) / size * 1e6, "us")
    row("nodes_left", "site", size, tree.node_count, "nodes")


def main() -> None:
    """Run what the arguments ask for."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--filters", type=int, default=1_000_000)
    arguments.add_argument("--retained", type=int, default=1_000_000)
    chosen = arguments.parse_args()
    print("measure,shape,entries,value,unit")
    sys.stdout.flush()
    # A process each: the resident size of a second tree would hide in what the first one gave back.
    context = multiprocessing.get_context("spawn")
    runs = [(filters, (shape, {10_000, 100_000, chosen.filters})) for shape in SHAPES if chosen.filters]
    if chosen.retained:
        runs.append((retained, (chosen.retained,)))
    for target, values in runs:
        process = context.Process(target=target, args=values)
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
