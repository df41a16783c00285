"""exec, attach and port-forward over SPDY/3.1, for clients that speak no WebSocket: the bytes are carried to the agent as they are.

The API server asks who it is and whether he may, finds the node, lets the agent agree to the switch, and then passes bytes both ways; who
takes SPDY apart is the container runtime. Mirrors apimachinery's util/proxy UpgradeAwareHandler.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from korch.api.errors import ApiError, InternalError
from korch.apiserver.encoding import dump
from korch.apiserver.exchange import Exchange
from korch.apiserver.request_info import RequestInfo
from korch.runtime.handover import Head

PROTOCOL = "SPDY/3.1"
_REASONS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}

# Carries an upgraded connection on a subresource until it ends. Raises ApiError as long as nothing was answered.
UpgradeConnector = Callable[[Head, RequestInfo, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def scope_of(head: Head) -> dict[str, Any]:
    """Return the ASGI scope of a request that was handed over."""
    path, _, query = head.target.partition("?")
    return {
        "type": "http",
        "method": head.method,
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers],
    }


async def answer_upgrade(
    exchange: Exchange, admit: Callable[[], Awaitable[object]], carry: Callable[[], Awaitable[None]], writer: asyncio.StreamWriter
) -> None:
    """Let a request pass the guards and be carried; refuse it with its Status otherwise, and tell the audit."""
    code = 0
    try:
        await admit()
        if exchange.record is not None:
            exchange.record.started(101)
        code = 101
        await carry()
    except ApiError as error:
        code = error.code
        await _refuse(writer, error)
        if exchange.record is not None:
            exchange.record.response_body(dump(error.status()))
    except ConnectionError as error:
        code = 500
        await _refuse(writer, InternalError(f"error dialing backend: {error}"))
    finally:
        if exchange.record is not None:
            exchange.record.complete(code)


async def _refuse(writer: asyncio.StreamWriter, error: ApiError) -> None:
    body = dump(error.status())
    more = "".join(f"{name}: {value}\r\n" for name, value in error.headers.items())
    reason = _REASONS.get(error.code, "Error")
    more += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    head = f"HTTP/1.1 {error.code} {reason}\r\n{more}\r\n"
    with contextlib.suppress(ConnectionError):
        writer.write(head.encode("latin-1") + body)
        await writer.drain()
