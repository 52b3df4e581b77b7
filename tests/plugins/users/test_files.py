"""Users files, ours and mosquitto's."""

from pathlib import Path

import pytest
from mqttcore_plugins.users.mosquitto_files import parse_acl, parse_passwords
from mqttcore_plugins.users.own_file import parse_users

from mqttcore import Action, Permission

HASH = "$7$101$c2FsdHNhbHQ=$aGFzaGhhc2g="
TOML = Path("users.toml")


def test_own_file_in_toml_and_json():
    toml = f"""
        [[users]]
        name = "ann"
        password = "{HASH}"
        permissions = [{{ action = "publish", filter = "room/%u/#", qos = 1, retain = false }}]
        [[users]]
        name = "root"
        password = "{HASH}"
        is_superuser = true
        [[permissions]]
        action = "subscribe"
        filter = "news/#"
        """.encode()
    book = parse_users(toml, TOML)
    general = Permission(Action.SUBSCRIBE, "news/#")
    assert book.permissions(book.users["ann"]) == (Permission(Action.PUBLISH, "room/%u/#", True, 1, False), general)
    assert book.permissions(book.users["root"]) is None
    json = f'{{"users": [{{"name": "ann", "password": "{HASH}"}}]}}'.encode()
    book = parse_users(json, Path("users.json"))
    assert book.permissions(book.users["ann"]) is None  # no rules in any file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "blank"),
        ("[[users]]\nname = 1", "name"),
        ("[[users]]\nname = 'ann'\npassword = 'secret'", "kind"),
        (f"[[users]]\nname = 'ann'\npassword = '{HASH}'\nadmin = true", "admin"),
        (f"[[users]]\nname = 'a'\npassword = '{HASH}'\n[[users]]\nname = 'a'\npassword = '{HASH}'", "already"),
        ("users = []\n[[permissions]]\naction = 'publish'\nfilter = 'a#'", r"permissions\[0\].filter"),
        ("users = []\n[[permissions]]\naction = 'read'\nfilter = 'a'", "action|enum"),
        ("users = [", "line|Unclosed|Invalid|end"),
    ],
)
def test_mistakes_say_where_and_show_no_secret(text: str, reason: str):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_users(text.encode(), TOML)
    assert "secret" not in str(caught.value)


def test_mosquitto_files_together():
    users = parse_passwords(f"# people\nann:{HASH}\n\nbob:{HASH}\n".encode())
    acl = b"""
topic read public/#
user ann
topic write a/b c
topic deny a/secret
topic both
user ghost
topic #
pattern readwrite own/%c/%u
"""
    book = parse_acl(acl, users)
    pattern = Permission(Action.ALL, "own/%c/%u")
    assert book.permissions(book.users["ann"]) == (
        Permission(Action.ALL, "a/secret", False),
        Permission(Action.PUBLISH, "a/b c"),
        Permission(Action.ALL, "both"),
        pattern,
    )
    assert book.permissions(book.users["bob"]) == (pattern,)
    assert book.anonymous == (Permission(Action.SUBSCRIBE, "public/#"), pattern)
    assert "ghost" not in book.users


@pytest.mark.parametrize(
    "line", ["topics a", "topic", "user", "topic read a#", "topic read own/%u", "allow all", "pattern read x/#/y"]
)
def test_acl_mistake_names_its_line(line: str):
    with pytest.raises(ValueError, match="line 2"):
        parse_acl(f"# rules\n{line}\n".encode(), {})


@pytest.mark.parametrize("line", ["ann", ":x", "ann:secret", f"bob:{HASH}"])
def test_password_file_mistake_names_its_line(line: str):
    with pytest.raises(ValueError, match="line 2") as caught:
        parse_passwords(f"bob:{HASH}\n{line}\n".encode())
    assert "secret" not in str(caught.value)
