"""When requests are late: one timer for all that may take equally long, since the first of them to begin is the first to be late.

A timer of the event loop for each request costs more than what is looked at when a request ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Deadline:
    """The end of one request's time. `met` it, or `act` is called."""

    __slots__ = ("act", "at")

    def __init__(self, at: float, act: Callable[[], object]) -> None:
        self.at = at
        self.act: Callable[[], object] | None = act

    def met(self) -> None:
        """The request has ended: nothing happens any more."""
        self.act = None


class Deadlines:
    """The deadlines of one server's requests, by how long they may take."""

    def __init__(self) -> None:
        self._waiting: dict[float, deque[Deadline]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self, budget_s: float, act: Callable[[], object]) -> Deadline:
        """Call `act` on the event loop in `budget_s` seconds, unless the deadline is met before."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._waiting = loop, {}
        made = Deadline(loop.time() + budget_s, act)
        waiting = self._waiting.get(budget_s)
        if waiting is None:
            waiting = self._waiting[budget_s] = deque()
            loop.call_at(made.at, self._look, budget_s)
        while waiting and waiting[0].act is None:
            waiting.popleft()
        waiting.append(made)
        return made

    def _look(self, budget_s: float) -> None:
        loop, waiting = asyncio.get_running_loop(), self._waiting[budget_s]
        while waiting and (waiting[0].act is None or waiting[0].at <= loop.time()):
            if (act := waiting.popleft().act) is not None:
                act()
        if waiting:
            loop.call_at(waiting[0].at, self._look, budget_s)
        else:
            del self._waiting[budget_s]
