"""QoS 2 with connections cut at random: nothing acknowledged is lost or comes twice, each publisher's order is kept."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker_process import BrokerProcess, running_broker
from load.gauges import Gauges
from load.lasting_clients import Cuts, Publisher, Subscriber, forget_session

CONFIG = """\
sys_for_anonymous = true
sys_interval_s = 1
[limits]
queued_messages_maximum = 10_000_000
queued_bytes_maximum = 1_000_000_000
"""
DELIVERY_DEADLINE_S = 60
GAUGES_DEADLINE_S = 60


@dataclass(frozen=True)
class Form:
    """cuts: per round. rss_slack_bytes: how much the last round may hold beyond the third (allocators breathe)."""

    publishers: int
    subscribers: int
    cuts: int
    rounds: int
    rss_slack_bytes: int


SMALL = Form(publishers=50, subscribers=4, cuts=500, rounds=2, rss_slack_bytes=8 << 20)
LARGE = Form(publishers=1000, subscribers=8, cuts=1000, rounds=10, rss_slack_bytes=16 << 20)
QUOTA = 20


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    with running_broker(tmp_path, CONFIG) as found:
        yield found


async def _round(form: Form, address: tuple[str, int], seed: int) -> int:
    """Run all clients until the cuts are spent and all is delivered; return how many messages."""
    cuts = Cuts(form.cuts, seed)
    members = form.publishers // form.subscribers
    subscribers = [
        Subscriber(f"sub{index}", cuts, 40 * members, f"load/{index}/+") for index in range(form.subscribers)
    ]
    publishers = [
        Publisher(f"pub{index}", cuts, 40, f"load/{index % form.subscribers}/{index}", QUOTA)
        for index in range(form.publishers)
    ]
    async with asyncio.TaskGroup() as tasks:
        for subscriber in subscribers:
            tasks.create_task(subscriber.run(address))
        for subscriber in subscribers:
            await subscriber.subscribed.wait()
        publishing = [tasks.create_task(publisher.run(address)) for publisher in publishers]
        await asyncio.gather(*publishing)
        for index, subscriber in enumerate(subscribers):
            expected = sum(publisher.sent for publisher in publishers[index :: form.subscribers])

            def check(subscriber: Subscriber = subscriber, expected: int = expected) -> None:
                if subscriber.count >= expected and not subscriber.unreleased:
                    subscriber.finish()

            subscriber.on_message = check
            check()
        async with asyncio.timeout(DELIVERY_DEADLINE_S):
            await asyncio.wait([subscriber.finished for subscriber in subscribers])
    assert cuts.left == 0
    for index, publisher in enumerate(publishers):
        received = subscribers[index % form.subscribers].received.pop(publisher.topic)
        assert received == list(range(publisher.sent)), f"{publisher.topic}: lost, twice or out of order"
    assert not any(subscriber.received for subscriber in subscribers)
    for client in (*publishers, *subscribers):
        await forget_session(client.client_id, address)
    return sum(publisher.sent for publisher in publishers)


async def _cut_rounds(form: Form, broker: BrokerProcess) -> None:
    address = (broker.host, broker.port)
    rss: list[int] = []
    async with Gauges(address) as gauges:
        before = await gauges.wait_rounds(3, GAUGES_DEADLINE_S)
        assert before["$SYS/broker/clients/connected"] == 1
        for number in range(form.rounds):
            await _round(form, address, seed=number)
            await gauges.wait_for(lambda values: values == before, GAUGES_DEADLINE_S)
            rss.append(broker.rss_bytes())
            gc.collect()  # our own protocols and transports
    assert rss[-1] - rss[min(2, form.rounds - 1)] < form.rss_slack_bytes, f"RSS per round: {rss}"


async def test_cut_connections_lose_and_repeat_nothing(broker: BrokerProcess) -> None:
    await _cut_rounds(SMALL, broker)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_ten_rounds_of_a_thousand_clients_leave_nothing_behind(broker: BrokerProcess) -> None:
    await _cut_rounds(LARGE, broker)
