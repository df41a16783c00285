"""Servers on loopback that say which of them answered, and clients that ask."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port that is free on 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@asynccontextmanager
async def tcp_servers(*addresses: str, port: int) -> AsyncIterator[None]:
    """Answer each TCP connection with the address it came in at, and then with what it sent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("sockname")[0].encode() + b"\n")
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    servers = [await asyncio.start_server(answer, address, port) for address in addresses]
    try:
        yield
    finally:
        for server in servers:
            server.close()


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, address: str) -> None:
        self._address = address

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._address.encode(), addr)


@asynccontextmanager
async def udp_servers(*addresses: str, port: int) -> AsyncIterator[None]:
    """Answer each datagram with the address it came in at."""
    loop = asyncio.get_running_loop()
    transports = [
        (await loop.create_datagram_endpoint(lambda address=address: _Echo(address), local_addr=(address, port)))[0]
        for address in addresses
    ]
    try:
        yield
    finally:
        for transport in transports:
            transport.close()


async def ask_tcp(address: str, port: int) -> str:
    """Connect and return the first line; a failure is the name of its error."""
    try:
        reader, writer = await asyncio.open_connection(address, port)
        line = await reader.readline()
        writer.close()
    except OSError as error:
        return type(error).__name__
    return line.decode().strip()


async def ask_udp(client: socket.socket, address: str, port: int) -> str:
    """Send a datagram from a socket and return the answer."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendto(client, b"?", (address, port))
    async with asyncio.timeout(10):
        return (await loop.sock_recv(client, 100)).decode()
