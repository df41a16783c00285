"""StatefulSet: pods with lasting names and storage."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, invalid
from korch.api.meta import at
from korch.api.validation import check_enum
from korch.resources.columns import AGE, NAME, cell, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS
from korch.resources.workloads import check_counts, check_selector_and_template


def _ready(obj: Object) -> str:
    return f"{at(obj, 'status', 'readyReplicas') or 0}/{at(obj, 'spec', 'replicas') or 0}"


def default(obj: Object) -> None:
    """Fill in a StatefulSet, in place. Mirrors SetDefaults_StatefulSet of apps/v1."""
    spec = fill(obj, "spec", {})
    fill(spec, "podManagementPolicy", "OrderedReady")
    strategy = fill(spec, "updateStrategy", {})
    if fill(strategy, "type", "RollingUpdate") == "RollingUpdate":
        fill(fill(strategy, "rollingUpdate", {}), "partition", 0)
    retention = fill(spec, "persistentVolumeClaimRetentionPolicy", {})
    fill(retention, "whenDeleted", "Retain")
    fill(retention, "whenScaled", "Retain")
    fill(spec, "replicas", 1)
    fill(spec, "revisionHistoryLimit", 10)
    fill(spec, "serviceName", "")
    for claim in spec.get("volumeClaimTemplates") or ():
        fill(claim, "apiVersion", "v1")
        fill(claim, "kind", "PersistentVolumeClaim")
        fill(fill(claim, "spec", {}), "volumeMode", "Filesystem")
        fill(fill(claim, "status", {}), "phase", "Pending")
    default_pod_template(spec.get("template"))


# What an update may change; the rest shapes pods and volumes that exist under lasting names.
_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a StatefulSet. Mirrors ValidateStatefulSetSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    policy = spec.get("podManagementPolicy") or ""
    if policy not in ("OrderedReady", "Parallel"):
        causes.append(invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    strategy, path = spec.get("updateStrategy") or {}, "spec.updateStrategy"
    rolling_update = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "OnDelete":
            if rolling_update is not None:
                causes.append(invalid(f"{path}.rollingUpdate", rolling_update, "only allowed for updateStrategy 'RollingUpdate'"))
        case "RollingUpdate":
            check_counts(causes, rolling_update or {}, ("partition",), path=f"{path}.rollingUpdate")
        case other:
            causes.append(invalid(path, other or "", "must be 'RollingUpdate' or 'OnDelete'"))
    retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
    for field in ("whenDeleted", "whenScaled"):
        check_enum(causes, retention.get(field), f"spec.persistentVolumeClaimRetentionPolicy.{field}", ("Delete", "Retain"))
    check_counts(causes, spec, ("replicas", "minReadySeconds", "revisionHistoryLimit"))
    check_counts(causes, spec.get("ordinals") or {}, ("start",), path="spec.ordinals")
    check_selector_and_template(causes, spec, "StatefulSet", empty="statefulset")
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes what it may not."""
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    fixed = (new_spec.keys() | old_spec.keys()) - set(_MUTABLE)
    if all((new_spec.get(field) or None) == (old_spec.get(field) or None) for field in fixed):
        return []
    listed = ", ".join(f"'{field}'" for field in _MUTABLE[:-1])
    detail = f"updates to statefulset spec for fields other than {listed} and '{_MUTABLE[-1]}' are forbidden"
    return [forbidden_field("spec", detail)]


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="StatefulSet",
    plural="statefulsets",
    singular="statefulset",
    schema="io.k8s.api.apps.v1.StatefulSet",
    short_names=("sts",),
    categories=("all",),
    strategy=Strategy(
        default=default,
        validate=validate,
        validate_update=validate_update,
        has_status=True,
        status_counts=("replicas", "availableReplicas"),
        has_generation=True,
    ),
    subresources=(SCALE, STATUS),
    scale=Scale(),
    columns=(
        NAME,
        cell("Ready", _ready, description="Pods that are ready, of those wanted."),
        AGE,
        *template_columns("spec", "template", selector=False),
    ),
)
