"""TLS settings become an `ssl.SSLContext`: checked before it is used, kept when its successor is bad.

A context is never changed once it serves. Reading the files again makes a new one, with session tickets of its own, so
nobody resumes past a certificate that was revoked meanwhile; connections that stand keep what they have.
"""

import contextlib
import logging
import ssl
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqttcore.config import KeyPair, Tls
from mqttcore.errors import ConfigError
from mqttcore.net.crl import crl_expires_s

__all__ = ["ServerTls", "TlsInfo", "build_context", "describe", "distinguished_name", "identity_of"]

log = logging.getLogger("mqttcore.tls")

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_SAN_KINDS = {"dns": "DNS", "email": "email", "uri": "URI"}
# RFC 4514 §3 names these; the rest keep OpenSSL's.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
_TRIAL_STEPS = 10


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a connection's TLS says of its client; from the handshake, or from the PROXY header of who ended TLS for us.

    certificate: the client's, DER, or None; subject and alt_names are of one that was verified, else empty.
    identity: what `identity` in `[listeners.tls]` names of it, else None. is_verified: one was shown and is good.
    """

    version: str | None
    cipher: str | None
    server_name: str | None = None
    alpn: str | None = None
    is_resumed: bool = False
    certificate: bytes | None = None
    subject: str | None = None
    common_name: str | None = None
    alt_names: tuple[tuple[str, str], ...] = ()
    is_verified: bool = False
    identity: str | None = None


class ServerTls:
    """The TLS of one listener: settings, the context in force, and whether its files are as they were when read.

    context: for new connections. is_stale: the files on disk could not be used, and the former context serves on.
    expires_s: seconds since the epoch when the first of the certificates ends. crl_expires_s: when the first revocation
    list does; from then on every client certificate is refused.
    """

    def __init__(self, settings: Tls, name: str, *, alpn: Iterable[str] = ("mqtt",)) -> None:
        """Read the files. Raises ConfigError that names the listener, the file and what is wrong with it."""
        self.name = name
        self.settings = settings
        self.is_stale = False
        self.reloads = 0
        self._alpn = tuple(alpn)
        self._seen = _signature(settings)
        self.context, self.expires_s = build_context(settings, name, alpn=self._alpn)
        self.crl_expires_s = _crl_expires_s(settings)
        self._has_complained = False
        self._complain()

    @property
    def is_alarming(self) -> bool:
        """Whether somebody should look: a bad file was refused, or a certificate or revocation list has expired."""
        return self.is_stale or min(self.expires_s, self.crl_expires_s) <= time.time()

    def look(self) -> bool:
        """Read the files again if they are no longer what they were; return whether a new context serves."""
        self._complain()
        seen = _signature(self.settings)
        return seen != self._seen and self._replace(self.settings, seen)

    def reload(self, settings: Tls | None = None) -> bool:
        """Read the files again, by other *settings* if given; return whether a new context serves."""
        settings = settings or self.settings
        return self._replace(settings, _signature(settings))

    def _replace(self, settings: Tls, seen: tuple[object, ...]) -> bool:
        self._seen = seen  # a file that stays bad is complained about once
        try:
            context, expires_s = build_context(settings, self.name, alpn=self._alpn)
            crl_expires_s = _crl_expires_s(settings)
            now_s = time.time()
            if expires_s <= now_s:
                raise ConfigError(f"listeners.{self.name}.tls.certificate_file", "has expired")
            if crl_expires_s <= now_s < self.crl_expires_s:
                reason = f"has expired on {_date(crl_expires_s)} UTC: every client certificate would be refused"
                raise ConfigError(f"listeners.{self.name}.tls.crl_file", reason)
        except ConfigError as error:
            self.is_stale = True
            log.error("listener %s: the former certificates stay in force: %s", self.name, error)
            return False
        self.settings, self.context = settings, context
        self.expires_s, self.crl_expires_s = expires_s, crl_expires_s
        self.is_stale = self._has_complained = False
        self.reloads += 1
        log.info("listener %s: certificates reread, good until %s UTC", self.name, _date(expires_s))
        self._complain()
        return True

    def _complain(self) -> None:
        now_s = time.time()
        if self._has_complained or min(self.expires_s, self.crl_expires_s) > now_s:
            return
        self._has_complained = True
        if self.expires_s <= now_s:
            log.error("listener %s: its certificate has expired; clients that look will refuse it", self.name)
        if self.crl_expires_s <= now_s:
            log.error("listener %s: crl_file has expired; every client certificate is refused", self.name)


def build_context(settings: Tls, name: str, *, alpn: Iterable[str] = ("mqtt",)) -> tuple[ssl.SSLContext, float]:
    """Return a server's context and when the first of its certificates expires, in seconds since the epoch.

    name: the listener's. Every certificate and key has shaken hands with itself. Raises ConfigError.
    """
    path = f"listeners.{name}.tls"
    alpn = tuple(alpn)
    pairs = [KeyPair(certificate_file=settings.certificate_file, key_file=settings.key_file), *settings.certificates]
    contexts: list[ssl.SSLContext] = []
    by_name: dict[str, ssl.SSLContext] = {}
    expires_s = float("inf")
    for number, pair in enumerate(pairs):
        here = f"{path}.certificates[{number - 1}]" if number else path
        _look_at_permissions(pair.key_file, name)
        names, until_s = _try_out(pair, here)
        expires_s = min(expires_s, until_s)
        context = _context_of(settings, pair, path, here, alpn)
        contexts.append(context)
        for one in names:
            by_name.setdefault(one, context)
    contexts[0].sni_callback = _chooser(by_name)
    return contexts[0], expires_s


def _context_of(settings: Tls, pair: KeyPair, path: str, here: str, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 1  # an MQTT client has one connection at a time
    with contextlib.suppress(NotImplementedError):
        context.set_alpn_protocols(list(alpn))
    if settings.ciphers:
        try:
            context.set_ciphers(settings.ciphers)
        except ssl.SSLError as error:
            raise ConfigError(f"{path}.ciphers", f"OpenSSL knows none of {settings.ciphers!r}") from error
    _load_pair(context, pair, here)
    if settings.client_certificate != "none":
        _load_trusted(context, settings.client_ca_file, f"{path}.client_ca_file")
        if settings.crl_file:
            _load_trusted(context, settings.crl_file, f"{path}.crl_file", is_crl=True)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.verify_mode = _VERIFY[settings.client_certificate]
    return context


def _load_pair(context: ssl.SSLContext, pair: KeyPair, here: str) -> None:
    try:
        context.load_cert_chain(pair.certificate_file, pair.key_file, password="")  # "": never ask on the terminal
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        text = f"{pair.certificate_file} and {pair.key_file} are no pair of certificate and unencrypted key: {reason}"
        raise ConfigError(f"{here}.certificate_file", text) from error
    except OSError as error:
        for key, file in (("certificate_file", pair.certificate_file), ("key_file", pair.key_file)):
            _read(file, f"{here}.{key}")
        raise ConfigError(f"{here}.certificate_file", f"cannot be read: {error.strerror}") from error


def _load_trusted(context: ssl.SSLContext, file: str, path: str, *, is_crl: bool = False) -> None:
    text = _read(file, path)
    if is_crl and b"BEGIN X509 CRL" not in text:
        raise ConfigError(path, f"{file} holds no certificate revocation list")
    before = context.cert_store_stats()
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(path, f"{file} cannot be used: {error}") from error
    loaded = context.cert_store_stats()
    kind = "crl" if is_crl else "x509"
    if loaded[kind] == before[kind]:
        raise ConfigError(path, f"{file} holds nothing that can be used")


def _read(file: str, path: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(path, f"{file} cannot be read: {error.strerror or error}") from error


def _crl_expires_s(settings: Tls) -> float:
    if not settings.crl_file:
        return float("inf")
    try:
        return crl_expires_s(Path(settings.crl_file).read_bytes())
    except OSError:  # gone since it was read a moment ago: the next look will say so
        return float("inf")


def _look_at_permissions(key_file: str, name: str) -> None:
    try:
        mode = Path(key_file).stat().st_mode
    except OSError:
        return  # told of when it is read
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        log.warning("listener %s: the private key %s is open to others (mode %04o)", name, key_file, stat.S_IMODE(mode))


def _try_out(pair: KeyPair, here: str) -> tuple[list[str], float]:
    """Let the pair shake hands with a client in memory; return the names it is for, and until when it is good.

    That proves that the key fits and OpenSSL serves it, and reads the certificate without a parser of our own.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load_pair(server, pair, here)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN | _no_check_time
    try:
        client.load_verify_locations(pair.certificate_file)
        found: dict[str, Any] = _shake_hands(server, client)
    except ssl.SSLError as error:
        raise ConfigError(f"{here}.certificate_file", f"{pair.certificate_file} cannot serve: {error}") from error
    names = [value.lower() for kind, value in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    if not names:
        names = [value.lower() for part in found.get("subject", ()) for key, value in part if key == "commonName"]
    return names, ssl.cert_time_to_seconds(found["notAfter"])


# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which `ssl` has no name for: an expired certificate is told of in our words.
_no_check_time = ssl.VerifyFlags(0x200000)


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> Any:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)]
    waiting = list(ends)
    for _ in range(_TRIAL_STEPS):
        for end in list(waiting):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                waiting.remove(end)
        if not waiting:
            return ends[0].getpeercert()
    raise ssl.SSLError("the handshake comes to no end")


def _chooser(by_name: dict[str, ssl.SSLContext]) -> Any:
    def choose(session: Any, server_name: str | None, _: ssl.SSLContext) -> None:
        session.requested_name = server_name
        if server_name is None:
            return
        wanted = server_name.lower()
        context = by_name.get(wanted) or by_name.get("*." + wanted.partition(".")[2])
        if context is not None:
            session.context = context

    return choose


def _signature(settings: Tls) -> tuple[object, ...]:
    files = [settings.certificate_file, settings.key_file, settings.client_ca_file, settings.crl_file]
    for pair in settings.certificates:
        files += [pair.certificate_file, pair.key_file]
    found: list[object] = []
    for file in files:
        try:
            state = Path(file).stat() if file else None
        except OSError as error:
            found.append(error.errno)
        else:
            found.append(state and (state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)


def _date(moment_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment_s))


def describe(session: Any, server_name: str | None, identity: str) -> TlsInfo:
    """Return what an established session says of its client.

    session: an ssl.SSLObject or what it wraps. identity: as in `[listeners.tls]`.
    """
    # Empty unless the certificate was verified. A resumed session keeps it, and may outlive it.
    certificate: dict[str, Any] = session.getpeercert() or {}
    if certificate and ssl.cert_time_to_seconds(certificate["notAfter"]) <= time.time():
        certificate = {}
    subject = certificate.get("subject", ())
    cipher = session.cipher()
    return TlsInfo(
        version=session.version(),
        cipher=cipher[0] if cipher else None,
        server_name=server_name,
        alpn=session.selected_alpn_protocol(),
        is_resumed=bool(session.session_reused),
        certificate=session.getpeercert(True),
        subject=distinguished_name(subject) or None,
        common_name=next((value for part in subject for key, value in part if key == "commonName"), None),
        alt_names=tuple(certificate.get("subjectAltName", ())),
        is_verified=bool(certificate),
        identity=identity_of(certificate, identity),
    )


def distinguished_name(subject: Iterable[Iterable[tuple[str, str]]]) -> str:
    """Return a certificate's subject, as `getpeercert` gives it, in the words of RFC 4514: most specific part first."""
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed([tuple(part) for part in subject])
    )


def _escaped(value: str) -> str:
    # RFC 4514 §2.4
    last = len(value) - 1
    found = []
    for at, one in enumerate(value):
        if one in ',+"\\<>;' or (at == 0 and one in " #") or (at == last and one == " "):
            found.append(f"\\{one}")
        else:
            found.append("\\00" if one == "\0" else one)
    return "".join(found)


def identity_of(certificate: dict[str, Any], kind: str) -> str | None:
    """Return what names the client in a verified *certificate*; None when it has no such name, or an unusable one.

    kind: as `identity` in `[listeners.tls]`. A name with control characters is nobody's.
    """
    name: str | None
    subject = certificate.get("subject", ())
    if kind == "dn":
        name = distinguished_name(subject)
    elif kind == "cn":
        name = next((value for part in subject for key, value in part if key == "commonName"), None)
    else:
        wanted = _SAN_KINDS[kind]
        name = next((value for key, value in certificate.get("subjectAltName", ()) if key == wanted), None)
    if not name or any(ord(one) < 32 or ord(one) == 127 for one in name):
        return None
    return name
