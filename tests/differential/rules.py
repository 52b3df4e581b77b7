"""Why our codec and another differ: each kind of difference by name, with who is right.

A difference that no rule explains is a fault of one side and fails the test.
"""

import re
from typing import Any

from mqttcore.codec import ConnAck, Connect, Disconnect
from mqttcore.constants import PropertyId, ReasonCode

# (codec, the text of our fault): why the other codec takes what we refuse
WE_REFUSE: dict[tuple[str, str], str] = {
    ("mqtt5", "U+0000 in a string"): "does not look for U+0000 [MQTT-1.5.4-2]",
    ("mqtt5", "packet identifier 0"): "checks packet identifiers in no packet [MQTT-2.2.1-3]",
    ("mqtt5", "reserved connect flag is set"): "looks only at the connect flags it needs [MQTT-3.1.2-3]",
    ("mqtt5", "will QoS without will"): "looks only at the connect flags it needs [MQTT-3.1.2-11]",
    ("mqtt5", "will retain without will"): "looks only at the connect flags it needs [MQTT-3.1.2-13]",
    ("mqtt5", "UNSUBSCRIBE without topic filter"): "takes empty lists [MQTT-3.10.3-2]",
    ("mqtt5", "SUBSCRIBE without topic filter"): "takes empty lists [MQTT-3.8.3-2]",
    ("mqtt5", "acknowledgement without reason code"): "takes empty lists (§3.9.3, §3.11.3)",
    ("mqtt5", "session present on a refused connection"): "does not compare the two [MQTT-3.2.2-6]",
    ("mqtt5", "DUP at QoS 0"): "does not compare the two [MQTT-3.3.1-2]",
    ("mqtt5", "wildcard in a topic name"): "leaves topics to its user [MQTT-3.3.2-2]",
    ("mqtt5", "response topic is no topic name"): "leaves topics to its user [MQTT-3.3.2-14]",
    ("mqtt5", "empty topic name"): "leaves topics to its user [MQTT-4.7.3-1]",
    ("mqtt5", "no local on a shared subscription"): "leaves filters to its user [MQTT-3.8.3-4]",
    ("mqtt5", "reserved bits of the subscription options"): "does not look at them [MQTT-3.8.3-5]",
    ("mqtt5", "property value is neither 0 nor 1"): "takes any byte as a boolean (§3.3.2.3.2, §3.1.2.11.6, …)",
    ("mqtt5", "authentication data without authentication method"): "does not compare the two (§3.1.2.11.10)",
    ("mqtt5", "AUTH without authentication method"): "does not ask for it (§3.15.2.2.2)",
    ("mqtt5", "a field goes past the end of the packet"): "reads a property's value past the property length (§2.2.2)",
    (
        "mqtt5",
        "bytes behind the last field of the packet",
    ): "reads a property's value past the property length (§2.2.2)",
    ("mqtt-packet", "ill-formed UTF-8"): "puts U+FFFD in its place [MQTT-1.5.4-1]",
    ("mqtt-packet", "U+0000 in a string"): "does not look for U+0000 [MQTT-1.5.4-2]",
    ("mqtt-packet", "packet identifier 0"): "checks packet identifiers in no packet [MQTT-2.2.1-3]",
    ("mqtt-packet", "will QoS 3"): "does not look at its value [MQTT-3.1.2-12]",
    ("mqtt-packet", "unsupported protocol version"): "takes each name with each level, and bit 7 as a bridge's",
    ("mqtt-packet", "UNSUBSCRIBE without topic filter"): "looks at the wrong length for it [MQTT-3.10.3-2]",
    ("mqtt-packet", "SUBSCRIBE without topic filter"): "looks at the wrong length for it [MQTT-3.8.3-2]",
    ("mqtt-packet", "acknowledgement without reason code"): "looks at the wrong length for it (§3.9.3, §3.11.3)",
    ("mqtt-packet", "session present on a refused connection"): "does not compare the two [MQTT-3.2.2-6]",
    ("mqtt-packet", "DUP at QoS 0"): "does not compare the two [MQTT-3.3.1-2]",
    ("mqtt-packet", "wildcard in a topic name"): "leaves topics to its user [MQTT-3.3.2-2]",
    ("mqtt-packet", "empty topic name"): "leaves topics to its user [MQTT-4.7.3-1]",
    ("mqtt-packet", "topic alias 0"): "leaves properties to its user [MQTT-3.3.2-8]",
    ("mqtt-packet", "response topic is no topic name"): "leaves properties to its user [MQTT-3.3.2-14]",
    ("mqtt-packet", "receive maximum 0"): "leaves properties to its user (§3.1.2.11.3)",
    ("mqtt-packet", "maximum packet size 0"): "leaves properties to its user (§3.1.2.11.4)",
    ("mqtt-packet", "subscription identifier 0"): "leaves properties to its user (§3.8.2.1.2)",
    ("mqtt-packet", "property is not allowed in this packet"): "takes every property everywhere (§2.2.2.2)",
    ("mqtt-packet", "property may be given only once"): "makes a list of what is repeated (§2.2.2.2)",
    ("mqtt-packet", "property value is neither 0 nor 1"): "takes any byte as a boolean (§2.2.2.2)",
    ("mqtt-packet", "authentication data without authentication method"): "does not compare the two (§3.1.2.11.10)",
    ("mqtt-packet", "AUTH without authentication method"): "does not ask for it (§3.15.2.2.2)",
    ("mqtt-packet", "no local on a shared subscription"): "leaves filters to its user [MQTT-3.8.3-4]",
    ("mqtt-packet", "password without user name"): "does not compare the two [v3 MQTT-3.1.2-22]",
    ("mqtt-packet", "reason code that this packet does not have"): "checks no code of CONNACK (§3.2.2.2)",
    ("mqtt-packet", "variable byte integer is not minimal or too long"): "takes longer forms [MQTT-1.5.5-1]",
    ("mqtt-packet", "a field goes past the end of the packet"): "gives -1, null or nothing for what is missing",
    ("mqtt-packet", "bytes behind the last field of the packet"): "skips what is left over",
}

# (codec, pattern of its words, versions, our packet's type or None): why we take what the other refuses
THEY_REFUSE: list[tuple[str, str, tuple[int, ...], type | None, str]] = [
    ("mqtt5", r"Missing property length", (5,), None, "AUTH may be empty, §3.15.2.1"),
    (
        "mqtt5",
        r"Invalid DisconnectReasonCode value: 140",
        (5,),
        Disconnect,
        "0x8C is for DISCONNECT by §2.4, not by §3.14.2.1",
    ),
    ("mqtt-packet", r"Invalid disconnect reason code", (5,), Disconnect, "0x8C in DISCONNECT: in §2.4, not §3.14.2.1"),
    ("mqtt-packet", r"Invalid auth reason code", (5,), None, "AUTH may be empty, §3.15.2.1"),
    (
        "mqtt-packet",
        r"Invalid header flag bits, must be 0x2",
        (3,),
        None,
        "3.1 has DUP in more packets",
    ),
    ("mqtt-packet", r"Connect flag bit 0 must be 0", (3,), Connect, "3.1 does not use the bit and says nothing of it"),
    ("mqtt-packet", r"Cannot parse (username|password)", (3,), Connect, "3.1 puts the length above these two flags"),
    ("mqtt-packet", r"Invalid connack flags", (3,), ConnAck, "3.1 has the byte reserved, not to be looked at"),
]


def why_they_refuse(codec: str, words: str, version: int, packet: Any) -> str | None:
    """Return the rule for a packet that we take and the other refuses, None when there is none."""
    for name, pattern, versions, kind, why in THEY_REFUSE:
        if (
            name == codec
            and version in versions
            and re.match(pattern, words)
            and (kind is None or isinstance(packet, kind))
        ):
            if why.startswith("AUTH") and (packet.reason_code or packet.properties):
                continue
            if "0x8C" in why and packet.reason_code != ReasonCode.BAD_AUTHENTICATION_METHOD:
                continue
            return why
    return None


def why_they_differ(codec: str, version: int, packet: Any, ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """Return the rule for a packet that both take and read in different ways, None when there is none."""
    names = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    if codec == "mqtt-packet":
        if version == 3 and names == {"sessionPresent"} and isinstance(packet, ConnAck):
            return "3.1 has no Session Present"
        if names <= {"properties", "will"} and _loses_empty_values(packet):
            return "a repeated user property replaces one whose value is empty"
    return None


def _loses_empty_values(packet: Any) -> bool:
    blocks = [packet.properties]
    if isinstance(packet, Connect) and packet.will is not None:
        blocks.append(packet.will.properties)
    for block in blocks:
        pairs = block.get(PropertyId.USER_PROPERTY, [])
        names = [name for name, _ in pairs]
        if any(value == "" and names.count(name) > 1 for name, value in pairs):
            return True
    return False
