"""Supervised tasks: every component is `async def run(self) -> None` and ends only when it is cancelled.

`spawn` exists for the few places where a TaskGroup cannot span the work (a request that outlives its handler): it keeps a
strong reference and logs a crash, so that no task vanishes silently.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from korch.runtime.log import get_logger

log = get_logger("tasks")
_live: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Start `coroutine` as a task that is kept alive until it ends; a crash is logged as an error."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _live.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _live.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task crashed", task=task.get_name(), exc_info=error)
