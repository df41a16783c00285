"""Watches pods and nodes, decides in the engine, and writes the outcome: a binding, or why there is none and who makes room.

Informers hand bytes to the engine's snapshot; pods without a node go to the queue. One loop pops a batch, lets the engine decide it
(which assumes the winners in the snapshot at once, so that the next batch sees them) and hands the outcomes to a few workers that talk
to the API. A binding that fails is forgotten and the pod tried again. Nothing is remembered because a call returned: a pod counts as
placed when its informer shows a nodeName. `run` may be cancelled and started again, which is how leader election uses it.
Mirrors kube-scheduler's scheduling and binding cycles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from korch._core import native
from korch.api.errors import ApiError, NotFound
from korch.api.gvk import NODES, PODS, ResourceRef
from korch.client.events import EventRecorder
from korch.client.informer import Informers
from korch.client.protocol import Binder, Client, PodBinding
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.scheduler.attempts import AttemptLog
from korch.scheduler.others import STORAGE, Others
from korch.scheduler.pods import NodeView, PodView, decode_node, decode_pod
from korch.scheduler.preemption import Preemption, evict
from korch.scheduler.queue import ClusterEvent, QueuedPod, SchedulingQueue, node_events
from korch.scheduler.volumes import may_wait_for_consumer, select_node

log = get_logger("scheduler")

DEFAULT_SCHEDULER_NAME = "default-scheduler"
BATCH_MAX = 128
# A batch is as long as the event loop may be held for it, going by what a decision of the last one took.
BATCH_S_MAX = 0.01
# So many bindings are written in one commit where the server is in this process.
BINDINGS_MAX = 64
WRITERS = 16


@dataclass(frozen=True, slots=True)
class _Bind:
    """The pod is assumed on the node and wants to be told so."""

    queued: QueuedPod
    pod: PodView
    node: str
    since: float


@dataclass(frozen=True, slots=True)
class _Report:
    """The pod was not scheduled; its condition and an event say why. `nominated` is the node to be freed for it, "" when what it
    was nominated for is void, None when nothing changes."""

    pod: PodView
    reason: str
    message: str
    nominated: str | None = None


@dataclass(frozen=True, slots=True)
class _BindMany:
    """Pods to be bound together."""

    binds: Sequence[_Bind]


_Outcome = _Bind | _BindMany | _Report | Preemption


class Scheduler:
    """Schedules the pods whose spec.schedulerName is `scheduler_name`, or one of the profiles of `config`, a KubeSchedulerConfiguration
    in JSON. Raises ValueError when that is not valid. `attempts` is told how long everything takes."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        runtime: Runtime,
        *,
        scheduler_name: str = DEFAULT_SCHEDULER_NAME,
        config: bytes | None = None,
        attempts: AttemptLog | None = None,
    ) -> None:
        self._client = client
        self._informers = informers
        self._runtime = runtime
        self._engine = native.Scheduler(config)
        self._names = frozenset(self._engine.profiles()) if config is not None else frozenset({scheduler_name})
        self._recorder = EventRecorder(client, scheduler_name, runtime)
        self._outcomes: asyncio.Queue[_Outcome] = asyncio.Queue(4 * BATCH_MAX)
        self._binding: dict[str, QueuedPod] = {}
        # Changes that the engine has not been given yet: the newest state by key, None for a deletion.
        self._nodes_changed: dict[str, bytes | None] = {}
        self._pods_changed: dict[str, bytes | None] = {}
        self._is_started = False
        self._attempts = attempts
        self._binder = client if isinstance(client, Binder) else None
        self._decision_s = 0.0
        self.queue = SchedulingQueue(runtime.clock.monotonic)
        self._pods = informers.informer(PODS, decode=decode_pod)
        self._nodes = informers.informer(NODES, decode=decode_node)
        self._pods.on(add=self._pod_added, update=self._pod_updated, delete=self._pod_deleted)
        self._nodes.on(add=self._node_added, update=self._node_updated, delete=self._node_deleted)
        self._others = Others(client, informers, self._other_changed)

    @property
    def is_synced(self) -> bool:
        """Return whether the scheduler works: its informers have synced and it takes pods from the queue."""
        return self._is_started

    async def run(self) -> None:
        """Schedule until cancelled."""
        async with self._informers.running(), asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="scheduler/events")
            await self._nodes.wait_synced()
            await self._pods.wait_synced()
            await self._others.start()
            for number in range(WRITERS):
                group.create_task(self._write_outcomes(), name=f"scheduler/writer-{number}")
            self._is_started = True
            try:
                while True:
                    await self._schedule_batch()
            finally:
                self._is_started = False
                self._abandon()

    def explain(self, namespace: str, name: str) -> bytes | None:
        """Return the engine's matrix of nodes and plugins for a pod that is known here (JSON, see `_core.Scheduler.explain`), or None."""
        raw = self._pods.raw(f"{namespace}/{name}")
        if raw is None:
            return None
        self._feed_engine()
        return self._engine.explain(raw)

    @property
    def unwritten_events(self) -> int:
        """Return how many events for users wait to be written."""
        return self._recorder.waiting

    async def _schedule_batch(self) -> None:
        limit = max(1, min(BATCH_MAX, int(BATCH_S_MAX / self._decision_s))) if self._decision_s else BATCH_MAX
        popped: dict[str, QueuedPod] = {}
        batch: list[bytes] = []
        for queued in await self.queue.pop(limit):
            raw = self._pods.raw(queued.key)
            if raw is None or queued.pod.is_terminating:
                self.queue.delete(queued.key)
                continue
            popped[queued.key] = queued
            batch.append(raw)
        self._feed_engine()
        # From here to the requeueing there is no await: what the engine decides and what the queue knows are of one moment.
        outcomes: list[_Outcome] = []
        began = self._runtime.clock.monotonic()
        decisions = self._engine.schedule(batch, now_ms=int(self._runtime.clock.now() * 1000), seed=0)
        took = self._runtime.clock.monotonic() - began
        if decisions:
            self._decision_s = took / len(decisions)
            if self._attempts is not None:
                self._attempts.decided(len(decisions), took)
        for decision in decisions:
            queued = popped[decision.key]
            if decision.node:
                self._binding[queued.key] = queued
                outcomes.append(_Bind(queued, queued.pod, decision.node, began))
            else:
                self._note("unschedulable", took / len(decisions))
                self.queue.requeue(queued, frozenset(decision.plugins))
                outcomes += self._refusal(queued.pod, decision)
        for outcome in self._grouped(outcomes):
            await self._outcomes.put(outcome)

    def _grouped(self, outcomes: Sequence[_Outcome]) -> Iterator[_Outcome]:
        """Yield the outcomes, those that can be written in one commit as one."""
        plain: list[_Bind] = []
        for outcome in outcomes:
            if (
                self._binder is not None
                and isinstance(outcome, _Bind)
                and not may_wait_for_consumer(self._pods.raw(outcome.pod.key) or b"")
            ):
                plain.append(outcome)
            else:
                yield outcome
        for start in range(0, len(plain), BINDINGS_MAX):
            yield _BindMany(plain[start : start + BINDINGS_MAX])

    def _note(self, result: str, seconds: float) -> None:
        if self._attempts is not None:
            self._attempts.ended(result, seconds)

    def _refusal(self, pod: PodView, decision: native.Decision) -> list[_Outcome]:
        """Return what is to be written about a pod without a node: its condition, and who makes room for it."""
        clears = decision.clears_nomination and bool(pod.status.nominatedNodeName)
        nominated = decision.nominated or ("" if clears else None)
        outcomes: list[_Outcome] = [_Report(pod, "Unschedulable", decision.message, nominated)]
        if decision.victims:
            outcomes.append(Preemption(pod, decision.nominated, tuple(decision.victims), tuple(decision.displaced)))
        return outcomes

    async def _write_outcomes(self) -> None:
        while True:
            outcome = await self._outcomes.get()
            if isinstance(outcome, _Bind):
                await self._bind(outcome)
            elif isinstance(outcome, _BindMany):
                await self._bind_many(outcome.binds)
            elif isinstance(outcome, _Report):
                await self._report(outcome)
            else:
                await evict(self._client, self._recorder, self._runtime, outcome)

    async def _bind(self, outcome: _Bind) -> None:
        pod = outcome.pod
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": outcome.node},
        }
        try:
            await select_node(self._client, self._pods.raw(pod.key) or b"", outcome.node)
            await self._client.create(PODS, binding, namespace=pod.namespace, name=pod.name, subresource="binding")
        except (ApiError, OSError) as error:
            await self._not_bound(outcome, error)
        else:
            self._is_bound(outcome)

    async def _bind_many(self, binds: Sequence[_Bind]) -> None:
        assert self._binder is not None, "only then are they put together"
        bindings = [PodBinding(one.pod.namespace, one.pod.name, one.pod.uid, one.node) for one in binds]
        answers: Sequence[ApiError | OSError | None]
        try:
            answers = await self._binder.bind_pods(bindings)
        except (ApiError, OSError) as error:
            answers = [error] * len(binds)
        for outcome, error in zip(binds, answers, strict=True):
            if error is None:
                self._is_bound(outcome)
            else:
                await self._not_bound(outcome, error)

    async def _not_bound(self, outcome: _Bind, error: ApiError | OSError) -> None:
        pod, queued = outcome.pod, outcome.queued
        self._binding.pop(queued.key, None)
        self._forget(queued.key)
        self._note("error", self._runtime.clock.monotonic() - outcome.since)
        if isinstance(error, NotFound):
            # The informer will say so too, and then the queue drops the pod.
            return
        # The answer may be lost and the pod bound all the same; then its informer takes it out of the queue before the next attempt.
        self.queue.requeue_after_error(queued)
        log.warning("binding failed", pod=pod.key, node=outcome.node, error=str(error))
        if pod.key in self.queue:
            await self._report(_Report(pod, "SchedulerError", f"binding rejected: {error}"))

    def _is_bound(self, outcome: _Bind) -> None:
        # It stays in flight in the queue until the informer shows its node: older news must not bring it up again.
        pod = outcome.pod
        self._binding.pop(outcome.queued.key, None)
        self._note("scheduled", self._runtime.clock.monotonic() - outcome.since)
        log.info("pod bound", pod=pod.key, node=outcome.node)
        self._recorder.event(pod, "Normal", "Scheduled", f"Successfully assigned {pod.namespace}/{pod.name} to {outcome.node}")

    async def _report(self, report: _Report) -> None:
        pod = self._pods.get_by_key(report.pod.key)
        if pod is None or pod.uid != report.pod.uid or pod.spec.nodeName:
            return
        self._recorder.event(pod, "Warning", "FailedScheduling", report.message)
        known = pod.condition("PodScheduled")
        says_so = known is not None and (known.status, known.reason, known.message) == ("False", report.reason, report.message)
        if says_so and report.nominated in (None, pod.status.nominatedNodeName):
            return
        now = rfc3339(self._runtime.clock.now())
        since = known.lastTransitionTime if known is not None and known.status == "False" else ""
        condition: dict[str, Any] = {"type": "PodScheduled", "status": "False", "reason": report.reason, "message": report.message}
        condition |= {"lastProbeTime": None, "lastTransitionTime": since or now}
        if pod.metadata.generation:
            condition["observedGeneration"] = pod.metadata.generation
        status: dict[str, Any] = {"conditions": [condition]}
        if report.nominated is not None:
            status["nominatedNodeName"] = report.nominated or None
        patch = {"metadata": {"uid": pod.uid}, "status": status}
        try:
            await self._client.patch(PODS, pod.name, patch, namespace=pod.namespace, subresource="status", patch_type="strategic")
        except NotFound:
            return
        except (ApiError, OSError) as error:
            log.warning("condition not written", pod=pod.key, error=str(error))

    def _forget(self, key: str) -> None:
        """Take back an assumed pod; what it held is free for others."""
        self._engine.forget([key])
        self.queue.move(ClusterEvent.POD_GONE)

    def _abandon(self) -> None:
        """Take back what was decided and not written when `run` ends; a next run, here or elsewhere, decides anew."""
        while not self._outcomes.empty():
            self._outcomes.get_nowait()
        for key, queued in self._binding.items():
            self._engine.forget([key])
            self.queue.requeue_after_error(queued)
        self._binding.clear()

    def _feed_engine(self) -> None:
        nodes, self._nodes_changed = self._nodes_changed, {}
        pods, self._pods_changed = self._pods_changed, {}
        if gone := [key for key, raw in nodes.items() if raw is None]:
            self._engine.remove("Node", gone)
        if gone := [key for key, raw in pods.items() if raw is None]:
            self._engine.remove("Pod", gone)
        if nodes or pods:
            self._engine.upsert([raw for raw in nodes.values() if raw], [raw for raw in pods.values() if raw])
        changed, removed = self._others.take()
        if changed:
            self._engine.upsert([], [], changed)
        for kind, keys in removed.items():
            self._engine.remove(kind, keys)

    def _pod_added(self, pod: PodView) -> None:
        self._pods_changed[pod.key] = self._pods.raw(pod.key)
        if self._is_mine(pod):
            self.queue.add(pod)
        elif pod.holds_node:
            self.queue.move(ClusterEvent.POD_BOUND)

    def _pod_updated(self, old: PodView, new: PodView) -> None:
        self._pods_changed[new.key] = self._pods.raw(new.key)
        if self._is_mine(new):
            self.queue.update(old, new)
        else:
            self.queue.delete(new.key)
        if old.holds_node and not new.holds_node:
            self.queue.move(ClusterEvent.POD_GONE)
        elif new.holds_node and (not old.holds_node or old.labels != new.labels):
            self.queue.move(ClusterEvent.POD_BOUND)
        elif new.holds_node and old.metadata.generation != new.metadata.generation:
            # Resized in place, perhaps to less.
            self.queue.move(ClusterEvent.POD_GONE)

    def _pod_deleted(self, pod: PodView) -> None:
        self._pods_changed[pod.key] = None
        self.queue.delete(pod.key)
        if not pod.is_terminal:
            # Also a pod without a node may have been assumed on one.
            self.queue.move(ClusterEvent.POD_GONE)

    def _is_mine(self, pod: PodView) -> bool:
        return not pod.spec.nodeName and not pod.is_terminal and not pod.is_terminating and pod.spec.schedulerName in self._names

    def _node_added(self, node: NodeView) -> None:
        self._nodes_changed[node.name] = self._nodes.raw(node.name)
        self.queue.move(ClusterEvent.NODE_ADD)

    def _node_updated(self, old: NodeView, new: NodeView) -> None:
        self._nodes_changed[new.name] = self._nodes.raw(new.name)
        for event in node_events(old, new):
            self.queue.move(event)

    def _node_deleted(self, node: NodeView) -> None:
        self._nodes_changed[node.name] = None

    def _other_changed(self, resource: ResourceRef) -> None:
        if resource in STORAGE:
            self.queue.move(ClusterEvent.STORAGE)
