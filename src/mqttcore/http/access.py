"""Who may use the management API: keys, or nobody but this machine. No cookies, no CORS: pages of others cannot."""

import ipaddress
import logging
import re
import socket
import time
from collections import OrderedDict
from typing import Any

from aiohttp import hdrs, web

from mqttcore.config import HttpApi, is_loopback
from mqttcore.errors import ConfigError
from mqttcore.http.keys import Key, Keys, Role
from mqttcore.net.admission import Bucket, address_key
from mqttcore.net.listeners import BoundListener

__all__ = ["Access", "Denied"]

log = logging.getLogger("mqttcore.http")

_ADDRESSES_MAXIMUM = 4096
_MINUTE_S = 60.0
_HOST = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^:@\[\]]+))(:\d*)?")
_FORWARDED = frozenset(("forwarded", "x-real-ip", "via", "cf-connecting-ip", "true-client-ip"))


class Denied(Exception):
    """A request that is not served, with the HTTP status."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}


class Access:
    """Checks the requests of one listener, and counts there. is_local: nobody elsewhere reaches it, keys or not."""

    def __init__(self, settings: HttpApi, listener: BoundListener, *, is_local: bool) -> None:
        self._settings = settings
        self._is_local = is_local
        self._keys = Keys(settings.keys_file)
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()  # address -> since when, how many
        self._buckets: dict[str, Bucket] = {}  # of keys that there are, by name
        self._listener = listener

    def check(self, request: web.Request, role: Role) -> Key | None:
        """Return the key of a request, None when none is needed. Raises Denied."""
        try:
            has_keys = self._keys.look()
        except ConfigError as error:
            log.error("the management API refuses everybody: %s", error)
            raise Denied(503, "the API keys cannot be read") from None
        if not has_keys:
            self._check_local(request)
            return None
        # The client's address, also where a PROXY header told it: all behind one proxy are not one.
        peer = address_key((request.remote or "", 0)) or "unix"
        self._throttle(peer)
        scheme, _, text = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        key = self._keys.find(text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            self._count(peer)
            raise Denied(401, "a good API key is needed", {hdrs.WWW_AUTHENTICATE: 'Bearer realm="mqttcore"'})
        self._pace(key)
        if key.role < role:
            said = f"the key {key.name} has the role {key.role.name.lower()}; this takes {role.name.lower()}"
            raise Denied(403, said)
        return key

    def _check_local(self, request: web.Request) -> None:
        # A browser on this machine brings pages of others along, and proxies bring everybody.
        if not self._is_local or not _is_loopback_end(request):
            raise Denied(403, "without API keys only listeners on loopback addresses answer: mqttcore ctl keys add")
        if hdrs.ORIGIN in request.headers or request.headers.get("Sec-Fetch-Site", "none") not in (
            "none",
            "same-origin",
        ):
            raise Denied(403, "pages of a browser need an API key")
        if any(name in _FORWARDED or name.startswith("x-forwarded-") for name in map(str.lower, request.headers)):
            raise Denied(403, "behind a proxy an API key is needed")
        given = _HOST.fullmatch(request.headers.get(hdrs.HOST, ""))
        if not _is_unix(request) and (given is None or not is_loopback(given["address"] or given["name"])):
            raise Denied(403, "without API keys the host asked for must be localhost or a loopback address")

    def _throttle(self, peer: str) -> None:
        began_s, count = self._failures.get(peer, (0.0, 0))
        left_s = began_s + _MINUTE_S - time.monotonic()
        if count >= self._settings.failures_per_minute and left_s > 0:
            self._listener.keys_throttled += 1
            raise Denied(429, "too many wrong API keys", {hdrs.RETRY_AFTER: str(int(left_s) + 1)})

    def _pace(self, key: Key) -> None:
        rate, now_ms = self._settings.requests_per_s_per_key, time.monotonic_ns() // 1_000_000
        bucket = self._buckets.get(key.name)
        if bucket is None:
            self._buckets = {name: one for name, one in self._buckets.items() if name in self._keys}
            bucket = self._buckets[key.name] = Bucket(rate, now_ms)
        if rate and not bucket.take(rate, now_ms):
            self._listener.requests_throttled += 1
            said = f"the key {key.name} asks more than {rate} times a second"
            raise Denied(429, said, {hdrs.RETRY_AFTER: "1"})

    def _count(self, peer: str) -> None:
        self._listener.keys_refused += 1
        now_s = time.monotonic()
        began_s, count = self._failures.pop(peer, (now_s, 0))
        if now_s - began_s >= _MINUTE_S:
            began_s, count = now_s, 0
        self._failures[peer] = (began_s, count + 1)
        if len(self._failures) > _ADDRESSES_MAXIMUM:  # the one that was wrong longest ago makes room
            self._failures.popitem(last=False)
        self._listener.key_addresses = len(self._failures)
        log.warning("management API: no good key from %s", peer)


def _address(request: web.Request, end: str) -> Any:
    return None if request.transport is None else request.transport.get_extra_info(end)


def _is_unix(request: web.Request) -> bool:
    sock = None if request.transport is None else request.transport.get_extra_info("socket")
    return sock is not None and sock.family not in (socket.AF_INET, socket.AF_INET6)


def _is_loopback_end(request: web.Request) -> bool:
    if _is_unix(request):
        return True
    ends = (_address(request, "sockname"), _address(request, "peername"))
    return all(isinstance(end, tuple) and ipaddress.ip_address(end[0].partition("%")[0]).is_loopback for end in ends)
