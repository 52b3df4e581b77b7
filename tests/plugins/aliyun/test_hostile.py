"""Whatever strangers say, it is refused without an exception, and nobody is let in who cannot sign."""

import binascii
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from mqttcore_plugins.aliyun.auth import uploaded
from mqttcore_plugins.aliyun.gate import Login
from mqttcore_plugins.aliyun.tokens import TokenCodec, TokenRefused

from mqttcore import Refusal

from .test_gate import World

WORLD = World(legacy_signature=True, legacy_token=True)
_texts = st.text(max_size=80) | st.sampled_from(["GID_Test@@@0001", "GID_Test", "YYYYY", "mqtt-xxxxx", "", "|", "||"])
_names = st.one_of(
    st.none(),
    _texts,
    st.builds(
        lambda *parts: "|".join(parts), st.sampled_from(["Signature", "Token", "DeviceCredential"]), _texts, _texts
    ),
)
_passwords = st.one_of(
    st.none(),
    st.binary(max_size=80),
    st.builds(lambda *parts: "|".join(parts).encode(), st.sampled_from(["R", "W", "RW", "X"]), _texts),
)


@given(_texts, _names, _passwords, st.none() | _texts)
@settings(max_examples=500, deadline=None)
def test_login_of_strangers(client_id: str, user_name: str | None, password: bytes | None, listener: str | None):
    answer = WORLD.judge(user_name, password, client_id, listener)
    if isinstance(answer, Login):  # only the form that proves nothing, and gets nothing
        assert (user_name, password, answer.permissions) == (None, None, ())
    else:
        assert isinstance(answer, Refusal)
        assert answer.reason_code in (0x85, 0x86, 0x87)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_upload_of_anything(payload: bytes):
    try:
        token_type, text = uploaded(payload)
    except TokenRefused:
        return
    said = json.loads(payload)
    assert (said["type"], said.get("token", said.get("Token"))) == (token_type, text)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_token_that_was_cut_joined_or_altered(data: st.DataObject):
    codec = TokenCodec([b"k" * 32])
    raw = binascii.a2b_base64(WORLD.token())
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, len(raw)))
    changed = raw[:start] + data.draw(st.binary(max_size=20)) + raw[end:]
    try:
        token = codec.read(binascii.b2a_base64(changed, newline=False).decode())
    except TokenRefused:
        return
    assert changed == raw
    assert token.access_key_id == "YYYYY"
