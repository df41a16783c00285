"""The only door to threads: blocking calls (fsync, process spawn, big encodes) leave the event loop through here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Runs a blocking function without blocking the event loop."""

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Await `function(*args)`; its exception is raised here."""
        ...


class ThreadOffload:
    """A small thread pool. `threads` is the most that run at once."""

    def __init__(self, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="offload")

    async def run(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)


class InlineOffload:
    """Runs at once on the event loop, then yields: for simulations and tests, where threads would break determinism."""

    async def run(self, function: Callable[..., T], *args: object) -> T:
        result = function(*args)
        await asyncio.sleep(0)
        return result
