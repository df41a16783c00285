"""The Rust engine and the scheduling queue alone: no store, no API, no informers. What is measured is deciding.

An object goes to the engine as the JSON that a server would have stored. A pod waits in the real queue; a task takes batches from it and
has the engine decide, exactly as the scheduler does, and a decision counts as bound at once. Victims of preemption leave at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from korch._core import native
from korch.api.gvk import ResourceRef
from korch.lab.bench.ledger import PodLedger
from korch.lab.bench.stage import Kinds, Names, Object, StageError
from korch.lab.cluster_events import ClusterEvent, NodeView, decode_node, node_events
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.scheduler.attempts import AttemptLog
from korch.scheduler.pods import PodView, decode_pod
from korch.scheduler.queue import QueuedPod, SchedulingQueue
from korch.scheduler.scheduler import BATCH_MAX

_DROPPED = frozenset({"PersistentVolume", "PersistentVolumeClaim", "StorageClass", "CSINode"})


class EngineStage:
    """Made by `open`."""

    level = "engine"

    def __init__(self, config: bytes | None, runtime: Runtime, seed: int) -> None:
        self.ledger = PodLedger(runtime.clock.monotonic)
        self.attempts = AttemptLog()
        self._clock = runtime.clock
        self._engine = native.Scheduler(config)
        self._names = frozenset(self._engine.profiles())
        self._kinds = Kinds(catalogue())
        self._made_names = Names(seed)
        self._queue = SchedulingQueue(runtime.clock.monotonic)
        self._pods: dict[str, bytes] = {}
        self._placed: dict[str, str] = {}
        self._nodes: dict[str, NodeView] = {}
        self._count = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, config: bytes | None, runtime: Runtime, *, seed: int = 1) -> AsyncIterator[EngineStage]:
        """Yield a running stage. `config` is a KubeSchedulerConfiguration in JSON."""
        stage = cls(config, runtime, seed)
        async with asyncio.TaskGroup() as tasks:
            deciding = tasks.create_task(stage._decide(), name="engine")
            try:
                yield stage
            finally:
                deciding.cancel()

    async def create(self, obj: Object, namespace: str = "") -> str:
        kind = self._kinds.of(obj)
        name = self._made_names.complete(obj)
        if kind.kind == "Pod":
            await self.create_pod(orjson.dumps(obj), namespace, name)
        elif kind.kind == "Node":
            self._take_node(obj)
        else:
            if kind.namespaced:
                obj["metadata"]["namespace"] = namespace
            self._upsert([], [], [orjson.dumps(obj)])
            if kind.kind in _DROPPED:
                self._queue.move(ClusterEvent.STORAGE.may_help)
        return name

    async def create_pod(self, body: bytes, namespace: str, name: str) -> None:
        obj: Object = orjson.loads(body)
        self._count += 1
        obj["metadata"] |= {"namespace": namespace, "uid": str(self._count)}
        obj["spec"].setdefault("schedulerName", "default-scheduler")
        raw = orjson.dumps(obj)
        pod = decode_pod(raw)
        self._pods[pod.key] = raw
        self.ledger.made(namespace, pod.name, pod.labels)
        self._wait(None, pod)

    async def update(self, obj: Object, namespace: str, subresource: str = "") -> None:
        if subresource == "status":
            return
        kind = self._kinds.of(obj)
        if kind.kind == "Node":
            self._take_node(obj)
        elif kind.kind == "Pod":
            self._change_pod(obj, namespace)
        else:
            await self.create(obj, namespace)

    async def delete(self, kind: ResourceRef, name: str, namespace: str = "") -> None:
        key = f"{namespace}/{name}" if kind.namespaced else name
        if kind.kind == "Pod":
            self._drop_pod(key)
            return
        if kind.kind == "Node":
            self._nodes.pop(name, None)
        self._engine.remove(kind.kind, [key])

    async def rest(self) -> None:
        return

    def waiting(self) -> dict[str, int]:
        return self._queue.counts()

    def _upsert(self, nodes: list[bytes], pods: list[bytes], others: list[bytes]) -> None:
        try:
            self._engine.upsert(nodes, pods, others)
        except ValueError as error:
            raise StageError(str(error)) from error

    def _take_node(self, obj: Object) -> None:
        status = obj.setdefault("status", {})
        # A server would say that a node which reserves nothing can give all it has.
        status.setdefault("allocatable", status.get("capacity", {}))
        raw = orjson.dumps(obj)
        node = decode_node(raw)
        self._upsert([raw], [], [])
        for event in node_events(self._nodes.get(node.name), node):
            self._queue.move(event.may_help)
        self._nodes[node.name] = node

    def _wait(self, old: PodView | None, pod: PodView) -> None:
        if pod.is_gated:
            # A server says so at once, with a condition.
            self.ledger.attempted(pod.key)
        if pod.spec.schedulerName not in self._names:
            return
        if old is None:
            self._queue.add(pod)
        else:
            self._queue.update(old, pod)

    def _change_pod(self, obj: Object, namespace: str) -> None:
        key = f"{namespace}/{obj['metadata']['name']}"
        before = self._pods.get(key)
        if before is None:
            raise StageError(f'pods "{obj["metadata"]["name"]}" not found')
        known: Object = orjson.loads(before)
        node = self._placed.get(key)
        metadata = known["metadata"] | {"labels": obj["metadata"].get("labels", {})}
        spec = {"schedulerName": "default-scheduler"} | obj.get("spec", {})
        changed = known | {"metadata": metadata, "spec": spec}
        raw = orjson.dumps(changed)
        self._pods[key] = raw
        if node is not None:
            changed["spec"]["nodeName"] = node
            self._upsert([], [orjson.dumps(changed)], [])
            self._queue.move(ClusterEvent.POD_BOUND.may_help)
            self._queue.move(ClusterEvent.POD_GONE.may_help)
        else:
            self._wait(decode_pod(before), decode_pod(raw))

    def _drop_pod(self, key: str) -> None:
        if self._pods.pop(key, None) is None:
            return
        self._placed.pop(key, None)
        self._queue.delete(key)
        self._engine.remove("Pod", [key])
        self.ledger.gone(key)
        self._queue.move(ClusterEvent.POD_GONE.may_help)

    async def _decide(self) -> None:
        while True:
            popped = {one.key: one for one in await self._queue.pop(BATCH_MAX)}
            began = self._clock.monotonic()
            decisions = self._engine.schedule([self._pods[key] for key in popped], now_ms=0, seed=0)
            took = self._clock.monotonic() - began
            self.attempts.decided(len(popped), took)
            for decision in decisions:
                self._follow(popped[decision.key], decision, took / len(popped))
            await asyncio.sleep(0)

    def _follow(self, queued: QueuedPod, decision: native.Decision, took: float) -> None:
        if not decision.node:
            self.attempts.ended("unschedulable", took)
            self.ledger.attempted(decision.key)
            self._queue.requeue(queued, frozenset(decision.plugins))
            for key, _ in decision.victims:
                self._drop_pod(key)
            return
        self._placed[decision.key] = decision.node
        self.attempts.ended("scheduled", took)
        self._queue.delete(decision.key)
        self.ledger.placed(decision.key)
        self._queue.move(ClusterEvent.POD_BOUND.may_help)
