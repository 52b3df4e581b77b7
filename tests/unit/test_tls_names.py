"""What names a client in its certificate."""

import pytest

from mqttcore.net.tls import distinguished_name, identity_of

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
