"""What is in git, and what of it is in the source distribution."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = re.compile(r"\.(c|cpp|so|pyd|o|whl)$")
# Homes, temporary folders and work trees of a machine; addresses of package registries.
MACHINE = re.compile(
    rb"/(?:root|home/\w+|Users/\w+|tmp/\w+|work/\w+)/|pypi\.org/simple"
    rb"|(?:registry|mirror|proxy)\.[\w.-]+\.(?:com|org|net|io|cn|dev|lan|local|internal)\b"
)


def tracked() -> list[Path]:
    """Return the files in git; skips where this is no work tree, in an unpacked sdist for example."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git work tree")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_nothing_generated_is_in_git():
    # Our own C is allowed where a client's driver is written in it.
    assert [p for p in tracked() if GENERATED.search(p.name) and "drivers" not in p.parts] == []


def test_no_machine_is_in_git():
    found = {}
    for path in tracked():
        if path != Path(__file__) and (hit := MACHINE.search(path.read_bytes())):
            found[str(path.relative_to(ROOT))] = hit[0]
    assert found == {}


def test_source_distribution_has_every_source(tmp_path: Path):
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in tracked()
        if (path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".typed") and path.is_relative_to(ROOT / "src"))
        or path.is_relative_to(ROOT / "plugins")
    }
    script = "from setuptools import build_meta; import sys; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert wanted - packed == set()
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py"} <= packed
    assert not [name for name in packed if name.startswith("src/") and GENERATED.search(name)]
