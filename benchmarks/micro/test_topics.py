"""Cost of the subscription trie per 1000 topics: divide a benchmark's time by 1000.

    python -m pytest -o addopts= benchmarks/micro/test_topics.py

Needs Cython and a C compiler: the loops are in topics_probe.pyx, which is built for the run.
"""

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest
from Cython.Build import cythonize
from pytest_benchmark.fixture import BenchmarkFixture
from setuptools import Distribution, Extension

from mqttcore.engine.subscriber import Subscriber
from mqttcore.engine.topics import TopicTree

PROBE = Path(__file__).with_name("topics_probe.pyx")
COUNT = 1000


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Build and load the loops."""
    build = tmp_path_factory.mktemp("probe")
    extension = Extension("topics_probe", [str(PROBE)], extra_compile_args=["-O3"])
    modules = cythonize([extension], build_dir=str(build), include_path=sys.path, language_level=3, quiet=True)
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(build)
    command.ensure_finalized()
    command.run()
    spec = importlib.util.spec_from_file_location("topics_probe", command.get_ext_fullpath("topics_probe"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def filled(size: int, **settings: int) -> TopicTree:
    """Return a trie of *size* filters, a tenth of them with a wildcard."""
    tree = TopicTree(**settings)
    for i in range(size):
        tree.add(f"site{i % 100}/dev{i}/" + ("+" if i % 10 == 0 else "temp"), Subscriber())
    return tree


def topics(size: int) -> list[bytes]:
    """Return 1000 topics that one filter each covers."""
    return [f"site{i % 100}/dev{i}/temp".encode() for i in random.Random(1).sample(range(size), COUNT)]


@pytest.mark.parametrize("size", [1000, 50_000])
def test_known_route(benchmark: BenchmarkFixture, probe: ModuleType, size: int) -> None:
    tree = filled(size)
    for i in range(size):
        tree.match(f"site{i % 100}/dev{i}/temp")
    assert benchmark(probe.known, tree, topics(size)) == COUNT


@pytest.mark.parametrize("size", [1000, 10_000, 100_000])
def test_match_uncached(benchmark: BenchmarkFixture, probe: ModuleType, size: int) -> None:
    assert benchmark(probe.route, filled(size, routes_maximum=0), topics(size)) == COUNT


def test_match_uncached_with_hundred_targets(benchmark: BenchmarkFixture, probe: ModuleType) -> None:
    tree = filled(1000, routes_maximum=0)
    for i in range(100):
        tree.add(("site1/#", "site1/+/temp")[i % 2], Subscriber(), 1, i + 1)
    assert benchmark(probe.route, tree, [b"site1/dev5/temp"] * COUNT) == 100 * COUNT


def test_match_uncached_of_nobody(benchmark: BenchmarkFixture, probe: ModuleType) -> None:
    tree = filled(10_000, routes_maximum=0)
    assert benchmark(probe.route, tree, [f"other/dev{i}/temp".encode() for i in range(COUNT)]) == 0


def test_subscribe(benchmark: BenchmarkFixture, probe: ModuleType) -> None:
    tree = filled(10_000)
    who = Subscriber()
    filters = [f"tenant/dev{i}/cmd".encode() for i in range(COUNT)]
    benchmark.pedantic(
        probe.subscribe,
        args=(tree, filters, who),
        teardown=lambda *_: probe.unsubscribe(tree, filters, who),
        rounds=200,
    )
    assert tree.count == 10_000
