"""The plugin: authenticates against the book, in a pool of threads, and takes new files over while running."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from msgspec import Meta

from mqttcore import ConfigError, Identity, ReasonCode, Refusal, address_key, hookimpl, read_private_file

from .book import Book
from .decoys import Decoys
from .failures import Failures
from .mosquitto_files import parse_acl, parse_passwords
from .own_file import parse_users
from .passwords import verify_password

if TYPE_CHECKING:
    from collections.abc import Callable

    from mqttcore import Broker, ClientView, Connect

__all__ = ["Users"]

_T = TypeVar("_T")

_log = logging.getLogger("mqttcore.plugins.users")


class UsersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[plugins.users]`."""

    file: Annotated[str, Meta(description="Users and rules, TOML or (`.json`) JSON; empty: none.")] = ""
    password_file: Annotated[str, Meta(description="mosquitto's password file; empty: none.")] = ""
    acl_file: Annotated[str, Meta(description="mosquitto's ACL file; empty: none.")] = ""
    failures_maximum: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Failed logins per address (IPv6: /64), and per user, before refusal; 0: no limit.",
        ),
    ] = 5
    failures_window_s: Annotated[float, Meta(ge=1, le=86_400, description="How long a failed login counts.")] = 60.0
    threads: Annotated[int, Meta(ge=1, le=64, description="Passwords verified at a time.")] = 2
    waiting_maximum: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Logins that wait for a thread; more are told Server busy.")
    ] = 1000
    disconnect_removed: Annotated[
        bool, Meta(description="Disconnect clients whose user a reload removed; else they lose every right.")
    ] = True


class Users:
    """Users from files: who they are, what they may do."""

    Config = UsersConfig

    def __init__(self, config: UsersConfig) -> None:
        self.config = config
        self._book = _read(config)
        self._decoys = Decoys(self._book)
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="mqttcore-users")
        self._free_threads = asyncio.Semaphore(config.threads)
        self._waiting = 0
        self._failures = Failures(maximum=config.failures_maximum, window_s=config.failures_window_s)
        self._broker: Broker | None = None

    @hookimpl
    def startup(self, broker: Broker) -> None:
        """Remember whom to tell about new rights."""
        self._broker = broker
        section = broker.plugin_section("users")
        section.measure("logins_waiting", lambda: self._waiting)
        section.measure("failures_remembered", lambda: len(self._failures))

    @hookimpl
    def shutdown(self, broker: Broker) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @hookimpl
    async def authenticate(self, client: ClientView, connect: Connect) -> Identity | Refusal | None:
        """Verify user name and password."""
        if connect.user_name is None:
            rules = self._book.anonymous
            return None if rules is None else Identity("anonymous", rules)
        address = address_key(client.address) or ""
        if (refusal := self._closed(address, connect.user_name)) is not None:
            return refusal
        if self._waiting >= self.config.waiting_maximum:
            return Refusal(ReasonCode.SERVER_BUSY)
        self._waiting += 1
        try:
            async with self._free_threads:
                # Once more: those who waited together must not all have a guess.
                if (refusal := self._closed(address, connect.user_name)) is not None:
                    return refusal
                book = self._book
                user = book.users.get(connect.user_name)
                password_hash = self._decoys.hash_for(connect.user_name) if user is None else user.password_hash
                is_right = await asyncio.get_running_loop().run_in_executor(
                    self._pool, verify_password, password_hash, connect.password or b""
                )
        finally:
            self._waiting -= 1
        if user is None or not is_right or user.client_id not in (None, connect.client_id):
            self._failures.failed(address, connect.user_name, time.monotonic())
            return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        if self._book is not book and self._book.users.get(user.name) != user:
            return Refusal(ReasonCode.BAD_USER_NAME_OR_PASSWORD)  # changed while we computed
        self._failures.succeeded(address, connect.user_name)
        return Identity(user.name, self._book.permissions(user))

    def _closed(self, address: str, user_name: str) -> Refusal | None:
        if not self._failures.is_closed(address, user_name, time.monotonic()):
            return None
        _log.warning("login of %r from %s: too many failures", user_name, address)
        return Refusal(ReasonCode.BANNED, "too many failed logins")

    def reload(self, config: UsersConfig) -> None:
        """Read the files again; clients stay connected and get their users' new rights. Raises ConfigError."""
        book = _read(config)
        former, self._book, self.config = self._book, book, config
        self._decoys = Decoys(book)
        self._failures.maximum, self._failures.window_s = config.failures_maximum, config.failures_window_s
        if self._broker is None:
            return
        for client in self._broker.clients():
            name = client.user_name
            if not client.is_connected or name is None or name not in former.users:
                continue
            user = book.users.get(name)
            if user is None and config.disconnect_removed:
                self._broker.disconnect(client.client_id, ReasonCode.NOT_AUTHORIZED, "user removed")
            else:
                rights = () if user is None else book.permissions(user)
                self._broker.set_identity(client.client_id, Identity(name, rights))


def _read(config: UsersConfig) -> Book:
    """Return what all configured files say; ConfigError names the file."""
    if not (config.file or config.password_file):
        raise ConfigError("", "needs `file` or `password_file`")
    book = Book({})
    if config.password_file or config.acl_file:
        users = _parsed(config.password_file, "password_file", parse_passwords) if config.password_file else {}
        book = Book(users)
        if config.acl_file:
            book = _parsed(config.acl_file, "acl_file", lambda data: parse_acl(data, users))
    if config.file:
        path = Path(config.file)
        own = _parsed(config.file, "file", lambda data: parse_users(data, path))
        try:
            book = book.merged(own)
        except ValueError as error:
            raise ConfigError("", str(error)) from None
    return book


def _parsed(path: str, key: str, parse: Callable[[bytes], _T]) -> _T:
    try:
        data, is_readable_by_others = read_private_file(path)
        if is_readable_by_others and key != "acl_file":
            _log.warning("%s can be read by other users of this machine: chmod 600", path)
        return parse(data)
    except OSError as error:
        raise ConfigError(key, f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, ImportError) as error:
        raise ConfigError(key, f"{path}: {error}") from None
