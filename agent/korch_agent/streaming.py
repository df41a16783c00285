"""Bridges between the API server's WebSockets and the runtime's streaming server.

Exec and attach: channel messages of a WebSocket (v5, v4 and the older `channel.k8s.io`) on one side, SPDY streams on the other.
Port-forward: either SPDY inside a WebSocket, whose bytes are passed on untouched, or v4 channels, passed on message by message.
Mirrors apimachinery's util/remotecommand and httpstream/wsstream.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass

import aiohttp
import orjson
from aiohttp import WSMsgType, web

from korch_agent import spdy

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", "v4.base64.channel.k8s.io", "base64.channel.k8s.io")
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
FORWARD_PROTOCOLS = (TUNNEL_PROTOCOL, "v4.channel.k8s.io", "portforward.k8s.io")
_RUNTIME_PROTOCOL = "v4.channel.k8s.io"
_MESSAGE_BYTES_MAX = 1 << 25
_HEARTBEAT_S = 30


@dataclass(frozen=True, slots=True)
class Streams:
    """Which streams a client wants."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class _Channels:
    """A WebSocket as numbered byte channels, in whichever framing was agreed on."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.is_base64 = "base64" in (socket.ws_protocol or "")
        self.has_status = (socket.ws_protocol or "").startswith(("v4.", "v5."))

    async def send(self, channel: int, data: bytes) -> None:
        if self.is_base64:
            await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
        else:
            await self._socket.send_bytes(bytes([channel]) + data)

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next (channel, data), None when the client has gone."""
        while True:
            message = await self._socket.receive()
            if message.type == WSMsgType.BINARY and message.data:
                return message.data[0], message.data[1:]
            if message.type == WSMsgType.TEXT and message.data:
                return int(message.data[0]), base64.b64decode(message.data[1:])
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                return None


async def serve_command(request: web.Request, url: str, streams: Streams) -> web.StreamResponse:
    """Carry an exec or attach between the request's WebSocket and the runtime's `url` until the command or the client ends."""
    socket = web.WebSocketResponse(protocols=EXEC_PROTOCOLS, max_msg_size=_MESSAGE_BYTES_MAX, heartbeat=_HEARTBEAT_S)
    connection = await spdy.connect(url, _RUNTIME_PROTOCOL)
    try:
        await socket.prepare(request)
        await _carry_command(_Channels(socket), connection, streams)
    finally:
        connection.close()
    await socket.close()
    return socket


async def _carry_command(channels: _Channels, connection: spdy.Connection, streams: Streams) -> None:
    opened: dict[int, spdy.Stream] = {ERROR: await connection.open_stream({"streamtype": "error"})}
    wanted = [(STDIN, "stdin", streams.stdin), (STDOUT, "stdout", streams.stdout), (STDERR, "stderr", streams.stderr and not streams.tty)]
    for channel, name, is_wanted in [*wanted, (RESIZE, "resize", streams.tty)]:
        if is_wanted:
            opened[channel] = await connection.open_stream({"streamtype": name})
    async with asyncio.TaskGroup() as tasks:
        frames = tasks.create_task(connection.run(), name="spdy frames")
        inward = tasks.create_task(_inward(channels, opened, connection), name="stdin")
        outputs = [tasks.create_task(_outward(channels, channel, opened[channel])) for channel in (STDOUT, STDERR) if channel in opened]
        verdict = await _read_all(opened[ERROR])
        for output in outputs:
            await output
        await _send_verdict(channels, verdict)
        inward.cancel()
        frames.cancel()


async def _inward(channels: _Channels, opened: dict[int, spdy.Stream], connection: spdy.Connection) -> None:
    while (received := await channels.receive()) is not None:
        channel, data = received
        if channel == CLOSE and data and data[0] in opened:
            await opened[data[0]].close()
        elif channel in (STDIN, RESIZE) and channel in opened and data:
            await opened[channel].write(data)
    connection.close()


async def _outward(channels: _Channels, channel: int, stream: spdy.Stream) -> None:
    while data := await stream.read():
        await channels.send(channel, data)


async def _read_all(stream: spdy.Stream) -> bytes:
    whole = b""
    while data := await stream.read():
        whole += data
    return whole


async def _send_verdict(channels: _Channels, verdict: bytes) -> None:
    if channels.has_status:
        await channels.send(ERROR, verdict or b'{"metadata":{},"status":"Success"}')
        return
    status = orjson.loads(verdict) if verdict else {}
    if status.get("status") == "Failure":
        await channels.send(ERROR, str(status.get("message", "")).encode())


async def serve_port_forward(request: web.Request, url: str) -> web.StreamResponse:
    """Carry a port-forward between the request's WebSocket and the runtime's `url` until either side ends."""
    socket = web.WebSocketResponse(protocols=FORWARD_PROTOCOLS, max_msg_size=_MESSAGE_BYTES_MAX, heartbeat=_HEARTBEAT_S)
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    if TUNNEL_PROTOCOL in [one.strip() for one in offered.split(",")]:
        reader, writer = await spdy.dial(url, "portforward.k8s.io")
        await socket.prepare(request)
        await _tunnel(socket, reader, writer)
    else:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url, protocols=(_RUNTIME_PROTOCOL,), max_msg_size=_MESSAGE_BYTES_MAX) as upstream,
        ):
            await socket.prepare(request)
            await pipe_messages(socket, upstream)
    await socket.close()
    return socket


async def _tunnel(socket: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def inward() -> None:
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                writer.write(message.data)
                await writer.drain()
        writer.close()

    async def outward() -> None:
        while data := await reader.read(1 << 16):
            await socket.send_bytes(data)

    await _until_first_ends(inward(), outward())
    writer.close()


async def pipe_messages(one: web.WebSocketResponse, other: aiohttp.ClientWebSocketResponse) -> None:
    """Pass messages both ways until either side closes."""

    async def copy(
        source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse
    ) -> None:
        async for message in source:
            if message.type == WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            elif message.type == WSMsgType.TEXT:
                await sink.send_str(message.data)

    await _until_first_ends(copy(one, other), copy(other, one))


async def _until_first_ends(*works) -> None:
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
