"""docs/doors.md, followed word by word: its files, its commands, its page in a real browser."""

from __future__ import annotations

import configparser
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from interop.guide import Walk, parts
from mqttcore.cli import main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "doors.md").read_text(encoding="utf-8")
PARTS = parts(TEXT)
INSTALLATION, SERVICE = "", "As a service"
FOLLOWED = (
    "TLS",
    "Certificates of clients",
    "A chat in the browser",
    "Alibaba's question",
    "Unix sockets",
    "Tenants behind mount points",
    "Behind HAProxy",
)
pytestmark = pytest.mark.timeout(900)  # each command of a guide may take what it needs
NEEDED = ("mosquitto_sub", "mosquitto_pub", "npm", "certutil", "openssl", "curl", "chromium", "chromedriver", "haproxy")


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """A reader who has made the certificates."""
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "docs").symlink_to(ROOT / "docs")
    walk = Walk(folder)
    for name in NEEDED:
        if shutil.which(name, path=walk.environment["PATH"]) is None:
            pytest.skip(f"no {name}")
    walk.do(PARTS["TLS"][0])
    try:
        yield walk
    finally:
        walk.close()


def test_no_part_is_left_out():
    assert set(PARTS) == {INSTALLATION, *FOLLOWED, SERVICE}


@pytest.mark.parametrize(
    "part", ["TLS", "Certificates of clients", "Unix sockets", "Tenants behind mount points", "Behind HAProxy"]
)
def test_message_of_one_client_reaches_the_other(walk: Walk, part: str):
    blocks = [block for block in PARTS[part] if not block.text.startswith("mqttcore certs")]
    if part == "Behind HAProxy":
        walk.bind("8883")
    last = next(n for n, block in enumerate(blocks) if block.name == "subscriber") + 1
    walk.follow(blocks[:last])
    assert walk.do_until(blocks[last], "subscriber") in ("room/1 warm", "warm")
    walk.follow(blocks[last + 1 :])


def test_alibabas_question_is_answered(walk: Walk):
    *before, question = PARTS["Alibaba's question"]
    walk.follow(before)
    WebDriverWait(walk, 60).until(lambda walk: json.loads(walk.do(question))["online"] == 1)
    answer = json.loads(walk.do(question))
    assert (answer["code"], answer["success"]) == (0, True)


def test_browser_and_shell_chat_and_both_are_seen_on_line(walk: Walk, browser: Any):
    *before, from_shell, from_web, online, table, stop, down, start = PARTS["A chat in the browser"]
    walk.follow(before)
    waiting = WebDriverWait(browser, 60)

    def text_of(name: str) -> str:
        return browser.find_element(By.ID, name).text

    browser.get(walk.actual("http://localhost:8000/chat.html?url=wss://localhost:8084/mqtt"))
    browser.find_element(By.CSS_SELECTOR, "#door button").click()
    waiting.until(lambda _: text_of("state").startswith("connected to "), text_of("state"))

    walk.do(from_shell)
    waiting.until(lambda _: "chat/room  hello from the shell" in text_of("lines"))
    # the subscriber of the shell may have come after that message
    line = walk.do_until(from_shell, "subscriber")
    assert line == "chat/room hello from the shell"
    walk.do(from_web)
    waiting.until(lambda _: "chat/room  hello from the web" in text_of("lines"))
    browser.find_element(By.ID, "text").send_keys("grüße <b>vom</b> Browser")
    browser.find_element(By.CSS_SELECTOR, "#say button").click()
    lines = iter(lambda: walk.terminals["subscriber"].line() or "", "")
    assert "chat/room grüße <b>vom</b> Browser" in lines

    waiting.until(lambda _: "grüße <b>vom</b> Browser" in text_of("lines"))
    assert browser.find_elements(By.CSS_SELECTOR, "#lines li b b") == []

    clients = json.loads(walk.do(online))["clients"]
    assert len(clients) == 2
    assert all(one["is_connected"] for one in clients)
    told = walk.do(table)
    assert all(one["client_id"] in told for one in clients)

    walk.follow([stop, down, start])
    waiting.until(lambda _: "chat/room  here again" in text_of("lines"))


@pytest.fixture
def browser(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A browser of the reader: it trusts whom the files in HOME say."""
    monkeypatch.setenv("HOME", walk.environment["HOME"])
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    switches = ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-proxy-server")
    for switch in (*switches, "disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{switch}")
    started: list[Any] = []

    class Later:
        """Starts at its first use: trust is read at the start, and the guide gives it on the way."""

        def __getattr__(self, name: str) -> Any:
            if not started:
                started.append(webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver"))))
            return getattr(started[0], name)

    yield Later()
    for one in started:
        one.quit()


def test_service_starts_the_command_with_options_that_it_has():
    (unit,) = PARTS[SERVICE]
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(unit.text)
    _, *arguments = parser["Service"]["ExecStart"].split()
    assert arguments[0] == "serve"
    shown = CliRunner().invoke(main, ["serve", "--help"]).output
    options = [one for one in arguments if one.startswith("--")]
    assert options
    assert [one for one in options if one not in shown] == []
