"""Keeps large objects from being reconciled at every event of their pods.

Looking at n pods costs time in proportion to n, and n pods bring events in proportion to n: together the square. So an object may be
worked on again only after a pause of a millisecond a pod; events meanwhile are answered by one turn. Small objects never wait.
"""

from __future__ import annotations

import asyncio

PAUSE_S_PER_POD = 0.001
# Objects of up to this many pods are worked on at every event.
SMALL = 20


class Pacer:
    """Remembers when each key was last worked on, and how large it was. Use from one event loop."""

    def __init__(self) -> None:
        self._turns: dict[str, tuple[float, int]] = {}

    def wait_s(self, key: str) -> float:
        """Return the seconds until `key` may be worked on again; 0 when it may now."""
        last = self._turns.get(key)
        if last is None:
            return 0.0
        when, size = last
        return max(0.0, when + size * PAUSE_S_PER_POD - asyncio.get_running_loop().time())

    def worked(self, key: str, size: int) -> None:
        """Note a turn that looked at `size` pods; a small one, or one that found nothing, is forgotten."""
        if size > SMALL:
            self._turns[key] = (asyncio.get_running_loop().time(), size)
        else:
            self._turns.pop(key, None)
