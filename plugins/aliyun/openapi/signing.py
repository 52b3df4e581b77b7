"""Who signed a request: the RPC scheme, version 1.0 (HMAC-SHA1), and ACS3-HMAC-SHA256 of newer SDKs."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multidict import MultiMapping

__all__ = ["Claim", "acs3_signature", "claim_of", "rpc_signature"]

_ACS3 = "ACS3-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    r"ACS3-HMAC-SHA256 +Credential=([^,\s]{1,128}), *SignedHeaders=([a-z0-9;_-]{1,2048}), *Signature=([0-9a-f]{64})"
)
# Without one of them in the signature, a request could be altered or repeated on its way.
_SIGNED_ALWAYS = frozenset(
    ("host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version")
)
_FIELDS_MAXIMUM = 200
_NONCE_MAXIMUM = 256
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]*", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Claim:
    """A request and the signature that it came with, not looked at yet. time_ms: when it says that it was made."""

    access_key_id: str
    action: str
    version: str
    nonce: str
    time_ms: int
    parameters: Mapping[str, str] = field(repr=False)
    _scheme: str = field(repr=False)
    _signed: str = field(repr=False)
    _signature: str = field(repr=False)

    def is_signed(self, secret: str) -> bool:
        """Say whether the signature was made with *secret*. In constant time as to what it is."""
        make = acs3_signature if self._scheme == _ACS3 else rpc_signature
        return hmac.compare_digest(make(secret, self._signed).encode(), self._signature.encode(errors="replace"))


def rpc_signature(secret: str, signed: str) -> str:
    """Return the signature of version 1.0 of a string to sign."""
    digest = hmac.digest(f"{secret}&".encode(), signed.encode(), "sha1")
    return binascii.b2a_base64(digest, newline=False).decode()


def acs3_signature(secret: str, canonical_request: str) -> str:
    """Return the ACS3-HMAC-SHA256 signature of a canonical request, hexadecimal."""
    hashed = hashlib.sha256(canonical_request.encode(errors="surrogateescape")).hexdigest()
    return hmac.digest(secret.encode(), f"{_ACS3}\n{hashed}".encode(), "sha256").hex()


def claim_of(*, method: str, path: str, query: str, headers: MultiMapping[str], body: bytes) -> Claim:
    """Read who claims to have made a request, and with which parameters. ApiError: it lacks something, or is no such.

    path, query: as on the wire, still encoded. body: a form, or empty.
    """
    in_query = _fields(query)
    in_body: dict[str, str] = {}
    if body:
        kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise ApiError("ParameterCheckFailed", "the body is no urlencoded form")
        in_body = _fields(body.decode("latin-1"))
    if in_query.keys() & in_body.keys():
        raise ApiError("ParameterCheckFailed", "a parameter is given twice")
    if headers.get("Authorization", "").startswith("ACS3-"):
        return _acs3(method, path, in_query, in_body, headers, body)
    return _version_1(method, in_query | in_body)


def _version_1(method: str, parameters: dict[str, str]) -> Claim:
    for name in ("AccessKeyId", "Signature", "SignatureNonce", "Timestamp", "Action", "Version"):
        if not parameters.get(name):
            raise ApiError(f"Missing{name}", f"the request has no {name}")
    if parameters.get("SignatureMethod") != "HMAC-SHA1" or parameters.get("SignatureVersion") != "1.0":
        raise ApiError("InvalidParameter.SignatureMethod", "signatures are HMAC-SHA1, version 1.0, or ACS3-HMAC-SHA256")
    signature = parameters.pop("Signature")
    return Claim(
        access_key_id=parameters["AccessKeyId"],
        action=parameters["Action"],
        version=parameters["Version"],
        nonce=_nonce(parameters["SignatureNonce"]),
        time_ms=_time_ms(parameters["Timestamp"]),
        parameters=parameters,
        _scheme="1.0",
        _signed=f"{method}&%2F&{_encoded_again(_canonical(parameters))}",
        _signature=signature,
    )


def _acs3(
    method: str,
    path: str,
    in_query: dict[str, str],
    in_body: dict[str, str],
    headers: MultiMapping[str],
    body: bytes,
) -> Claim:
    given = _AUTHORIZATION.fullmatch(headers.get("Authorization", "").strip())
    if given is None:
        raise ApiError("IncompleteSignature", f"Authorization: {_ACS3} Credential=…,SignedHeaders=…,Signature=…")
    access_key_id, signed_names, signature = given.groups()
    names = signed_names.split(";")
    if sorted(set(names)) != names:
        raise ApiError("IncompleteSignature", "SignedHeaders are not in order, or one is there twice")
    missing = sorted(_SIGNED_ALWAYS - set(names)) + [name for name in names if name not in headers]
    if missing:
        raise ApiError("IncompleteSignature", f"not signed, or not sent: {', '.join(missing)}")
    if any(len(headers.getall(name)) != 1 for name in _SIGNED_ALWAYS):
        raise ApiError("IncompleteSignature", f"sent twice: one of {', '.join(sorted(_SIGNED_ALWAYS))}")
    payload = hashlib.sha256(body).hexdigest()
    if not hmac.compare_digest(payload.encode(), headers["x-acs-content-sha256"].encode(errors="replace")):
        raise ApiError("SignatureDoesNotMatch", "no match: x-acs-content-sha256 is not that of the body")
    lines = "".join(f"{name}:{','.join(sorted(one.strip() for one in headers.getall(name)))}\n" for name in names)
    return Claim(
        access_key_id=access_key_id,
        action=headers["x-acs-action"],
        version=headers["x-acs-version"],
        nonce=_nonce(headers["x-acs-signature-nonce"]),
        time_ms=_time_ms(headers["x-acs-date"]),
        parameters=in_query | in_body,
        _scheme=_ACS3,
        _signed="\n".join((method, path, _canonical(in_query), lines, signed_names, payload)),
        _signature=signature,
    )


def _fields(text: str) -> dict[str, str]:
    if not text.isascii():
        raise ApiError("ParameterCheckFailed", "characters beyond ASCII have to be encoded")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MAXIMUM)
    except ValueError as error:  # UnicodeDecodeError is one
        raise ApiError("ParameterCheckFailed", f"no UTF-8, or over {_FIELDS_MAXIMUM} parameters") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ApiError("ParameterCheckFailed", "a parameter is given twice")
    return found


def _canonical(parameters: Mapping[str, str]) -> str:
    return "&".join(f"{_encoded(name)}={_encoded(parameters[name])}" for name in sorted(parameters))


def _encoded(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) else quote(text, safe="~")


def _encoded_again(canonical: str) -> str:
    # There is nothing else in it that has to be.
    return canonical.replace("%", "%25").replace("=", "%3D").replace("&", "%26")


def _nonce(text: str) -> str:
    if not 0 < len(text) <= _NONCE_MAXIMUM:
        raise ApiError("InvalidParameter.SignatureNonce", f"a nonce has 1 to {_NONCE_MAXIMUM} characters")
    return text


def _time_ms(text: str) -> int:
    try:
        if _TIME.fullmatch(text) is None:
            raise ValueError(text)
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError as error:
        raise ApiError("InvalidTimeStamp.Format", "times are YYYY-MM-DDThh:mm:ssZ") from error
