"""Clients that begin a request and do not go on: they are answered, their connections end, and others do not notice."""

from __future__ import annotations

import asyncio

import orjson
from door import Door, application, issue
from test_reads import CertificateAuthenticator

from korch.apiserver.server import ApiServer, ServerConfig
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.storage import Storage

HEAD = b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"


async def test_a_body_that_stops_half_way_is_answered_504_and_its_connection_ends(door: Door) -> None:
    runtime = Runtime()
    storage = Storage.open(None, runtime)
    server = ApiServer(runtime, storage, catalogue(), ServerConfig(authenticator=CertificateAuthenticator(), request_timeout_s=0.5))
    running = asyncio.get_running_loop().create_task(server.run())
    root = issue("root", door.authority)
    try:
        async with application(door, server.app), door.http(certificate=root) as client:
            while server.health.problems():
                await asyncio.sleep(0)
            slow = []
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.context(root))
                writer.write(HEAD + b'{"metadata":')
                slow.append((reader, writer))
            # Others are served meanwhile.
            for index in range(20):
                assert (await client.post("/api/v1/namespaces", json={"metadata": {"name": f"n{index}"}})).status_code == 201
            for reader, writer in slow:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 504 ")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                status = orjson.loads(await reader.readexactly(length))
                assert status["reason"] == "Timeout" and "context deadline exceeded" in status["message"]
                assert await reader.read() == b""
                writer.close()
            assert door.front.stats()["requests_active"] == 0
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await storage.close()
