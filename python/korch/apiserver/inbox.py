"""Calls the ASGI application for requests that the front door hands over in memory, as an HTTP server would for those off a socket.

The front door parses HTTP, reads the body and writes the answer; what is left is a scope, a `receive` that has the whole body, and
a `send` that passes on an answer, at once when it is whole. One call of the event loop takes all requests that have come since the
last. See `rust/src/front/inbox.rs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from korch._core import native
from korch.runtime.log import get_logger

if TYPE_CHECKING:
    from korch._core._native import Arrival

log = get_logger("inbox")

Message = dict[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
_ASGI = {"version": "3.0", "spec_version": "2.4"}
_GONE: Message = {"type": "http.disconnect"}


class Inbox:
    """The requests of one front door. `serve` belongs on the event loop that the application runs on."""

    def __init__(self, front: native.Front, app: App, *, grace_s: float) -> None:
        self._front = front
        self._app = app
        self._grace_s = grace_s
        self._calls: dict[int, _Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop

    async def serve(self) -> None:
        """Take requests; returns only when cancelled. Then those under way have `grace_s` to end, before they are cancelled too."""
        self._loop = asyncio.get_running_loop()
        descriptor = self._front.attach()
        self._loop.add_reader(descriptor, self._take)
        try:
            await self._loop.create_future()
        finally:
            self._front.detach()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._grace_s)
            self._loop.remove_reader(descriptor)
            for task in self._tasks:
                task.cancel()

    def _take(self) -> None:
        arrivals, gone, drained = self._front.take()
        for arrival in arrivals:
            call = self._calls[arrival[0]] = _Call(self._front, arrival)
            task = self._loop.create_task(self._answer(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for number in drained:
            if (call := self._calls.get(number)) is not None:
                call.drained()
        for number in gone:
            if (call := self._calls.get(number)) is not None:
                call.gone()

    async def _answer(self, call: _Call) -> None:
        try:
            await self._app(call.scope, call.receive, call.send)
        except Exception as error:
            log.error("the application failed", path=call.scope["path"], exc_info=error)
        finally:
            call.finish()
            del self._calls[call.number]


class _Call:
    """One request: its scope, and the two ends that the application is given."""

    __slots__ = ("_body", "_front", "_head", "_is_done", "_is_gone", "_is_head", "_is_read", "_moved", "number", "scope")

    def __init__(self, front: native.Front, arrival: Arrival) -> None:
        self.number, method, path, query, headers, self._body = arrival
        self._front = front
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._is_head = method == "HEAD"
        self._is_read = self._is_done = self._is_gone = False
        # Set when something happens that `receive` or `send` may wait for; made when one of them does.
        self._moved: asyncio.Event | None = None
        text = path.decode("ascii")
        self.scope: Message = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": None,
            "server": None,
            "state": {},
        }

    async def receive(self) -> Message:
        """Return the body, and after it the news that the exchange is over, when it is."""
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        while not self._is_gone and not self._is_done:
            await self._movement()
        return _GONE

    async def send(self, message: Message) -> None:
        """Pass on a part of the answer; waits while the client is far behind. What comes after the end, or after the client, is lost."""
        if message["type"] == "http.response.start":
            self._head = (message["status"], [(bytes(name), bytes(value)) for name, value in message.get("headers", ())])
            return
        if self._is_gone or self._is_done:
            return
        body = b"" if self._is_head else message.get("body", b"")
        has_more = message.get("more_body", False)
        self._is_done = not has_more
        if self._head is not None:
            status, headers = self._head
            self._head = None
            self._front.answer(self.number, status, headers, body, has_more)
        elif not self._front.send(self.number, body, has_more):
            await self._movement()
        if self._is_done:
            self._move()

    def drained(self) -> None:
        """The client has caught up."""
        self._move()

    def gone(self) -> None:
        """The client went away."""
        self._is_gone = True
        self._move()

    def finish(self) -> None:
        """The application has returned. An answer that it did not end is broken off."""
        if not self._is_done:
            self._front.abort(self.number)

    async def _movement(self) -> None:
        if self._moved is None:
            self._moved = asyncio.Event()
        moved = self._moved
        await moved.wait()

    def _move(self) -> None:
        if self._moved is not None:
            self._moved.set()
            self._moved = None
