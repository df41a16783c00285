"""Leases: one leader among several, and the heartbeat of a node.

A leader writes its name and the time into a Lease every two seconds; another may take it only after it has watched the lease
unchanged for the whole lease duration on its own clock (clocks of different machines are never compared). A leader that cannot
renew within the renew deadline stops its work before anybody else may start. Mirrors client-go's tools/leaderelection and the
kubelet's nodelease controller.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from korch.api.gvk import LEASES, NODES
from korch.client.backoff import Backoff
from korch.client.protocol import Client
from korch.runtime import tasks
from korch.runtime.clock import rfc3339_micro
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

log = get_logger("lease")

NODE_LEASE_NAMESPACE = "kube-node-lease"
NODE_LEASE_DURATION_S = 40
NODE_RENEW_S = 10.0
# The kubelet tries five times in a row before it waits for the next renewal.
NODE_RENEW_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. A renew deadline that does not lie below the duration, or a retry above it, would let two lead at once."""

    lease_duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_duration_s > self.renew_deadline_s > self.retry_period_s * 1.2:
            raise ValueError("leader election needs leaseDuration > renewDeadline > 1.2 * retryPeriod")


class LeaderElector:
    """Competes for the Lease `namespace/name` as `identity`."""

    def __init__(
        self, client: Client, name: str, identity: str, runtime: Runtime, *, namespace: str = "kube-system", timing: Timing = Timing()
    ) -> None:
        self.name = name
        self.identity = identity
        self.is_leader = False
        self._client = client
        self._namespace = namespace
        self._timing = timing
        self._runtime = runtime
        self._random = runtime.rng.stream(f"lease/{name}/{identity}")
        self._observed: bytes = b""
        self._observed_at = float("-inf")

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Run `lead()` whenever this process leads; it is cancelled when leadership is lost, and tried for again. Until cancelled."""
        try:
            while True:
                await self._acquire()
                log.info("became leader", lease=self.name, identity=self.identity)
                work = tasks.spawn(_as_coroutine(lead), name=f"lease/{self.name}/lead")
                renewal = tasks.spawn(self._renew_until_lost(), name=f"lease/{self.name}/renew")
                try:
                    await asyncio.wait((work, renewal), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self.is_leader = False
                    for task in (work, renewal):
                        task.cancel()
                    await asyncio.gather(work, renewal, return_exceptions=True)
                if work.done() and not work.cancelled():
                    work.result()
                    return
                log.warning("lost leadership", lease=self.name, identity=self.identity)
        finally:
            await self._release()

    async def _acquire(self) -> None:
        while not await self._try():
            await asyncio.sleep(self._timing.retry_period_s * (1 + 1.2 * self._random.random()))
        self.is_leader = True

    async def _renew_until_lost(self) -> None:
        clock = self._runtime.clock
        renewed_at = clock.monotonic()
        while True:
            await asyncio.sleep(self._timing.retry_period_s)
            left_s = renewed_at + self._timing.renew_deadline_s - clock.monotonic()
            if left_s <= 0:
                return
            try:
                # The deadline counts from before the call: a slow success must not prolong what others may already have taken.
                started_at = clock.monotonic()
                async with asyncio.timeout(left_s):
                    if await self._try():
                        renewed_at = started_at
                    elif not self._is_mine():
                        return
            except TimeoutError:
                return

    async def _try(self) -> bool:
        """Take or renew the lease; return whether it is ours now. Faults and lost races read as "not now"."""
        try:
            return await self._try_once()
        except (ApiError, ConnectionError, TimeoutError) as error:
            log.debug("lease not updated", lease=self.name, identity=self.identity, error=str(error))
            return False

    async def _try_once(self) -> bool:
        clock = self._runtime.clock
        try:
            raw = await self._client.get(LEASES, self.name, namespace=self._namespace)
        except NotFound:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name, "namespace": self._namespace}}
            body["spec"] = self._spec({})
            self._observe(await self._client.create(LEASES, body, namespace=self._namespace))
            return True
        if raw != self._observed:
            self._observe(raw)
        lease = orjson.loads(raw)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        expires_at = self._observed_at + float(spec.get("leaseDurationSeconds") or 0)
        if holder and holder != self.identity and clock.monotonic() < expires_at:
            return False
        lease["spec"] = self._spec(spec)
        self._observe(await self._client.update(LEASES, lease, name=self.name, namespace=self._namespace))
        return True

    def _observe(self, raw: bytes) -> None:
        self._observed = raw
        self._observed_at = self._runtime.clock.monotonic()

    def _is_mine(self) -> bool:
        return not self._observed or (orjson.loads(self._observed).get("spec") or {}).get("holderIdentity") == self.identity

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = rfc3339_micro(self._runtime.clock.now())
        was_mine = old.get("holderIdentity") == self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, int(self._timing.lease_duration_s)),
            "acquireTime": old.get("acquireTime") if was_mine and old.get("acquireTime") else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if was_mine or not old else 1),
        }

    async def _release(self) -> None:
        """Give the lease up on a clean end, so that the next leader need not wait for it to expire."""
        try:
            async with asyncio.timeout(self._timing.retry_period_s):
                raw = await self._client.get(LEASES, self.name, namespace=self._namespace)
                lease = orjson.loads(raw)
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") == self.identity:
                    lease["spec"] = spec | {
                        "holderIdentity": "",
                        "leaseDurationSeconds": 1,
                        "renewTime": rfc3339_micro(self._runtime.clock.now()),
                    }
                    await self._client.update(LEASES, lease, name=self.name, namespace=self._namespace)
        except (ApiError, ConnectionError, TimeoutError) as error:
            log.debug("lease not released", lease=self.name, error=str(error))


def until_tick_s(pause_s: float, tick_s: float) -> float:
    """Return `pause_s`, lengthened so that it ends on a multiple of `tick_s` of the event loop's time; unchanged when that is 0."""
    if not tick_s:
        return pause_s
    now = asyncio.get_running_loop().time()
    return math.ceil((now + pause_s) / tick_s) * tick_s - now


class NodeLease:
    """The heartbeat of a node: its Lease in kube-node-lease, owned by the Node, renewed every ten seconds.

    With a `tick_s`, renewals fall on multiples of it: those of many nodes in one process then share a commit instead of making one each.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        runtime: Runtime,
        *,
        duration_s: int = NODE_LEASE_DURATION_S,
        renew_s: float = NODE_RENEW_S,
        tick_s: float = 0.0,
    ) -> None:
        self._client = client
        self._node = node
        self._runtime = runtime
        self._duration_s = duration_s
        self._renew_s = renew_s
        self._tick_s = tick_s
        self._random = runtime.rng.stream(f"nodelease/{node}")
        self._lease: dict[str, Any] | None = None
        self.renewals = 0

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            await self.renew()
            # Upstream's jitter of 4 %, so that the nodes of a cluster do not renew in step.
            await asyncio.sleep(until_tick_s(self._renew_s * (1 + 0.04 * self._random.random()), self._tick_s))

    async def renew(self) -> bool:
        """Renew once, with a few immediate tries; return whether it was written."""
        backoff = Backoff(self._random, initial_s=0.2, cap_s=7.0)
        for _ in range(NODE_RENEW_TRIES):
            try:
                await self._renew_once()
                self.renewals += 1
                return True
            except (Conflict, NotFound, AlreadyExists):
                # Somebody else wrote it, or it went away with its node: read it anew.
                self._lease = None
            except (ApiError, ConnectionError, TimeoutError) as error:
                log.debug("node lease not renewed", node=self._node, error=str(error))
            await asyncio.sleep(backoff.next_s())
        return False

    async def _renew_once(self) -> None:
        lease = self._lease
        if lease is None:
            try:
                lease = orjson.loads(await self._client.get(LEASES, self._node, namespace=NODE_LEASE_NAMESPACE))
            except NotFound:
                self._lease = orjson.loads(await self._client.create(LEASES, await self._new_lease(), namespace=NODE_LEASE_NAMESPACE))
                return
        body = lease | {"spec": (lease.get("spec") or {}) | self._spec()}
        self._lease = orjson.loads(await self._client.update(LEASES, body, name=self._node, namespace=NODE_LEASE_NAMESPACE))

    def _spec(self) -> dict[str, Any]:
        now = rfc3339_micro(self._runtime.clock.now())
        return {"holderIdentity": self._node, "leaseDurationSeconds": self._duration_s, "renewTime": now}

    async def _new_lease(self) -> dict[str, Any]:
        node = orjson.loads(await self._client.get(NODES, self._node))
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": node["metadata"]["uid"]}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._node, "namespace": NODE_LEASE_NAMESPACE, "ownerReferences": [owner]},
            "spec": self._spec(),
        }


async def _as_coroutine(lead: Callable[[], Awaitable[None]]) -> None:
    await lead()
