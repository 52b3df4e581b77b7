"""Password hashes of all kinds, those of mosquitto_passwd made by itself."""

import shutil
import subprocess
from pathlib import Path

import pytest
from mqttcore_plugins.users.passwords import check_form, hash_password, verify_password


def test_own_hash_is_verified_and_salted():
    first, second = hash_password("secret"), hash_password("secret")
    assert first != second
    check_form(first)
    assert verify_password(first, b"secret")
    assert not verify_password(first, b"Secret")


def test_old_mosquitto_hash():
    import base64
    import hashlib

    stored = "$6$c2FsdHNhbHQ=$" + base64.b64encode(hashlib.sha512(b"secretsaltsalt").digest()).decode()
    check_form(stored)
    assert verify_password(stored, b"secret")
    assert not verify_password(stored, b"secret ")


@pytest.mark.interop
def test_what_mosquitto_passwd_writes(tmp_path: Path):
    command = shutil.which("mosquitto_passwd")
    if command is None:
        pytest.skip("mosquitto_passwd is not installed")
    file = tmp_path / "passwords"
    subprocess.run([command, "-c", "-b", str(file), "ann", "pässword"], check=True, capture_output=True, timeout=60)
    stored = file.read_text().strip().partition(":")[2]
    assert stored.startswith("$7$")
    check_form(stored)
    assert verify_password(stored, "pässword".encode())
    assert not verify_password(stored, b"password")


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "secret",
        "$5$abc$def",
        "$7$0$c2FsdA==$aGFzaA==",
        "$7$99999999999$c2FsdA==$aGFzaA==",
        "$7$101$c2FsdA==$",
        "$7$101$???$aGFzaA==",
        "$6$c2FsdA==$aGFzaA==",
        "$6$c2FsdA==",
        "$argon2id$nonsense",
    ],
)
def test_what_is_no_hash_is_refused_without_being_repeated(stored: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the text is looked at below
        check_form(stored)
    assert not stored or stored not in str(caught.value)
