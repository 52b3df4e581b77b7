"""Package map and extension modules; everything else stands in pyproject.toml.

MQTTCORE_DEBUG=1   bounds checks, -O0 -g and line tracing
MQTTCORE_ASAN=1    AddressSanitizer (run Python with libasan preloaded)

Give those builds a place of their own with `--build-base`; docs/development.md has the commands.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("MQTTCORE_DEBUG") == "1"
ASAN = os.environ.get("MQTTCORE_ASAN") == "1"

if sys.platform == "win32":
    compile_args, link_args = (["/Od", "/Zi"], ["/DEBUG"]) if DEBUG else (["/O2"], [])
else:
    compile_args = ["-O0", "-g"] if DEBUG else ["-O3", "-fno-plt", "-fno-semantic-interposition"]
    compile_args += ["-Wno-unused-function", "-Wno-unreachable-code"]
    link_args = []
    if ASAN:
        compile_args += ["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"]
        link_args += ["-fsanitize=address"]

LINUX_ONLY = ("mqttcore.net.poller", "mqttcore.bench.")  # epoll


def extensions() -> list[Extension]:
    """Return one extension per `.pyx` below `src`; the file's place is the module's name."""
    found = []
    for path in sorted(Path("src").rglob("*.pyx")):
        name = ".".join(path.relative_to("src").with_suffix("").parts)
        if name.startswith(LINUX_ONLY) and not sys.platform.startswith("linux"):
            continue
        macros = [("CYTHON_TRACE_NOGIL", "1")] if DEBUG else []
        if ASAN:
            macros.append(("CYTHON_USE_FREELISTS", "0"))  # they give freed memory out again, where no fault is seen
        found.append(
            Extension(
                name, [str(path)], extra_compile_args=compile_args, extra_link_args=link_args, define_macros=macros
            )
        )
    return found


setup(
    package_dir={"": "src", "mqttcore_plugins": "plugins"},
    packages=[".".join(path.parent.relative_to("src").parts) for path in sorted(Path("src").rglob("__init__.py"))]
    + [
        ".".join(("mqttcore_plugins", *path.parent.relative_to("plugins").parts))
        for path in sorted(Path("plugins").rglob("__init__.py"))
    ],
    package_data={"": ["py.typed", "*.pyi", "*.pxd"]},
    exclude_package_data={"": ["*.c"]},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=cythonize(
        extensions(),
        build_dir="build/cython-debug" if DEBUG else "build/cython",  # the directives below change the C
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": DEBUG,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "overflowcheck": False,
            "linetrace": DEBUG,
            "embedsignature": False,
            "auto_pickle": False,
            "autotestdict": False,
            "warn.unused_result": False,
        },
    ),
)
