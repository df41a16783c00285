"""Wrong requests to a server as users run it, with half-open connections among them: none is a 500, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from api_exchange import Answer
from mutations import ACCEPTS, PATHS, Mutations, fits

from korch.testing.served import ServedCluster

# KORCH_FUZZ_NETWORK_REQUESTS=10000 for many.
REQUESTS = int(os.environ.get("KORCH_FUZZ_NETWORK_REQUESTS", "1600"))
WORKERS = 16
# The first of them fill caches, pools and the allocator; what comes after may not cost memory for each request.
WARM_UP = REQUESTS // 4
GROWTH_KIB_MAX = 96 * 1024
# Connections between the front door and the application are kept for the next request: two files each, for as many as ask at once.
FILES_MORE_MAX = 4 * WORKERS
# What a connection says before it says no more.
BEGINNINGS = (
    b"",
    b"GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\nAcc",
    b"POST /api/v1/namespaces/d/configmaps HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{",
    b"PUT /api/v1/namespaces/d/pods/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    b"GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00\xff nonsense \r\n\r\n",
)
SHARE_OF_BEGINNINGS = 0.04


class Sender:
    """One of the clients: its own connections and its own seed."""

    def __init__(self, cluster: ServedCluster, seed: int, codes: Counter[int]) -> None:
        pki = cluster.data_dir / "pki"
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._http = httpx.AsyncClient(base_url=cluster.url, verify=self._context, trust_env=False, timeout=100)
        self._port = int(cluster.url.rpartition(":")[2])
        self._mutations = Mutations(seed)
        self._codes = codes
        self._open: list[asyncio.StreamWriter] = []

    async def send(self, count: int) -> None:
        for _ in range(count):
            if self._mutations.happens(SHARE_OF_BEGINNINGS):
                await self._begin()
            else:
                await self._ask()

    async def make_namespace(self) -> None:
        await self._http.post("/api/v1/namespaces", json={"metadata": {"name": "d"}})

    async def is_served(self) -> bool:
        return (await self._http.get("/readyz")).status_code == 200

    async def close(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        await self._http.aclose()

    async def _begin(self) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
        writer.write(self._mutations.one_of(BEGINNINGS))
        self._open.append(writer)
        if len(self._open) > 8:
            self._open.pop(0).transport.abort()

    async def _ask(self) -> None:
        mutations = self._mutations
        if mutations.happens(0.2):
            existing = mutations.one_of(sorted(PATHS))
            await self._http.post(existing, json=PATHS[existing])
        method, path, kind, given = mutations.target()
        headers = {name: value for name, value in mutations.headers().items() if name != "content-length"}
        headers |= {"content-type": kind, "accept": mutations.one_of(ACCEPTS) if mutations.happens(0.2) else "*/*"}
        body = given if method in ("POST", "PUT", "PATCH") else None
        try:
            response = await self._http.request(method, path, params=mutations.query(), headers=headers, content=body)
        except (httpx.LocalProtocolError, httpx.InvalidURL, UnicodeEncodeError):
            # The client itself knows better than to send this.
            return
        self._codes[response.status_code] += 1
        answer = Answer(response.status_code, list(response.headers.items()), response.content)
        if "\x7f" in "".join(headers.values()):
            # That is no header, so it is no request that anybody could answer with a Status.
            assert response.status_code == 400
            return
        assert method == "HEAD" or fits(path, answer), (method, path, kind, headers, body, answer)


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def attack(cluster: ServedCluster, count: int, first_seed: int, codes: Counter[int]) -> None:
    senders = [Sender(cluster, first_seed + number, codes) for number in range(WORKERS)]
    try:
        await senders[0].make_namespace()
        async with asyncio.TaskGroup() as group:
            for sender in senders:
                group.create_task(sender.send(count // WORKERS))
    finally:
        for sender in senders:
            await sender.close()


@pytest.mark.timeout(1800)
async def test_wrong_requests_over_the_network_leave_nothing_behind(serve_cluster: Callable[..., ServedCluster]) -> None:
    cluster = serve_cluster(sim_nodes=1)
    await asyncio.to_thread(cluster.wait_ready)
    pid = cluster.process.pid
    files = open_files(pid)
    codes: Counter[int] = Counter()
    await attack(cluster, WARM_UP, 0, codes)
    memory = resident_kib(pid)
    await attack(cluster, REQUESTS - WARM_UP, WORKERS, codes)
    assert {200, 201, 400, 404, 405, 406, 409, 415, 422} <= codes.keys(), codes
    for _ in range(100):
        # Connections end a moment after their clients have gone.
        if open_files(pid) <= files + FILES_MORE_MAX:
            break
        await asyncio.sleep(0.3)
    assert open_files(pid) <= files + FILES_MORE_MAX
    assert resident_kib(pid) - memory < GROWTH_KIB_MAX, (memory, resident_kib(pid))
    # Its node may have been deleted as well, and like a kubelet it does not come back by itself.
    sender = Sender(cluster, 0, codes)
    assert await sender.is_served()
    await sender.close()
