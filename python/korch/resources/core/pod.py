"""Pod: the containers that run together on one node."""

from __future__ import annotations

from dataclasses import replace

from korch.api.errors import Cause, invalid
from korch.api.meta import at
from korch.api.names import is_dns_subdomain
from korch.api.pods import qos_class
from korch.api.validation import check_immutable
from korch.resources.podspec.columns import POD_COLUMNS, row_conditions
from korch.resources.podspec.defaults import default_pod, fill
from korch.resources.podspec.parts import prepare_ephemeral, prepare_resize, validate_ephemeral, validate_resize
from korch.resources.podspec.update import validate_pod_update
from korch.resources.podspec.validation import validate_pod
from korch.resources.resource import Context, Object, Resource, Strategy, Subresource
from korch.resources.subresources import STATUS, proxy, stream


def grace_period_s(pod: Object) -> int:
    """Return how many seconds a deleted pod may take to stop."""
    seconds = at(pod, "spec", "terminationGracePeriodSeconds")
    return 30 if seconds is None else seconds


def is_deleted_at_once(pod: Object) -> bool:
    """Whether no node can have anything of the pod running: it has no node, or it has ended."""
    return not at(pod, "spec", "nodeName") or at(pod, "status", "phase") in ("Succeeded", "Failed")


def prepare_create(pod: Object, _context: Context) -> None:
    """Start as Pending, with the quality of service that the resources give; a gated pod says that it is held back."""
    status: Object = {"phase": "Pending", "qosClass": qos_class(pod)}
    pod["status"] = status
    if at(pod, "spec", "schedulingGates"):
        status["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]


def prepare_status_update(new: Object, old: Object, _context: Context) -> None:
    """A status update cannot begin or undo deletion, change owners, or drop the quality of service."""
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences"):
        if key in old["metadata"]:
            new["metadata"][key] = old["metadata"][key]
        else:
            new["metadata"].pop(key, None)
    if qos := at(old, "status", "qosClass"):
        fill(fill(new, "status", {}), "qosClass", qos)


def validate_status_update(new: Object, old: Object) -> list[Cause]:
    """Return whether a status update moves the pod to another node, or changes its quality of service."""
    causes: list[Cause] = []
    if at(new, "status", "nominatedNodeName"):
        name = at(new, "status", "nominatedNodeName")
        causes += [invalid("status.nominatedNodeName", name, why) for why in is_dns_subdomain(name)]
    check_immutable(causes, at(new, "status", "qosClass"), at(old, "status", "qosClass"), "status.qosClass")
    return causes


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    schema="io.k8s.api.core.v1.Pod",
    short_names=("po",),
    categories=("all",),
    strategy=Strategy(
        default=default_pod,
        prepare_create=prepare_create,
        validate=validate_pod,
        validate_update=validate_pod_update,
        prepare_status_update=prepare_status_update,
        validate_status_update=validate_status_update,
        parts={
            "ephemeralcontainers": (prepare_ephemeral, validate_ephemeral),
            "resize": (prepare_resize, validate_resize),
        },
        has_status=True,
        keeps_status_on_create=True,
        has_generation=True,
        default_grace_period_s=grace_period_s,
        is_deleted_at_once=is_deleted_at_once,
    ),
    subresources=(
        stream("attach", "PodAttachOptions"),
        Subresource(name="binding", verbs=("create",), kind="Binding"),
        Subresource(name="ephemeralcontainers", verbs=("get", "patch", "update")),
        Subresource(name="eviction", verbs=("create",), group="policy", version="v1", kind="Eviction"),
        stream("exec", "PodExecOptions"),
        Subresource(name="log", verbs=("get",)),
        stream("portforward", "PodPortForwardOptions"),
        proxy("PodProxyOptions"),
        Subresource(name="resize", verbs=("get", "patch", "update")),
        STATUS,
    ),
    selectable_fields={
        "spec.nodeName": lambda pod: at(pod, "spec", "nodeName") or "",
        "spec.restartPolicy": lambda pod: at(pod, "spec", "restartPolicy") or "",
        "spec.schedulerName": lambda pod: at(pod, "spec", "schedulerName") or "",
        "spec.serviceAccountName": lambda pod: at(pod, "spec", "serviceAccountName") or "",
        "spec.hostNetwork": lambda pod: "true" if at(pod, "spec", "hostNetwork") else "false",
        "status.phase": lambda pod: at(pod, "status", "phase") or "",
        "status.podIP": lambda pod: at(pod, "status", "podIP") or "",
        "status.nominatedNodeName": lambda pod: at(pod, "status", "nominatedNodeName") or "",
    },
    columns=POD_COLUMNS,
    row_conditions=row_conditions,
)


def _prepare_create_without_group(pod: Object, context: Context) -> None:
    pod["spec"].pop("schedulingGroup", None)
    prepare_create(pod, context)


# Pods where the gate GenericWorkload is off: what would put a new one into a group is dropped.
WITHOUT_GROUPS = replace(RESOURCE, strategy=replace(RESOURCE.strategy, prepare_create=_prepare_create_without_group))
