"""The proxy of a node follows services and endpoint slices, commits changes together, and says whether it is healthy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from korch.api.gvk import ENDPOINT_SLICES, SERVICES
from korch.client.informer import Informers
from korch.proxy.service import ServiceProxy
from korch.runtime.context import Runtime
from korch.runtime.rng import Rng
from korch.testing.bare import BareClient
from tests.unit.proxy.objects import endpoints, service
from tests.unit.proxy.talk import ask_tcp, free_port, tcp_servers

IP = "127.9.2.1"
A, B = "127.9.3.1", "127.9.3.2"


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(rng=Rng(3))


@asynccontextmanager
async def serving(client: BareClient, runtime: Runtime, *, healthz: str = "") -> AsyncIterator[ServiceProxy]:
    proxy = ServiceProxy(client, Informers(client, runtime), runtime, "here", "userspace", healthz=healthz)
    task = asyncio.ensure_future(proxy.run())
    try:
        yield proxy
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def answers(port: int, expected: str) -> None:
    async with asyncio.timeout(20):
        while await ask_tcp(IP, port) != expected:
            await asyncio.sleep(0.01)


async def test_services_are_served_as_they_come_change_and_go(runtime: Runtime) -> None:
    client = BareClient(runtime)
    port, target = free_port(), free_port()
    async with tcp_servers(A, B, port=target):
        await client.create(SERVICES, service(ip=IP, port=port), namespace="d")
        await client.create(ENDPOINT_SLICES, endpoints(A, port=target), namespace="d")
        async with serving(client, runtime) as proxy:
            await answers(port, A)
            assert proxy.is_synced
            await client.update(ENDPOINT_SLICES, endpoints(B, port=target), name="s-1", namespace="d")
            await answers(port, B)
            await client.delete(SERVICES, "s", namespace="d")
            await answers(port, "ConnectionRefusedError")
        assert not proxy.is_synced


async def test_health_is_said_once_everything_is_committed(runtime: Runtime) -> None:
    client = BareClient(runtime)
    port = free_port()
    async with serving(client, runtime, healthz=f"127.0.0.1:{port}") as proxy:
        async with asyncio.timeout(20):
            while not proxy.is_synced:
                await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert orjson.loads(body)["nodeEligible"] is True


async def test_a_mode_that_cannot_be_used_is_an_error(runtime: Runtime) -> None:
    client = BareClient(runtime)
    proxy = ServiceProxy(client, Informers(client, runtime), runtime, "here", "ipvs")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such mode: ipvs"):
        await proxy.run()
