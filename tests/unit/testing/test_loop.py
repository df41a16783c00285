"""The simulator's event loop: virtual time, a fixed order, and no way out into the real world."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from korch.testing.loop import Deadlock, NotSimulated, SimLoop


def test_a_day_of_sleep_takes_no_real_timers() -> None:
    async def main() -> float:
        for _ in range(24):
            await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert SimLoop().run(main()) == 24 * 3600


def test_timers_of_one_instant_fire_in_the_order_they_were_made() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        order: list[int] = []
        for number in range(50):
            loop.call_at(5.0, order.append, number)
        await asyncio.sleep(5.0)
        return order

    assert SimLoop().run(main()) == list(range(50))


def test_cancelled_timers_do_not_fire_and_do_not_hold_time_back() -> None:
    async def main() -> tuple[float, list[str]]:
        loop = asyncio.get_running_loop()
        fired: list[str] = []
        doomed = [loop.call_later(1.0, fired.append, "doomed") for _ in range(500)]
        loop.call_later(2.0, fired.append, "kept")
        for timer in doomed:
            timer.cancel()
        await asyncio.sleep(3.0)
        return loop.time(), fired

    assert SimLoop().run(main()) == (3.0, ["kept"])


def test_timeouts_are_virtual() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert SimLoop().run(main()) == 600


def test_waiting_for_nothing_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="nothing will ever happen"):
        SimLoop().run(main())


def test_tasks_left_behind_are_cancelled_and_run_their_cleanup() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append("cleaned up")

    async def main() -> None:
        asyncio.get_running_loop().create_task(forever())
        await asyncio.sleep(1)

    SimLoop().run(main())
    assert ended == ["cleaned up"]


def _blocked(call: Callable[[asyncio.AbstractEventLoop], Any]) -> None:
    async def main() -> None:
        result = call(asyncio.get_running_loop())
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(NotSimulated):
        SimLoop().run(main())


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: asyncio.to_thread(print),
        lambda loop: asyncio.open_connection("127.0.0.1", 1),
        lambda loop: asyncio.start_server(print, "127.0.0.1", 0),
        lambda loop: loop.getaddrinfo("localhost", 80),
        lambda loop: loop.add_signal_handler(2, print),
        lambda loop: asyncio.create_subprocess_exec("true"),
        lambda loop: loop.sock_recv(socket.socket(), 1),
    ],
    ids=["executor", "to_thread", "connect", "serve", "dns", "signal", "subprocess", "socket"],
)
def test_the_real_world_is_refused_loudly(call: Callable[[asyncio.AbstractEventLoop], Any]) -> None:
    _blocked(call)


def test_another_thread_may_not_call_in() -> None:
    async def main() -> BaseException | None:
        loop = asyncio.get_running_loop()
        caught: list[BaseException] = []

        def intrude() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotSimulated as error:
                caught.append(error)

        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
        return caught[0] if caught else None

    assert isinstance(SimLoop().run(main()), NotSimulated)


def test_sets_of_tasks_iterate_the_same_way_in_every_loop() -> None:
    async def main() -> list[str]:
        ended: list[str] = []

        async def forever(name: str) -> None:
            try:
                await asyncio.sleep(1e9)
            finally:
                ended.append(name)

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(forever(f"task {number}"))
                await asyncio.sleep(1)
                raise ValueError("everybody out")
        return ended

    first = SimLoop().run(main())
    clutter = [object() for _ in range(1000)]
    assert SimLoop().run(main()) == first
    assert len(clutter) == 1000
