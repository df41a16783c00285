"""The pods of this node: one worker for each pod bound here, kept in step with the API server and the runtime.

Pods come from a watch with the field selector `spec.nodeName`; changes in the runtime from the PLEG. What the runtime holds
without a pod that explains it (the agent was down while the pod was deleted) is taken away.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from korch.api.gvk import PODS, SERVICES
from korch.client.events import EventRecorder
from korch.client.informer import Informer, Informers
from korch.client.protocol import Client
from korch.runtime import tasks
from korch.runtime.context import Runtime as Seams
from korch.runtime.log import get_logger
from korch_agent.cgroups import Cgroups
from korch_agent.cri.protocol import CriError, Runtime
from korch_agent.node import Node
from korch_agent.objects import Objects
from korch_agent.pleg import Pleg
from korch_agent.pods.config import NodeConfig
from korch_agent.pods.images import Images
from korch_agent.pods.observed import Pod
from korch_agent.pods.probes import Probes
from korch_agent.pods.status import StatusWriter
from korch_agent.pods.worker import Parts, Worker
from korch_agent.volumes.tokens import Tokens
from korch_agent.volumes.volumes import Volumes

# How many sandboxes and containers are started at once.
STARTS_AT_ONCE = 4
# Relists in which something must be without a pod before it is taken away: a pod may be on its way.
ORPHAN_AFTER = 3

log = get_logger("kubelet")


class Kubelet:
    """Runs the pods of one node."""

    def __init__(
        self,
        *,
        client: Client,
        informers: Informers,
        runtime: Runtime,
        seams: Seams,
        events: EventRecorder,
        node: Node,
        config: NodeConfig,
        cgroups: Cgroups | None = None,
    ) -> None:
        self._runtime = runtime
        self._config = config
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._orphans: dict[str, int] = {}
        self._pods: Informer[Pod] = informers.informer(PODS, field_selector=f"spec.nodeName={config.node_name}", decode=orjson.loads)
        self._services: Informer[dict[str, Any]] = informers.informer(SERVICES, decode=orjson.loads)
        self._objects = Objects(client, seams, changed=self._refresh)
        self._volumes = Volumes(config.pods_dir, self._objects, Tokens(client, seams), seams.offload)
        self.pleg = Pleg(runtime, seams, changed=self._wake, listed=self._look_for_orphans)
        self._statuses = StatusWriter(client, seams)
        self._parts = Parts(
            client=client,
            runtime=runtime,
            seams=seams,
            events=events,
            statuses=self._statuses,
            volumes=self._volumes,
            objects=self._objects,
            probes=Probes(runtime, seams, events, changed=self._wake),
            images=Images(runtime, seams, events),
            cgroups=cgroups or Cgroups(config.cgroup_root),
            node=config,
            services=lambda: tuple(self._services.list()),
            allocatable=node.allocatable,
            start_gate=asyncio.Semaphore(STARTS_AT_ONCE),
            began_at=seams.clock.now(),
        )

    def pods(self) -> list[Pod]:
        """Return the pods bound to this node, as the API server last showed them."""
        return self._pods.list()

    async def run(self) -> None:
        """Run pods until cancelled; their containers keep running."""
        cgroups = self._parts.cgroups
        for path in ("kubepods", "kubepods/burstable", "kubepods/besteffort"):
            await self._parts.seams.offload.run(cgroups.create, path)
        # Service variables must be there before the first container starts.
        await self._services.wait_synced()
        await self._pods.wait_synced()
        self._pods.on(add=self._added, update=self._updated, delete=self._deleted)
        try:
            await self.pleg.run()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._objects.close()

    def _added(self, pod: Pod) -> None:
        uid = pod["metadata"]["uid"]
        if uid in self._workers:
            self._workers[uid].update(pod)
            return
        worker = self._workers[uid] = Worker(self._parts, pod)
        task = self._tasks[uid] = tasks.spawn(worker.run(), name=f"pod/{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        task.add_done_callback(lambda _: self._ended(uid))

    def _updated(self, old: Pod, new: Pod) -> None:
        if old["metadata"]["uid"] != new["metadata"]["uid"]:
            self._deleted(old)
            self._added(new)
            return
        self._statuses.observe(new)
        worker = self._workers.get(new["metadata"]["uid"])
        if worker is not None and _matters(old, new):
            worker.update(new)

    def _deleted(self, pod: Pod) -> None:
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.delete()

    def _ended(self, uid: str) -> None:
        """A worker has ended: because its pod is gone, or because it crashed, and then a new one takes over."""
        task = self._tasks.pop(uid)
        worker = self._workers.pop(uid)
        if task.cancelled() or task.exception() is None:
            return
        present = self._pods.get(worker.pod["metadata"]["namespace"], worker.pod["metadata"]["name"])
        if present is not None and present["metadata"]["uid"] == uid:
            asyncio.get_running_loop().call_later(1.0, self._added, present)

    def _wake(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.wake()

    def _refresh(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.refresh()

    def _look_for_orphans(self, listed: set[str]) -> None:
        known = {pod["metadata"]["uid"] for pod in self._pods.list()} | set(self._workers)
        on_disk = set(self._volumes.kept_pods()) if not self._orphans else set[str]()
        orphans = (listed | on_disk | set(self._orphans)) - known
        self._orphans = {uid: self._orphans.get(uid, 0) + 1 for uid in orphans}
        for uid in [uid for uid, times in self._orphans.items() if times == ORPHAN_AFTER]:
            tasks.spawn(self._remove_orphan(uid), name=f"orphan/{uid}")

    async def _remove_orphan(self, uid: str) -> None:
        log.info("removing what is left of a pod that is gone", uid=uid)
        try:
            for sandbox in await self._runtime.list_sandboxes(uid=uid):
                await self._runtime.stop_sandbox(sandbox.id)
                await self._runtime.remove_sandbox(sandbox.id)
            await self._volumes.unmount(uid)
            for parent in ("kubepods", "kubepods/burstable", "kubepods/besteffort"):
                await self._parts.seams.offload.run(self._parts.cgroups.remove, f"{parent}/pod{uid}")
        except (CriError, ConnectionError, TimeoutError, OSError) as error:
            log.warning("left-over pod not removed; trying again", uid=uid, error=str(error))
        finally:
            self._orphans.pop(uid, None)


def _matters(old: Pod, new: Pod) -> bool:
    """Return whether a worker must look at a change: not when it is only the echo of its own status."""
    if old.get("spec") != new.get("spec"):
        return True
    names = ("deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "generation", "finalizers")
    if any(old["metadata"].get(name) != new["metadata"].get(name) for name in names):
        return True
    gates = {one["conditionType"] for one in new["spec"].get("readinessGates") or []}

    def seen(pod: Pod) -> Any:
        status = pod.get("status") or {}
        return status.get("phase"), status.get("resize"), [one for one in status.get("conditions") or [] if one["type"] in gates]

    return seen(old) != seen(new)
