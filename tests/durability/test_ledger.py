"""The judge of the checker, told what clients saw."""

from __future__ import annotations

import pytest

from durability.ledger import Ledger, Sender


def ledger(qos: int, sent: int, acknowledged: int) -> Ledger:
    judged = Ledger()
    sender = judged.senders["p"] = Sender(qos, sent)
    for number in range(acknowledged, 0, -1):  # acknowledgements come in any order
        sender.acknowledge(number)
    assert sender.acknowledged == acknowledged
    return judged


@pytest.mark.parametrize(
    ("qos", "numbers", "fault", "lost"),
    [
        (1, [1, 2, 3, 4], None, 0),
        (2, [1, 2, 3], None, 0),
        (1, [1, 2, 1, 2, 3], None, 0),
        (2, [1, 2, 1], "of QoS 2 twice", 1),
        (2, [1, 3], "without 2: lost, or out of order", 0),
        (1, [1, 4], "without 2 to 3", 0),
        (1, [2, 1], "without 1", 1),
        (1, [1, 2, 3, 4, 5], "which nobody sent", 0),
        (1, [1, 2], None, 1),
        (1, [], None, 3),
    ],
)
def test_ledger_judges(qos: int, numbers: list[int], fault: str | None, lost: int):
    judged = ledger(qos, sent=4, acknowledged=3)
    for number in numbers:
        judged.receive("s", qos, "p", number)
    if fault is None:
        assert judged.faults == []
    else:
        assert any(fault in one for one in judged.faults), judged.faults
    assert judged.lost("s") == lost


def test_gap_of_acknowledgements_counts_for_nothing():
    sender = Sender(1, 5)
    sender.acknowledge(3)
    assert sender.acknowledged == 0
    sender.acknowledge(1)
    assert sender.acknowledged == 1
    sender.acknowledge(2)
    assert sender.acknowledged == 3
