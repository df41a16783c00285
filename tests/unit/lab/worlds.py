"""Small clusters and workloads for tests of the lab, in the domain's words."""

from __future__ import annotations

from typing import Any, cast

import orjson

from korch._core import native
from korch.lab.cluster import Cluster
from korch.lab.machines import read_nodes
from korch.lab.policies import Policy
from korch.lab.workload import FOREVER, Workload

Object = dict[str, Any]

PACKED = b"""{"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": [{"pluginConfig": [
    {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}]}}}]}]}"""
packed = Policy("packed", PACKED)


def nodes(*texts: str) -> Cluster:
    return Cluster(read_nodes(texts))


def tasks(*rows: tuple[str, float, float | None, str]) -> Workload:
    """Return tasks from (name, arrival, duration, what it asks for), the last as `2cpu` or `2cpu!9` for priority 9."""
    workload = Workload()
    for name, arrival, duration, wants in rows:
        cpu, _, priority = wants.partition("!")
        template = workload.sized({"cpu": cpu.removesuffix("cpu"), "memory": "1Gi"}, priority=int(priority or 0))
        workload.add(name, template, arrival, FOREVER if duration is None else duration)
    return workload


def pod(name: str, node: str = "", cpu: str = "1", *, owner: str = "ReplicaSet", labels: dict[str, str] | None = None) -> Object:
    """Return a pod; `owner` is the kind of its controller, empty for one that nobody owns."""
    metadata: Object = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": labels or {}}
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": owner, "name": "owner", "uid": "o", "controller": True}]
    spec: Object = {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def budget(name: str, labels: dict[str, str], allowed: int) -> Object:
    metadata = {"name": name, "namespace": "default"}
    spec = {"selector": {"matchLabels": labels}, "maxUnavailable": allowed}
    return {"kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec, "status": {"disruptionsAllowed": allowed}}


def story(run: Any) -> dict[str, tuple[float | None, float | None, str | None]]:
    """Return (start, end, node) of each task by name."""
    return {row[2]: (row[7], row[8], row[9]) for row in run.task_rows()}


class Generous(Policy):
    """A policy whose engine believes that a node has ten times as much CPU as it has."""

    def engine(self) -> native.Scheduler:
        return cast(native.Scheduler, _GenerousEngine(super().engine()))


class _GenerousEngine:
    def __init__(self, engine: native.Scheduler) -> None:
        self._engine = engine

    def upsert(self, nodes: list[bytes], *others: list[bytes]) -> None:
        self._engine.upsert([_swollen(one) for one in nodes], *others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def _swollen(node: bytes) -> bytes:
    has = orjson.loads(node)
    # The probe, by which it is found out what a policy does not look at, stays as it is.
    if has["metadata"]["name"].startswith(("node-", "added-")):
        has["status"]["allocatable"]["cpu"] += "0"
    return orjson.dumps(has)
