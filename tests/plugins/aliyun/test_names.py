"""Client ids, groups, topics and user names by the rules of the service."""

import pytest
from mqttcore_plugins.aliyun.names import (
    UserName,
    group_of,
    is_client_id,
    is_group_id,
    is_resource,
    is_topic,
    parse_user_name,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Signature|YYYYY|mqtt-xxxxx", UserName("Signature", "YYYYY", "mqtt-xxxxx")),
        ("Token|YYYYY|post-cn-1", UserName("Token", "YYYYY", "post-cn-1")),
        ("DeviceCredential|DC.abc|mqtt-xxxxx", UserName("DeviceCredential", "DC.abc", "mqtt-xxxxx")),
        ("signature|YYYYY|mqtt-xxxxx", None),
        ("Signature|YYYYY", None),
        ("Signature|YYYYY|mqtt-xxxxx|", None),
        ("Signature||mqtt-xxxxx", None),
        ("Signature|YYYYY|", None),
        ("YYYYY", None),
        ("", None),
    ],
)
def test_user_name_has_exactly_three_parts(text: str, parts: UserName | None):
    assert parse_user_name(text) == parts


@pytest.mark.parametrize(
    ("client_id", "group_id"),
    [("GID_Test@@@0001", "GID_Test"), ("GID_Test", None), ("@@@0001", None), ("GID_Test@@@", None), ("a@@@b@@@c", "a")],
)
def test_group_stands_before_the_separator(client_id: str, group_id: str | None):
    assert group_of(client_id) == group_id


@pytest.mark.parametrize(
    ("group_id", "is_one"),
    [
        ("GID_Test", True),
        ("GID-Test-1_a", True),
        ("GID_abc", True),
        ("GID_ab", False),  # 7 characters at least
        ("GID_" + "a" * 60, True),
        ("GID_" + "a" * 61, False),
        ("Test", False),
        ("gid_Test", False),
        ("GID_Te st", False),
        ("GID_Tést", False),
        ("GID_Test\n", False),
    ],
)
def test_group_id(group_id: str, is_one: bool):
    assert is_group_id(group_id) is is_one


def test_group_without_prefix_is_one_where_that_is_allowed():
    assert is_group_id("Test", needs_prefix=False)
    assert not is_group_id("Te:st", needs_prefix=False)


@pytest.mark.parametrize(
    ("client_id", "is_one"),
    [
        ("GID_Test@@@0001", True),
        ("GID_Test@@@" + "a" * 53, True),
        ("GID_Test@@@" + "a" * 54, False),  # 65 characters
        ("GID_Test@@@a:b", False),
        ("GID_Test@@@a,b", False),
        ("GID_Test@@@a%b", False),
        ("GID_Test@@@a@@@b", False),
        ("GID_Test@@@", False),
        ("GID_Test", False),
        ("", False),
    ],
)
def test_client_id(client_id: str, is_one: bool):
    assert is_client_id(client_id, length_maximum=64) is is_one


@pytest.mark.parametrize(
    ("topic", "is_one"),
    [
        ("parent", True),
        ("parent/a-b/c_1", True),
        ("parent/a/", True),
        ("parent//a", False),
        ("/parent", False),
        ("parent/a:b", False),
        ("parent/+", False),
        ("p" * 128, True),
        ("p" * 129, False),
        ("", False),
    ],
)
def test_topic(topic: str, is_one: bool):
    assert is_topic(topic, length_maximum=128) is is_one


@pytest.mark.parametrize(
    ("resource", "is_one"),
    [
        ("TopicA/#", True),
        ("TopicB/+", True),
        ("TopicB/+/c/#", True),
        ("TopicA", True),
        ("TopicA/", True),
        ("#", False),
        ("+/a", False),
        ("", False),
        ("a/#/b", False),
        ("a/b#", False),
        ("a/b+", False),
        ("a/b:c", False),
    ],
)
def test_resource_has_a_parent_topic(resource: str, is_one: bool):
    assert is_resource(resource, length_maximum=128) is is_one


def test_resource_of_other_characters_where_that_is_allowed():
    assert is_resource("a/b:c/é", length_maximum=128, any_character=True)
    assert not is_resource("a/b+", length_maximum=128, any_character=True)
    assert not is_resource("+", length_maximum=128, any_character=True)
