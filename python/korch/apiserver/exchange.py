"""One HTTP exchange over ASGI: the request read once into plain values, the answer sent as bytes or as a stream.

Raw ASGI instead of a framework's request and response objects, because resource paths are most of the traffic and each layer
costs more than the work behind it.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from copy import copy
from typing import Any
from urllib.parse import parse_qsl

from korch.api.errors import ApiError
from korch.apiserver.audit.record import Record
from korch.apiserver.body import check_size, media_type
from korch.apiserver.encoding import dump
from korch.apiserver.flowcontrol.flow_control import Seat
from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo
from korch.runtime.offload import Offload

Scope = dict[str, Any]
GZIP_BYTES_MIN = 128 * 1024
GZIP_LEVEL = 1


class Disconnected(Exception):
    """The client went away, or the server is closing: the exchange ends without another word."""


def headers_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the request's headers by lower-case name; repeated ones are joined with commas."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def query_of(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the query parameters, the first of each name."""
    raw = scope.get("query_string") or b""
    if not raw:
        return {}
    found: dict[str, str] = {}
    for key, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        found.setdefault(key, value)
    return found


async def read(receive: Any) -> bytes:
    """Return the whole body of a request. Raises RequestEntityTooLarge, Disconnected."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        check_size(size)
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks) if len(chunks) > 1 else chunks[0]


def warning(text: str) -> tuple[bytes, bytes]:
    """Return the header that tells a client `text`."""
    return b"warning", f'299 - "{_escape(text)}"'.encode("latin-1", "replace")


class Exchange:
    """A request with its identity, and the way to answer it."""

    def __init__(
        self,
        scope: Scope,
        receive: Any,
        send: Any,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        info: RequestInfo,
        user: User,
        offload: Offload,
        audit_id: str = "",
    ) -> None:
        self.scope = scope
        self.headers = headers
        self.query = query
        self.info = info
        self.user = user
        self.audit_id = audit_id
        # Sent with whatever is answered.
        self.warnings: list[str] = []
        self.marks: Sequence[tuple[bytes, bytes]] = ()
        # What is told of this request, and the seat that it holds; see `guards`.
        self.record: Record | None = None
        self.seat: Seat | None = None
        # Whether a write of this server's own kinds has been answered with its success.
        self.was_written = False
        self._receive = receive
        self._send = send
        self._offload = offload
        self._is_started = False

    def sent_by(self, send: Any) -> Exchange:
        """Return the same exchange with another way to answer."""
        other = copy(self)
        other._send = send
        return other

    async def body(self) -> bytes:
        """Return the whole request body. Raises RequestEntityTooLarge, Disconnected."""
        length = self.headers.get("content-length", "")
        if length.isdigit():
            check_size(int(length))
        body = await read(self._receive)
        if self.record is not None:
            self.record.request_body(body, media_type(self.headers))
        return body

    async def respond(
        self,
        body: bytes,
        *,
        code: int = 200,
        content_type: str = "application/json",
        warnings: Sequence[str] = (),
        headers: Mapping[str, str] = {},
    ) -> None:
        """Send a whole answer; big ones are compressed when the client takes that."""
        if self.record is not None:
            self.record.response_body(body)
        sent = {"content-type": content_type, "cache-control": "no-cache, private"} | {key.lower(): value for key, value in headers.items()}
        if len(body) >= GZIP_BYTES_MIN and "gzip" in self.headers.get("accept-encoding", ""):
            body = await self._offload.run(gzip.compress, body, GZIP_LEVEL)
            sent["content-encoding"] = "gzip"
            sent["vary"] = "Accept-Encoding"
        sent["content-length"] = str(len(body))
        await self._start(code, sent, warnings)
        await self._send({"type": "http.response.body", "body": b"" if self.scope["method"] == "HEAD" else body})

    async def refuse(self, error: ApiError) -> None:
        """Send a failure Status, unless an answer has begun."""
        if self._is_started:
            return
        await self.respond(dump(error.status()), code=error.code, headers=error.headers)

    async def stream(self, chunks: AsyncIterator[bytes], *, content_type: str, closing: asyncio.Event) -> None:
        """Send chunks as they come, until they end, the client goes, or `closing` is set. Headers go out at once.

        From the first chunk on the request holds no seat: what it costs to begin a watch has been paid.
        """
        await self._start(200, {"content-type": content_type, "cache-control": "no-cache, private"}, ())
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})

        async def pump() -> None:
            async for chunk in chunks:
                if self.seat is not None:
                    self.seat.release()
                if chunk:
                    await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

        if await until(pump(), self._gone(), closing.wait()) == 0 or closing.is_set():
            await self._send({"type": "http.response.body", "body": b""})

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(self, code: int, headers: Mapping[str, str], warnings: Sequence[str]) -> None:
        self._is_started = True
        raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        raw += [warning(text) for text in (*self.warnings, *warnings)]
        await self._send({"type": "http.response.start", "status": code, "headers": raw})


class _Ended(Exception):
    """One of the coroutines has come to its end."""


async def until(*coroutines: Coroutine[Any, Any, Any]) -> int:
    """Run all until the first ends, cancel the others, and return the index of the first. Its exception is raised here."""
    ended: list[tuple[int, Exception | None]] = []

    async def run(index: int, coroutine: Coroutine[Any, Any, Any]) -> None:
        error: Exception | None = None
        try:
            await coroutine
        except Exception as raised:
            error = raised
        ended.append((index, error))
        raise _Ended

    try:
        async with asyncio.TaskGroup() as group:
            for index, coroutine in enumerate(coroutines):
                group.create_task(run(index, coroutine))
    except* _Ended:
        pass
    first, error = ended[0]
    if error is not None:
        raise error
    return first


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
