"""PROXY protocol headers, byte by byte, and what is none."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqttcore.net.proxy import ProxyInfo, ProxyTrust
from mqttcore.net.proxy_header import BadHeader, parse_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
ADDRESSES = bytes([192, 0, 2, 7, 198, 51, 100, 1]) + struct.pack("!HH", 40000, 1883)


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def v2(body: bytes = ADDRESSES, *, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


V1_GOOD = {
    b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 1883\r\n": (("192.0.2.7", 40000), ("198.51.100.1", 1883)),
    b"PROXY TCP6 2001:db8::7 ::1 40000 1883\r\n": (("2001:db8::7", 40000), ("::1", 1883)),
    b"PROXY UNKNOWN\r\n": (None, None),
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n": (None, None),
}
GOOD = [*V1_GOOD, v2(), v2(ADDRESSES + tlv(2, b"a.example") + tlv(4, b"\0\0")), v2(b"", command=0x20, family=0)]


@pytest.mark.parametrize("header", V1_GOOD)
def test_version_1_tells_addresses(header: bytes):
    source, destination = V1_GOOD[header]
    assert parse_header(header + b"rest", "any") == (len(header), ProxyInfo(1, source, destination))


@pytest.mark.parametrize("header", GOOD)
@pytest.mark.parametrize("rest", [b"", b"\x10\x00", bytes(100)])
def test_header_is_complete_with_its_last_byte_and_not_before(header: bytes, rest: bytes):
    for end in range(1, len(header)):
        assert parse_header(header[:end], "any") is None
    used, _ = parse_header(header + rest, "any")
    assert used == len(header)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 1883\n" + b"x" * 107,
        b"PROXY " + b"x" * 200,
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n",
        b"PROXY TCP4  192.0.2.7 198.51.100.1 40000 1883\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 040000 1883\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 1883\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 1883\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 40000 1883\r\n",
        b"PROXY TCP4 192.0.2.777 198.51.100.1 40000 1883\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 1883\r\n",
        b"PROXY TCP4 \xff\xfe 198.51.100.1 40000 1883\r\n",
        b"proxy TCP4 192.0.2.7 198.51.100.1 40000 1883\r\n",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00",
        v2(command=0x11),
        v2(command=0x31),
        v2(command=0x22),
        v2(family=0x12),
        v2(family=0x41),
        v2(ADDRESSES[:8]),
        v2(ADDRESSES + b"\x02\x00"),
        v2(ADDRESSES + b"\x02\x00\x05abcd"),
        v2(ADDRESSES + tlv(2, b"\xff")),
        v2(ADDRESSES + tlv(2, b"a\r\nlog: forged")),
        v2(ADDRESSES + tlv(5, bytes(129))),
        v2(ADDRESSES + tlv(0x20, b"\x01\x00")),
        v2(ADDRESSES + tlv(0x20, b"\x07\0\0\0\0" + b"\x22\x00\x09abc")),
        v2(ADDRESSES + tlv(3, bytes(3))),
        v2(ADDRESSES + tlv(3, b"\x01\x02\x03\x04")),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65535),
    ],
)
def test_what_is_no_header_is_refused(header: bytes):
    with pytest.raises(BadHeader):
        parse_header(header, "any")


def test_only_the_version_expected_is_taken():
    for header, version in ((next(iter(V1_GOOD)), "v2"), (v2(), "v1")):
        with pytest.raises(BadHeader):
            parse_header(header, version)
    assert parse_header(v2(), "v2") is not None
    assert parse_header(next(iter(V1_GOOD)), "v1") is not None


def test_version_2_tells_addresses_of_every_family():
    six = bytes.fromhex("20010db8000000000000000000000007") + bytes(15) + b"\1" + struct.pack("!HH", 1, 2)
    paths = b"/run/a.sock".ljust(108, b"\0") + b"/run/b.sock".ljust(108, b"\0")
    assert parse_header(v2(), "v2")[1].source == ("192.0.2.7", 40000)
    assert parse_header(v2(six, family=0x21), "v2")[1].source == ("2001:db8::7", 1)
    assert parse_header(v2(paths, family=0x31), "v2")[1].source == "/run/a.sock"


def test_local_and_unknown_leave_the_address_alone():
    assert parse_header(v2(ADDRESSES, command=0x20), "v2")[1].source is None
    assert parse_header(v2(b"whatever", family=0x00), "v2")[1].source is None


def test_checksum_is_verified():
    at = 16 + len(ADDRESSES) + 3
    zeroed = v2(ADDRESSES + tlv(3, bytes(4)) + tlv(2, b"a.example"))
    good = zeroed[:at] + struct.pack("!I", crc32c(zeroed)) + zeroed[at + 4 :]
    assert parse_header(good, "v2")[1].authority == "a.example"
    for place in (20, at, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(BadHeader, match="checksum"):
            parse_header(bytes(bad), "v2")


@pytest.mark.parametrize(
    ("client", "verify", "is_verified"),
    [(0x07, 0, True), (0x05, 0, True), (0x01, 0, False), (0x07, 10, False)],
)
def test_tls_of_the_proxy_is_told(client: int, verify: int, is_verified: bool):
    inner = tlv(0x21, b"TLSv1.3") + tlv(0x22, b"sensor-7") + tlv(0x23, b"TLS_AES_256_GCM_SHA384")
    header = v2(ADDRESSES + tlv(2, b"a.example") + tlv(0x20, struct.pack("!BI", client, verify) + inner))
    tls = parse_header(header, "v2")[1].tls
    assert (tls.version, tls.cipher, tls.server_name) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "a.example")
    assert tls.is_verified == is_verified
    assert tls.identity == ("sensor-7" if is_verified else None)


def test_connection_without_tls_to_the_proxy_has_none():
    assert parse_header(v2(ADDRESSES + tlv(0x20, bytes(5))), "v2")[1].tls is None


@given(st.binary(max_size=300), st.sampled_from(["", "v1", "v2", "head"]))
def test_any_bytes_are_refused_or_parsed(data: bytes, kind: str):
    start = {"": b"", "v1": b"PROXY ", "v2": SIGNATURE, "head": SIGNATURE + b"\x21\x11"}[kind]
    try:
        found = parse_header(start + data, "any")
    except BadHeader:
        return
    assert found is None or 0 < found[0] <= len(start + data)


@pytest.mark.parametrize(
    ("peer", "is_covered"),
    [
        (("10.1.2.3", 5), True),
        (("::ffff:10.1.2.3", 5), True),
        (("11.1.2.3", 5), False),
        (("2001:db8::1", 5), True),
        (("fe80::1%eth0", 5), False),
        (("", 0), False),
        (None, True),
        ("/run/x.sock", True),
    ],
)
def test_trust_is_by_network(peer: object, is_covered: bool):
    assert ProxyTrust(["10.0.0.0/8", "2001:db8::/32", "unix"]).covers(peer) == is_covered
    assert not ProxyTrust(["192.0.2.1"]).covers(peer)
