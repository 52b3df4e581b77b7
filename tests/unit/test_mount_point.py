"""Mount points as they are written: what is one, and whose it is."""

import pytest

from mqttcore.config import Listener, from_mapping
from mqttcore.constants import ReasonCode
from mqttcore.errors import ConfigError, ProtocolError
from mqttcore.mount_point import MOUNT_POINT_BYTES_MAXIMUM, check_mount_point, mount_point_of

LONGEST = "m" * (MOUNT_POINT_BYTES_MAXIMUM - 1) + "/"


@pytest.mark.parametrize(
    "text", ["a/", "/", "a/b//", "a/$b/", "träume/", "${client_id}/", "u/${user_name}/x/", LONGEST]
)
def test_mount_point_is_taken(text: str):
    check_mount_point(text)
    assert from_mapping({"listeners": [{"mount_point": text}]}).listeners[0].mount_point == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "end with /"),
        ("a/b", "end with /"),
        ("${client_id}", "end with /"),
        ("$SYS/", "begins with \\$"),
        ("$share/g/", "begins with \\$"),
        ("a/+/", "has \\+, # or NUL"),
        ("#/", "has \\+, # or NUL"),
        ("a\0/", "has \\+, # or NUL"),
        ("a/${clientid}/", "placeholder"),
        ("${/", "begins with \\$"),
        ("\udc80/", "UTF-8"),
        ("ä" * (MOUNT_POINT_BYTES_MAXIMUM // 2) + "/", "1024 bytes"),
    ],
)
def test_what_is_no_mount_point_stops_the_start(text: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        check_mount_point(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        from_mapping({"listeners": [{"name": "a", "port": 0}, {"name": "b", "mount_point": text}]})
    assert caught.value.path == "listeners[1].mount_point"


def test_no_mount_point_is_the_default():
    assert Listener().mount_point == ""
    assert from_mapping({"listeners": [{"mount_point": ""}]}).listeners[0].mount_point == ""
    assert mount_point_of("", "c", None) is None


def test_placeholders_stand_for_client_id_and_user_name():
    assert mount_point_of("a/${user_name}/${client_id}/", "ü.1", "$u") == "a/$u/ü.1/".encode()
    assert mount_point_of("a/%c/", "c", None) == b"a/%c/"
    # What was put in is not looked at again.
    assert mount_point_of("a/${client_id}/", "${user_name}", "u") == b"a/${user_name}/"


@pytest.mark.parametrize("value", ["", "a/b", "+", "a#", "a\0", "$SYS", "m" * MOUNT_POINT_BYTES_MAXIMUM])
def test_unfit_values_refuse_the_client(value: str):
    with pytest.raises(ProtocolError, match=r"mount point: .*\$\{client_id\}") as caught:
        mount_point_of("${client_id}/", value, "u")
    assert caught.value.reason_code == ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
    with pytest.raises(ProtocolError, match=r"mount point: .*\$\{user_name\}") as caught:
        mount_point_of("${user_name}/", "c", value or None)
    assert caught.value.reason_code == ReasonCode.BAD_USER_NAME_OR_PASSWORD
