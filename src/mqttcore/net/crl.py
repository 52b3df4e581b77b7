"""When revocation lists end: OpenSSL refuses what they speak of from then on, and `ssl` does not say when that is."""

import base64
import binascii
import re
from datetime import UTC, datetime

__all__ = ["crl_expires_s"]

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----(.*?)-----END X509 CRL-----", re.DOTALL)
_INTEGER, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE = 0x02, 0x17, 0x18, 0x30


def crl_expires_s(pem: bytes) -> float:
    """Return when the first list in *pem* ends, in seconds since the epoch; infinity where none says when.

    RFC 5280 §5.1: nextUpdate. Lists that cannot be read say nothing: OpenSSL has taken them, or refused them.
    """
    ends = [float("inf")]
    for block in _BLOCK.finditer(pem):
        try:
            ends.append(_next_update_s(base64.b64decode(block[1])))
        except (ValueError, IndexError, binascii.Error):
            continue
    return min(ends)


def _next_update_s(der: bytes) -> float:
    _, at, _ = _element(der, 0)  # CertificateList
    _, at, _ = _element(der, at)  # TBSCertList
    tag, _, end = _element(der, at)
    if tag == _INTEGER:  # version
        _, _, end = _element(der, end)
    for wanted in ({_SEQUENCE}, {_UTC_TIME, _GENERALIZED_TIME}):  # issuer, behind signature; thisUpdate
        tag, _, end = _element(der, end)
        if tag not in wanted:
            raise ValueError("not a revocation list")
    tag, begin, end = _element(der, end)
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):  # nextUpdate may be absent
        return float("inf")
    text = der[begin:end].decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280 §4.1.2.5.1: years from 50 on are of the 20th century
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, beginning and end of what the element at *at* holds. Raises ValueError, IndexError."""
    tag, length = der[at], der[at + 1]
    begin = at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[begin : begin + size], "big")
        begin += size
    if begin + length > len(der):
        raise ValueError("cut short")
    return tag, begin, begin + length
