"""What names a client in its certificate."""

from typing import Any

import pytest

from mqttcore.net.tls import describe, distinguished_name, identity_of

SUBJECT = ((("countryName", "CH"),), (("organizationName", "ACME"),), (("commonName", "sensor-7"),))


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (SUBJECT, "CN=sensor-7,O=ACME,C=CH"),
        (((("commonName", "a,b+c"),),), r"CN=a\,b\+c"),
        (((("commonName", " #x "),),), r"CN=\ #x\ "),
        (((("commonName", "#x"),),), r"CN=\#x"),
        (((("commonName", " "),),), r"CN=\ "),
        (((("commonName", "a\0b"),),), r"CN=a\00b"),
        (((("commonName", "a"), ("userId", "b")),), "CN=a+UID=b"),
        (((("title", "x"),),), "title=x"),
        ((), ""),
    ],
)
def test_distinguished_name_is_written_as_rfc_4514_has_it(subject: tuple, name: str):
    assert distinguished_name(subject) == name


@pytest.mark.parametrize("kind", ["cn", "dn", "dns", "email", "uri"])
@pytest.mark.parametrize("certificate", [{}, {"subject": (), "subjectAltName": ()}])
def test_certificate_without_the_name_names_nobody(kind: str, certificate: dict):
    assert identity_of(certificate, kind) is None


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\x7f", ""])
def test_name_with_control_characters_names_nobody(name: str):
    assert identity_of({"subject": ((("commonName", name),),)}, "cn") is None
    assert identity_of({"subjectAltName": (("email", name),)}, "email") is None


def test_first_name_of_its_kind_counts():
    names = (("DNS", "x.example"), ("email", "a@x.example"), ("email", "b@x.example"), ("URI", "urn:x"))
    assert identity_of({"subjectAltName": names}, "email") == "a@x.example"
    assert identity_of({"subjectAltName": names}, "dns") == "x.example"
    assert identity_of({"subjectAltName": names}, "uri") == "urn:x"


class Session:
    """An established session, as far as it is asked who the client is."""

    session_reused = True

    def __init__(self, ends: str) -> None:
        self.certificate = {"subject": ((("commonName", "sensor-7"),),), "notAfter": ends}

    def getpeercert(self, is_binary: bool = False) -> Any:
        return b"DER" if is_binary else self.certificate

    def cipher(self) -> None:
        return None

    version = selected_alpn_protocol = cipher


@pytest.mark.parametrize(
    ("ends", "identity"), [("Jan  1 00:00:00 2020 GMT", None), ("Jan  1 00:00:00 2120 GMT", "sensor-7")]
)
def test_resumed_session_does_not_outlive_its_certificate(ends: str, identity: str | None):
    info = describe(Session(ends), None, "cn")
    assert (info.identity, info.is_verified, info.common_name) == (identity, identity is not None, identity)
    assert info.is_resumed
