"""A whole control plane in this process: store, API server, garbage collection, namespaces and the scheduler, as in production.

Nodes are objects that nobody runs. As in upstream's benchmark the admission plugins ServiceAccount, Priority and TaintNodesByCondition are
off, because templates set priorities by number and no other controllers run. The ledger reads the scheduler's own informer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import NAMESPACES, PODS, ResourceRef
from korch.apiserver.identity import User
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions
from korch.controllers.garbage_collector import GarbageCollector
from korch.controllers.namespace import NamespaceController
from korch.lab.bench.ledger import PodLedger
from korch.lab.bench.pod_group import POD_GROUP_KINDS
from korch.lab.bench.stage import Kinds, Names, Object, StageError
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.scheduler.attempts import AttemptLog
from korch.scheduler.pods import PodView, decode_pod
from korch.scheduler.scheduler import Scheduler
from korch.storage import Storage

_DISABLED_ADMISSION = frozenset({"ServiceAccount", "Priority", "TaintNodesByCondition"})
_START_PAUSE_S = 0.005
_REST_PAUSE_S = 0.05


class ClusterStage:
    """Made by `open`."""

    level = "cluster"

    def __init__(self, server: ApiServer, config: bytes | None, kinds: Kinds, runtime: Runtime, *, seed: int) -> None:
        self.ledger = PodLedger(runtime.clock.monotonic)
        self.attempts = AttemptLog()
        self._kinds = kinds
        self._names = Names(seed)
        self._client = server.client()
        client = server.client(User("system:kube-scheduler", groups=("system:authenticated",)))
        self._informers = Informers(client, runtime)
        self._scheduler = Scheduler(client, self._informers, runtime, config=config, attempts=self.attempts)
        pods = self._informers.informer(PODS, decode=decode_pod)
        pods.on(add=self._added, update=self._updated, delete=lambda pod: self.ledger.gone(pod.key))
        controlling = server.client(User("system:kube-controller-manager", groups=("system:authenticated",)))
        # They share their caches with the scheduler, as they do in upstream's benchmark.
        self._components = [
            self._scheduler.run,
            GarbageCollector(controlling, self._informers, runtime).run,
            NamespaceController(controlling, self._informers, runtime).run,
        ]

    @classmethod
    @asynccontextmanager
    async def open(
        cls, config: bytes | None, runtime: Runtime, *, seed: int = 1, directory: str | None = None, has_pod_groups: bool = False
    ) -> AsyncIterator[ClusterStage]:
        """Yield a running stage. `config` is a KubeSchedulerConfiguration in JSON; the store is in memory, or durable in `directory`."""
        storage = Storage.open(directory, runtime)
        kinds = catalogue()
        if has_pod_groups:
            for kind in POD_GROUP_KINDS:
                kinds.add(kind)
        server = ApiServer(runtime, storage, kinds, ServerConfig(disabled_admission=_DISABLED_ADMISSION))
        stage = cls(server, config, Kinds(kinds), runtime, seed=seed)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(server.run(), name="api"), tasks.create_task(storage.run(), name="storage")]
                while not server.is_ready():
                    await asyncio.sleep(_START_PAUSE_S)
                running += [tasks.create_task(run()) for run in stage._components]
                while not stage._scheduler.is_synced:
                    await asyncio.sleep(_START_PAUSE_S)
                try:
                    yield stage
                finally:
                    for task in running:
                        task.cancel()
        finally:
            await storage.close()

    async def create(self, obj: Object, namespace: str = "") -> str:
        kind = self._kinds.of(obj)
        name = self._names.complete(obj)
        if kind.kind == "Pod":
            self.ledger.submitted(f"{namespace}/{name}")
        status = obj.get("status")
        try:
            raw = await self._client.create(kind, obj, namespace=namespace)
            if status and kind.kind in ("PersistentVolume", "PersistentVolumeClaim"):
                # A new volume or claim is pending, whatever it says of itself.
                await self._client.update(
                    kind, orjson.loads(raw) | {"status": status}, name=name, namespace=namespace, subresource="status"
                )
        except AlreadyExists as error:
            if kind != NAMESPACES:
                raise StageError(f"{kind.kind} {name}: {error.message}") from error
        except ApiError as error:
            raise StageError(f"{kind.kind} {name}: {error.message}") from error
        return name

    async def create_pod(self, body: bytes, namespace: str, name: str) -> None:
        self.ledger.submitted(f"{namespace}/{name}")
        try:
            await self._client.create(PODS, body, namespace=namespace)
        except ApiError as error:
            raise StageError(f"pod {namespace}/{name}: {error.message}") from error

    async def update(self, obj: Object, namespace: str, subresource: str = "") -> None:
        kind, name = self._kinds.of(obj), obj["metadata"]["name"]
        try:
            await self._client.update(kind, obj, name=name, namespace=namespace, subresource=subresource)
        except ApiError as error:
            raise StageError(f"{kind.kind} {name}: {error.message}") from error

    async def delete(self, kind: ResourceRef, name: str, namespace: str = "") -> None:
        try:
            await self._client.delete(kind, name, namespace=namespace, options=DeleteOptions(grace_period_s=0))
        except NotFound:
            return
        except ApiError as error:
            raise StageError(f"{kind.kind} {name}: {error.message}") from error

    async def rest(self) -> None:
        while self._scheduler.unwritten_events:
            await asyncio.sleep(_REST_PAUSE_S)

    def waiting(self) -> dict[str, int]:
        return self._scheduler.queue.counts()

    def _added(self, pod: PodView) -> None:
        self.ledger.made(pod.namespace, pod.name, pod.labels)
        self._see(pod)

    def _updated(self, _: PodView, pod: PodView) -> None:
        record = self.ledger.pods.get(pod.key)
        if record is not None and record.labels != pod.labels:
            record.labels = pod.labels
        self._see(pod)

    def _see(self, pod: PodView) -> None:
        if pod.spec.nodeName:
            self.ledger.placed(pod.key)
        elif pod.condition("PodScheduled") is not None:
            self.ledger.attempted(pod.key)
