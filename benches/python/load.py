"""A load client for any Kubernetes API server that a kubeconfig names: bare HTTP/1.1 for requests, bare HTTP/2 for thousands of watches.

It does as little as possible for each request, because it shares the machine with the server that it measures: no URL library, no
header map, no decoding of answers. `Endpoint` is where and as whom, `Connection` sends one request after another, `Watches` holds many
watches on one connection, `drive` keeps several connections busy and measures the CPU of the server's processes meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import statistics
import struct
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from hpack import Decoder, Encoder
from record import cpu_seconds, summary

from korch.client.kubeconfig import load

Object = dict[str, Any]
# Frames of HTTP/2 and their flags, RFC 9113.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_BYTES = 1 << 30


class LoadError(Exception):
    """The server answered something else than what was measured."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and an identity."""

    host: str
    port: int
    tls: ssl.SSLContext
    token: str = ""

    @classmethod
    def of(cls, kubeconfig: Path) -> Endpoint:
        """Return what the current context of a kubeconfig says."""
        loaded = load(kubeconfig)
        context = loaded.contexts[loaded.current_context]
        cluster, user = loaded.clusters[context["cluster"]], loaded.users[context["user"]]
        server = urlsplit(cluster["server"])
        tls = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority", kubeconfig).decode())
        if certificate := _pem(user, "client-certificate", kubeconfig):
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(certificate + b"\n" + _pem(user, "client-key", kubeconfig))
                pair.flush()
                tls.load_cert_chain(pair.name)
        return cls(server.hostname or "", server.port or 443, tls, user.get("token", ""))

    def as_bearer(self, token: str) -> Endpoint:
        """Return the same server with a token in place of whoever this was."""
        tls = ssl.create_default_context()
        for certificate in self.tls.get_ca_certs(binary_form=True):
            tls.load_verify_locations(cadata=certificate)
        return replace(self, tls=tls, token=token)


def _pem(entry: Object, name: str, kubeconfig: Path) -> bytes:
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data)
    return (kubeconfig.parent / entry[name]).read_bytes() if entry.get(name) else b""


class Connection:
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        identity = f"Authorization: Bearer {endpoint.token}\r\n" if endpoint.token else ""
        self._head = f"Host: {endpoint.host}:{endpoint.port}\r\nAccept: application/json\r\nUser-Agent: load/1\r\n{identity}".encode()

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Connection:
        """Connect."""
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=endpoint.tls, limit=1 << 26)
        return cls(endpoint, reader, writer)

    async def request(self, method: str, path: str, body: bytes = b"", media: str = "application/json") -> tuple[int, bytes]:
        """Send a request; return the code and the body of the answer."""
        line = f"{method} {path} HTTP/1.1\r\n".encode()
        rest = b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (media.encode(), len(body), body) if body else b"\r\n"
        self._writer.write(line + self._head + rest)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        code = int(head[9:12])
        if b"\r\ntransfer-encoding: chunked" in head:
            return code, await self._chunks()
        start = head.find(b"\r\ncontent-length: ")
        length = int(head[start + 18 : head.index(b"\r\n", start + 2)]) if start >= 0 else 0
        return code, await self._reader.readexactly(length)

    async def _chunks(self) -> bytes:
        chunks: list[bytes] = []
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            chunks.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readuntil(b"\r\n")
        return b"".join(chunks)

    async def expect(self, code: int, method: str, path: str, body: bytes = b"", media: str = "application/json") -> bytes:
        """Send a request that must be answered with `code` (or with 201 for 200); return the body. Raises LoadError."""
        found, answer = await self.request(method, path, body, media)
        if found != code and not (code == 200 and found == 201):
            raise LoadError(f"{method} {path}: {found} {answer[:300]!r}")
        return answer

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


class Watches(asyncio.Protocol):
    """Many watches of one path on one HTTP/2 connection. `lines` counts what arrived on all of them."""

    def __init__(self, endpoint: Endpoint, path: str, count: int, told: Callable[[], None]) -> None:
        self._endpoint, self._path, self._count, self._told = endpoint, path, count, told
        self._transport: Any = None
        self._buffer = bytearray()
        self._decoder = Decoder()
        self.opened = 0
        self.lines = 0
        self.failure = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        settings = _frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _WINDOW_BYTES))
        self._transport.write(_PREFACE + settings + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_BYTES)))
        encoder = Encoder()
        fields = [(":method", "GET"), (":scheme", "https"), (":path", self._path), (":authority", self._endpoint.host)]
        fields += [("accept", "application/json"), ("user-agent", "load/1")]
        fields += [("authorization", f"Bearer {self._endpoint.token}")] if self._endpoint.token else []
        for number in range(self._count):
            block = encoder.encode(fields)
            self._transport.write(_frame(_HEADERS, _END_STREAM | _END_HEADERS, 2 * number + 1, block))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= 9:
            size = int.from_bytes(self._buffer[at : at + 3], "big")
            if len(self._buffer) - at < 9 + size:
                break
            self._take(self._buffer[at + 3], self._buffer[at + 4], bytes(self._buffer[at + 9 : at + 9 + size]))
            at += 9 + size
        del self._buffer[:at]
        self._told()

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _DATA:
            self.lines += payload.count(b"\n")
        elif kind == _HEADERS:
            fields = dict(self._decoder.decode(payload))
            self.opened += 1
            if fields.get(":status") not in ("200", None):
                self.failure = f"a watch was answered {fields}"
        elif kind == _SETTINGS and not flags & _ACK:
            self._transport.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._transport.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RST_STREAM, _GOAWAY):
            self.failure = f"frame {kind}: {payload!r}"

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class WatchCrowd:
    """Watches on as many connections as it takes, `PER_CONNECTION` on each."""

    PER_CONNECTION = 100

    def __init__(self) -> None:
        self._parts: list[Watches] = []
        self._news = asyncio.Event()

    async def open(self, endpoint: Endpoint, path: str, count: int) -> None:
        """Open `count` more watches of `path` and return when all are answered."""
        tls = endpoint.tls
        tls.set_alpn_protocols(["h2"])
        loop = asyncio.get_running_loop()
        while count > 0:
            share = min(count, self.PER_CONNECTION)
            made = Watches(endpoint, path, share, self._news.set)
            await loop.create_connection(lambda made=made: made, endpoint.host, endpoint.port, ssl=tls)
            self._parts.append(made)
            await self._until(lambda made=made, share=share: made.opened >= share)
            count -= share

    async def until_lines(self, count: int) -> None:
        """Return when `count` lines have arrived in all, since the beginning."""
        await self._until(lambda: self.lines() >= count)

    def lines(self) -> int:
        """Return how many lines have arrived."""
        return sum(part.lines for part in self._parts)

    async def _until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            if failed := next((part.failure for part in self._parts if part.failure), ""):
                raise LoadError(failed)
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 60)

    def close(self) -> None:
        """Hang up on all."""
        for part in self._parts:
            part.close()


@dataclass(frozen=True, slots=True)
class Measured:
    """What requests cost: CPU seconds of the server's processes for each, and how long each took, in milliseconds."""

    requests: int
    cpu_s: float
    wall_s: float
    latencies_ms: Sequence[float]

    def shown(self, decode_s: float) -> Object:
        """Return it for a result file, the CPU in decodes as well."""
        return {
            "server_cpu_us": round(self.cpu_s * 1e6, 1),
            "decodes": round(self.cpu_s / decode_s, 1),
            "per_second": round(self.requests / self.wall_s, 1),
            "latency_ms": summary(self.latencies_ms, 2),
        }


async def drive(
    endpoint: Endpoint, pids: Sequence[int], connections: int, each: int, send: Callable[[Connection, int], Awaitable[Any]]
) -> Measured:
    """Call `send(connection, number)` `each` times on each of `connections`; numbers are 0, 1, 2 ... over all of them."""
    opened = [await Connection.open(endpoint) for _ in range(connections)]
    latencies: list[float] = []

    async def one(connection: Connection, first: int) -> None:
        for number in range(first, first + each):
            began = time.monotonic()
            await send(connection, number)
            latencies.append((time.monotonic() - began) * 1000)

    cpu, began = cpu_seconds(pids), time.monotonic()
    await asyncio.gather(*(one(connection, index * each) for index, connection in enumerate(opened)))
    wall, used = time.monotonic() - began, cpu_seconds(pids) - cpu
    for connection in opened:
        await connection.close()
    return Measured(len(latencies), used / len(latencies), wall, latencies)


def decode_s(body: bytes) -> float:
    """Return the CPU seconds of one `orjson.loads` of `body`."""
    return per_call(lambda: orjson.loads(body))


def per_call(act: Callable[[], object]) -> float:
    """Return the CPU seconds of one call: the median of several rounds, so that neighbours slow it as they slow the server."""
    rounds: list[float] = []
    for _ in range(15):
        began = time.process_time()
        for _ in range(100):
            act()
        rounds.append((time.process_time() - began) / 100)
    return statistics.median(rounds)
