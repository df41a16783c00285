"""A queue of keys for level-triggered work: what changed while a key was waiting or being worked on collapses into one more turn.

A key is in one of three places: waiting (in order of arrival, once), processing (handed to a worker until `done`), or delayed
(a timer of the event loop will add it). A key that is added while it is being processed becomes waiting at `done`, so that no two
workers ever hold the same key and no change is lost. Mirrors client-go's workqueue with its exponential failure rate limiter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

BACKOFF_S_FIRST = 0.005
BACKOFF_S_MAX = 1000.0
KEYS_MAX = 1_000_000


class ShutDown(Exception):
    """The queue takes and gives no more keys."""


@dataclass(slots=True)
class QueueStats:
    """Counters since the queue was made. Upstream's names: workqueue_adds_total, workqueue_retries_total and so on."""

    adds: int = 0
    retries: int = 0
    handled: int = 0
    queue_seconds: float = 0.0
    work_seconds: float = 0.0


class WorkQueue:
    """Deduplicated keys in order of arrival, with delays and per-key backoff. Use from one event loop only."""

    def __init__(
        self, name: str = "", *, backoff_s_first: float = BACKOFF_S_FIRST, backoff_s_max: float = BACKOFF_S_MAX, keys_max: int = KEYS_MAX
    ) -> None:
        self.name = name
        self.stats = QueueStats()
        self._backoff_s_first = backoff_s_first
        self._backoff_s_max = backoff_s_max
        self._keys_max = keys_max
        self._waiting: deque[str] = deque()
        # Keys that need a turn, with the loop time they were added at; a superset of `_waiting` (those being processed are only here).
        self._dirty: dict[str, float] = {}
        self._processing: dict[str, float] = {}
        self._delayed: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._getters: deque[asyncio.Future[None]] = deque()
        self._is_shut_down = False

    def __len__(self) -> int:
        """Return how many keys wait for a worker (delayed ones and those being processed not counted)."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Return whether nothing waits and nothing is being processed; delayed keys do not count."""
        return not self._waiting and not self._processing

    @property
    def delayed(self) -> int:
        """Return how many keys wait for a timer."""
        return len(self._delayed)

    def add(self, key: str) -> None:
        """Give `key` a turn; no effect while it already waits. Raises OverflowError when the queue is full (a bug of the caller)."""
        if self._is_shut_down or key in self._dirty:
            return
        if len(self._dirty) >= self._keys_max:
            raise OverflowError(f"work queue {self.name} holds {len(self._dirty)} keys")
        self.stats.adds += 1
        self._dirty[key] = asyncio.get_running_loop().time()
        if key not in self._processing:
            self._waiting.append(key)
            self._wake_one()

    def add_after(self, key: str, delay_s: float) -> None:
        """Add `key` in `delay_s` seconds; of several delays for one key the earliest counts."""
        if self._is_shut_down:
            return
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + delay_s
        timer = self._delayed.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._delayed[key] = loop.call_at(when, self._timer_fired, key)

    def requeue_with_backoff(self, key: str) -> float:
        """Add `key` again after its next backoff delay, which is returned in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # The exponent is bounded first: 2 ** failures of a key that failed for days does not fit a float.
        delay_s = min(self._backoff_s_first * 2 ** min(failures, 60), self._backoff_s_max)
        self.stats.retries += 1
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: str) -> None:
        """Reset the backoff of `key`, after it was worked on with success."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """Return how often `key` was requeued with backoff since it was last forgotten."""
        return self._failures.get(key, 0)

    async def get(self) -> str:
        """Await the next key; call `done` with it afterwards. Raises ShutDown when the queue is shut down and drained."""
        while not self._waiting:
            if self._is_shut_down:
                raise ShutDown
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                # The wake-up may have been ours already: pass it on, or a key waits with an idle worker beside it.
                if getter in self._getters:
                    self._getters.remove(getter)
                elif self._waiting:
                    self._wake_one()
                raise
        key = self._waiting.popleft()
        now = asyncio.get_running_loop().time()
        self.stats.queue_seconds += now - self._dirty.pop(key)
        self._processing[key] = now
        return key

    def done(self, key: str) -> None:
        """End the turn of `key`; if it was added meanwhile, it waits for its next turn now."""
        now = asyncio.get_running_loop().time()
        started = self._processing.pop(key, None)
        if started is not None:
            self.stats.work_seconds += now - started
            self.stats.handled += 1
        if key in self._dirty and not self._is_shut_down:
            self._waiting.append(key)
            self._wake_one()

    def shut_down(self) -> None:
        """Take no more keys, drop delayed ones, and let `get` raise ShutDown once what waits is handed out."""
        self._is_shut_down = True
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        while self._getters:
            self._wake_one()

    def _timer_fired(self, key: str) -> None:
        self._delayed.pop(key, None)
        self.add(key)

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return
