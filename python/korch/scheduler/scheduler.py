"""Watches pods and nodes, decides in the engine, and writes the outcome: a binding, or why there is none and who makes room.

Informers hand bytes to the engine's snapshot; pods without a node go to the queue. One loop pops a batch, lets the engine decide it
(which assumes the winners in the snapshot at once, so that the next batch sees them) and hands the outcomes to a few workers that talk
to the API. Pods about which extenders or Python plugins have a say are decided one by one, in steps. A binding that fails is forgotten
and the pod tried again. Nothing is remembered because a call returned: a pod counts as placed when its informer shows a nodeName. `run`
may be cancelled and started again, which is how leader election uses it. Mirrors kube-scheduler's scheduling and binding cycles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from korch._core import native
from korch.api.errors import ApiError, NotFound
from korch.api.gvk import NODES, PODS, ResourceRef
from korch.client.events import EventRecorder
from korch.client.informer import Informers
from korch.client.projections import Meta
from korch.client.protocol import Binder, Client, PodBinding
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.scheduler.attempts import AttemptLog
from korch.scheduler.config import DEFAULT_SCHEDULER_NAME, DYNAMIC_RESOURCES, Enabled, settings
from korch.scheduler.devices.plugin import DynamicResources
from korch.scheduler.extenders import ExtenderError
from korch.scheduler.others import Others
from korch.scheduler.plugins import Factory, PluginError
from korch.scheduler.pods import PodView, decode_pod
from korch.scheduler.preemption import Preemption, evict
from korch.scheduler.queue import Place, QueuedPod, SchedulingQueue
from korch.scheduler.steps import Steps
from korch.scheduler.volumes import may_wait_for_consumer, select_node

log = get_logger("scheduler")

BATCH_MAX = 128
# A batch is as long as the event loop may be held for it, going by what a decision of the last one took.
BATCH_S_MAX = 0.01
# So many bindings are written in one commit where the server is in this process.
BINDINGS_MAX = 64
WRITERS = 16
DEVICES_WEIGHT = 2


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
    in JSON, with its extenders and with plugins in Python, which are found in `plugins` by name (see `korch.scheduler.plugins`). Raises
    ValueError when that is not valid. `attempts` is told how long everything takes."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        runtime: Runtime,
        *,
        scheduler_name: str = DEFAULT_SCHEDULER_NAME,
        config: bytes | None = None,
        plugins: Mapping[str, Factory] | None = None,
        attempts: AttemptLog | None = None,
    ) -> None:
        self._client = client
        self._informers = informers
        self._runtime = runtime
        read = settings(config, plugins)
        self._engine = native.Scheduler(read.engine)
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
        self._nodes = informers.informer(NODES)
        self._pods.on(add=self._pod_added, update=self._pod_updated, delete=self._pod_deleted)
        self._nodes.on(add=self._node_changed, update=lambda _, new: self._node_changed(new), delete=self._node_deleted)
        draws = runtime.rng.stream("scheduler/ties")
        self._devices = DynamicResources(client, informers, runtime.clock, self._devices_changed)
        built_in = [Enabled(self._devices, filters=True, weight=DEVICES_WEIGHT)]
        self._steps = Steps(read, self._engine, self._nodes.raw, self._pods.raw, draws, built_in)
        # A pod is being decided in steps: the engine must not learn of changes that it would miss.
        self._is_deciding = False
        self._devices_moved = False
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
            await self._devices.start()
            for number in range(WRITERS):
                group.create_task(self._write_outcomes(), name=f"scheduler/writer-{number}")
            self._is_started = True
            try:
                while True:
                    await self._schedule_batch()
            finally:
                self._is_started = False
                self._is_deciding = False
                self._abandon()
                await self._steps.close()

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
        plain: list[QueuedPod] = []
        for queued in await self.queue.pop(limit, self._feed_engine):
            raw = self._wanted(queued)
            if raw is None or not self._steps.concerns(queued.pod.spec.schedulerName, raw):
                plain.append(queued)
                continue
            # In the order of the queue: those before it first.
            await self._decide(plain)
            plain = []
            await self._decide_in_steps(queued)
        await self._decide(plain)

    def _wanted(self, queued: QueuedPod) -> bytes | None:
        """Return the bytes of a pod that was popped, or None, and forget it, when it is no longer to be scheduled."""
        raw = self._pods.raw(queued.key)
        if self.queue.get(queued.key) is not queued or queued.place is not Place.IN_FLIGHT:
            return None
        if raw is None or queued.pod.is_terminating:
            self.queue.delete(queued.key)
            return None
        return raw

    async def _decide(self, pods: Iterable[QueuedPod]) -> None:
        popped: dict[str, QueuedPod] = {}
        batch: list[bytes] = []
        for queued in pods:
            if (raw := self._wanted(queued)) is not None:
                popped[queued.key] = queued
                batch.append(raw)
        if not batch:
            return
        self._feed_engine()
        # From here to the requeueing there is no await: what the engine decides and what the queue knows are of one moment.
        began = self._runtime.clock.monotonic()
        decisions = self._engine.schedule(batch, now_ms=int(self._runtime.clock.now() * 1000), seed=0)
        took = self._runtime.clock.monotonic() - began
        self._decision_s = took / len(decisions)
        if self._attempts is not None:
            self._attempts.decided(len(decisions), took)
        outcomes: list[_Outcome] = []
        for decision in decisions:
            outcomes += self._take_in(popped[decision.key], decision, began, took / len(decisions))
        for outcome in self._grouped(outcomes):
            await self._outcomes.put(outcome)

    async def _decide_in_steps(self, queued: QueuedPod) -> None:
        raw = self._wanted(queued)
        if raw is None:
            return
        self._feed_engine()
        began = self._runtime.clock.monotonic()
        self._is_deciding = True
        try:
            decision = await self._steps.decide(queued.pod.spec.schedulerName, raw, lambda: self._wanted(queued) is not None)
        except (PluginError, ExtenderError) as error:
            self._note("error", self._runtime.clock.monotonic() - began)
            self.queue.requeue_after_error(queued)
            log.warning("pod not decided", pod=queued.key, error=str(error))
            await self._outcomes.put(_Report(queued.pod, "SchedulerError", str(error)))
            return
        finally:
            self._is_deciding = False
        if decision is None:
            return
        outcomes = self._take_in(queued, decision, began, self._runtime.clock.monotonic() - began)
        if self._devices_moved:
            self._devices_changed(None)
        for outcome in outcomes:
            await self._outcomes.put(outcome)

    def _take_in(self, queued: QueuedPod, decision: native.Decision, began: float, took: float) -> list[_Outcome]:
        """Note a decision, and return what is to be written."""
        if decision.node:
            self._binding[queued.key] = queued
            return [_Bind(queued, queued.pod, decision.node, began)]
        self._note("unschedulable", took)
        self.queue.requeue(queued, frozenset(decision.plugins))
        if queued.place is Place.UNSCHEDULABLE and (raw := self._pods.raw(queued.key)) is not None:
            self._engine.wait(raw, decision.plugins)
        return self._refusal(queued.pod, decision)

    def _grouped(self, outcomes: Sequence[_Outcome]) -> Iterator[_Outcome]:
        """Yield the outcomes, those that can be written in one commit as one."""
        plain: list[_Bind] = []
        for outcome in outcomes:
            if self._binder is not None and isinstance(outcome, _Bind) and not self._binds_alone(outcome.pod):
                plain.append(outcome)
            else:
                yield outcome
        for start in range(0, len(plain), BINDINGS_MAX):
            yield _BindMany(plain[start : start + BINDINGS_MAX])

    def _binds_alone(self, pod: PodView) -> bool:
        """Return whether something else is to be written before the pod is bound, or somebody else binds it."""
        raw = self._pods.raw(pod.key) or b""
        return may_wait_for_consumer(raw) or self._steps.concerns(pod.spec.schedulerName, raw)

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
        raw = self._pods.raw(pod.key) or b""
        try:
            await select_node(self._client, raw, outcome.node)
            has_steps = self._steps.concerns(pod.spec.schedulerName, raw)
            if has_steps:
                await self._steps.pre_bind(pod.spec.schedulerName, raw, outcome.node)
            if not (has_steps and await self._steps.bind(orjson.loads(raw), outcome.node)):
                await self._client.create(PODS, binding, namespace=pod.namespace, name=pod.name, subresource="binding")
        except (ApiError, OSError, ExtenderError, PluginError) as error:
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

    async def _not_bound(self, outcome: _Bind, error: ApiError | OSError | ExtenderError | PluginError) -> None:
        pod, queued = outcome.pod, outcome.queued
        self._binding.pop(queued.key, None)
        self._forget(pod)
        self._note("error", self._runtime.clock.monotonic() - outcome.since)
        if isinstance(error, NotFound):
            # The informer will say so too, and then the queue drops the pod.
            return
        # The answer may be lost and the pod bound all the same; then its informer takes it out of the queue before the next attempt.
        self.queue.requeue_after_error(queued)
        log.warning("binding failed", pod=pod.key, node=outcome.node, error=str(error))
        if pod.key in self.queue:
            words = str(error) if isinstance(error, PluginError) else f"binding rejected: {error}"
            await self._report(_Report(pod, "SchedulerError", words))

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

    def _forget(self, pod: PodView) -> None:
        """Take back an assumed pod; what it held is free for others."""
        self._steps.unreserve(pod.spec.schedulerName, pod.uid)
        self.queue.wake(self._engine.forget([pod.key]))

    def _abandon(self) -> None:
        """Take back what was decided and not written when `run` ends; a next run, here or elsewhere, decides anew."""
        while not self._outcomes.empty():
            self._outcomes.get_nowait()
        for queued in self._binding.values():
            self._forget(queued.pod)
            self.queue.requeue_after_error(queued)
        self._binding.clear()

    def _feed_engine(self) -> None:
        """Tell the engine what changed, and give another try to the pods that this may help."""
        if self._is_deciding:
            return
        nodes, self._nodes_changed = self._nodes_changed, {}
        pods, self._pods_changed = self._pods_changed, {}
        woken: list[str] = []
        if gone := [key for key, raw in nodes.items() if raw is None]:
            woken += self._engine.remove("Node", gone)
        if gone := [key for key, raw in pods.items() if raw is None]:
            woken += self._engine.remove("Pod", gone)
        if nodes or pods:
            woken += self._engine.upsert([raw for raw in nodes.values() if raw], [raw for raw in pods.values() if raw])
        changed, removed = self._others.take()
        if changed:
            woken += self._engine.upsert([], [], changed)
        for kind, keys in removed.items():
            woken += self._engine.remove(kind, keys)
        self.queue.wake(woken)

    def _pod_added(self, pod: PodView) -> None:
        self._pod_changed(pod)
        if self._is_mine(pod):
            self.queue.add(pod)

    def _pod_updated(self, old: PodView, new: PodView) -> None:
        self._pod_changed(new)
        if self._is_mine(new):
            self.queue.update(old, new)
            if old.status.resourceClaimStatuses != new.status.resourceClaimStatuses and new.key in self.queue.rejected_by(
                DYNAMIC_RESOURCES
            ):
                self.queue.wake([new.key])
        else:
            self.queue.delete(new.key)

    def _pod_deleted(self, pod: PodView) -> None:
        self._pods_changed[pod.key] = None
        self.queue.delete(pod.key)
        self.queue.notice()

    def _pod_changed(self, pod: PodView) -> None:
        self._pods_changed[pod.key] = self._pods.raw(pod.key)
        self.queue.notice()

    def _is_mine(self, pod: PodView) -> bool:
        return not pod.spec.nodeName and not pod.is_terminal and not pod.is_terminating and pod.spec.schedulerName in self._names

    def _node_changed(self, node: Meta) -> None:
        self._nodes_changed[node.name] = self._nodes.raw(node.name)
        self.queue.notice()

    def _node_deleted(self, node: Meta) -> None:
        self._nodes_changed[node.name] = None
        self._steps.forget_node(node.name)
        self.queue.notice()

    def _devices_changed(self, claim: str | None) -> None:
        """Give another try to pods that wait for devices: all of them, or those that use a claim."""
        self._devices_moved = self._is_deciding
        waiting = self.queue.rejected_by(DYNAMIC_RESOURCES)
        if claim is not None:
            waiting = [key for key in waiting if self._devices.uses(orjson.loads(self._pods.raw(key) or b"{}"), claim)]
        self.queue.wake(waiting)

    def _other_changed(self, resource: ResourceRef) -> None:
        self.queue.notice()
