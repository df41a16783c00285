"""The work queue: no key twice at once, no change lost, delays and backoff on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from korch.client.workqueue import ShutDown, WorkQueue
from korch.testing.loop import SimLoop

T = TypeVar("T")


def simulate(main: Coroutine[Any, Any, T]) -> T:
    return SimLoop().run(main)


def test_keys_come_in_order_of_arrival_and_once() -> None:
    async def main() -> list[str]:
        queue = WorkQueue()
        for key in ("a", "b", "a", "c", "b"):
            queue.add(key)
        return [await queue.get() for _ in range(3)] + [str(len(queue))]

    assert simulate(main()) == ["a", "b", "c", "0"]


def test_a_key_added_while_it_is_processed_comes_again_after_done_and_not_before() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0
        assert not queue.is_idle
        queue.done("a")
        assert await queue.get() == "a"
        queue.done("a")
        assert queue.is_idle

    simulate(main())


def test_the_earliest_of_several_delays_counts() -> None:
    async def main() -> tuple[float, int]:
        queue = WorkQueue()
        queue.add_after("a", 10)
        queue.add_after("a", 3)
        queue.add_after("a", 20)
        await queue.get()
        queue.done("a")
        return asyncio.get_running_loop().time(), queue.delayed

    assert simulate(main()) == (3.0, 0)


BACKOFFS = [(0, 0.005), (1, 0.01), (7, 0.64), (17, 655.36), (18, 1000.0), (200, 1000.0)]


@pytest.mark.parametrize(("failures", "delay_s"), BACKOFFS)
def test_backoff_doubles_from_5_ms_to_1000_s(failures: int, delay_s: float) -> None:
    async def main() -> float:
        queue = WorkQueue()
        for _ in range(failures):
            queue.requeue_with_backoff("a")
        assert queue.failures("a") == failures
        return queue.requeue_with_backoff("a")

    assert simulate(main()) == pytest.approx(delay_s)


def test_forget_resets_the_backoff_of_one_key_only() -> None:
    async def main() -> tuple[float, float]:
        queue = WorkQueue()
        for _ in range(5):
            queue.requeue_with_backoff("a")
            queue.requeue_with_backoff("b")
        queue.forget("a")
        return queue.requeue_with_backoff("a"), queue.requeue_with_backoff("b")

    assert simulate(main()) == (0.005, pytest.approx(0.16))


def test_no_two_workers_hold_the_same_key_and_every_key_is_worked_on() -> None:
    async def main() -> tuple[bool, set[str]]:
        queue = WorkQueue()
        held: set[str] = set()
        seen: set[str] = set()
        overlapped = False

        async def work() -> None:
            nonlocal overlapped
            while True:
                try:
                    key = await queue.get()
                except ShutDown:
                    return
                overlapped |= key in held
                held.add(key)
                seen.add(key)
                await asyncio.sleep(0.3)
                held.discard(key)
                queue.done(key)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(work())
            for number in range(400):
                queue.add(f"k{number % 37}")
                await asyncio.sleep(0.01)
            queue.shut_down()
        return overlapped, seen

    overlapped, seen = simulate(main())
    assert not overlapped
    assert seen == {f"k{number}" for number in range(37)}


def test_a_cancelled_waiter_passes_its_wake_up_on() -> None:
    async def main() -> str:
        queue = WorkQueue()
        loop = asyncio.get_running_loop()
        first, second = loop.create_task(queue.get()), loop.create_task(queue.get())
        await asyncio.sleep(1)
        queue.add("a")
        first.cancel()
        async with asyncio.timeout(1):
            return await second

    assert simulate(main()) == "a"


def test_shut_down_hands_out_what_waits_drops_what_is_delayed_and_then_ends() -> None:
    async def main() -> None:
        queue = WorkQueue()
        queue.add("a")
        queue.add_after("b", 1)
        queue.shut_down()
        queue.add("c")
        assert await queue.get() == "a"
        queue.done("a")
        await asyncio.sleep(5)
        with pytest.raises(ShutDown):
            await queue.get()

    simulate(main())


def test_a_full_queue_says_so() -> None:
    async def main() -> None:
        queue = WorkQueue(keys_max=2)
        queue.add("a")
        queue.add("b")
        queue.add("a")
        with pytest.raises(OverflowError):
            queue.add("c")

    simulate(main())
