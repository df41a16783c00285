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
from itertools import groupby
from typing import Any

import orjson

from korch._core import native
from korch.api.errors import ApiError, NotFound
from korch.api.features import Features
from korch.api.gvk import NODES, POD_GROUPS, PODS, ResourceRef
from korch.client.events import EventRecorder
from korch.client.informer import Informers
from korch.client.projections import Meta
from korch.client.protocol import Binder, Client, ListOptions, PodBinding
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.scheduler import group_cycle
from korch.scheduler.attempts import AttemptLog
from korch.scheduler.config import DEFAULT_SCHEDULER_NAME, DYNAMIC_RESOURCES, Enabled, settings
from korch.scheduler.devices.plugin import DynamicResources
from korch.scheduler.extenders import ExtenderError
from korch.scheduler.groups import INITIALLY_SCHEDULED, PodGroups, PodGroupView, decode_pod_group
from korch.scheduler.others import Others
from korch.scheduler.plugins import Factory, PluginError
from korch.scheduler.pods import PodView, decode_pod
from korch.scheduler.preemption import Preemption, evict
from korch.scheduler.queue import Place, QueuedGroup, QueuedPod, SchedulingQueue
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


@dataclass(frozen=True, slots=True)
class _GroupReport:
    """What became of a pod group, for its condition PodGroupInitiallyScheduled."""

    group: PodGroupView
    status: str
    reason: str
    message: str


_Outcome = _Bind | _BindMany | _Report | _GroupReport | Preemption


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
        features: Features = Features(),
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
        self._has_groups = False
        # Uids of groups of which is or will be written that they were scheduled; what is told of them later must not overtake that.
        self._placed_groups: set[str] = set()
        self._attempts = attempts
        self._binder = client if isinstance(client, Binder) else None
        self._decision_s = 0.0
        self._groups = PodGroups(self._group_changed) if features.generic_workload else None
        self.queue = SchedulingQueue(runtime.clock.monotonic, self._groups)
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
            await self._follow_groups()
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
        for group, pods in groupby(await self.queue.pop(limit, self._feed_engine), lambda one: one.group):
            if group is not None:
                await self._decide(plain)
                plain = []
                await self._decide_group(group, list(pods))
                continue
            plain = await self._decide_in_turn(plain, pods)
        await self._decide(plain)

    async def _decide_in_turn(self, plain: list[QueuedPod], pods: Iterable[QueuedPod]) -> list[QueuedPod]:
        """Decide pods of no group in the order of the queue, and return those that can wait for a batch."""
        for queued in pods:
            raw = self._wanted(queued)
            if raw is None or not self._steps.concerns(queued.pod.spec.schedulerName, raw):
                plain.append(queued)
                continue
            # In the order of the queue: those before it first.
            await self._decide(plain)
            plain = []
            await self._decide_in_steps(queued)
        return plain

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

    async def _decide_group(self, group: QueuedGroup, popped: Sequence[QueuedPod]) -> None:
        """Decide the pods of a group together and put those back that have no node."""
        assert self._groups is not None, "else there are no groups"
        members = [one for one in popped if self._wanted(one) is not None]
        view = self._groups.get(group.key)
        if view is None or not members:
            self.queue.finish(group, is_placed=False)
            return
        self._feed_engine()
        began = self._runtime.clock.monotonic()
        self._is_deciding = True
        try:
            outcome = await self._try_group(view, members)
        finally:
            self._is_deciding = False
        outcomes = self._take_in_group(view, members, outcome, began)
        if self._devices_moved:
            self._devices_changed(None)
        for one in outcomes:
            await self._outcomes.put(one)

    async def _try_group(self, view: PodGroupView, members: Sequence[QueuedPod]) -> group_cycle.Outcome:
        assert self._groups is not None, "else there are no groups"
        placed = self._placed_of(view.key)
        try:
            group_cycle.validate(view, [*(one.pod for one in members), *placed])
        except group_cycle.GroupError as error:
            return group_cycle.Outcome(error=str(error), message=str(error))
        return await group_cycle.run(view, members, len(placed), self._decide_member)

    async def _decide_member(self, queued: QueuedPod) -> native.Decision | None:
        raw = self._wanted(queued)
        if raw is None:
            return None
        name = queued.pod.spec.schedulerName
        if self._steps.concerns(name, raw):
            return await self._steps.decide(name, raw, lambda: self._wanted(queued) is not None, preempts=False)
        return self._engine.schedule_member(raw)

    def _placed_of(self, key: str) -> list[PodView]:
        """Return the pods of a group that have a node, or are about to be bound."""
        assert self._groups is not None, "else there are no groups"
        placed = {pod.key: pod for pod in self._groups.placed(key)}
        assumed = {one.key: one.pod for one in self._binding.values() if one.pod.group_key == key}
        return list((placed | assumed).values())

    def _take_in_group(
        self, view: PodGroupView, members: Sequence[QueuedPod], outcome: group_cycle.Outcome, began: float
    ) -> list[_Outcome]:
        """Note what became of a group, and return what is to be written: all bindings of it together."""
        took = self._runtime.clock.monotonic() - began
        winners = [(one, decision) for one, decision in outcome.decisions if decision.node]
        if not outcome.is_placed:
            for one, _ in winners:
                self._steps.unreserve(one.pod.spec.schedulerName, one.pod.uid)
            self._engine.retract([one.key for one, _ in winners])
            return self._refuse_group(view, members, outcome, took)
        binds = [_Bind(one, one.pod, decision.node, began) for one, decision in winners]
        for one in binds:
            self._binding[one.queued.key] = one.queued
            self.queue.leave_group(one.queued)
        told: list[_Outcome] = []
        for one, decision in outcome.decisions:
            if not decision.node:
                self._note("unschedulable", took)
                told.append(_Report(one.pod, "Unschedulable", decision.message))
        self._finish(members, is_placed=True)
        self._placed_groups.add(view.uid)
        alone = [one for one in binds if self._binder is None or self._binds_alone(one.pod)]
        together = [one for one in binds if one not in alone]
        return [*([_BindMany(together)] if together else ()), *alone, *told, _GroupReport(view, "True", "Scheduled", "")]

    def _finish(self, members: Sequence[QueuedPod], *, is_placed: bool) -> None:
        group = self.queue.group(members[0].pod.group_key)
        if group is not None:
            self.queue.finish(group, is_placed=is_placed)

    def _refuse_group(self, view: PodGroupView, members: Sequence[QueuedPod], outcome: group_cycle.Outcome, took: float) -> list[_Outcome]:
        for _ in members:
            self._note("error" if outcome.error else "unschedulable", took)
        self._finish(members, is_placed=False)
        if outcome.error:
            said = {outcome.failed.key: outcome.message} if outcome.failed is not None else {}
            reports = [_Report(one.pod, "SchedulerError", said.get(one.key, outcome.error), "") for one in members]
            return [*reports, _GroupReport(view, "False", "SchedulerError", outcome.error)]
        message, room = outcome.message, self._room(view, members)
        nominated: Mapping[str, str] = {}
        if room is not None:
            message = f"{message}, {group_cycle.preemption_words(view, room)}"
            nominated = dict(room.nominated)
        is_awaited = room is not None and room.outcome in ("awaited", "found")
        told = {one.key: decision.message for one, decision in outcome.decisions if not decision.node}
        tried = {one.key for one, _ in outcome.decisions}
        outcomes: list[_Outcome] = []
        for one in members:
            words = told.get(one.key) or (message if one.key in tried else outcome.untried or message)
            cleared = None if is_awaited else ""
            outcomes.append(_Report(one.pod, "Unschedulable", words, nominated.get(one.key, cleared)))
        outcomes.append(_GroupReport(view, "False", "Unschedulable", message))
        if room is not None and room.victims:
            name = members[0].pod.spec.schedulerName
            outcomes.append(Preemption(view, name, "cluster", tuple(room.victims), tuple(room.displaced)))
        return outcomes

    def _room(self, view: PodGroupView, members: Sequence[QueuedPod]) -> native.Room | None:
        """See whether room can be made for a group; None when somebody outside the engine has a say about one of its pods."""
        assert self._groups is not None, "else there are no groups"
        raws = [self._pods.raw(one.key) or b"{}" for one in members]
        if any(self._steps.concerns(one.pod.spec.schedulerName, raw) for one, raw in zip(members, raws, strict=True)):
            return None
        units = self._groups.units(one.pod for one in self._binding.values())
        placed = len(self._placed_of(view.key))
        return self._engine.room_for_group(raws, priority=view.priority, min_count=view.min_count, placed=placed, units=units)

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
            displaced = tuple((key, decision.nominated) for key in decision.displaced)
            outcomes.append(Preemption(pod, pod.spec.schedulerName, decision.nominated, tuple(decision.victims), displaced))
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
            elif isinstance(outcome, _GroupReport):
                await self._report_group(outcome)
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

    async def _report_group(self, report: _GroupReport) -> None:
        """Write the group's condition; one that says it was scheduled is the last word."""
        group = self._groups.get(report.group.key) if self._groups is not None else None
        if group is None or group.uid != report.group.uid:
            return
        known = next((one for one in group.status.conditions if one.type == INITIALLY_SCHEDULED), None)
        if report.status != "True" and (group.uid in self._placed_groups or (known is not None and known.status == "True")):
            return
        if known is not None and (known.status, known.reason, known.message) == (report.status, report.reason, report.message):
            return
        is_old = known is not None and known.status == report.status
        condition: dict[str, Any] = {
            "type": INITIALLY_SCHEDULED,
            "status": report.status,
            "reason": report.reason,
            "message": report.message,
            "lastTransitionTime": known.lastTransitionTime if known is not None and is_old else rfc3339(self._runtime.clock.now()),
        }
        if group.metadata.generation:
            condition["observedGeneration"] = group.metadata.generation
        patch = {"metadata": {"uid": group.uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(POD_GROUPS, group.name, patch, namespace=group.namespace, subresource="status", patch_type="strategic")
        except NotFound:
            return
        except (ApiError, OSError) as error:
            self._placed_groups.discard(group.uid)
            log.warning("condition not written", pod_group=group.key, error=str(error))

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

    async def _follow_groups(self) -> None:
        """Follow pod groups and await the first picture, where they are wanted and served."""
        groups = self._groups
        if groups is None or self._has_groups:
            return
        try:
            await self._client.list(POD_GROUPS, ListOptions(limit=1))
        except NotFound:
            log.warning("pod groups are not served: their pods wait", version=POD_GROUPS.api_version)
            return
        self._has_groups = True
        informer = self._informers.informer(POD_GROUPS, decode=decode_pod_group)
        informer.on(add=groups.upsert, update=lambda _, new: groups.upsert(new), delete=self._group_deleted)
        await informer.wait_synced()

    def _group_deleted(self, group: PodGroupView) -> None:
        assert self._groups is not None, "else there are no groups"
        self._placed_groups.discard(group.uid)
        self._groups.remove(group)

    def _group_changed(self, key: str) -> None:
        self.queue.regate(key)
        self.queue.notice()

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
        if self._groups is not None:
            self._groups.pod_gone(pod)
        self.queue.delete(pod.key)
        self.queue.notice()

    def _pod_changed(self, pod: PodView) -> None:
        self._pods_changed[pod.key] = self._pods.raw(pod.key)
        if self._groups is not None:
            self._groups.pod_changed(pod)
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
