#!/bin/sh
# Build with AddressSanitizer in a folder of its own and run tests under it.
#
#   tests/asan.sh [PYTEST ARGUMENTS]       default: unit, conformance, vector, conversation and fuzz tests
#   PYTHON=.venv/bin/python tests/asan.sh  with that Python; it needs the extra `test`
#   ASAN_BUILD=DIR                         build there and keep it, so that a second run is quick
#
# The normal build is left alone. Exit code: pytest's. A fault is reported by the sanitizer on standard error.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ -n "${ASAN_BUILD:-}" ]; then
    build=$ASAN_BUILD
else
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
fi

MQTTCORE_ASAN=1 "$python" setup.py --quiet build --build-base "$build"

if [ $# -eq 0 ]; then
    for folder in unit conformance vectors conversations fuzz; do
        if [ -d "tests/$folder" ]; then
            set -- "$@" "tests/$folder"
        fi
    done
fi

# The interpreter is not instrumented: its own allocator would hide faults, and what it never frees is no leak of ours.
# The profile is hypothesis' own; it takes slowness for what it is here.
LD_PRELOAD=$(gcc -print-file-name=libasan.so) \
    ASAN_OPTIONS=detect_leaks=0 \
    PYTHONMALLOC=malloc \
    PYTHONPATH=$(echo "$build"/lib*) \
    "$python" -m pytest -p no:cacheprovider --hypothesis-profile=ci --timeout 600 "$@"
