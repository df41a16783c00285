"""Creating many objects without hammering a server that refuses them: batches of 1, 2, 4, ... until one fails.

A quota that is used up then costs one refused request a sync, not one for every missing pod. Mirrors upstream
pkg/controller/replicaset/replica_set.go, slowStartBatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many calls succeeded, and the errors of the batch that failed."""

    succeeded: int
    errors: list[Exception] = field(default_factory=list)


async def slow_start(count: int, call: Callable[[int], Awaitable[object]], *, initial: int = 1) -> Outcome:
    """Await `call(index)` for index 0 .. `count`-1, a batch at a time and each batch at once; stop after a batch with an error.

    Errors of a call are returned, not raised; cancellation goes through.
    """
    done = succeeded = 0
    size = min(initial, count)
    while size > 0:
        results = await asyncio.gather(*(call(done + offset) for offset in range(size)), return_exceptions=True)
        errors: list[Exception] = []
        for result in results:
            if isinstance(result, Exception):
                errors.append(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                succeeded += 1
        if errors:
            return Outcome(succeeded, errors)
        done += size
        size = min(2 * size, count - done)
    return Outcome(succeeded)
