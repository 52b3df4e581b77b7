"""Counts messages per topic with a subscription of its own, and offers the numbers to other plugins.

broker.service("count_topics.counts")["room/1"]
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mqttcore import Broker, hookimpl


class CountTopics:
    """Counts the messages of each topic that matches."""

    @dataclass(frozen=True)
    class Config:
        """What is counted, and how much of it is remembered."""

        topic_filter: Annotated[str, Meta(min_length=1, description="Topic Filter of what is counted.")] = "#"
        topics_maximum: Annotated[int, Meta(ge=1, description="Topics that are told apart; more count as `other`.")] = (
            10_000
        )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._task: asyncio.Task[None] | None = None
        self.counts: Counter[str] = Counter()

    @hookimpl
    async def startup(self, broker: Broker) -> None:
        """Subscribe before the first client comes."""
        broker.provide("count_topics.counts", self.counts)
        subscribed = asyncio.Event()
        self._task = asyncio.create_task(self._count(broker, subscribed))
        await subscribed.wait()

    @hookimpl
    async def shutdown(self) -> None:
        """Wait for the end of the subscription, which comes with the broker's."""
        if self._task is not None:
            await self._task

    async def _count(self, broker: Broker, subscribed: asyncio.Event) -> None:
        async with broker.subscribe(self._config.topic_filter) as messages:
            subscribed.set()
            while batch := await messages.batch():
                for message in batch:
                    is_known = message.topic in self.counts or len(self.counts) < self._config.topics_maximum
                    self.counts[message.topic if is_known else "other"] += 1
