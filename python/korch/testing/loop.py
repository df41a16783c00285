"""An event loop on virtual time: an hour of timers runs in the time its callbacks take, and the same seed runs the same way.

There is no selector. When nothing is ready, the clock jumps to the earliest timer; timers fire in order of (when, order of creation).
Ready callbacks keep asyncio's first-in, first-out order: to shuffle them would invent interleavings that CPython cannot produce.
What would break determinism (threads, sockets, signals, subprocesses, name resolution) raises `NotSimulated` at the call. Tasks and
futures hash by order of creation, so that asyncio's own sets iterate the same way in every run.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

# Callbacks at one instant of virtual time before the loop says that time stands still.
STEPS_WITHOUT_TIME_MAX = 2_000_000


class NotSimulated(RuntimeError):
    """Something reached for the real world inside a simulation."""


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set, and the main coroutine still waits."""


class SimTask(asyncio.Task[Any]):
    """A task that hashes by order of creation."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], *, number: int, **options: Any) -> None:
        self.number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by order of creation."""

    def __init__(self, *, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.BaseEventLoop):
    """Virtual time starts at 0. `steps` counts callbacks run."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self._now = 0.0
        self._sequence = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._cancelled_timers = 0
        self._steps_at_this_time = 0
        self._thread = threading.get_ident()
        self.set_task_factory(_make_task)  # type: ignore[arg-type]
        # Errors in callbacks (never retrieved exceptions and the like) end the simulation instead of scrolling by.
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _loop, context: self.errors.append(context))

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._now

    def next_number(self) -> int:
        """Return the next number in order of creation, for tasks, futures and timers."""
        self._sequence += 1
        return self._sequence

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(number=self.next_number(), loop=self)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]  # what BaseEventLoop does; cancel() reports to the loop by it
        heapq.heappush(self._timers, (when, self.next_number(), timer))
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + max(0.0, delay), callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        if threading.get_ident() != self._thread:
            raise NotSimulated("another thread called into the simulation: go through runtime.offload")
        return self.call_soon(callback, *args, context=context)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, cancel what it left behind, and close. The garbage collector rests meanwhile, because it runs finalizers
        at times that depend on memory. Raises what `main` raises, Deadlock, NotSimulated."""
        was_collecting = gc.isenabled()
        gc.disable()
        try:
            asyncio.set_event_loop(self)
            try:
                return self.run_until_complete(main)
            finally:
                self._cancel_all()
                self.run_until_complete(self.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self.close()
            if was_collecting:
                gc.enable()

    def _cancel_all(self) -> None:
        left = sorted(asyncio.all_tasks(self), key=lambda task: getattr(task, "number", 0))
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)[2]._scheduled = False  # type: ignore[attr-defined]
            self._cancelled_timers -= 1
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            if not timers:
                raise Deadlock(f"nothing will ever happen again after {self._now:.3f} s of virtual time")
            self._steps_at_this_time = 0
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer.cancelled():
                self._cancelled_timers -= 1
            else:
                ready.append(timer)
        count = len(ready)
        self.steps += count
        self._steps_at_this_time += count
        if self._steps_at_this_time > STEPS_WITHOUT_TIME_MAX:
            raise Deadlock(f"{STEPS_WITHOUT_TIME_MAX} steps at {self._now:.3f} s: time stands still")
        for _ in range(count):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]
            self._cancelled_timers += 1
            if self._cancelled_timers > 100 and self._cancelled_timers * 2 > len(self._timers):
                self._timers = [one for one in self._timers if not one[2].cancelled()]
                heapq.heapify(self._timers)
                self._cancelled_timers = 0

    def _process_events(self, event_list: object) -> None:
        """There is no selector, so there are no events."""

    def _write_to_self(self) -> None:
        """There is no other thread to be woken from."""


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> SimTask:
    assert isinstance(loop, SimLoop)
    number = loop.next_number()
    options.setdefault("name", None)
    if options["name"] is None:
        options["name"] = f"task-{number}"
    return SimTask(coroutine, number=number, loop=loop, **options)


def _rejecting(name: str) -> Callable[..., NoReturn]:
    def reject(self: SimLoop, *_: object, **__: object) -> NoReturn:
        raise NotSimulated(f"loop.{name} was called in a simulation at {self.time():.3f} s: take the seam in korch.runtime or Client")

    reject.__name__ = name
    return reject


for _name in (
    *("run_in_executor", "set_default_executor", "getaddrinfo", "getnameinfo"),
    *("create_connection", "create_server", "create_datagram_endpoint", "create_unix_connection", "create_unix_server"),
    *("connect_accepted_socket", "start_tls", "sendfile", "sock_sendfile", "connect_read_pipe", "connect_write_pipe"),
    *("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "remove_signal_handler"),
    *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_sendall", "sock_sendto", "sock_connect", "sock_accept"),
    *("subprocess_exec", "subprocess_shell"),
):
    setattr(SimLoop, _name, _rejecting(_name))
