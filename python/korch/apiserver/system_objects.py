"""What every cluster has from its first moment beside namespaces: priority classes, flow schemas, API services, the service range.

Together with the default roles they go into the store in one commit, so that starting costs one write and one flush. What an
administrator changes stays as he wants it: only missing objects are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from korch.apiserver import objects
from korch.apiserver.flow_objects import flow_schemas, priority_levels
from korch.apiserver.records import Records
from korch.resources.apiregistration import apiservice
from korch.resources.flowcontrol import flowschema, prioritylevelconfiguration
from korch.resources.networking import servicecidr
from korch.resources.resource import Catalogue, Context, Resource
from korch.resources.scheduling import priorityclass
from korch.runtime.context import Runtime

if TYPE_CHECKING:
    from korch._core._native import Op

Object = dict[str, Any]

# (group's minimum priority, version's priority), by group; higher ones are preferred by clients. Mirrors kube-apiserver's table.
_PRIORITIES = {
    "": (18000, 1),
    "apps": (17800, 15),
    "events.k8s.io": (17750, 5),
    "authentication.k8s.io": (17700, 15),
    "authorization.k8s.io": (17600, 15),
    "autoscaling": (17500, 15),
    "batch": (17400, 15),
    "certificates.k8s.io": (17300, 15),
    "networking.k8s.io": (17200, 15),
    "policy": (17100, 15),
    "rbac.authorization.k8s.io": (17000, 15),
    "storage.k8s.io": (16800, 15),
    "apiextensions.k8s.io": (16700, 15),
    "admissionregistration.k8s.io": (16700, 15),
    "scheduling.k8s.io": (16600, 15),
    "coordination.k8s.io": (16500, 15),
    "node.k8s.io": (16300, 15),
    "discovery.k8s.io": (16200, 15),
    "flowcontrol.apiserver.k8s.io": (16100, 21),
    "resource.k8s.io": (16000, 15),
    "storagemigration.k8s.io": (15900, 15),
}
_OWN_LABEL = {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
_CLASS_NOTES = {
    "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
}


def missing_objects(records: Records, catalogue: Catalogue, runtime: Runtime, *, service_cidr: str) -> list[Op]:
    """Return the operations that make what is not there yet."""
    operations: list[Op] = []
    now = runtime.clock.now()
    for resource, wanted in _wanted(catalogue, service_cidr):
        if catalogue.get(resource.group, resource.version, resource.plural) is None:
            continue
        if records.read(resource, "", wanted["metadata"]["name"]) is None:
            resource.strategy.default(wanted)
            objects.stamp_new(resource, wanted, uid=runtime.rng.uid(), now=now)
            objects.prepare_create(resource, wanted, Context(now=now))
            if resource is servicecidr.RESOURCE:
                ready = {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready"}
                wanted["status"] = {"conditions": [ready | {"lastTransitionTime": wanted["metadata"]["creationTimestamp"]}]}
            operations.append(records.put(resource, wanted, 0))
    return operations


def _wanted(catalogue: Catalogue, service_cidr: str) -> Iterator[tuple[Resource, Object]]:
    for name, value in priorityclass.SYSTEM_CLASSES.items():
        yield priorityclass.RESOURCE, _typed(priorityclass.RESOURCE, name, {"value": value, "description": _CLASS_NOTES[name]})
    for level in priority_levels():
        yield prioritylevelconfiguration.RESOURCE, level
    for schema in flow_schemas():
        yield flowschema.RESOURCE, schema
    yield servicecidr.RESOURCE, _typed(servicecidr.RESOURCE, "kubernetes", {"spec": {"cidrs": [service_cidr]}})
    versions = sorted({(one.group, one.version) for one in catalogue.all()})
    for group, version in versions:
        if group not in _PRIORITIES:
            continue
        least, priority = _PRIORITIES[group]
        if version == "v2":
            priority *= 2
        spec: Object = {"version": version, "groupPriorityMinimum": least, "versionPriority": priority}
        if group:
            spec["group"] = group
        service = _typed(apiservice.RESOURCE, f"{version}.{group}", {"spec": spec})
        service["metadata"]["labels"] = dict(_OWN_LABEL)
        yield apiservice.RESOURCE, service


def _typed(resource: Resource, name: str, rest: Object) -> Object:
    return {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {"name": name}, **rest}
