"""When a revocation list ends: read from what `cryptography` makes."""

import datetime
import math

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mqttcore.net.crl import crl_expires_s

KEY = ec.generate_private_key(ec.SECP256R1())


def crl_until(moment: datetime.datetime, revoked: int = 0) -> bytes:
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an issuer " + "x" * 50)])
    began = datetime.datetime(1990, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateRevocationListBuilder(issuer_name=issuer, last_update=began, next_update=moment)
    for serial in range(1, revoked + 1):
        entry = x509.RevokedCertificateBuilder(serial_number=serial, revocation_date=began).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("revoked", [0, 1, 5000])
@pytest.mark.parametrize("year", [1999, 2026, 2049, 2050, 2199])
def test_the_end_of_a_list_is_read(year: int, revoked: int):
    """Years from 2050 on are written in another way."""
    moment = datetime.datetime(year, 5, 17, 12, 30, 59, tzinfo=datetime.UTC)
    assert crl_expires_s(crl_until(moment, revoked)) == moment.timestamp()


def test_the_first_of_several_counts():
    early, late = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2030, 2040))
    assert crl_expires_s(crl_until(late) + crl_until(early) + crl_until(late)) == early.timestamp()


@pytest.mark.parametrize("size", range(0, 260, 7))
def test_what_is_cut_short_or_no_list_says_nothing(size: int):
    whole = crl_until(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
    body = whole.partition(b"-----\n")[2].partition(b"-----END")[0][:size]
    assert crl_expires_s(b"-----BEGIN X509 CRL-----\n" + body + b"\n-----END X509 CRL-----\n") in (
        math.inf,
        datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC).timestamp(),
    )
    assert crl_expires_s(body) == math.inf
