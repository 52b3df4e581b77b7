"""`mqttcore certs`: a private certificate authority for trying TLS out."""

import datetime
import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["certs"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # Windows: bytes as they are
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--name",
    "names",
    multiple=True,
    help="Host name or IP address of the server; may be repeated.  [default: localhost, 127.0.0.1, ::1]",
)
@click.option("--client", "clients", multiple=True, help="Make a certificate for a client of this name; repeatable.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 36_500), help="How long they are good.")
def certs(folder: Path, names: tuple[str, ...], clients: tuple[str, ...], days: int) -> None:
    """Make a private CA, a server certificate and client certificates in DIR, for trying out.

    ca.crt, ca.key, server.crt, server.key, and NAME.crt, NAME.key for each client; prints those that it made. A CA that
    is in DIR already is used again, and so is the server's certificate where only --client is asked for; other files of
    these names are replaced. Needs `pip install mqttcore[certs]`. For the world outside, get certificates from an
    authority that your clients know.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise click.ClickException("certs needs cryptography: pip install 'mqttcore[certs]'") from None
    for one in clients:
        if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", one) or one in ("ca", "server", ".", ".."):
            raise click.UsageError(f"--client {one!r}: letters, digits and _.@- only, and neither ca nor server")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made: list[Path] = []
        authority = _Authority.open(folder, datetime.timedelta(days=days), made)
        has_server = (folder / "server.crt").exists() and (folder / "server.key").exists()
        if names or not clients or not has_server:
            made += authority.issue_server(folder / "server", names or ("localhost", "127.0.0.1", "::1"))
        for one in clients:
            made += authority.issue_client(folder / one, one)
        for path in made:
            click.echo(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


class _Authority:
    """A CA of its own key and certificate, from which others come."""

    def __init__(
        self, key: "ec.EllipticCurvePrivateKey", certificate: "x509.Certificate", life: datetime.timedelta
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._life = life

    @classmethod
    def open(cls, folder: Path, life: datetime.timedelta, made: list[Path]) -> "_Authority":
        """Return the CA in *folder*, made now if there is none.

        life: of what it issues. made: gets the paths of files that were written.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key_file, certificate_file = folder / "ca.key", folder / "ca.crt"
        if key_file.exists() and certificate_file.exists():
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ValueError(f"{key_file} is not a key that we made")
            certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            if (until := certificate.not_valid_after_utc) <= datetime.datetime.now(datetime.UTC):
                raise ValueError(f"{certificate_file} expired on {until:%Y-%m-%d}: remove it and {key_file}")
            return cls(key, certificate, life)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mqttcore private CA")])
        usage = _key_usage(is_authority=True)
        public = key.public_key()
        certificate = (
            _builder(name, name, public, life)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, _sha256())
        )
        made += _write(folder / "ca", key, certificate)
        return cls(key, certificate, life)

    def issue_server(self, stem: Path, names: tuple[str, ...]) -> tuple[Path, Path]:
        """Write certificate and key for a server of these *names*; return their paths."""
        from cryptography import x509

        return self._issue(stem, names[0], [_alt_name(one) for one in names], x509.oid.ExtendedKeyUsageOID.SERVER_AUTH)

    def issue_client(self, stem: Path, name: str) -> tuple[Path, Path]:
        """Write certificate and key for a client whose common name is *name*; return their paths."""
        from cryptography import x509

        alt_names: list[x509.GeneralName] = [x509.RFC822Name(name)] if name.count("@") == 1 else []
        return self._issue(stem, name, alt_names, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(
        self, stem: Path, name: str, alt_names: "list[x509.GeneralName]", usage: "x509.ObjectIdentifier"
    ) -> tuple[Path, Path]:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key()
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
        builder = (
            _builder(subject, self._certificate.subject, public, self._life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if alt_names:
            builder = builder.add_extension(x509.SubjectAlternativeName(alt_names), critical=False)
        return _write(stem, key, builder.sign(self._key, _sha256()))


def _sha256() -> "hashes.SHA256":
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def _builder(
    subject: "x509.Name", issuer: "x509.Name", public: "ec.EllipticCurvePublicKey", life: datetime.timedelta
) -> "x509.CertificateBuilder":
    from cryptography import x509

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def _key_usage(*, is_authority: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _alt_name(name: str) -> "x509.GeneralName":
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(stem: Path, key: "ec.EllipticCurvePrivateKey", certificate: "x509.Certificate") -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization

    certificate_file, key_file = (stem.parent / f"{stem.name}{end}" for end in (".crt", ".key"))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # Born closed to others, whatever was there before and whatever the umask.
    key_file.unlink(missing_ok=True)
    descriptor = os.open(key_file, _NEW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate_file, key_file
