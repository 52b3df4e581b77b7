"""Signatures of requests: vectors of Alibaba's own documentation, and everything that must not pass."""

import base64
import hashlib
import hmac
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mqttcore_plugins.aliyun.openapi.errors import ApiError
from mqttcore_plugins.aliyun.openapi.nonces import Nonces
from mqttcore_plugins.aliyun.openapi.signing import Claim, claim_of
from multidict import CIMultiDict

EMPTY = hashlib.sha256(b"").hexdigest()
# The example of the documentation's page on the RPC signature, key testid, secret testsecret.
VERSION_1 = {
    "Timestamp": "2016-02-23T12:46:24Z",
    "Format": "XML",
    "AccessKeyId": "testid",
    "Action": "DescribeRegions",
    "SignatureMethod": "HMAC-SHA1",
    "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
    "Version": "2014-05-26",
    "SignatureVersion": "1.0",
    "Signature": "OLeaidS1JvxuMvnyHOwuJ+uX5qY=",
}
# The example of the page on the signature of version 3.
ACS3_QUERY = "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai"
ACS3_SIGNATURE = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
ACS3_NAMES = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version"
ACS3 = {
    "Host": "ecs.cn-shanghai.aliyuncs.com",
    "x-acs-action": "RunInstances",
    "x-acs-content-sha256": EMPTY,
    "x-acs-date": "2023-10-26T10:22:32Z",
    "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
    "x-acs-version": "2014-05-26",
    "Authorization": f"ACS3-HMAC-SHA256 Credential=YourAccessKeyId,SignedHeaders={ACS3_NAMES},"
    f"Signature={ACS3_SIGNATURE}",
}


def version_1(changes: dict[str, str | None] | None = None, *, method: str = "GET", form: bytes = b"") -> Claim:
    given = {name: value for name, value in (VERSION_1 | (changes or {})).items() if value is not None}
    headers = CIMultiDict({"Content-Type": "application/x-www-form-urlencoded"})
    return claim_of(method=method, path="/", query=urlencode(given), headers=headers, body=form)


def acs3(
    changes: dict[str, str] | None = None,
    *,
    query: str = ACS3_QUERY,
    method: str = "POST",
    path: str = "/",
    body: bytes = b"",
) -> Claim:
    headers = CIMultiDict(ACS3 | (changes or {}))
    return claim_of(method=method, path=path, query=query, headers=headers, body=body)


def test_documented_vector_of_version_1():
    claim = version_1()
    assert claim.is_signed("testsecret")
    assert not claim.is_signed("testsecreT")
    assert (claim.access_key_id, claim.action, claim.version) == ("testid", "DescribeRegions", "2014-05-26")
    assert claim.nonce == VERSION_1["SignatureNonce"]
    assert claim.time_ms == 1_456_231_584_000
    assert "Signature" not in claim.parameters


@pytest.mark.parametrize(
    "changes",
    [{"Action": "Other"}, {"Extra": ""}, {"Signature": "é"}, {"SignatureNonce": "2"}, {"AccessKeyId": "other"}],
)
def test_version_1_covers_every_parameter(changes: dict[str, str | None]):
    assert not version_1(changes).is_signed("testsecret")


def test_version_1_covers_method_and_form():
    assert not version_1(method="POST").is_signed("testsecret")
    assert not version_1(form=b"A=1").is_signed("testsecret")


def test_version_1_signs_query_and_form_together():
    signed = (
        "POST&%2F&A%3D%252A%2520~%25C3%25A9%26AccessKeyId%3Dk%26Action%3DX%26SignatureMethod%3DHMAC-SHA1"
        "%26SignatureNonce%3Dn%26SignatureVersion%3D1.0%26Timestamp%3D2016-02-23T12%253A46%253A24Z%26Version%3Dv"
    )
    signature = hmac.new(b"s&", signed.encode(), "sha1").digest()
    query = urlencode({"AccessKeyId": "k", "Action": "X", "SignatureMethod": "HMAC-SHA1", "SignatureNonce": "n"})
    rest = {"SignatureVersion": "1.0", "Timestamp": "2016-02-23T12:46:24Z", "Version": "v", "A": "* ~é"}
    form = urlencode(rest | {"Signature": base64.b64encode(signature).decode()}).encode()
    headers = CIMultiDict({"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"})
    claim = claim_of(method="POST", path="/", query=query, headers=headers, body=form)
    assert claim.is_signed("s")
    assert claim.parameters["A"] == "* ~é"


@pytest.mark.parametrize("name", ["AccessKeyId", "Signature", "SignatureNonce", "Timestamp", "Action", "Version"])
def test_parameter_that_version_1_lacks_is_named(name: str):
    with pytest.raises(ApiError, match=name) as caught:
        version_1({name: None})
    assert caught.value.code == f"Missing{name}"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SignatureMethod": "HMAC-MD5"}, "InvalidParameter.SignatureMethod"),
        ({"SignatureMethod": None}, "InvalidParameter.SignatureMethod"),
        ({"SignatureVersion": "2.0"}, "InvalidParameter.SignatureMethod"),
        ({"Timestamp": "2016-02-30T12:46:24Z"}, "InvalidTimeStamp.Format"),
        ({"Timestamp": "2016-02-23 12:46:24"}, "InvalidTimeStamp.Format"),
        ({"Timestamp": "٢٠١٦-02-23T12:46:24Z"}, "InvalidTimeStamp.Format"),
        ({"SignatureNonce": "n" * 257}, "InvalidParameter.SignatureNonce"),
    ],
)
def test_version_1_that_cannot_be(changes: dict[str, str | None], code: str):
    with pytest.raises(ApiError) as caught:
        version_1(changes)
    assert caught.value.code == code


def test_documented_vector_of_acs3():
    claim = acs3()
    assert claim.is_signed("YourAccessKeySecret")
    assert not claim.is_signed("YourAccessKeysecret")
    assert (claim.access_key_id, claim.action, claim.version) == ("YourAccessKeyId", "RunInstances", "2014-05-26")
    assert claim.parameters["RegionId"] == "cn-shanghai"


def test_acs3_sorts_the_query():
    first, second = ACS3_QUERY.split("&")
    assert acs3(query=f"{second}&{first}").is_signed("YourAccessKeySecret")


@pytest.mark.parametrize(
    "claim",
    [
        lambda: acs3({"x-acs-action": "StopInstances"}),
        lambda: acs3({"Host": "elsewhere"}),
        lambda: acs3({"x-acs-signature-nonce": "2"}),
        lambda: acs3(query=ACS3_QUERY + "&A=1"),
        lambda: acs3(query=""),
        lambda: acs3(method="GET"),
        lambda: acs3(path="/x"),
    ],
)
def test_acs3_covers_request_and_headers(claim):
    assert not claim().is_signed("YourAccessKeySecret")


def authorization(names: str, signature: str = ACS3_SIGNATURE) -> dict[str, str]:
    return {"Authorization": f"ACS3-HMAC-SHA256 Credential=k,SignedHeaders={names},Signature={signature}"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (authorization(ACS3_NAMES.replace("host;", "")), "IncompleteSignature"),
        (authorization(ACS3_NAMES.replace("x-acs-signature-nonce;", "")), "IncompleteSignature"),
        (authorization(ACS3_NAMES.replace(";x-acs-version", "")), "IncompleteSignature"),
        (authorization(ACS3_NAMES + ";x-not-there"), "IncompleteSignature"),
        (authorization("host;" + ACS3_NAMES), "IncompleteSignature"),
        (authorization("x-acs-version;" + ACS3_NAMES), "IncompleteSignature"),
        (authorization(ACS3_NAMES, "abc"), "IncompleteSignature"),
        ({"Authorization": "ACS3-HMAC-SM3 Credential=k"}, "IncompleteSignature"),
        ({"x-acs-content-sha256": "00"}, "SignatureDoesNotMatch"),
        ({"x-acs-date": "now"}, "InvalidTimeStamp.Format"),
    ],
)
def test_acs3_that_cannot_be(changes: dict[str, str], code: str):
    with pytest.raises(ApiError) as caught:
        acs3(changes)
    assert caught.value.code == code


def test_acs3_covers_the_body():
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with pytest.raises(ApiError) as caught:
        acs3(form, body=b"A=1")
    assert caught.value.code == "SignatureDoesNotMatch"
    claim = acs3(form | {"x-acs-content-sha256": hashlib.sha256(b"A=1").hexdigest()}, body=b"A=1")
    assert claim.parameters["A"] == "1"
    assert not claim.is_signed("YourAccessKeySecret")


def test_header_that_is_sent_twice_is_not_signed():
    headers = CIMultiDict(ACS3)
    headers.add("x-acs-action", "StopInstances")
    with pytest.raises(ApiError, match="twice"):
        claim_of(method="POST", path="/", query=ACS3_QUERY, headers=headers, body=b"")


@pytest.mark.parametrize(
    ("query", "kind", "body"),
    [
        ("A=1&A=2", "", b""),
        ("A=1", "application/x-www-form-urlencoded", b"A=2"),
        ("", "application/json", b"{}"),
        ("A=%ff", "", b""),
        ("A=\udcff", "", b""),
        ("", "application/x-www-form-urlencoded", b"A=\xc3\xa9"),
        ("&".join(f"A{number}=1" for number in range(201)), "", b""),
    ],
)
def test_parameters_that_are_ambiguous_or_too_many(query: str, kind: str, body: bytes):
    with pytest.raises(ApiError) as caught:
        claim_of(method="POST", path="/", query=query, headers=CIMultiDict({"Content-Type": kind}), body=body)
    assert caught.value.code == "ParameterCheckFailed"


def test_nothing_secret_shows_in_a_claim():
    assert VERSION_1["Signature"] not in repr(version_1())
    assert "XML" not in repr(version_1())  # no parameter does


def test_nonce_is_remembered_for_each_key_until_its_time_is_over():
    nonces = Nonces(maximum=10)
    nonces.take("key", "1", until_ms=100)
    nonces.take("other", "1", until_ms=50)
    assert nonces.was_seen("key", "1")
    assert nonces.was_seen("other", "1")
    assert not nonces.was_seen("key", "2")
    assert nonces.lacks_room("key", 51) == ""
    assert (len(nonces), nonces.largest_share) == (1, 1)
    assert nonces.was_seen("key", "1")
    assert nonces.lacks_room("key", 101) == ""
    assert not nonces.was_seen("key", "1")
    assert (len(nonces), nonces.largest_share) == (0, 0)


def test_key_holds_as_many_nonces_as_are_free():
    nonces = Nonces(maximum=9)

    def fill(key: str) -> int:
        taken = 0
        while not nonces.lacks_room(key, 0):
            nonces.take(key, str(taken), until_ms=100 + taken)
            taken += 1
        return taken

    assert fill("greedy") == 5
    assert nonces.lacks_room("greedy", 0) == "key"
    assert fill("second") == 2  # as many as it leaves
    assert fill("third") == 1
    assert fill("fourth") == 1
    assert (len(nonces), nonces.largest_share) == (9, 5)
    assert nonces.lacks_room("fifth", 0) == "all"
    assert nonces.lacks_room("greedy", 101) == "key"  # four of five, of nine, and two free
    assert nonces.lacks_room("greedy", 104) == ""


def test_no_request_waits_until_all_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mqttcore_plugins.aliyun.openapi.nonces._FORGOTTEN_AT_ONCE", 3)
    nonces = Nonces(maximum=20)
    for number in range(10):
        nonces.take("key", str(number), until_ms=100 + number // 4)
    left = []
    while len(nonces):
        assert not nonces.lacks_room("key", 1000)
        left.append(len(nonces))
    assert left == [7, 4, 1, 0]


_HEADER = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF) | st.sampled_from("\udc80\udcff"), max_size=80)


@given(
    query=st.text(max_size=80) | st.sampled_from([ACS3_QUERY, urlencode(VERSION_1)]),
    changes=st.dictionaries(st.sampled_from([*ACS3, "Content-Type"]), _HEADER, max_size=4),
    names=st.sampled_from([ACS3_NAMES, "host", ""]),
    body=st.just(b"") | st.binary(max_size=40),
)
def test_whatever_comes_is_a_claim_that_can_be_judged_or_an_error(
    query: str, changes: dict[str, str], names: str, body: bytes
):
    headers = CIMultiDict(ACS3 | authorization(names) | {"x-acs-content-sha256": hashlib.sha256(body).hexdigest()})
    headers.update(changes)
    try:
        claim = claim_of(method="POST", path="/", query=query, headers=headers, body=body)
    except ApiError:
        return
    assert not claim.is_signed("some secret")
