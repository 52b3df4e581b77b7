"""A route that is being delivered survives what its recipients do to the trie."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from Cython.Build import cythonize
from setuptools import Distribution, Extension

import mqttcore
from mqttcore.engine.subscriber import Subscriber
from mqttcore.engine.topics import TopicTree


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Build the compiled publisher."""
    build = tmp_path_factory.mktemp("probe")
    source = Path(__file__).with_name("route_probe.pyx")
    modules = cythonize(
        [Extension("route_probe", [str(source)])],
        build_dir=str(build),
        include_path=[str(Path(mqttcore.__file__).parents[1])],  # an editable install is not on sys.path
        language_level=3,
        quiet=True,
        force=True,
    )
    command = Distribution({"ext_modules": modules}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(build)
    command.ensure_finalized()
    command.run()
    spec = importlib.util.spec_from_file_location("route_probe", command.get_ext_fullpath("route_probe"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("routes_maximum", [0, 1, 100])
def test_recipient_clears_the_trie(probe: ModuleType, routes_maximum: int) -> None:
    tree = TopicTree(routes_maximum=routes_maximum)
    heard = []

    def act(who: object) -> None:
        heard.append(who)
        tree.clear()

    people = [probe.Actor(act) for _ in range(50)]
    for i, who in enumerate(people):
        tree.add("a/b", who, 0, i + 1)
        tree.add("a/+", who, 1, 500)
    tree.add("$share/g/a/#", people[0])
    done = probe.publish(tree, b"a/b")
    assert sorted(map(id, heard)) == sorted(map(id, people))
    # Two identifiers each, of 2 + 3 or 2 + 2 bytes; the group is empty by the time its turn comes.
    assert sorted(size for _, _, size in done) == [5] * 50
    assert {qos for _, qos, _ in done} == {1}
    assert (tree.count, tree.node_count, tree.cache_size) == (0, 0, 0)
    assert probe.publish(tree, b"a/b") == []


def test_recipient_changes_subscriptions_and_publishes(probe: ModuleType) -> None:
    tree = TopicTree(routes_maximum=2)
    depth = 0

    def act(who: Subscriber) -> None:
        nonlocal depth
        if depth < 3:
            depth += 1
            tree.discard("a/#", who)
            tree.add("$share/g/+/b", who, 2)
            tree.add("a/b", Subscriber())
            probe.publish(tree, b"a/b")
            probe.publish(tree, b"x")
            probe.publish(tree, b"y")
            tree.add("a/#", who)
            tree.discard("$share/g/+/b", who)
            depth -= 1

    people = [probe.Actor(act) for _ in range(4)]
    for who in people:
        tree.add("a/#", who)
        tree.add("$share/h/a/b", who)
    done = probe.publish(tree, b"a/b")
    assert {who for who, _, _ in done} == set(people)
    assert len(done) == len(people) + 1
    tree.clear()
    assert (tree.count, tree.node_count, tree.share_groups) == (0, 0, 0)
