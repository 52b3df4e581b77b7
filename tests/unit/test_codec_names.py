"""Topic Names and Topic Filters, against the rules written down a second time in plain Python."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttcore.codec import require_topic_filter, require_topic_name
from mqttcore.errors import MalformedPacket, ProtocolError


def is_filter(text: str) -> bool:
    if text.startswith("$share/"):
        share_name, slash, text = text.removeprefix("$share/").partition("/")
        if not share_name or not slash or "+" in share_name or "#" in share_name:
            return False
    levels = text.split("/")
    return (
        text != ""
        and all("+" not in level or level == "+" for level in levels)
        and all("#" not in level for level in levels[:-1])
        and ("#" not in levels[-1] or levels[-1] == "#")
    )


def is_accepted(require, text: str) -> bool:
    try:
        require(text)
    except ProtocolError:
        return False
    return True


@pytest.mark.parametrize("prefix", ["", "$share/", "$share/g/", "$share", "sensors/"])
def test_filters_of_all_shapes(prefix: str):
    for length in range(6):
        for characters in itertools.product("a/+#", repeat=length):
            text = prefix + "".join(characters)
            assert is_accepted(require_topic_filter, text) == is_filter(text), text


@given(st.text(alphabet="ab/+#é😀 ", max_size=40))
def test_names_are_text_without_wildcards(text: str):
    assert is_accepted(require_topic_name, text) == (text != "" and not set(text) & {"+", "#"})


@pytest.mark.parametrize("offset", range(20))
@pytest.mark.parametrize("fault", ["\0", "\ud800"], ids=["nul", "surrogate"])
@pytest.mark.parametrize("require", [require_topic_name, require_topic_filter])
def test_malformed_text_is_found_anywhere(require, fault: str, offset: int):
    for filler in ("a", "é"):
        text = filler * offset + fault + filler * (20 - offset)
        with pytest.raises(MalformedPacket):
            require(text)


@pytest.mark.parametrize(
    ("text", "reason_code", "clause"),
    [
        ("", 0x82, "MQTT-4.7.3-1"),
        ("a/+", 0x90, "MQTT-3.3.2-2"),
        ("long enough for two words #", 0x90, "MQTT-3.3.2-2"),
        ("é#", 0x90, "MQTT-3.3.2-2"),
    ],
)
def test_name_faults(text: str, reason_code: int, clause: str):
    with pytest.raises(ProtocolError) as caught:
        require_topic_name(text)
    assert (caught.value.reason_code, caught.value.clause) == (reason_code, clause)


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("", "MQTT-4.7.3-1"),
        ("a#", "MQTT-4.7.1-1"),
        ("#/b", "MQTT-4.7.1-1"),
        ("a+", "MQTT-4.7.1-2"),
        ("+a/b", "MQTT-4.7.1-2"),
        ("$share//x", "MQTT-4.8.2-1"),
        ("$share/a+/x", "MQTT-4.8.2-1"),
        ("$share/g", "MQTT-4.8.2-2"),
        ("$share/g/", "MQTT-4.8.2-2"),
    ],
)
def test_filter_faults(text: str, clause: str):
    with pytest.raises(ProtocolError) as caught:
        require_topic_filter(text)
    assert (caught.value.reason_code, caught.value.clause) == (0x8F, clause)
