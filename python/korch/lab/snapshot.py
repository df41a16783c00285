"""Taking a snapshot: everything that scheduling depends on, read once from any Kubernetes API server, without what is secret in it.

Kinds are listed page by page (`limit` and `continue`); a kind that the server does not serve is left out. Secrets and ConfigMaps are
never asked for. Of what is read, environment variables, commands, arguments, annotations and managed fields are left out, as well as
whatever a volume says beyond how scheduling sees it. Two annotations about claims that scheduling does read are kept. The result
is a `v1 List`, which `korch simulate --cluster` reads and `kubectl apply --dry-run=client -f` accepts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from korch.api.errors import ApiError, Forbidden, NotFound
from korch.api.gvk import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SERVICES,
    STATEFUL_SETS,
    ResourceRef,
)  # fmt: skip
from korch.api.meta import Object, at
from korch.client.protocol import Client, ListOptions

PAGE_SIZE = 500
NEEDED = (NODES, PODS)
USEFUL = (
    NAMESPACES,
    SERVICES,
    REPLICATION_CONTROLLERS,
    REPLICA_SETS,
    STATEFUL_SETS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    CRON_JOBS,
    POD_DISRUPTION_BUDGETS,
    RESOURCE_QUOTAS,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    ResourceRef("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False),
    ResourceRef("storage.k8s.io", "v1", "csinodes", "CSINode", namespaced=False),
    ResourceRef("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False),
)
_METADATA = ("name", "namespace", "uid", "labels", "ownerReferences", "creationTimestamp", "deletionTimestamp", "generation")
_ANNOTATIONS = (
    "pv.kubernetes.io/bind-completed",
    "volume.kubernetes.io/selected-node",
    "volume.beta.kubernetes.io/storage-class",
    "korch.dev/arrival",
    "korch.dev/duration",
)
_CONTAINER = ("name", "image", "resources", "ports", "restartPolicy", "resizePolicy")
_POD_SPEC = (
    "nodeName", "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "priority", "priorityClassName", "preemptionPolicy",
    "schedulerName", "schedulingGates", "schedulingGroup", "overhead", "resources", "runtimeClassName", "hostNetwork", "os",
    "terminationGracePeriodSeconds", "restartPolicy", "resourceClaims",
)  # fmt: skip
# Volumes that scheduling looks into, with the fields that it reads there; of others only the name and kind stay.
_VOLUMES = {
    "persistentVolumeClaim": ("claimName", "readOnly"),
    "gcePersistentDisk": ("pdName", "readOnly"),
    "awsElasticBlockStore": ("volumeID", "readOnly"),
    "iscsi": ("iqn", "lun", "targetPortal", "readOnly"),
    "rbd": ("monitors", "image", "pool", "readOnly"),
    "csi": ("driver",),
    "image": ("reference",),
}
_NODE_STATUS = ("allocatable", "capacity", "conditions", "images", "declaredFeatures", "features")
_POD_STATUS = ("phase", "nominatedNodeName", "startTime")
_CLAIM_SPEC = ("accessModes", "resources", "selector", "storageClassName", "volumeMode", "volumeName")
_VOLUME_SPEC = ("accessModes", "capacity", "claimRef", "nodeAffinity", "persistentVolumeReclaimPolicy", "storageClassName", "volumeMode")
_WORKLOAD_SPEC = ("replicas", "selector", "parallelism", "completions", "suspend", "schedule", "minReadySeconds", "podManagementPolicy")


async def take(client: Client) -> Object:
    """Return a `v1 List` of what scheduling depends on. Awaits the server. Raises ApiError when nodes or pods cannot be listed, OSError."""
    items: list[Object] = []
    for resource in (*NEEDED, *USEFUL):
        try:
            items += [cleaned(one, resource) for one in await _all(client, resource)]
        except (NotFound, Forbidden):
            if resource in NEEDED:
                raise
    return {"apiVersion": "v1", "kind": "List", "items": items}


def write(snapshot: Object, path: Path) -> None:
    """Write a snapshot as JSON. Raises OSError."""
    path.write_bytes(orjson.dumps(snapshot, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def cleaned(obj: Object, resource: ResourceRef) -> Object:
    """Return an object without what scheduling does not need and nobody else should see."""
    version = f"{resource.group}/{resource.version}" if resource.group else resource.version
    kept: Object = {"apiVersion": version, "kind": resource.kind, "metadata": _metadata(at(obj, "metadata"))}
    spec, status = at(obj, "spec") or {}, at(obj, "status") or {}
    match resource.kind:
        case "Node":
            kept["spec"] = _only(spec, ("taints", "unschedulable", "podCIDR"))
            kept["status"] = _only(status, _NODE_STATUS)
            for condition in kept["status"].get("conditions") or ():
                condition.pop("message", None)
        case "Pod":
            kept["spec"] = _pod_spec(spec)
            kept["status"] = _only(status, _POD_STATUS)
        case "PersistentVolume":
            kept["spec"] = _only(spec, _VOLUME_SPEC)
            if driver := at(spec, "csi", "driver"):
                kept["spec"]["csi"] = {"driver": driver, "volumeHandle": at(spec, "csi", "volumeHandle") or ""}
            kept["status"] = _only(status, ("phase",))
        case "PersistentVolumeClaim":
            kept["spec"] = _only(spec, _CLAIM_SPEC)
            kept["status"] = _only(status, ("phase", "capacity"))
        case "StorageClass":
            kept |= _only(obj, ("provisioner", "volumeBindingMode", "reclaimPolicy", "allowedTopologies", "allowVolumeExpansion"))
        case "PriorityClass":
            kept |= _only(obj, ("value", "globalDefault", "preemptionPolicy"))
        case "Service":
            kept["spec"] = _only(spec, ("selector",))
        case "PodDisruptionBudget":
            kept["spec"] = _only(spec, ("selector", "minAvailable", "maxUnavailable", "unhealthyPodEvictionPolicy"))
            kept["status"] = status
        case "CSINode" | "ResourceQuota":
            kept["spec"] = spec
        case "Namespace":
            pass
        case _:
            kept["spec"] = _workload_spec(spec)
    return kept


async def _all(client: Client, resource: ResourceRef) -> list[Object]:
    """Return all objects of a kind; a list whose continue token has expired is begun anew."""
    for is_last in (False, True):
        found: list[Object] = []
        options = ListOptions(limit=PAGE_SIZE)
        try:
            while True:
                page = await client.list(resource, options)
                found += [orjson.loads(raw) for raw in page.items]
                if not page.continue_token:
                    return found
                options = replace(options, continue_token=page.continue_token)
        except ApiError as error:
            if is_last or error.code != 410:
                raise
    return []


def _metadata(metadata: Any) -> Object:
    kept = _only(metadata or {}, _METADATA)
    annotations = _only((metadata or {}).get("annotations") or {}, _ANNOTATIONS)
    return kept | ({"annotations": annotations} if annotations else {})


def _pod_spec(spec: Object) -> Object:
    kept = _only(spec, _POD_SPEC)
    for name in ("containers", "initContainers"):
        if spec.get(name):
            kept[name] = [_container(one) for one in spec[name]]
    if spec.get("volumes"):
        kept["volumes"] = [_volume(one) for one in spec["volumes"]]
    return kept


def _container(container: Object) -> Object:
    kept = _only(container, _CONTAINER)
    if kept.get("ports"):
        kept["ports"] = [_only(one, ("containerPort", "hostPort", "hostIP", "protocol")) for one in kept["ports"]]
    return kept


def _volume(volume: Object) -> Object:
    kept: Object = {"name": volume.get("name", "")}
    for kind, value in volume.items():
        if kind in _VOLUMES:
            kept[kind] = _only(value or {}, _VOLUMES[kind])
        elif kind == "ephemeral":
            kept[kind] = {"volumeClaimTemplate": {"spec": _only(at(value, "volumeClaimTemplate", "spec") or {}, _CLAIM_SPEC)}}
        elif kind != "name":
            kept[kind] = {}
    return kept


def _workload_spec(spec: Object) -> Object:
    kept = _only(spec, _WORKLOAD_SPEC)
    template = at(spec, "template")
    if template:
        kept["template"] = {"metadata": _metadata(template.get("metadata")), "spec": _pod_spec(template.get("spec") or {})}
    job = at(spec, "jobTemplate", "spec")
    if job:
        kept["jobTemplate"] = {"spec": _workload_spec(job)}
    return kept


def _only(value: Object, names: tuple[str, ...]) -> Object:
    return {name: value[name] for name in names if value.get(name) is not None}
