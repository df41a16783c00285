"""Connections that leave HTTP: one whose first request asks to switch to a given protocol is handed over as a pair of streams.

HTTP servers know WebSockets and nothing else to switch to. So this stands before one: it reads the first head of a connection, and
either gives the connection to the HTTP server, which notices nothing, or to a handler, which answers for itself. Whoever sends such
requests does it on a connection of their own (clients must, and the front door does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from korch.runtime import tasks

_HEAD_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request. `target` is as it was sent, `headers` have lower-case names, in their order."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The parameters, in their order."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)

    def all(self, name: str) -> list[str]:
        """Return the values of a header, in their order."""
        return [value for key, value in self.headers if key == name]

    def asks_for(self, protocol: str) -> bool:
        """Whether the request asks to switch to `protocol`, in both headers that it takes."""
        tokens = [one.strip().lower() for value in self.all("connection") for one in value.split(",")]
        return "upgrade" in tokens and any(value.lower() == protocol.lower() for value in self.all("upgrade"))


Handler = Callable[[Head, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Handover(asyncio.Protocol):
    """One connection until it is known what becomes of it. `make_http` makes the protocol of the HTTP server."""

    def __init__(self, make_http: Callable[[], asyncio.Protocol], protocol: str, handler: Handler) -> None:
        self._make_http = make_http
        self._protocol = protocol
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 and len(self._received) < _HEAD_BYTES_MAX:
            return
        head = parse_head(self._received[:end]) if end >= 0 else None
        if head is not None and head.asks_for(self._protocol):
            self._hand_over(head, self._received[end + 4 :])
        else:
            self._give_to_http()

    def _give_to_http(self) -> None:
        transport = self._transport
        assert transport is not None
        inner = self._make_http()
        transport.set_protocol(inner)
        inner.connection_made(transport)
        inner.data_received(self._received)

    def _hand_over(self, head: Head, rest: bytes) -> None:
        transport, loop = self._transport, asyncio.get_running_loop()
        assert transport is not None
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if rest:
            reader.feed_data(rest)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        tasks.spawn(self._handle(head, reader, writer), name=f"{self._protocol} {head.path}")

    async def _handle(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handler(head, reader, writer)
        except ConnectionError:
            # One side went away: there is nobody left to tell.
            pass
        finally:
            writer.close()


def parse_head(data: bytes) -> Head | None:
    """Return the head of a request, None when it is none."""
    first, *lines = data.split(b"\r\n")
    parts = first.decode("latin-1").split(" ")
    if len(parts) != 3:
        return None
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            return None
        headers.append((name.strip().lower(), value.strip()))
    return Head(parts[0], parts[1], tuple(headers))


async def carry(one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Pass bytes both ways until both directions have ended, or one has failed."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        # An end of one direction is the end of the connection where the transport (TLS) knows no half.
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(one[0], other[1]))
            group.create_task(copy(other[0], one[1]))
    except* ConnectionError:
        pass
    finally:
        one[1].close()
        other[1].close()
