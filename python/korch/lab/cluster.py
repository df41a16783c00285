"""A cluster at rest: what a simulation starts from. It is a list of Kubernetes objects, in memory and in the file of a snapshot.

The file is a `v1 List` in JSON or YAML, as `korch snapshot` and `kubectl get nodes,pods,... -o json` write it. Pods that have ended are
left out; pods with a node are taken to run on, pods without one wait.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from korch.api.meta import Object, at, name_of
from korch.api.pods import all_containers, amounts, is_terminal
from korch.lab.source import BadInput, Place, documents, read_text
from korch.lab.types import WrongType, typed

# Kinds that the engine decides by, besides pods and nodes.
ENGINE_KINDS = frozenset(
    {
        "Namespace", "Service", "ReplicationController", "ReplicaSet", "StatefulSet", "PodDisruptionBudget",
        "PersistentVolume", "PersistentVolumeClaim", "StorageClass", "CSINode",
    }
)  # fmt: skip
KEPT_KINDS = ENGINE_KINDS | {"PriorityClass", "DaemonSet", "Deployment", "Job", "CronJob", "ResourceQuota", "LimitRange"}
PORT_MAX = 65535
SYSTEM_PRIORITIES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


@dataclass
class Cluster:
    """Nodes, pods that have not ended, and everything else by kind. Objects are not changed by whoever uses them."""

    nodes: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    others: list[Object] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Object]:
        """Return the other objects of a kind."""
        return [one for one in self.others if one.get("kind") == kind]

    def engine_others(self) -> list[bytes]:
        """Return what an engine is told besides pods and nodes."""
        return [orjson.dumps(one) for one in self.others if one.get("kind") in ENGINE_KINDS]

    def priorities(self) -> dict[str, int]:
        """Return the values of the priority classes by name; the default one is also under the empty name."""
        found = dict(SYSTEM_PRIORITIES)
        for one in self.of_kind("PriorityClass"):
            found[name_of(one)] = one.get("value") or 0
            if one.get("globalDefault"):
                found[""] = found[name_of(one)]
        return found

    def add(self, items: Iterable[tuple[Place, Any]]) -> None:
        """Take in objects with the places that they come from. Raises BadInput for what cannot be used; unknown kinds are left out."""
        for place, item in items:
            if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
                raise BadInput(place, "not a Kubernetes object: it has no kind")
            try:
                item = typed(item)
            except WrongType as error:
                raise BadInput(place, f"{item['kind']}: {error}") from error
            if not name_of(item):
                raise BadInput(place, f"a {item['kind']} without metadata.name")
            if item["kind"] == "Node":
                check_node(place, item)
                self.nodes.append(item)
            elif item["kind"] == "Pod":
                check_pod(place, item)
                if not is_terminal(item):
                    self.pods.append(item)
            elif item["kind"] in KEPT_KINDS:
                self.others.append(item)


def load(path: str | Path) -> Cluster:
    """Return the cluster of a snapshot's file. Raises BadInput."""
    cluster = Cluster()
    if str(path).removesuffix(".gz").endswith(".json"):
        try:
            read = orjson.loads(read_text(path))
        except orjson.JSONDecodeError as error:
            raise BadInput(Place(str(path), error.lineno), f"not JSON: {error.msg}") from error
        cluster.add((Place(f"{path}, item {index}"), item) for index, item in enumerate(_items(read), 1))
    else:
        for document in documents(path):
            items = _items(document.value)
            is_list = items is not document.value and document.value.get("kind", "").endswith("List")
            cluster.add((document.place("items", index) if is_list else document.place(), item) for index, item in enumerate(items))
    if not cluster.nodes:
        raise BadInput(Place(str(path)), "no Node in it")
    return cluster


def check_node(place: Place, node: Object) -> None:
    """Raise BadInput unless the node says what it has to give, in quantities that are not negative."""
    allocatable = at(node, "status", "allocatable")
    if not isinstance(allocatable, dict) or not allocatable:
        raise BadInput(place, f"node {name_of(node)} has no status.allocatable")
    try:
        found = amounts(allocatable)
    except ValueError as error:
        raise BadInput(place, f"node {name_of(node)}: status.allocatable: {error}") from error
    for name, amount in found.items():
        if amount < 0:
            raise BadInput(place, f"node {name_of(node)}: status.allocatable.{name} is {allocatable[name]}: must not be negative")


def check_pod(place: Place, pod: Object) -> None:
    """Raise BadInput unless the pod has containers, ports that there are, and requests that are quantities and not negative."""
    if not at(pod, "spec", "containers"):
        raise BadInput(place, f"{name_of(pod) or 'the pod'}: spec.containers: Required value")
    for port in (port for one in all_containers(pod) for port in one.get("ports") or ()):
        if not 0 <= (port.get("hostPort") or 0) <= PORT_MAX:
            raise BadInput(place, f"{name_of(pod) or 'the pod'}: hostPort {port['hostPort']}: must be between 1 and {PORT_MAX}, inclusive")
    try:
        found = [amounts(at(one, "resources", "requests")) for one in all_containers(pod)]
        found += [amounts(at(pod, "spec", "overhead")), amounts(at(pod, "spec", "resources", "requests"))]
    except (ValueError, AttributeError, TypeError) as error:
        raise BadInput(place, f"{name_of(pod) or 'the pod'}: resources.requests: {error}") from error
    for name, amount in (item for one in found for item in one.items()):
        if amount < 0:
            raise BadInput(place, f"{name_of(pod) or 'the pod'}: requests of {name}: must be greater than or equal to 0")


def _items(read: Any) -> list[Any]:
    if isinstance(read, dict) and str(read.get("kind", "")).endswith("List"):
        items = read.get("items") or []
        return items if isinstance(items, list) else [items]
    return [read]
