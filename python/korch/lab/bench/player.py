"""Plays a plan on a stage, operation by operation, and measures where the plan says so.

Pods are rendered before the clock runs, so the load generator costs what sending costs. Some dozens of senders make them as fast as they
are taken. What goes on in the background (churn, deletions at a rate) ends with the workload. Mirrors scheduler_perf's executor.
"""

from __future__ import annotations

import asyncio
import cProfile
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from korch.api.gvk import PODS
from korch.lab.bench.collector import Collector, Measurement
from korch.lab.bench.manifest import Manifest
from korch.lab.bench.nodes import csi_node, prepared
from korch.lab.bench.operation import (
    Barrier,
    Churn,
    CreateAny,
    CreateNamespaces,
    CreateNodes,
    CreatePodGroups,
    CreatePods,
    DeletePods,
    Sleep,
    StartCollectingMetrics,
    StartCollectingProfile,
    StopCollectingMetrics,
    StopCollectingProfile,
    UpdateAny,
    seconds,
)
from korch.lab.bench.plan import Act, Plan
from korch.lab.bench.progress import Progress
from korch.lab.bench.stage import Kinds, Names, Object, Stage, StageError
from korch.resources import catalogue

SENDERS = 30
CHURN_INTERVAL_MS = 500


class PlayError(Exception):
    """A workload could not be played to its end; the message says which operation and why."""


@dataclass(slots=True)
class Player:
    """Plays one plan once. `within_s` is how long one operation may wait for pods."""

    plan: Plan
    stage: Stage
    progress: Progress
    within_s: float = 600.0
    measurements: list[Measurement] = field(default_factory=list)
    _namespaces: set[str] = field(default_factory=set)
    # How many pods of each namespace were made without waiting for them: what barriers wait for.
    _owed: Counter[str] = field(default_factory=Counter)
    _nodes: int = 0
    _names: Names = field(default_factory=lambda: Names(2))
    _kinds: Kinds = field(default_factory=lambda: Kinds(catalogue()))
    _collector: Collector | None = None
    _profile: tuple[cProfile.Profile, str] | None = None
    _background: list[asyncio.Task[None]] = field(default_factory=list)
    _tasks: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)

    async def play(self) -> list[Measurement]:
        """Do all operations and return what was measured. Raises PlayError."""
        plays: Mapping[type[Any], Callable[[Act, Any], Awaitable[None]]] = {
            Barrier: self._barrier,
            Churn: self._churn,
            CreateAny: self._create_any,
            CreateNamespaces: self._create_namespaces,
            CreateNodes: self._create_nodes,
            CreatePodGroups: self._create_pod_groups,
            CreatePods: self._create_pods,
            DeletePods: self._delete_pods,
            Sleep: self._sleep,
            StartCollectingMetrics: self._start_metrics,
            StopCollectingMetrics: self._stop_metrics,
            StartCollectingProfile: self._start_profile,
            StopCollectingProfile: self._stop_profile,
            UpdateAny: self._update_any,
        }
        try:
            async with self._tasks:
                for act in self.plan.acts:
                    await self._do(act, plays[type(act.operation)])
                for task in self._background:
                    task.cancel()
        except* PlayError as errors:
            raise PlayError(str(errors.exceptions[0])) from errors
        finally:
            self.progress.clear()
        return self.measurements

    async def _do(self, act: Act, play: Callable[[Act, Any], Awaitable[None]]) -> None:
        try:
            await play(act, act.operation)
        except StageError as error:
            raise PlayError(f"op {act.index} ({act.operation.opcode}): {error}") from error

    def _title(self, act: Act) -> str:
        return f"{self.plan.name} {act.index + 1}/{len(self.plan.acts)} {act.operation.opcode}"

    async def _create_nodes(self, act: Act, op: CreateNodes) -> None:
        manifest = act.templates["object"]
        for index in range(op.count):
            node = manifest.object(index, op.count)
            name = self._names.complete(node)
            prepared(node, op, self._nodes + index)
            await self.stage.create(node)
            if op.node_allocatable_strategy is not None:
                await self.stage.create(csi_node(name, op.node_allocatable_strategy))
            self.progress.show(self._title(act), index + 1, op.count, "nodes")
            await asyncio.sleep(0)
        self._nodes += op.count

    async def _create_namespaces(self, act: Act, op: CreateNamespaces) -> None:
        for index in range(op.count):
            manifest = act.templates.get("object")
            namespace = manifest.object(index, op.count) if manifest is not None else {}
            metadata = namespace.get("metadata") or {}
            await self._need_namespace(f"{op.prefix}-{index}", metadata)

    async def _need_namespace(self, name: str, metadata: Object | None = None) -> None:
        if name and name not in self._namespaces:
            self._namespaces.add(name)
            await self.stage.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {**(metadata or {}), "name": name}})

    async def _create_pods(self, act: Act, op: CreatePods) -> None:
        await self._need_namespace(act.namespace)
        pods = list(self._pods(act, op, op.count))
        bound_before = self.stage.ledger.bound[act.namespace]
        if op.collect_metrics:
            await self._collect(f"{self.plan.name}/{act.namespace}", [act.namespace], {})
        if op.steady_state:
            await self._keep_steady(act, op, pods)
        else:
            await self._send(act, pods)
            if op.skip_wait_to_completion:
                self._owed[act.namespace] += op.count
            else:
                ledger = self.stage.ledger

                def are_bound() -> bool:
                    bound = ledger.bound[act.namespace] - bound_before
                    self.progress.show(self._title(act), min(bound, op.count), op.count, "pods")
                    return bound >= op.count

                await self._await(act, are_bound, [act.namespace])
        if op.collect_metrics:
            await self._stop_metrics(act, None)

    def _pods(self, act: Act, op: CreatePods, count: int) -> Iterator[tuple[str, bytes, Sequence[Object]]]:
        """Yield name, JSON and the objects that come first (claim and volume) of each pod."""
        batch = max(1, op.signature_batch_size)
        for index in range(count):
            pod = act.templates["object"].object(index, op.count)
            pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), "signature": f"signature-label-{index // batch}"}
            first: Sequence[Object] = ()
            if "volume" in act.templates:
                first = _volume(act, index)
                pod["spec"]["volumes"] = [{"name": "vol", "persistentVolumeClaim": {"claimName": first[0]["metadata"]["name"]}}]
            name = self._names.complete(pod)
            yield name, orjson.dumps(pod), first

    async def _send(self, act: Act, pods: Sequence[tuple[str, bytes, Sequence[Object]]]) -> None:
        left, sent = iter(pods), itertools.count(1)

        async def send() -> None:
            for name, body, first in left:
                for one in first:
                    await self.stage.create(one, act.namespace if one["kind"] == "PersistentVolumeClaim" else "")
                await self.stage.create_pod(body, act.namespace, name)
                self.progress.show(f"{self._title(act)}: sending", next(sent), len(pods), "pods")
                await asyncio.sleep(0)

        await _all(send() for _ in range(min(SENDERS, len(pods))))

    async def _keep_steady(self, act: Act, op: CreatePods, pods: Sequence[tuple[str, bytes, Sequence[Object]]]) -> None:
        """Make a pod for each that is bound, and delete that one, until the time is over."""
        bound: asyncio.Queue[str] = asyncio.Queue(len(pods) + SENDERS)
        unwatch = self.stage.ledger.watch(lambda record: bound.put_nowait(record.name) if record.namespace == act.namespace else None)
        count = 0
        try:
            await self._send(act, pods)
            async with asyncio.timeout(seconds("duration", op.duration)):
                while True:
                    name = await bound.get()
                    count += 1
                    await self.stage.delete(PODS, name, act.namespace)
                    await self._send(act, list(self._pods(act, op, 1)))
        except TimeoutError:
            if not count:
                raise PlayError(f"op {act.index}: no pod at all got scheduled") from None
        finally:
            unwatch()

    async def _delete_pods(self, act: Act, op: DeletePods) -> None:
        names = [one.name for one in self.stage.ledger.selected([op.namespace], op.label_selector)]

        async def delete() -> None:
            pace = _Pace(op.delete_pods_per_second)
            for name in names:
                await pace.wait()
                await self.stage.delete(PODS, name, op.namespace)

        if op.skip_wait_to_completion:
            self._go_on(delete())
        else:
            await delete()

    async def _churn(self, act: Act, op: Churn) -> None:
        await self._need_namespace(act.namespace)
        pace_s = (op.interval_milliseconds or CHURN_INTERVAL_MS) / 1000

        async def make(manifest: Manifest, index: int) -> str:
            obj = manifest.object(index)
            try:
                return await self.stage.create(obj, act.namespace if self._kinds.of(obj).namespaced else "")
            except StageError:
                # As upstream: what cannot be made (a name that is taken) is tried again the next time.
                return ""

        async def churn() -> None:
            made: list[dict[int, str]] = [{} for _ in act.many]
            for turn in itertools.count():
                await asyncio.sleep(pace_s)
                for manifest, names in zip(act.many, made, strict=True):
                    at = turn % op.number if op.number else turn
                    if op.mode == "recreate" and names.get(at):
                        kind = self._kinds.of(manifest.object())
                        await self.stage.delete(kind, names.pop(at), act.namespace if kind.namespaced else "")
                    elif op.mode == "recreate" or not op.number or turn < op.number:
                        names[at] = await make(manifest, turn)

        self._go_on(churn())

    async def _barrier(self, act: Act, op: Barrier) -> None:
        namespaces = op.namespaces or list(self._owed)
        unknown = [one for one in namespaces if one not in self._namespaces]
        if unknown:
            raise PlayError(f"op {act.index} ({op.opcode}): unknown namespace {unknown[0]}")
        for namespace in namespaces:
            wanted = self._owed[namespace]

            def are_there(namespace: str = namespace, wanted: int = wanted) -> bool:
                found = self.stage.ledger.selected([namespace], op.label_selector)
                reached = sum(bool(one.bound_at) or (op.stage_requirement == "Attempted" and one.is_attempted) for one in found)
                self.progress.show(self._title(act), min(reached, wanted), wanted, "pods")
                return reached >= wanted

            await self._await(act, are_there, [namespace], pause_s=0.1)
        if op.stage_requirement != "Attempted":
            for namespace in namespaces:
                del self._owed[namespace]

    async def _sleep(self, _: Act, op: Sleep) -> None:
        await asyncio.sleep(seconds("duration", op.duration or "0s"))

    async def _create_any(self, act: Act, op: CreateAny) -> None:
        await self._need_namespace(op.namespace)
        count = op.count or 1
        for index in range(count):
            obj = act.templates["object"].object(index, count)
            is_namespaced = self._kinds.of(obj).namespaced
            if is_namespaced != bool(op.namespace):
                given = f"namespace {op.namespace!r} set" if op.namespace else "namespace not set"
                raise PlayError(f"op {act.index} ({op.opcode}): {given} for {obj['kind']}")
            await self.stage.create(obj, op.namespace)
            self.progress.show(self._title(act), index + 1, count, "objects")
            await asyncio.sleep(0)

    async def _create_pod_groups(self, act: Act, op: CreatePodGroups) -> None:
        await self._need_namespace(op.namespace)
        for index in range(op.count):
            await self.stage.create(act.templates["object"].object(index, op.count), op.namespace)

    async def _update_any(self, act: Act, op: UpdateAny) -> None:
        count, pace = op.count or 1, _Pace(op.update_per_second)
        for index in range(count):
            await pace.wait()
            obj = act.templates["object"].object(index, count)
            await self.stage.update(obj, op.namespace, *op.subresources[:1])
            await self.stage.update(act.templates["object"].object(index, count), op.namespace, "status")
            self.progress.show(self._title(act), index + 1, count, "objects")

    async def _start_metrics(self, _: Act, op: StartCollectingMetrics) -> None:
        await self._collect(f"{self.plan.name}/{op.name}", op.namespaces, op.label_selector)

    async def _stop_metrics(self, _: Act, op: StopCollectingMetrics | None) -> None:
        collector, self._collector = self._collector, None
        assert collector is not None, "the plan was checked"
        self.measurements.append(await collector.stop())

    async def _collect(self, name: str, namespaces: Collection[str], labels: Mapping[str, str]) -> None:
        # What earlier operations have put off is not done on the time of what is measured.
        await self.stage.rest()
        self._collector = Collector(self.stage, name, namespaces, labels)
        self._collector.start(self._tasks)

    async def _start_profile(self, _: Act, op: StartCollectingProfile) -> None:
        profile = cProfile.Profile()
        self._profile = profile, op.file_path
        profile.enable()

    async def _stop_profile(self, act: Act, op: StopCollectingProfile) -> None:
        if self._profile is None:
            raise PlayError(f"op {act.index} ({op.opcode}): missing startCollectingProfile operation before stopping")
        (profile, path), self._profile = self._profile, None
        profile.disable()
        profile.dump_stats(path)

    async def _await(self, act: Act, holds: Callable[[], bool], namespaces: Collection[str], *, pause_s: float = 0.01) -> None:
        if await self.stage.ledger.until(holds, within_s=self.within_s, pause_s=pause_s):
            return
        waiting = [f"{one.namespace}/{one.name}" for one in self.stage.ledger.selected(namespaces) if not one.bound_at]
        named = ", ".join(waiting[:3])
        raise PlayError(f"op {act.index} ({act.operation.opcode}): after {self.within_s:g} s {len(waiting)} pods wait, {named} among them")

    def _go_on(self, work: Any) -> None:
        async def guarded() -> None:
            try:
                await work
            except StageError as error:
                raise PlayError(str(error)) from error

        self._background.append(self._tasks.create_task(guarded()))


@dataclass(slots=True)
class _Pace:
    """Lets through so many a second; 0 means as many as come."""

    per_s: float
    _next_at: float = 0.0

    async def wait(self) -> None:
        if not self.per_s:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        # Late turns are not made up for beyond one interval.
        self._next_at = max(self._next_at + 1 / self.per_s, loop.time() - 1 / self.per_s)
        await asyncio.sleep(max(0.0, self._next_at - loop.time()))


def _volume(act: Act, index: int) -> tuple[Object, Object]:
    """Return a claim and a volume that are bound to each other already."""
    claim, volume = act.templates["claim"].object(index), act.templates["volume"].object(index)
    claim_name, name = f"pvc-{index}", f"{act.namespace}-vol-{index}"
    spec = volume["spec"]
    if "csi" in spec:
        spec["csi"]["volumeHandle"] = name
    elif "awsElasticBlockStore" in spec:
        spec["awsElasticBlockStore"]["volumeID"] = f"vol-{index}"
    spec["claimRef"] = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": act.namespace, "name": claim_name}
    volume |= {"metadata": {**(volume.get("metadata") or {}), "name": name}, "status": {"phase": "Bound"}}
    claim |= {"metadata": {**(claim.get("metadata") or {}), "name": claim_name}, "status": {"phase": "Bound"}}
    claim["spec"]["volumeName"] = name
    return claim, volume


async def _all(works: Iterator[Awaitable[None]]) -> None:
    """Await all; the first error of a stage ends the others and is raised as it is."""

    async def run(work: Awaitable[None]) -> None:
        await work

    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(run(work))
    except* StageError as errors:
        raise errors.exceptions[0] from None
