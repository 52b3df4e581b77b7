"""Tokens: what goes in comes out, and nothing that we did not sign is read."""

import base64

import pytest
from mqttcore_plugins.aliyun.tokens import (
    Token,
    TokenCodec,
    TokenFault,
    TokenRefused,
    may_be_of_type,
    parse_token_password,
)

KEY = b"k" * 32


def issue(codec: TokenCodec, **changes: object) -> str:
    said: dict = {
        "instance_id": "mqtt-xxxxx",
        "access_key_id": "YYYYY",
        "actions": "RW",
        "resources": ["TopicA/#", "TopicB/+"],
        "issued_ms": 1_000,
        "expires_ms": 61_000,
    }
    return codec.issue(**(said | changes))


def test_token_says_what_was_put_in():
    codec = TokenCodec([KEY])
    text = issue(codec)
    token = codec.read(text)
    assert (token.instance_id, token.access_key_id, token.actions) == ("mqtt-xxxxx", "YYYYY", "RW")
    assert token.resources == ("TopicA/#", "TopicB/+")
    assert (token.issued_ms, token.expires_ms) == (1_000, 61_000)
    assert "|" not in text
    assert base64.b64decode(text, validate=True)


def test_no_two_tokens_are_alike():
    codec = TokenCodec([KEY])
    assert codec.read(issue(codec)).token_id != codec.read(issue(codec)).token_id


def test_hundred_long_resources_fit():
    codec = TokenCodec([KEY])
    resources = [f"{number:03}" + "x" * 125 for number in range(100)]
    assert codec.read(issue(codec, resources=resources)).resources == tuple(resources)


def test_key_that_signed_before_still_verifies():
    text = issue(TokenCodec([KEY]))
    assert TokenCodec([b"n" * 32, KEY]).read(text).actions == "RW"
    with pytest.raises(TokenRefused) as refused:
        TokenCodec([b"n" * 32]).read(text)
    assert refused.value.code == TokenFault.FORGED


def test_short_key_is_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        TokenCodec([b"short"])
    with pytest.raises(ValueError, match="at least one"):
        TokenCodec([])


def test_every_altered_byte_is_noticed():
    codec = TokenCodec([KEY])
    data = base64.b64decode(issue(codec))
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        with pytest.raises(TokenRefused) as refused:
            codec.read(base64.b64encode(bytes(altered)).decode())
        assert refused.value.code == TokenFault.FORGED


@pytest.mark.parametrize("text", ["", "abc", "|", "é", "A" * 100_000, "AQ==", base64.b64encode(b"\x01" * 40).decode()])
def test_what_is_no_token_is_forged(text: str):
    with pytest.raises(TokenRefused) as refused:
        TokenCodec([KEY]).read(text)
    assert refused.value.code == TokenFault.FORGED
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("text", ["x\n", "x=", "x y"])
def test_token_has_one_spelling(text: str):
    """The same bytes in another text would be another token to who compares texts."""
    codec = TokenCodec([KEY])
    with pytest.raises(TokenRefused):
        codec.read(issue(codec) + text[1:])


@pytest.mark.parametrize(
    ("password", "tokens"),
    [
        ("RW|tok", {"RW": "tok"}),
        ("R|tok1|W|tok2", {"R": "tok1", "W": "tok2"}),
        ("W|tok2|R|tok1", {"R": "tok1", "W": "tok2"}),
        ("RW|a|R|b|W|c", {"RW": "a", "R": "b", "W": "c"}),
    ],
)
def test_password_of_tokens(password: str, tokens: dict[str, str]):
    assert parse_token_password(password) == tokens


@pytest.mark.parametrize("password", ["", "RW", "tok", "RW|", "X|tok", "R|a|R|b", "R|a|W", "R|a|W|b|RW|c|R|d", "rw|a"])
def test_password_that_is_none(password: str):
    with pytest.raises(TokenRefused):
        parse_token_password(password)


@pytest.mark.parametrize(
    ("actions", "token_type", "may"),
    [("R", "R", True), ("R", "W", False), ("R", "RW", False), ("RW", "R", True), ("RW", "RW", True), ("W", "W", True)],
)
def test_type_must_be_among_the_actions(actions: str, token_type: str, may: bool):
    token = Token(b"", "i", "k", actions, ("a",), 0, 0)
    assert may_be_of_type(token, token_type) is may
    assert token.may_read is ("R" in actions)
    assert token.may_write is ("W" in actions)
