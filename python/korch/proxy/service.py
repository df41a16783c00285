"""Keeps one node's connections to services going where the cluster says.

Informers follow Services and EndpointSlices; whenever one changes, the complete lists go to the engine as bytes, which computes the
difference and commits it. Changes that come close together are one commit, because a commit costs the kernel the same 15 ms however
much is in it. A commit that fails is tried again, with everything that came meanwhile. Mirrors kube-proxy.
"""

from __future__ import annotations

import asyncio
from typing import Literal

import orjson

from korch._core import native
from korch.api.gvk import ENDPOINT_SLICES, SERVICES
from korch.client.backoff import Backoff
from korch.client.informer import Informer, Informers
from korch.client.projections import Meta
from korch.client.protocol import Client
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

log = get_logger("proxy")

# At most one commit in this time.
COMMIT_PERIOD_S = 0.05
RETRY_S_FIRST = 0.5
RETRY_S_MAX = 30.0

Mode = Literal["nftables", "userspace", "auto"]


class ServiceProxy:
    """The service proxy of the node `node_name` (empty: of a machine that is no node).

    Mode `auto` takes nftables where it can be used and user space elsewhere. `cluster_cidr` is the range of pod addresses, see
    `_core.Proxy`. `healthz` is a `host:port` to answer `/healthz` at.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        runtime: Runtime,
        node_name: str,
        mode: Mode = "auto",
        *,
        cluster_cidr: str = "",
        healthz: str = "",
    ) -> None:
        self._informers = informers
        self._runtime = runtime
        self._mode: Mode = mode
        self._healthz = healthz
        self._engine = native.Proxy(node_name, cluster_cidr=cluster_cidr, seed=runtime.rng.stream("proxy").getrandbits(63))
        self._changed = asyncio.Event()
        self._committed_at: float | None = None
        self._services = informers.informer(SERVICES)
        self._slices = informers.informer(ENDPOINT_SLICES)
        for informer in (self._services, self._slices):
            informer.on(add=self._note, update=self._note_update, delete=self._note)

    @property
    def mode(self) -> Mode:
        """Return how connections are routed; `auto` until `run` has found out."""
        return self._mode

    @property
    def is_synced(self) -> bool:
        """Return whether everything known has been committed at least once."""
        return self._committed_at is not None

    def stats(self) -> dict[str, int]:
        """Return the engine's counts, see `_core.Proxy.stats`."""
        return self._engine.stats()

    async def run(self) -> None:
        """Serve until cancelled. The kernel's table stays behind, so that a successor takes over without a gap; see `cleanup`."""
        await self._start_engine()
        try:
            async with self._informers.running(), asyncio.TaskGroup() as group:
                if self._healthz:
                    group.create_task(self._serve_healthz(), name="proxy/healthz")
                await self._services.wait_synced()
                await self._slices.wait_synced()
                self._changed.set()
                await self._follow()
        finally:
            self._committed_at = None
            self._engine.stop()

    async def cleanup(self) -> None:
        """Remove what the proxy left in the kernel, if anything. Raises OSError when nftables cannot be used."""
        await self._runtime.offload.run(native.Proxy.cleanup)

    async def _start_engine(self) -> None:
        if self._mode != "auto":
            await self._runtime.offload.run(self._engine.start, self._mode)
            return
        try:
            await self._runtime.offload.run(self._engine.start, "nftables")
            self._mode = "nftables"
        except OSError as error:
            log.warning("nftables cannot be used, routing in user space", error=str(error))
            await self._runtime.offload.run(self._engine.start, "userspace")
            self._mode = "userspace"

    async def _follow(self) -> None:
        backoff = Backoff(self._runtime.rng.stream("proxy/retry"), initial_s=RETRY_S_FIRST, cap_s=RETRY_S_MAX)
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                changed = await self._runtime.offload.run(self._engine.update, _raw(self._services), _raw(self._slices))
            except (OSError, ValueError) as error:
                self._changed.set()
                log.error("services not committed", error=str(error))
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            self._committed_at = self._runtime.clock.now()
            if changed:
                log.debug("services committed", changed=changed)
            await asyncio.sleep(COMMIT_PERIOD_S)

    async def _serve_healthz(self) -> None:
        host, _, port = self._healthz.rpartition(":")
        server = await asyncio.start_server(self._answer_healthz, host or "127.0.0.1", int(port))
        async with server:
            await server.serve_forever()

    async def _answer_healthz(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                await reader.readuntil(b"\r\n\r\n")
            now = self._runtime.clock.now()
            status = "200 OK" if self._committed_at is not None else "503 Service Unavailable"
            body = orjson.dumps({"lastUpdated": rfc3339(self._committed_at or 0), "currentTime": rfc3339(now), "nodeEligible": True})
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("health request broken off", error=str(error))
        finally:
            writer.close()

    def _note(self, _: Meta) -> None:
        self._changed.set()

    def _note_update(self, _: Meta, __: Meta) -> None:
        self._changed.set()


def _raw(informer: Informer[Meta]) -> list[bytes]:
    return [one.raw for one in informer.reflector.objects.values()]
