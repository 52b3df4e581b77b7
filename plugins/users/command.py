"""`mqttcore users`: adds, removes and verifies users in a file, our own or one of mosquitto's."""

import os
import sys
from pathlib import Path

import click

from mqttcore import read_private_file, write_private_file

from .mosquitto_files import parse_passwords
from .own_file import parse_users
from .passwords import hash_password, verify_password

__all__ = ["users"]

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_name = click.argument("name")
_from_input = click.option("--password-stdin", is_flag=True, help="Read the password from standard input, one line.")


@click.group()
def users() -> None:
    """Keep a file of users: `.toml` or `.json` is ours, any other suffix mosquitto's password file."""


@users.command()
@_file
@_name
@_from_input
def add(file: Path, name: str, password_stdin: bool) -> None:
    """Add a user, or give one a new password (argon2id); the file is made when it is not there."""
    if not name or "\n" in name or (":" in name and not _is_ours(file)):
        raise click.UsageError("a user name is not empty and has no line break, nor a colon in mosquitto's file")
    password = _asked_password(password_stdin, confirm=True)
    if not password:
        raise click.UsageError("the password is empty")
    content = _content(file)
    _known(file, content)
    _write(file, _changed(file, content, name, hash_password(password)))


@users.command()
@_file
@_name
def remove(file: Path, name: str) -> None:
    """Remove a user; exit code 1 when there is none of that name."""
    content = _content(file)
    if name not in _known(file, content):
        raise click.ClickException(f"{file} has no user {name!r}")
    _write(file, _changed(file, content, name, None))


@users.command()
@_file
@_name
@_from_input
def verify(file: Path, name: str, password_stdin: bool) -> None:
    """Say whether a password is a user's; exit code 1 when it is not, or there is no such user."""
    stored = _known(file, _content(file)).get(name)
    password = _asked_password(password_stdin, confirm=False)
    if stored is None or not verify_password(stored, password.encode()):
        raise click.ClickException("wrong user name or password")
    click.echo("right")


def _asked_password(from_input: bool, *, confirm: bool) -> str:
    if from_input:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirm))


def _is_ours(file: Path) -> bool:
    return file.suffix in (".toml", ".json")


def _content(file: Path) -> bytes:
    try:
        return read_private_file(file)[0]
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def _known(file: Path, content: bytes) -> dict[str, str]:
    """Return the hashes in a file by name."""
    if not content:
        return {}
    try:
        found = parse_users(content, file).users if _is_ours(file) else parse_passwords(content)
    except (ValueError, ImportError) as error:
        raise click.ClickException(f"{file}: {error}") from None
    return {name: user.password_hash for name, user in found.items()}


def _changed(file: Path, content: bytes, name: str, stored: str | None) -> bytes:
    """Return *content* with the user's hash set, or without the user; everything else is as it was."""
    if file.suffix == ".toml":
        return _changed_toml(content, name, stored)
    if file.suffix == ".json":
        return _changed_json(content, name, stored)
    lines = [line for line in content.decode().splitlines() if line.partition(":")[0] != name]
    if stored is not None:
        lines.append(f"{name}:{stored}")
    return "".join(f"{line}\n" for line in lines).encode()


def _changed_json(content: bytes, name: str, stored: str | None) -> bytes:
    import orjson

    document = orjson.loads(content or b"{}")
    document["users"] = _entries(document.get("users", []), name, stored)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


def _changed_toml(content: bytes, name: str, stored: str | None) -> bytes:
    try:
        import tomlkit
    except ImportError:
        raise click.ClickException("TOML files need tomlkit: pip install 'mqttcore[users]'") from None
    document = tomlkit.parse(content.decode())
    entries = document.get("users")
    if not isinstance(entries, tomlkit.items.AoT):
        given = [] if entries is None else list(entries)
        document.pop("users", None)
        entries = tomlkit.aot()
        for entry in given:
            table = tomlkit.table()
            table.update(entry)
            entries.append(table)
        document["users"] = entries
    for index, entry in enumerate(entries):
        if entry["name"] == name:
            if stored is None:
                del entries[index]
            else:
                entry["password"] = stored
            break
    else:
        if stored is not None:
            table = tomlkit.table()
            table.update({"name": name, "password": stored})
            entries.append(table)
    if not entries:
        del document["users"]
        document["users"] = tomlkit.array()
    return tomlkit.dumps(document).encode()


def _entries(entries: list[dict[str, object]], name: str, stored: str | None) -> list[dict[str, object]]:
    if stored is None:
        return [entry for entry in entries if entry["name"] != name]
    for entry in entries:
        if entry["name"] == name:
            entry["password"] = stored
            return entries
    return [*entries, {"name": name, "password": stored}]


def _write(file: Path, content: bytes) -> None:
    try:
        write_private_file(file, content)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror or os.strerror(error.errno or 0)}") from None
