"""The requests of one priority level taking turns: queues dealt by shuffle sharding, served fairly by what they have cost.

Each flow is dealt a hand of queues by its hash and waits in the one of them that is least full, so a flood fills its own hand and meets
few others. The next request to be served is that of the queue which has received least: start-time fair queueing, where a
request costs its seats times the seconds that it was served. A cost is guessed first and put right at the end.
Mirrors apiserver's pkg/util/flowcontrol/fairqueuing/queueset and util/shufflesharding.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

# What a request is taken to last before anything is known of it, in seconds.
_GUESS_S = 0.003


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a PriorityLevelConfiguration says. `queues` 0: what finds no seat is refused. `borrowing_percent` None: without limit."""

    name: str
    uid: str = ""
    is_exempt: bool = False
    shares: int = 30
    lendable_percent: int = 0
    borrowing_percent: int | None = None
    queues: int = 0
    hand_size: int = 0
    queue_length: int = 0

    @staticmethod
    def of(obj: dict[str, Any]) -> Limits:
        """Return the limits in a PriorityLevelConfiguration."""
        metadata, spec = obj["metadata"], obj.get("spec") or {}
        is_exempt = spec.get("type") == "Exempt"
        said: dict[str, Any] = spec.get("exempt" if is_exempt else "limited") or {}
        response: dict[str, Any] = said.get("limitResponse") or {}
        queuing: dict[str, Any] = (response.get("queuing") or {}) if response.get("type") == "Queue" else {}
        shares = said.get("nominalConcurrencyShares")
        return Limits(
            name=metadata["name"],
            uid=metadata.get("uid") or "",
            is_exempt=is_exempt,
            shares=(0 if is_exempt else 30) if shares is None else int(shares),
            lendable_percent=int(said.get("lendablePercent") or 0),
            borrowing_percent=said.get("borrowingLimitPercent"),
            queues=int(queuing.get("queues") or (64 if response.get("type") == "Queue" else 0)),
            hand_size=int(queuing.get("handSize") or 8),
            queue_length=int(queuing.get("queueLengthLimit") or 50),
        )


@dataclass(slots=True, eq=False)
class Waiting:
    """A request in a queue. `granted` is set when its turn has come."""

    seats: int
    schema: str
    queue: Queue
    granted: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Queue:
    """`received` is what its requests have cost, on the level's clock of fairness; `executing` are those being served."""

    waiting: deque[Waiting] = field(default_factory=deque[Waiting])
    received: float = 0.0
    executing: int = 0


class Level:
    """One priority level. It says who is next; who shares out the seats (`flow_control`) says when."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.seats_in_use = 0
        self.executing = 0
        self.waiting_count = 0
        # Seats: what it has by its shares, what it never lends, what it may have at most. Set when shares change.
        self.nominal = 0
        self.guaranteed = 0
        self.most = 0
        self._queues = [Queue() for _ in range(limits.queues)]
        self._clock = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is served or waits here."""
        return not self.executing and not self.waiting_count

    def enqueue(self, flow: str, schema: str, seats: int) -> Waiting | None:
        """Put a request into a queue of its flow's hand; None when it is full, or when there are no queues."""
        if not self._queues:
            return None
        hand = deal(f"{schema}\x00{flow}", len(self._queues), self.limits.hand_size)
        queue = min((self._queues[one] for one in hand), key=lambda one: (sum(each.seats for each in one.waiting), one.executing))
        if len(queue.waiting) >= self.limits.queue_length:
            return None
        if not queue.waiting and not queue.executing:
            # A queue that was idle has saved nothing up.
            queue.received = max(queue.received, self._clock)
        waiting = Waiting(seats, schema, queue, asyncio.get_running_loop().create_future())
        queue.waiting.append(waiting)
        self.waiting_count += 1
        return waiting

    def next(self) -> Waiting | None:
        """Return whose turn it is, without taking it out; None when nobody waits."""
        while self.waiting_count:
            queue = min((one for one in self._queues if one.waiting), key=lambda one: one.received)
            turn = queue.waiting[0]
            if not turn.granted.cancelled():
                return turn
            # It was cancelled a moment ago, and has not run since.
            self.give_up(turn)
        return None

    def take(self, waiting: Waiting) -> None:
        """Take out a request that is served now."""
        queue = waiting.queue
        queue.waiting.popleft()
        self.waiting_count -= 1
        queue.executing += 1
        self._clock = max(self._clock, queue.received)
        queue.received += waiting.seats * _GUESS_S

    def give_up(self, waiting: Waiting) -> None:
        """Take out a request that waits no longer, if that was not done yet."""
        if waiting in waiting.queue.waiting:
            waiting.queue.waiting.remove(waiting)
            self.waiting_count -= 1

    def charge(self, waiting: Waiting, seconds: float) -> None:
        """A request of a queue has been served for so long."""
        waiting.queue.executing -= 1
        waiting.queue.received += waiting.seats * (seconds - _GUESS_S)


def deal(flow: str, queues: int, hand_size: int) -> list[int]:
    """Return a hand of distinct queue numbers for a flow, always the same one."""
    value = int.from_bytes(hashlib.blake2b(flow.encode(), digest_size=8).digest(), "big")
    left = list(range(queues))
    hand: list[int] = []
    for _ in range(min(hand_size, queues)):
        value, card = divmod(value, len(left))
        hand.append(left.pop(card))
    return hand
