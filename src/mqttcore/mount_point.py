"""Mount points: the prefix of all topics of a client, which it neither says nor hears.

Inside the broker topics are whole; `engine/mount.pxd` has what happens at the wire.
"""

import re

from mqttcore.constants import ReasonCode
from mqttcore.errors import ProtocolError
from mqttcore.placeholders import Unfit, fill

__all__ = ["MOUNT_POINT_BYTES_MAXIMUM", "check_mount_point", "mount_point_of"]

MOUNT_POINT_BYTES_MAXIMUM = 1024

_CLIENT_ID = "${client_id}"
_USER_NAME = "${user_name}"
_PLACES = re.compile(r"(\$\{(?:client_id|user_name)\})")


def check_mount_point(text: str) -> None:
    """Raise ValueError unless *text* is a mount point, with or without places for client id and user name."""
    outside = _PLACES.sub("", text)
    if not text.endswith("/"):
        raise ValueError("has to end with /")
    if text.startswith("$") and _PLACES.match(text) is None:
        raise ValueError("begins with $, and such topics are the broker's own")
    if "${" in outside:
        raise ValueError(f"has a placeholder that is neither {_CLIENT_ID} nor {_USER_NAME}")
    if any(one in outside for one in "+#\0"):
        raise ValueError("has +, # or NUL")
    if len(_encoded(text)) > MOUNT_POINT_BYTES_MAXIMUM:
        raise ValueError(f"has more than {MOUNT_POINT_BYTES_MAXIMUM} bytes")


def mount_point_of(text: str, client_id: str, user_name: str | None) -> bytes | None:
    """Return the mount point of one client as UTF-8; None for "": it has none.

    Raises ValueError for what is no mount point; ProtocolError for a client that cannot have it, with the reason code
    to refuse its CONNECT with: 0x85 for its client id, 0x86 for its user name.
    """
    if not text:
        return None
    check_mount_point(text)
    try:
        mount = fill(text, _PLACES, {_CLIENT_ID: client_id, _USER_NAME: user_name}).encode()
    except Unfit as error:
        raise _refused(error.place, str(error)) from error
    if len(mount) > MOUNT_POINT_BYTES_MAXIMUM:
        place = _CLIENT_ID if _CLIENT_ID in text else _USER_NAME
        raise _refused(place, f"more than {MOUNT_POINT_BYTES_MAXIMUM} bytes with what stands for {place}")
    return mount


def _refused(place: str, text: str) -> ProtocolError:
    code = ReasonCode.CLIENT_IDENTIFIER_NOT_VALID if place == _CLIENT_ID else ReasonCode.BAD_USER_NAME_OR_PASSWORD
    return ProtocolError(code, "§3.2.2.2", f"mount point: {text}")


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid as UTF-8") from error
