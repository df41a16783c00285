"""Time as a value that is handed in: real in production, virtual in the simulator.

Sleeping is not here: components use asyncio's own timers, which the simulator's event loop makes virtual.
"""

from __future__ import annotations

import asyncio
import functools
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time of one process."""

    def now(self) -> float:
        """Return seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean something."""
        ...


class RealClock:
    """The machine's clocks."""

    def now(self) -> float:
        return time.time()  # noqa: TID251 - the one place that reads the wall clock

    def monotonic(self) -> float:
        return time.monotonic()


class LoopClock:
    """Virtual time that follows the running event loop; `epoch` is the wall time at loop time zero, in seconds."""

    def __init__(self, epoch: float = 1_800_000_000.0) -> None:
        self.epoch = epoch

    def now(self) -> float:
        return self.epoch + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_event_loop().time()


def rfc3339(seconds: float) -> str:
    """Return `seconds` since the epoch as Kubernetes' `metav1.Time`: UTC, whole seconds, `Z`."""
    return _rfc3339_of(int(seconds))


@functools.lru_cache(maxsize=16)
def _rfc3339_of(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """Return `seconds` since the epoch as Kubernetes' `metav1.MicroTime`: UTC, six decimals, `Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> float:
    """Return seconds since the epoch. Raises ValueError when `text` is not RFC 3339."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
