"""A certificate authority for tests: good, expired, revoked and foreign certificates, and revocation lists."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Issued:
    """Files of one certificate and its key."""

    certificate: Path
    key: Path
    serial: int


class Authority:
    """Issues into *folder*; several in one folder need different names."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"tests {name}")])
        self.certificate = (
            self._builder(self.subject, self.key.public_key(), 0, 10)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)  # Python 3.13 verifies by the letter of RFC 5280
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.file = folder / f"{name}.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.crl_file = folder / f"{name}.crl"
        self.revoke()

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, begins: float, ends: float
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins * DAY - datetime.timedelta(minutes=5))
            .not_valid_after(now + ends * DAY)
        )

    def issue(
        self,
        name: str,
        *,
        dns: tuple[str, ...] = (),
        email: tuple[str, ...] = (),
        uri: tuple[str, ...] = (),
        addresses: tuple[str, ...] = (),
        organization: str | None = None,
        file: str | None = None,
        begins: float = 0,
        ends: float = 5,
    ) -> Issued:
        """Issue to common name *name*. begins, ends: days from now; file: stem of the files' names."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization)] if organization else []
        parts += [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else []
        alt_names: list[x509.GeneralName] = [
            *(x509.DNSName(one) for one in dns),
            *(x509.RFC822Name(one) for one in email),
            *(x509.UniformResourceIdentifier(one) for one in uri),
            *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses),
        ]
        builder = self._builder(x509.Name(parts), key.public_key(), begins, ends).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if alt_names:
            builder = builder.add_extension(x509.SubjectAlternativeName(alt_names), critical=not name)
        certificate = builder.sign(self.key, hashes.SHA256())
        stem = file or name
        files = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].touch(0o600)
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Issued(*files, certificate.serial_number)

    def server(self, *names: str, file: str = "server", ends: float = 5) -> Issued:
        """Issue to a server of these DNS names, at 127.0.0.1."""
        names = names or ("localhost",)
        return self.issue(names[0], dns=names, addresses=("127.0.0.1",), file=file, ends=ends)

    def revoke(self, *revoked: Issued, ends: float = 1) -> None:
        """Write the revocation list anew, with these on it. ends: in days from now."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.subject)
        builder = builder.last_update(now - 3 * DAY).next_update(now + ends * DAY)
        for one in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(now - DAY).build()
            builder = builder.add_revoked_certificate(entry)
        self.crl_file.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
