"""The sequences of `sub -F`, and -D and -T of both commands."""

import json
from datetime import datetime, timedelta, timezone

import click
import pytest
from click.testing import CliRunner

from mqttcore.cli import properties as option
from mqttcore.cli.message_format import Arrival, FormatError, compile_format
from mqttcore.cli.topic_match import covers
from mqttcore.codec import Publish
from mqttcore.constants import PropertyId

ARRIVAL = Arrival(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1))), 1_767_319_445_012_345_678)
PROPERTIES = {
    PropertyId.PAYLOAD_FORMAT_INDICATOR: 1,
    PropertyId.MESSAGE_EXPIRY_INTERVAL: 60,
    PropertyId.CONTENT_TYPE: "text/plain",
    PropertyId.RESPONSE_TOPIC: "r/t",
    PropertyId.CORRELATION_DATA: b"\x00\xff",
    PropertyId.SUBSCRIPTION_IDENTIFIER: [3, 4],
    PropertyId.TOPIC_ALIAS: 9,
    PropertyId.USER_PROPERTY: [("k", "v"), ("k", "w"), ("x", "y")],
}
MESSAGE = Publish("a/bc", b"hi\xf0", qos=1, retain=True, packet_id=5, properties=PROPERTIES)
PLAIN = Publish("a/bc", b'{"n":1.50}')


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("%t %p", b"a/bc hi\xf0"),
        ("%q%r%m%l", b"1153"),
        ("%x %X", b"6869f0 6869F0"),
        ("[%8t][%-8t][%.2t][%6.3t]", b"[    a/bc][a/bc    ][a/][   a/b]"),
        ("[%5p][%-5p]", b"[  hi\xf0][hi\xf0  ]"),
        ("[%4l][%04l][%-4l][%-04l]", b"[   3][0003][3   ][3   ]"),
        ("%08x", b"006869f0"),
        ("%A %C %E %F %R %S", b"9 text/plain 60 1 r/t 3"),
        ("%D", b"\x00\xff"),
        ("%P", b"k:v k:w x:y"),
        ("%I", b"2026-01-02T03:04:05+0100"),
        ("%U", b"1767319445.012345678"),
        ("@Y-@m-@d @H:@M:@S@z @N @@", b"2026-01-02 03:04:05+0100 012345678 @"),
        ("100%% \\t\\n\\0\\e\\\\ \\a\\r\\v ü", b"100% \t\n\0\x1b\\ \a\r\v \xc3\xbc"),
        ("", b""),
    ],
)
def test_sequences(text, shown):
    assert compile_format(text)(MESSAGE, ARRIVAL) == shown


def test_absent_properties_are_blank():
    assert compile_format("[%A|%3E|%03E|%C|%4R|%S|%P|%D]")(PLAIN, ARRIVAL) == b"[|   |000||    |||]"


@pytest.mark.parametrize("text", ["%y", "%", "%5", "\\q", "\\", "@"])
def test_unknown_sequences_are_refused(text):
    with pytest.raises(FormatError, match="unknown sequence"):
        compile_format(text)


def test_json_with_everything():
    assert json.loads(compile_format("%j")(MESSAGE, ARRIVAL)) == {
        "tst": "2026-01-02T03:04:05.012345+0100",
        "topic": "a/bc",
        "qos": 1,
        "retain": 1,
        "payloadlen": 3,
        "mid": 5,
        "properties": {
            "payload-format-indicator": 1,
            "message-expiry-interval": 60,
            "content-type": "text/plain",
            "response-topic": "r/t",
            "correlation-data": [0, 255],
            "subscription-identifier": [3, 4],
            "topic-alias": 9,
            "user-properties": {"k": ["v", "w"], "x": "y"},
        },
        "payload": [104, 105, 240],
    }


def test_json_payload_is_text_or_stands_as_it_is():
    assert json.loads(compile_format("%j")(PLAIN, ARRIVAL))["payload"] == '{"n":1.50}'
    assert json.loads(compile_format("%J")(PLAIN, ARRIVAL))["payload"] == {"n": 1.5}
    assert json.loads(compile_format("%J")(Publish("a"), ARRIVAL))["payload"] is None
    with pytest.raises(FormatError, match="not valid JSON on topic a/bc"):
        compile_format("%J")(MESSAGE, ARRIVAL)


def test_pretty_json_has_lines():
    assert b'\n  "topic": "a/bc"' in compile_format("%j", is_pretty=True)(PLAIN, ARRIVAL)


def test_properties_become_a_dict_per_command():
    table = {"publish": option.PUBLISH, "connect": option.CONNECT}
    given = [
        ["publish", "user-property", "k", "v"],
        ["publish", "user-property", "k", "w"],
        ["publish", "correlation-data", "ü"],
        ["publish", "message-expiry-interval", "4294967295"],
    ]
    assert option.parse_properties(given, table) == {
        "publish": {
            PropertyId.USER_PROPERTY: [("k", "v"), ("k", "w")],
            PropertyId.CORRELATION_DATA: "ü".encode(),
            PropertyId.MESSAGE_EXPIRY_INTERVAL: 4294967295,
        },
        "connect": {},
    }


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ([["unsubscribe", "user-property", "k", "v"]], "not one of publish"),
        ([["publish", "receive-maximum", "1"]], "not one of content-type"),
        ([["publish", "nonsense", "1"]], "not one of content-type"),
        ([["publish"]], "not one of content-type"),
        ([["publish", "content-type"]], "needed"),
        ([["publish", "user-property", "k"]], "needed"),
        ([["publish", "topic-alias", "0"]], "from 1 to 65535"),
        ([["publish", "topic-alias", "65536"]], "from 1 to 65535"),
        ([["publish", "topic-alias", "x"]], "from 1 to 65535"),
        ([["publish", "content-type", "a"], ["publish", "content-type", "b"]], "given twice"),
    ],
)
def test_wrong_properties_are_refused(given, error):
    with pytest.raises(click.UsageError, match=error):
        option.parse_properties(given, {"publish": option.PUBLISH})


def test_values_of_properties_do_not_swallow_what_follows():
    @click.command(cls=option.PropertyCommand)
    @option.property_option({"publish": option.PUBLISH})
    @click.option("-m")
    def command(properties, m):
        click.echo(
            f"{m} {properties['publish'][PropertyId.USER_PROPERTY]} {properties['publish'][PropertyId.TOPIC_ALIAS]}"
        )

    arguments = ["-D", "publish", "user-property", "-k", "-v", "--property", "publish", "topic-alias", "1", "-m", "x"]
    assert CliRunner().invoke(command, arguments).output == "x [('-k', '-v')] 1\n"


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_covered"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("+/+", "/b", True),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
    ],
)
def test_filter_covers_topic(topic_filter, topic, is_covered):
    assert covers(topic_filter, topic) is is_covered
