"""What was promised to clients and what they got: the judge, which knows nothing of sockets and brokers.

Messages are numbered from 1 by each publisher. It sends again what was not acknowledged, so every number arrives in the
end, first time in order. Hence: a number that arrives before its predecessor did is out of order, or that one is lost.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Sender:
    """A publisher's numbers. sent: the last one written; acknowledged: up to this one all are."""

    qos: int
    sent: int = 0
    acknowledged: int = 0
    _later: set[int] = field(default_factory=set)

    def acknowledge(self, number: int) -> None:
        self._later.add(number)
        while self.acknowledged + 1 in self._later:
            self.acknowledged += 1
            self._later.discard(self.acknowledged)


@dataclass
class Ledger:
    """Everything that was sent and received. faults: what must not be, in words."""

    senders: dict[str, Sender] = field(default_factory=dict)
    arrived: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    faults: list[str] = field(default_factory=list)
    received: int = 0
    repeated: int = 0

    def receive(self, receiver: str, qos: int, sender: str, number: int) -> None:
        """Count a message that *receiver* takes for a new one. qos: of the delivery."""
        self.received += 1
        last = self.arrived[receiver, sender]
        known = self.senders.get(sender)
        if known is None or number > known.sent:
            self.fault(f"{receiver} got {sender} {number}, which nobody sent")
        elif number <= last:
            self.repeated += 1
            if qos == 2:
                self.fault(f"{receiver} got {sender} {number} of QoS 2 twice")
        else:
            if number != last + 1:
                missing = f"{last + 1} to {number - 1}" if number > last + 2 else f"{last + 1}"
                self.fault(f"{receiver} got {sender} {number} without {missing}: lost, or out of order")
            self.arrived[receiver, sender] = number

    def lost(self, receiver: str) -> int:
        """Return how many acknowledged messages *receiver* has not got."""
        return sum(max(0, sender.acknowledged - self.arrived[receiver, name]) for name, sender in self.senders.items())

    def fault(self, text: str) -> None:
        self.faults.append(text)
