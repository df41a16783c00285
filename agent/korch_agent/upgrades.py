"""exec, attach and port-forward over SPDY/3.1: the connection is passed to the runtime's streaming server, which takes it apart.

The runtime is asked for the URL of the stream as for WebSockets; then it, and not the agent, agrees to the switch, with the version of
the stream protocol that it chooses among those the client offers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from korch.runtime.handover import Head, carry
from korch_agent import spdy
from korch_agent.cri.protocol import CriError, CriNotFound

PROTOCOL = "SPDY/3.1"
_STATUS = {400: "Bad Request", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}

# Returns the runtime's URL for a request: (path parts, parameters). Raises CriError, aiohttp's HTTP errors.
FindUrl = Callable[[list[str], Mapping[str, str], list[str]], Awaitable[str]]


async def serve(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may: Callable[[], bool], find_url: FindUrl
) -> None:
    """Carry one connection between the API server and the runtime until either ends."""
    try:
        if not may():
            raise web.HTTPForbidden(text="Forbidden")
        parts = [part for part in head.path.split("/") if part]
        commands = [value for key, value in head.query if key == "command"]
        url = await find_url(parts, dict(reversed(head.query)), commands)
        answer, from_runtime, to_runtime = await spdy.switch(url, head.all("x-stream-protocol-version"))
    except web.HTTPException as error:
        await _refuse(writer, error.status, error.text or "")
    except CriNotFound as error:
        await _refuse(writer, 404, error.message)
    except CriError as error:
        await _refuse(writer, 500, error.message)
    except ConnectionError as error:
        await _refuse(writer, 503, str(error))
    else:
        writer.write(answer)
        await writer.drain()
        await carry((reader, writer), (from_runtime, to_runtime))


async def _refuse(writer: asyncio.StreamWriter, code: int, text: str) -> None:
    body = text.encode()
    head = f"HTTP/1.1 {code} {_STATUS.get(code, 'Error')}\r\nContent-Type: text/plain\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    await writer.drain()
