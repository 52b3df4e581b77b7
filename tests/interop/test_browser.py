"""MQTT.js and Paho's JavaScript client in a real browser, headless Chromium, over ws:// and wss://."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from broker_process import BrokerProcess, running_broker
from certificates import Authority
from interop.clients import BUILD

MODULES = BUILD / "node" / "node_modules"
SCRIPTS = {"mqtt.js": MODULES / "mqtt" / "dist" / "mqtt.min.js", "paho.js": MODULES / "paho-mqtt" / "paho-mqtt-min.js"}
PAGE = "<!doctype html><title>t</title><script src='mqtt.js'></script><script src='paho.js'></script>"

# Each script publishes one message of each QoS to itself and answers what came.
MQTTJS = """
const [url, version, done] = arguments;
const client = mqtt.connect(url, {protocolVersion: version, clientId: "page", reconnectPeriod: 0});
const came = [];
client.on("error", (error) => done({error: String(error)}));
client.on("message", (topic, payload, packet) => {
  came.push([topic, payload.toString(), packet.qos]);
  if (came.length === 3) client.end(false, {}, () => done({came}));
});
client.on("connect", async () => {
  await client.subscribeAsync("page/#", {qos: 2});
  for (const qos of [0, 1, 2]) await client.publishAsync(`page/${qos}`, `☃ ${qos}`, {qos});
});
"""
PAHO = """
const [url, version, done] = arguments;
const client = new Paho.Client(url, "page");
const came = [];
client.onConnectionLost = (lost) => lost.errorCode && done({error: lost.errorMessage});
client.onMessageArrived = (message) => {
  came.push([message.destinationName, message.payloadString, message.qos]);
  if (came.length === 3) { client.disconnect(); done({came}); }
};
client.connect({
  mqttVersion: version,
  onFailure: (failed) => done({error: failed.errorMessage}),
  onSuccess: () => client.subscribe("page/#", {qos: 2, onSuccess: () => {
    for (const qos of [0, 1, 2]) client.send(`page/${qos}`, `☃ ${qos}`, qos, false);
  }}),
});
"""
CLIENTS = [
    pytest.param(MQTTJS, 4, id="mqttjs-4"),
    pytest.param(MQTTJS, 5, id="mqttjs-5"),
    pytest.param(PAHO, 3, id="paho-3"),
    pytest.param(PAHO, 4, id="paho-4"),
]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page with both libraries."""
    for path in SCRIPTS.values():
        if not path.exists():
            pytest.skip(f"no {path}; see tests/interop/setup.sh")
    folder = tmp_path_factory.mktemp("page")
    for name, path in SCRIPTS.items():
        shutil.copy(path, folder / name)
    (folder / "index.html").write_text(PAGE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(page: str) -> Iterator[Any]:
    """A browser that has the page open; it takes certificates that nobody vouches for."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.accept_insecure_certs = True
    for switch in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-proxy-server"):
        options.add_argument(f"--{switch}")
    started = webdriver.Chrome(options, webdriver.ChromeService(driver))
    started.set_script_timeout(60)
    started.get(page)
    yield started
    started.quit()


def check(browser: Any, script: str, url: str, version: int) -> None:
    answer = browser.execute_async_script(script, url, version)
    assert sorted(answer.get("came", [answer])) == [[f"page/{qos}", f"☃ {qos}", qos] for qos in (0, 1, 2)]


@pytest.mark.parametrize(("script", "version"), CLIENTS)
def test_page_publishes_and_receives(browser: Any, session_broker: BrokerProcess, script: str, version: int) -> None:
    check(browser, script, f"ws://127.0.0.1:{session_broker.websocket_port}/mqtt", version)


@pytest.mark.parametrize(("script", "version"), CLIENTS)
def test_page_publishes_and_receives_through_tls(
    browser: Any, secure_broker: BrokerProcess, script: str, version: int
) -> None:
    check(browser, script, f"wss://127.0.0.1:{secure_broker.websocket_port}/mqtt", version)


@pytest.fixture(scope="module")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    """A broker with TLS, for this page only."""
    folder = tmp_path_factory.mktemp("secure")
    issued = Authority(folder).issue("localhost")
    config = (
        '[[listeners]]\nport = 0\nprotocol = "http"\n'
        f'[listeners.tls]\ncertificate_file = "{issued.certificate}"\nkey_file = "{issued.key}"\n'
    )
    with running_broker(folder, config, "mqttcore") as running:
        yield running


def test_page_of_another_origin_is_turned_away(browser: Any, page: str, tmp_path: Path) -> None:
    config = '[[listeners]]\nport = 0\nprotocol = "http"\nwebsocket_origins = ["{}"]\n'
    for origin, is_welcome in ((page, True), ("https://shop.example", False)):
        folder = tmp_path / str(is_welcome)
        folder.mkdir()
        with running_broker(folder, config.format(origin), "mqttcore") as running:
            url = f"ws://127.0.0.1:{running.websocket_port}/mqtt"
            if is_welcome:
                check(browser, MQTTJS, url, 5)
            else:
                assert "error" in browser.execute_async_script(PAHO, url, 4)
