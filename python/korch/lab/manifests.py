"""Workloads as YAML: the pods that a file's objects would make, all of them there at second 0.

Pod, Deployment, ReplicaSet, ReplicationController, StatefulSet, Job and CronJob (one run) become tasks. PriorityClass, Namespace, Service,
PodDisruptionBudget, PersistentVolume, PersistentVolumeClaim, StorageClass, ConfigMap, Secret and ServiceAccount may stand beside them; the
first of these matter to scheduling and are added to the cluster. A DaemonSet gets a pod for each node that it is for. Any other kind
is refused. Two annotations, on the pod or its template, say more than Kubernetes does: `korch.dev/arrival` and `korch.dev/duration`,
such as `90s`, `15m`, `2h` (without a duration it runs until it is stopped).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from korch.api.meta import Object, annotations_of, at, name_of, namespace_of
from korch.controllers.nodes.eligibility import should_run, tie_to_node, with_daemon_tolerations
from korch.lab.cluster import ENGINE_KINDS, Cluster, check_pod
from korch.lab.simulation import template_of
from korch.lab.source import BadInput, Document, documents, seconds
from korch.lab.types import WrongType, typed
from korch.lab.workload import FOREVER, Workload

ARRIVAL = "korch.dev/arrival"
DURATION = "korch.dev/duration"
_WITHOUT_EFFECT = frozenset({"ConfigMap", "Secret", "ServiceAccount", "LimitRange", "ResourceQuota"})
_REPLICATED = ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet")


def read_workload(path: str | Path, cluster: Cluster) -> Workload:
    """Return the tasks of a file. What else is in it and matters is added to `cluster`. Raises BadInput."""
    items: list[_Item] = []
    for document in documents(path):
        is_list = isinstance(document.value, dict) and str(document.value.get("kind", "")).endswith("List")
        for index, value in enumerate(document.value.get("items") or () if is_list else (document.value,)):
            items.append(_Item(document, value, ("items", index) if is_list else ()))
    rest = [one for one in items if not one.makes_pods]
    cluster.add((one.document.place(*one.path), one.value) for one in rest if one.kind in ENGINE_KINDS | {"PriorityClass"})
    priorities = cluster.priorities()
    workload = Workload()
    for one in items:
        if one.makes_pods:
            _take(workload, one, priorities, cluster.nodes)
        elif one.kind not in ENGINE_KINDS | _WITHOUT_EFFECT | {"PriorityClass"}:
            raise one.wrong(f"{one.kind} makes no pods that a simulation knows of", "kind")
    return workload


class _Item:
    """One object of a file."""

    def __init__(self, document: Document, value: Any, path: tuple[str | int, ...]) -> None:
        self.document = document
        self.value = value
        self.path = path
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
            raise self.wrong("not a Kubernetes object: it has no kind")
        self.kind: str = value["kind"]
        try:
            self.value = typed(value)
        except WrongType as error:
            raise self.wrong(f"{self.kind}: {error}", *error.path) from error
        if not name_of(value):
            raise self.wrong(f"{self.kind}: metadata.name: Required value", "metadata")

    @property
    def makes_pods(self) -> bool:
        return self.kind in ("Pod", "Job", "CronJob", "DaemonSet", *_REPLICATED)

    def wrong(self, reason: str, *path: str | int) -> BadInput:
        return BadInput(self.document.place(*self.path, *path), reason)


def _take(workload: Workload, item: _Item, priorities: dict[str, int], nodes: Sequence[Object]) -> None:
    pod, count, where = _pods_of(item)
    check_pod(item.document.place(*item.path, *where), pod | {"metadata": {**(pod.get("metadata") or {}), "name": name_of(item.value)}})
    pod = _with_priority(item, pod, where, priorities)
    arrival, duration = _time(item, pod, where, ARRIVAL), _time(item, pod, where, DURATION)
    name = name_of(item.value)
    if item.kind == "DaemonSet":
        spec = with_daemon_tolerations(pod["spec"])
        for node in nodes:
            if should_run(spec, node)[0]:
                tied = {**pod, "spec": tie_to_node(spec, name_of(node))}
                workload.add(f"{name}-{name_of(node)}", workload.template(template_of(tied)), arrival, duration)
        return
    template = workload.template(template_of(pod))
    for number in range(count):
        workload.add(name if item.kind == "Pod" else f"{name}-{number}", template, arrival, duration)


def _pods_of(item: _Item) -> tuple[Object, int, tuple[str, ...]]:
    """Return what the pods of an object look like, how many there are, and where that stands."""
    value, spec = item.value, at(item.value, "spec") or {}
    if item.kind == "Pod":
        return value, 1, ()
    where: tuple[str, ...] = ("spec", "template")
    count: Any = 1
    if item.kind == "CronJob":
        where = ("spec", "jobTemplate", "spec", "template")
        spec = at(spec, "jobTemplate", "spec") or {}
    if item.kind in _REPLICATED:
        count = 1 if spec.get("replicas") is None else spec["replicas"]
    elif item.kind in ("Job", "CronJob"):
        parallelism, completions = spec.get("parallelism", 1), spec.get("completions")
        count = parallelism if completions is None else min(parallelism, completions)
    if not isinstance(count, int) or count < 0:
        raise item.wrong(f"{item.kind} {name_of(value)}: {count!r} pods: must be a whole number that is not negative", "spec")
    template = spec.get("template")
    if not isinstance(template, dict):
        raise item.wrong(f"{item.kind} {name_of(value)}: {'.'.join(where)}: Required value", "spec")
    owner = {"apiVersion": value.get("apiVersion", ""), "kind": item.kind, "name": name_of(value), "controller": True}
    metadata = {**(template.get("metadata") or {}), "namespace": namespace_of(value) or "default", "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": template.get("spec") or {}}, count, where


def _with_priority(item: _Item, pod: Object, where: tuple[str, ...], priorities: dict[str, int]) -> Object:
    spec = pod["spec"]
    if "priority" in spec:
        return pod
    name = spec.get("priorityClassName") or ""
    if name and name not in priorities:
        reason = f"{item.kind} {name_of(item.value)}: no PriorityClass with name {name} was found"
        raise item.wrong(reason, *where, "spec", "priorityClassName")
    return {**pod, "spec": {**spec, "priority": priorities.get(name, 0)}}


def _time(item: _Item, pod: Object, where: tuple[str, ...], annotation: str) -> float:
    text = annotations_of(pod).get(annotation)
    if text is None:
        text, where = annotations_of(item.value).get(annotation), ()
    if text is None:
        return 0.0 if annotation == ARRIVAL else FOREVER
    try:
        return seconds(str(text))
    except ValueError as error:
        raise item.wrong(f"{item.kind} {name_of(item.value)}: {annotation}: {error}", *where, "metadata", "annotations") from error
