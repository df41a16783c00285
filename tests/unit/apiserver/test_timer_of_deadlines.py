"""One timer for all requests: each is late exactly when its own time is over, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from korch.apiserver.deadlines import Deadline, Deadlines
from korch.testing.loop import SimLoop

# (begins, budget, ends) in seconds: when a request begins, how long it may take, and how long after its beginning it ends.
REQUESTS = st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1, 5, 60]), st.integers(0, 80)), max_size=12)


@given(REQUESTS)
def test_whoever_has_not_ended_by_then_is_late_and_nobody_else(requests: list[tuple[int, int, int]]) -> None:
    late: list[tuple[int, float]] = []

    async def main() -> None:
        loop, deadlines = asyncio.get_running_loop(), Deadlines()
        start = loop.time()

        def begin(number: int, budget: int, ends: int) -> None:
            def act() -> None:
                late.append((number, loop.time() - start))

            loop.call_at(loop.time() + ends + 0.5, end(deadlines.set(budget, act)))

        def end(deadline: Deadline) -> Callable[[], None]:
            return deadline.met

        for number, (begins, budget, ends) in enumerate(requests):
            loop.call_at(start + begins, begin, number, budget, ends)
        await asyncio.sleep(200)

    SimLoop().run(main())
    # A request ends half a second behind a whole one, so nobody ends at the very moment when he is late.
    expected = [(number, begins + budget) for number, (begins, budget, ends) in enumerate(requests) if ends >= budget]
    assert sorted((number, round(at, 6)) for number, at in late) == sorted((number, float(at)) for number, at in expected)
