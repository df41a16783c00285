"""A watch as an asyncio consumer sees it: wait until there is something, take it, repeat.

The native store queues events and names the watchers that have news when it publishes; `Storage` then wakes them here. Nothing is
buffered in Python, so a slow consumer costs pointers until it is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from korch._core._native import Event, Store


class Watch:
    """Changes under one prefix, seen through one selector. For one consumer; close it, or use it as an async context manager."""

    def __init__(self, store: Store, watcher_id: int, from_revision: int, *, forget: Callable[[int], None]) -> None:
        self._native = store
        self._id = watcher_id
        self._seen = from_revision
        self._forget = forget
        # Set while events may be queued: at first, because the watch may start in the past.
        self._news = asyncio.Event()
        self._news.set()
        self._is_closed = False

    async def next_events(self, max_events: int = 1000) -> list[Event]:
        """Wait for events and return them, oldest first, never part of a revision; an empty list once the watch is closed.
        Raises native.WatcherLagged when this watch was too slow and was cut (answer 410)."""
        while not self._is_closed:
            events, self._seen = self._native.poll(self._id, max_events)
            if events:
                return events
            self._news.clear()
            await self._news.wait()
        return []

    async def next_frames(self, max_bytes: int = 1 << 20) -> bytes:
        """Wait for events and return them as lines `{"type":"ADDED","object":...}\\n`; empty once the watch is closed.
        Raises native.WatcherLagged when this watch was too slow and was cut (answer 410)."""
        while not self._is_closed:
            frames, self._seen = self._native.poll_frames(self._id, max_bytes)
            if frames:
                return frames
            self._news.clear()
            await self._news.wait()
        return b""

    @property
    def has_news(self) -> bool:
        """Whether events may be queued. False says that nothing was published that has not been taken."""
        return self._news.is_set() and not self._is_closed

    def take(self, max_events: int = 1000) -> list[Event]:
        """Return queued events without waiting, oldest first; an empty list when all have been taken.
        Raises native.WatcherLagged when this watch was too slow and was cut."""
        if not self.has_news:
            return []
        events, self._seen = self._native.poll(self._id, max_events)
        if not events:
            self._news.clear()
        return events

    @property
    def revision(self) -> int:
        """The revision up to which everything has been taken from this watch: what a bookmark may say."""
        if not self._is_closed and not self._news.is_set():
            self._seen = self._native.revision()
        return self._seen

    def wake(self) -> None:
        """Tell the consumer that events are queued, or that the watch was cut."""
        self._news.set()

    def close(self) -> None:
        """End the watch; a waiting consumer gets an empty answer."""
        if not self._is_closed:
            self._is_closed = True
            self._forget(self._id)
            self._native.unwatch(self._id)
            self._news.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
