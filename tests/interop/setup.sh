#!/usr/bin/env bash
# Fetch the interop clients' libraries and compile their drivers. Usage: tests/interop/setup.sh [PYTHON]
# Result: build/interop, or $MQTTCORE_INTEROP_BUILD. A tool that is missing is named and left out; with CI=true it is an error.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${MQTTCORE_INTEROP_BUILD:-$here/../../build/interop}
python=${1:-python3}
mkdir -p "$build"
build=$(cd "$build" && pwd)
drivers=$here/drivers

have() { # have WHAT TOOL...: true when all tools are there
    local what=$1 tool
    shift
    for tool; do
        if ! command -v "$tool" >/dev/null; then
            echo "interop: no $tool, so no $what" >&2
            [ "${CI:-}" != true ] || exit 1
            return 1
        fi
    done
}

echo "interop: paho-mqtt 1.x"
"$python" -m pip install --quiet --no-deps --upgrade --target "$build/paho1" 'paho-mqtt<2'

echo "interop: Alibaba's SDKs"
"$python" -m pip install --quiet --upgrade --target "$build/aliyun" \
    'alibabacloud-onsmqtt20200420>=1.7' 'alibabacloud-tea-openapi>=0.4' 'aliyun-python-sdk-onsmqtt>=1.0.5' \
    'aliyun-python-sdk-ons==3.1.0' 'setuptools<81'

if have "MQTT.js, Paho JavaScript" node npm; then
    echo "interop: MQTT.js, Paho JavaScript"
    mkdir -p "$build/node"
    cp "$drivers/node/package.json" "$build/node/"
    npm install --prefix "$build/node" --no-package-lock --no-audit --no-fund --loglevel=error >/dev/null
fi

if have "Paho Go" go; then
    echo "interop: Paho Go"
    mkdir -p "$build/go"
    (cd "$drivers/go" && go build -o "$build/go/" ./pahov3 ./pahov5)
fi

if have "Paho Java, HiveMQ" java mvn; then
    echo "interop: Paho Java, HiveMQ"
    mvn --batch-mode --quiet --file "$drivers/java/pom.xml" "-Dinterop.build=$build/java" package </dev/null
fi

if have "Paho C" gcc; then
    echo "interop: Paho C"
    mkdir -p "$build/c"
    if [ -e /usr/include/MQTTClient.h ] && [ -e /usr/include/cjson/cJSON.h ]; then
        gcc -std=gnu17 -O1 -Wall -Wextra -Werror -I/usr/include/cjson -o "$build/c/drive" "$drivers/c/drive.c" \
            -lpaho-mqtt3cs -lcjson -lpthread
    else
        echo "interop: no headers of libpaho-mqtt-dev and libcjson-dev, so no Paho C" >&2
        [ "${CI:-}" != true ] || exit 1
    fi
fi
