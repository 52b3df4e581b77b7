"""The PROXY protocol, versions 1 and 2, as haproxy.org's proxy-protocol.txt has it: one header before all other bytes."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

import ipaddress
import socket

from mqttcore.net.proxy import ProxyInfo
from mqttcore.net.tls import TlsInfo

cdef enum:
    V1_MAXIMUM = 107          # bytes of a version 1 line, CRLF included (§2.1)
    V2_FIXED = 16
    V2_MAXIMUM = 4096         # bytes after them that we take: room for addresses and any TLVs in use, not for 64 KiB
    TLV_ALPN = 0x01
    TLV_AUTHORITY = 0x02
    TLV_CRC32C = 0x03
    TLV_UNIQUE_ID = 0x05
    TLV_SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_USED = 0x01
    SSL_CERTIFICATE = 0x06    # shown on this connection, or on the one whose session this resumes
    UNIQUE_ID_MAXIMUM = 128   # §2.2.5

cdef bytes V1_START = b"PROXY "
cdef bytes V2_START = b"\r\n\r\n\x00\r\nQUIT\n"
cdef uint32_t[256] crc_table


class BadHeader(ValueError):
    """Bytes that are no PROXY header, or not one of the version expected."""


cdef void make_crc_table() noexcept:
    cdef uint32_t value
    cdef int i, _
    for i in range(256):
        value = <uint32_t>i
        for _ in range(8):
            value = value >> 1 ^ (<uint32_t>0x82F63B78 if value & 1 else 0)
        crc_table[i] = value


make_crc_table()


def parse_header(data: bytes, version: str) -> tuple | None:
    """Return (bytes of the header, ProxyInfo) of what *data* starts with; None when its end has not come yet.

    version: "v1", "v2" or "any". Raises BadHeader as soon as it is clear that no such header comes.
    """
    cdef const uint8_t* p = <const uint8_t*><char*>data
    cdef Py_ssize_t size = len(data)
    if version != "v1" and memcmp(p, <char*>V2_START, min(size, len(V2_START))) == 0:
        return parse_v2(data) if size >= V2_FIXED else None
    if version != "v2" and memcmp(p, <char*>V1_START, min(size, len(V1_START))) == 0:
        return parse_v1(data)
    raise BadHeader("does not begin with a PROXY header")


cdef object parse_v1(bytes data):
    cdef Py_ssize_t end = data.find(b"\r\n", 0, V1_MAXIMUM)
    if end < 0:
        if len(data) >= V1_MAXIMUM:
            raise BadHeader(f"no CRLF within {V1_MAXIMUM} bytes")
        return None
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return end + 2, ProxyInfo(1)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise BadHeader("not like PROXY TCP4 source destination port port")
    return end + 2, ProxyInfo(
        1, source=v1_address(words[1], words[2], words[4]), destination=v1_address(words[1], words[3], words[5])
    )


cdef object v1_address(bytes family, bytes host, bytes port):
    kind = ipaddress.IPv4Address if family == b"TCP4" else ipaddress.IPv6Address
    try:
        address = kind(host.decode("ascii"))
    except ValueError:
        raise BadHeader("an address that is none") from None
    if not (port.isdigit() and len(port) <= 5 and int(port) <= 65535 and (port == b"0" or port[:1] != b"0")):
        raise BadHeader("a port that is none")
    return str(address), int(port)


cdef object parse_v2(bytes data):
    cdef const uint8_t* p = <const uint8_t*><char*>data
    cdef Py_ssize_t length = p[14] << 8 | p[15]
    cdef Py_ssize_t at = V2_FIXED
    cdef Py_ssize_t total = at + length
    cdef uint8_t command = p[12] & 0x0F
    cdef uint8_t family = p[13] >> 4
    cdef uint8_t transport = p[13] & 0x0F
    if p[12] >> 4 != 2 or command > 1:
        raise BadHeader("not version 2, or an unknown command")
    if length > V2_MAXIMUM:
        raise BadHeader(f"{length} bytes of addresses and TLVs, {V2_MAXIMUM} are taken")
    if len(data) < total:
        return None
    if command == 0 or family == 0:
        # LOCAL: the proxy's own connection, a health check. UNSPEC: it does not know. TLVs are checked all the same, but
        # where the addresses end is unknown only for families that nobody has.
        return total, ProxyInfo(2)
    size = {1: 12, 2: 36, 3: 216}.get(family)
    if size is None or transport != 1:
        raise BadHeader("neither TCP nor a Unix stream")
    if length < size:
        raise BadHeader("too short for its addresses")
    source, destination = v2_addresses(family, data[at:at + size])
    return total, with_tlvs(data[:total], at + size, source, destination)


cdef object v2_addresses(uint8_t family, bytes raw):
    if family == 3:
        return path_of(raw[:108]), path_of(raw[108:])
    kind, n = (socket.AF_INET, 4) if family == 1 else (socket.AF_INET6, 16)
    ports = int.from_bytes(raw[2 * n:2 * n + 2], "big"), int.from_bytes(raw[2 * n + 2:], "big")
    return (socket.inet_ntop(kind, raw[:n]), ports[0]), (socket.inet_ntop(kind, raw[n:2 * n]), ports[1])


cdef str path_of(bytes raw):
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


cdef dict tlvs_of(bytes data, Py_ssize_t at, Py_ssize_t end):
    # type -> (offset, size); of several of one type the first counts.
    cdef const uint8_t* p = <const uint8_t*><char*>data
    cdef dict found = {}
    cdef Py_ssize_t size
    while at < end:
        if end - at < 3:
            raise BadHeader("a torn TLV")
        size = p[at + 1] << 8 | p[at + 2]
        if size > end - at - 3:
            raise BadHeader("a TLV longer than the header")
        found.setdefault(p[at], (at + 3, size))
        at += 3 + size
    return found


cdef str text_of(bytes data, dict tlvs, int kind):
    if kind not in tlvs:
        return None
    at, size = tlvs[kind]
    try:
        text = data[at:at + size].decode("utf-8")
    except UnicodeDecodeError:
        raise BadHeader("a text that is not UTF-8") from None
    if any(ord(one) < 32 or ord(one) == 127 for one in text):
        raise BadHeader("a text with control characters")
    return text


cdef object with_tlvs(bytes header, Py_ssize_t at, object source, object destination):
    cdef dict tlvs = tlvs_of(header, at, len(header))
    unique_id = None
    if TLV_CRC32C in tlvs:
        check_crc(header, tlvs[TLV_CRC32C])
    if TLV_UNIQUE_ID in tlvs:
        start, size = tlvs[TLV_UNIQUE_ID]
        if size > UNIQUE_ID_MAXIMUM:
            raise BadHeader("a unique id that is too long")
        unique_id = header[start:start + size]
    return ProxyInfo(
        2,
        source=source,
        destination=destination,
        authority=text_of(header, tlvs, TLV_AUTHORITY),
        unique_id=unique_id,
        alpn=text_of(header, tlvs, TLV_ALPN),
        tls=tls_of(header, tlvs),
    )


cdef int check_crc(bytes header, tuple place) except -1:
    cdef const uint8_t* p = <const uint8_t*><char*>header
    cdef Py_ssize_t at = place[0]
    cdef Py_ssize_t i
    cdef uint32_t crc = 0xFFFFFFFF
    cdef uint32_t given
    if place[1] != 4:
        raise BadHeader("a checksum that is not of 4 bytes")
    given = <uint32_t>p[at] << 24 | <uint32_t>p[at + 1] << 16 | <uint32_t>p[at + 2] << 8 | p[at + 3]
    for i in range(len(header)):              # taken with zeros in its own place
        crc = crc >> 8 ^ crc_table[(crc ^ (0 if at <= i < at + 4 else p[i])) & 0xFF]
    if crc ^ <uint32_t>0xFFFFFFFF != given:
        raise BadHeader("its checksum is wrong")
    return 0


cdef object tls_of(bytes header, dict tlvs):
    cdef const uint8_t* p = <const uint8_t*><char*>header
    cdef Py_ssize_t at, size
    cdef dict inner
    cdef bint is_verified
    if TLV_SSL not in tlvs:
        return None
    at, size = tlvs[TLV_SSL]
    if size < 5:
        raise BadHeader("a TLS TLV that is too short")
    if not p[at] & SSL_USED:
        return None
    inner = tlvs_of(header, at + 5, at + size)
    # The result of the verification is 0 also where no certificate was shown.
    is_verified = p[at] & SSL_CERTIFICATE and memcmp(p + at + 1, b"\0\0\0\0", 4) == 0
    common_name = text_of(header, inner, SSL_CN) if is_verified else None
    return TlsInfo(
        version=text_of(header, inner, SSL_VERSION),
        cipher=text_of(header, inner, SSL_CIPHER),
        server_name=text_of(header, tlvs, TLV_AUTHORITY),
        alpn=text_of(header, tlvs, TLV_ALPN),
        common_name=common_name,
        is_verified=is_verified,
        identity=common_name,
    )
