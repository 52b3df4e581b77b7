"""The vectors of the service's documentation, and what must not pass."""

import pytest
from mqttcore_plugins.aliyun.signatures import is_signed, is_signed_request, sign, string_to_sign

SECRET = "XXXXX"


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        ("GID_Test@@@0001", "vI009IZJZVGRwBwZvnbwjfuXxVM="),  # login by signature: the client id
        ("GID_Test", "YRcXymreNmJUfwB8142smvKH8zE="),  # login of 2017: the group id
        (
            "actions=R,W&expireTime=1609434121000&instanceId=mqtt-xxxxx&resources=TopicA/#,TopicB/+&serviceName=mq",
            "7FOIgW8FkjaaDCyZYBUWPk19VOg=",
        ),
        ("token=abc", "MYpb3ziEMErscBBzwUP0XVWUs/s="),
        (
            "accessKey=YYYYY&instanceId=mqtt-xxxxx&resource=GID_Test@@@0001&timestamp=1609434061000",
            "mjLLOccBF16/P/jvZ13wUU5NDZc=",
        ),
        ("1609434061000", "VRQqWnWyZnk7QfSVKAhESW17M5k="),  # of the cloud SDK: a time
    ],
)
def test_signature_of_vector(text: str, signature: str):
    assert sign(SECRET, text) == signature
    assert is_signed(SECRET, text, signature)
    assert is_signed(SECRET, text, signature.encode())


@pytest.mark.parametrize(
    "signature",
    [None, "", b"", "vI009IZJZVGRwBwZvnbwjfuXxVM", "vI009IZJZVGRwBwZvnbwjfuXxVM=\n", b"\xff" * 28, "é" * 28],
)
def test_anything_else_is_no_signature(signature: bytes | str | None):
    assert not is_signed(SECRET, "GID_Test@@@0001", signature)


def test_string_to_sign_is_in_order_of_keys_and_not_encoded():
    assert string_to_sign({"b": "2 &", "a": "1"}) == "a=1&b=2 &"


def test_request_may_be_signed_as_sent_or_with_values_in_order():
    sent = {"actions": "W,R", "resources": "B/+,A/#"}
    as_sent = sign(SECRET, "actions=W,R&resources=B/+,A/#")
    in_order = sign(SECRET, "actions=R,W&resources=A/#,B/+")
    assert is_signed_request(SECRET, sent, as_sent)
    assert is_signed_request(SECRET, sent, in_order)
    assert not is_signed_request(SECRET, sent, sign(SECRET, "actions=W,R&resources=A/#,B/+"))
    assert not is_signed_request("other", sent, as_sent)
