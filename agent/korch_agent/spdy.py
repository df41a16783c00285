"""A client for the one dialect of SPDY/3.1 that container runtimes' streaming servers speak.

WebSocket's v4 framing cannot close standard input alone; SPDY's streams can, so interactive commands go this way. Each stream
is announced with a `streamtype` header and then carries raw bytes; FIN closes one direction. Header blocks are compressed
without the protocol's dictionary, which servers must accept, and the server's own header blocks are not needed at all.
There is no flow control in this dialect (moby/spdystream does not implement it): TCP's own is enough.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

_VERSION = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FLAG_FIN = 0x01
# The largest piece of data written as one frame, in bytes.
_FRAME_BYTES_MAX = 1 << 16


class UpgradeRefused(ConnectionError):
    """The server did not switch protocols; the message holds its status line and body."""


class Stream:
    """One stream: `read()` what the server sends, `write()` and `close()` the other direction."""

    def __init__(self, connection: Connection, stream_id: int) -> None:
        self._connection = connection
        self._id = stream_id
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=64)
        self._is_ended = False

    async def read(self) -> bytes:
        """Await the next bytes; b"" once the server has closed its direction."""
        if self._is_ended:
            return b""
        chunk = await self._chunks.get()
        if chunk is None:
            self._is_ended = True
            return b""
        return chunk

    async def write(self, data: bytes) -> None:
        """Send bytes; awaits room in the socket."""
        for start in range(0, len(data), _FRAME_BYTES_MAX):
            await self._connection.send_data(self._id, data[start : start + _FRAME_BYTES_MAX], is_last=False)

    async def close(self) -> None:
        """Close our direction: the command sees the end of its input."""
        await self._connection.send_data(self._id, b"", is_last=True)

    async def _deliver(self, chunk: bytes | None) -> None:
        await self._chunks.put(chunk)


class Connection:
    """An upgraded connection. `run` must be running while streams are used."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._compressor = zlib.compressobj()
        self._streams: dict[int, Stream] = {}
        self._next_id = 1

    async def open_stream(self, headers: Mapping[str, str]) -> Stream:
        """Announce a stream with these headers and return it; the server's reply is not awaited."""
        stream = Stream(self, self._next_id)
        self._streams[self._next_id] = stream
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                block += struct.pack(">I", len(text)) + text
        packed = self._compressor.compress(block) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        body = struct.pack(">IIBB", self._next_id, 0, 0, 0) + packed
        self._next_id += 2
        await self._send(struct.pack(">HHI", _VERSION, _SYN_STREAM, len(body)) + body)
        return stream

    async def send_data(self, stream_id: int, data: bytes, *, is_last: bool) -> None:
        """Write one data frame."""
        await self._send(struct.pack(">II", stream_id, (_FLAG_FIN if is_last else 0) << 24 | len(data)) + data)

    async def run(self) -> None:
        """Take frames apart until the server closes the connection; every stream then reads its end."""
        try:
            while True:
                first, second = struct.unpack(">II", await self._reader.readexactly(8))
                body = await self._reader.readexactly(second & 0xFFFFFF)
                flags = second >> 24
                if first & 0x80000000:
                    await self._control(first & 0xFFFF, flags, body)
                else:
                    await self._data(first, flags, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in self._streams.values():
                await stream._deliver(None)

    def close(self) -> None:
        """Close the connection under all streams."""
        self._writer.close()

    async def _data(self, stream_id: int, flags: int, body: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if body:
            await stream._deliver(body)
        if flags & _FLAG_FIN:
            await stream._deliver(None)

    async def _control(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _PING:
            await self._send(struct.pack(">HHI", _VERSION, _PING, len(body)) + body)
        elif kind == _GOAWAY:
            self._writer.close()
        elif kind == _RST_STREAM or (kind == _SYN_REPLY and flags & _FLAG_FIN):
            stream = self._streams.get(struct.unpack(">I", body[:4])[0])
            if stream is not None:
                await stream._deliver(None)

    async def _send(self, frame: bytes) -> None:
        self._writer.write(frame)
        await self._writer.drain()


async def switch(url: str, protocols: Sequence[str]) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the server's answer to an upgrade of `url` (http) to SPDY/3.1, as it came, and the raw connection behind it.

    `protocols` are offered, each in a header X-Stream-Protocol-Version of its own. Raises UpgradeRefused, ConnectionError.
    """
    target = urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port or 80)
    path = target.path + (f"?{target.query}" if target.query else "")
    offered = "".join(f"X-Stream-Protocol-Version: {one}\r\n" for one in protocols)
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {target.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{offered}Content-Length: 0\r\n\r\n"
    )
    writer.write(request.encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        writer.close()
        raise UpgradeRefused("the connection ended before an answer") from error
    status = head.split(b"\r\n", 1)[0].decode(errors="replace")
    if " 101 " not in f"{status} ":
        body = await asyncio.wait_for(reader.read(2048), 1) if b"content-length: 0" not in head.lower() else b""
        writer.close()
        raise UpgradeRefused(f"{status}: {body.decode(errors='replace').strip()}")
    return head, reader, writer


async def dial(url: str, protocols: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the raw connection to `url` after its upgrade. Raises UpgradeRefused, ConnectionError."""
    _, reader, writer = await switch(url, [protocols])
    return reader, writer


async def connect(url: str, protocols: str) -> Connection:
    """Return an upgraded connection to `url`. Raises UpgradeRefused, ConnectionError."""
    return Connection(*await dial(url, protocols))
