"""Plugin `aliyun_offline`: what waited for a client comes in batches, or when it asks (ALIYUN: offline messages)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mqttcore import CONSUMED, Consumed, ReasonCode, TopicHandler, hookimpl

from .profile import Profile, profile_of
from .settings import OfflineConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mqttcore import Broker, ClientView, Message

__all__ = ["Offline", "PullRefused", "wanted"]

log = logging.getLogger("mqttcore.plugins.aliyun")

_LOAD = "aliyun_offline.load"  # among the attributes of a ClientView: it goes with the connection


class PullRefused(ValueError):
    """What a client published to the control topic is no wish for messages."""


@dataclass(slots=True)
class _Load:
    """What is left to send to one connection, and how. Times are the loop's, in seconds.

    chooses_until_s: a pull until then switches to manual. pulled_s: of the last pulls, as many as a second may have.
    """

    client: ClientView
    chooses_until_s: float
    pulled_s: deque[float]
    awaits_token: bool
    is_manual: bool = False
    has_begun: bool = False
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)


class Offline:
    """Paces what was queued for a client that comes back.

    Up to `batch` messages come at once; of more, `batch` every `interval_s`. A client that publishes
    `{"maxPushNum":1-30,"pushOrder":"ASC"|"DESC"}` to the control topic within its first keep alive period gets what it
    asks for instead, and nothing by itself. A client that has still to upload its token gets nothing before.
    """

    name = "aliyun_offline"
    Config = OfflineConfig

    def __init__(self, config: OfflineConfig) -> None:
        self._config = config
        self._broker: Broker | None = None
        self._profile: Profile | None = None

    @hookimpl
    def topic_handlers(self, broker: Broker) -> Iterable[TopicHandler]:
        """Hang on the control topic, which every client may use."""
        return [TopicHandler(self._config.topic, self._pull, is_authorized_by_itself=True)]

    @hookimpl
    def startup(self, broker: Broker) -> None:
        """Begin to decide about backlogs."""
        if "aliyun_auth" in broker.plugins:
            self._profile = profile_of(broker)
            self._profile.when_let_in.append(self._let_in)
        self._broker = broker
        self._section = broker.plugin_section(self.name)
        for key in ("batches", "messages", "pulls", "pulls_late", "pulls_over_rate", "batches_unacknowledged"):
            self._section.add(key, 0)
        broker.keep_backlogs(self._returned)

    @hookimpl
    def shutdown(self, broker: Broker) -> None:
        """Send nothing any more: timers that are left find no broker."""
        self._broker = None

    # --- by itself --------------------------------------------------------------------------------------------------

    def _returned(self, client: ClientView, queued: int, keep_alive_s: int) -> int:
        loop = asyncio.get_running_loop()
        load = _Load(
            client,
            chooses_until_s=loop.time() + (keep_alive_s or self._config.first_period_s),
            pulled_s=deque(maxlen=self._config.pulls_per_s),
            awaits_token=self._profile is not None and self._profile.awaits_token(client.connection_id),
        )
        client.attributes[_LOAD] = load
        if not load.awaits_token:
            load.timer = loop.call_later(self._config.start_delay_s, self._load, load)
        return 0

    def _let_in(self, client: ClientView) -> None:
        load: _Load | None = client.attributes.get(_LOAD)
        if load is not None and load.awaits_token:
            load.awaits_token = False
            if not load.is_manual:
                load.timer = asyncio.get_running_loop().call_later(self._config.start_delay_s, self._load, load)

    def _load(self, load: _Load) -> None:
        load.timer = None
        broker = self._broker
        if broker is None or load.client.is_gone:
            return
        client_id = load.client.client_id
        client = broker.client(client_id, with_subscriptions=False) if load.has_begun else None
        if client is not None and client.in_flight:
            self._section.add("batches_unacknowledged")
        load.has_begun = True
        self._release(load, self._config.batch)
        if broker.backlog(client_id):
            load.timer = asyncio.get_running_loop().call_later(self._config.interval_s, self._load, load)

    def _release(self, load: _Load, count: int, *, newest_first: bool = False) -> None:
        if self._broker is None or load.client.is_gone:
            return
        released = self._broker.release_backlog(
            load.client.client_id, count, newest_first=newest_first, age_maximum_s=self._config.retention_s
        )
        if released:
            self._section.add("batches")
            self._section.add("messages", released)

    # --- when asked -------------------------------------------------------------------------------------------------

    def _pull(self, client: ClientView, message: Message) -> Consumed:
        is_v5 = client.protocol_version == 5  # below, a refusal would close the connection: it is acknowledged
        try:
            count, newest_first = wanted(message.payload, self._config.pull_maximum)
        except PullRefused as refused:
            log.info("client %s: %s", client.client_id, refused)
            return Consumed(ReasonCode.PAYLOAD_FORMAT_INVALID) if is_v5 else CONSUMED
        load: _Load | None = client.attributes.get(_LOAD)
        if load is None:
            return CONSUMED  # nothing waited
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if len(load.pulled_s) == self._config.pulls_per_s and now_s - load.pulled_s[0] < 1:
            self._section.add("pulls_over_rate")
            return Consumed(ReasonCode.QUOTA_EXCEEDED) if is_v5 else CONSUMED
        load.pulled_s.append(now_s)
        if not load.is_manual:
            if now_s > load.chooses_until_s:
                self._section.add("pulls_late")
                return CONSUMED  # it comes by itself
            load.is_manual = True
            if load.timer is not None:
                load.timer.cancel()
                load.timer = None
        self._section.add("pulls")
        if not load.awaits_token:
            # Behind the acknowledgement of the pull.
            loop.call_soon(lambda: self._release(load, count, newest_first=newest_first))
        return CONSUMED


def wanted(payload: bytes, maximum: int) -> tuple[int, bool]:
    """Return how many messages a pull wants, *maximum* at most, and whether the newest first.

    Without `maxPushNum` it is *maximum*, without `pushOrder` the oldest come first. PullRefused for all else.
    """
    try:
        said: Any = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise PullRefused("the pull of offline messages is no JSON") from error
    if not isinstance(said, dict):
        raise PullRefused("the pull of offline messages is no JSON object")
    count, order = said.get("maxPushNum", maximum), said.get("pushOrder", "ASC")
    if type(count) is not int or count < 1:
        raise PullRefused("maxPushNum of the pull is no number above 0")
    if order not in ("ASC", "DESC"):
        raise PullRefused("pushOrder of the pull is neither ASC nor DESC")
    return min(count, maximum), order == "DESC"
