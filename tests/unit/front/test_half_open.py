"""Clients that begin and never end: no hello, half a hello, a request without its end, a body that does not come, noise.

None of them keeps anybody else waiting, and nothing is left of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from door import Door, application

WAVE = 240
# What one wave may leave behind beyond the one before it: the allocator's rest, not something for each connection.
GROWTH_KIB_MAX = 2048

Writer = asyncio.StreamWriter


async def _plain(door: Door, sent: bytes) -> Writer:
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(sent)
    return writer


async def _secure(door: Door, sent: bytes, *protocols: str) -> Writer:
    context = door.context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    _, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=context)
    writer.write(sent)
    return writer


BEGINNINGS: tuple[Callable[[Door], Awaitable[Writer]], ...] = (
    lambda door: _plain(door, b""),
    lambda door: _plain(door, b"\x16\x03\x01\x02\x00\x01\x00"),
    lambda door: _plain(door, b"GET / HTTP/1.1\r\n\r\n"),
    lambda door: _plain(door, bytes(range(256))),
    lambda door: _secure(door, b""),
    lambda door: _secure(door, b"GET /api HTTP/1.1\r\nHost: x\r\nAccept: "),
    lambda door: _secure(door, b"\x00\xff\x00 nonsense \r\n\r\n"),
    lambda door: _secure(door, b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"),
    lambda door: _secure(door, b"POST /api HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    lambda door: _secure(door, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "h2"),
    lambda door: _secure(door, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff", "h2"),
)


async def answer(scope, receive, send) -> None:
    """Answer when the whole body has come."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"whole"})


async def wave(door: Door) -> None:
    """Begin WAVE connections, see that a request is answered among them, and let all of them go."""
    begun = [await BEGINNINGS[number % len(BEGINNINGS)](door) for number in range(WAVE)]
    async with door.http() as client:
        assert (await client.get("/api")).text == "whole"
    for writer in begun:
        writer.transport.abort()
    while door.front.stats()["connections_open"]:
        await asyncio.sleep(0)


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def grown_kib(door: Door) -> int:
    """Return how much memory three waves leave behind."""
    before = resident_kib()
    for _ in range(3):
        await wave(door)
    return resident_kib() - before


async def test_nothing_is_left_of_clients_that_went_half_way(door: Door) -> None:
    async with application(door, answer):
        for _ in range(3):
            await wave(door)
        # The allocator may need a few more for its own ends; something left of each connection would grow for ever.
        growths = [await grown_kib(door)]
        while growths[-1] >= GROWTH_KIB_MAX and len(growths) < 4:
            growths.append(await grown_kib(door))
        assert growths[-1] < GROWTH_KIB_MAX, growths
        stats = door.front.stats()
        assert (stats["connections_open"], stats["requests_active"]) == (0, 0)
        assert stats["handshakes_failed"] >= 6 * WAVE // len(BEGINNINGS)


@pytest.mark.parametrize("sent", [b"", b"GET /api HTTP/1.1\r\nHost: x\r\nAcc"], ids=["nothing", "half a head"])
async def test_who_sends_no_whole_head_is_let_go(door: Door, sent: bytes) -> None:
    async with application(door, answer):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.context())
        writer.write(sent)
        # Whatever the server says at last, it ends the connection by itself.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await asyncio.wait_for(reader.read(), 30)
        while door.front.stats()["connections_open"]:
            await asyncio.sleep(0)
        writer.transport.abort()
