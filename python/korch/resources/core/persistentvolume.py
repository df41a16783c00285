"""PersistentVolume: a piece of storage in the cluster, which a claim may take."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, invalid, required
from korch.api.meta import at, is_deleting
from korch.api.names import is_dns_subdomain
from korch.api.validation import check_enum, check_immutable
from korch.api.volumes import class_of
from korch.resources.columns import AGE, NAME, UNSET, cell, text
from korch.resources.podspec.defaults import fill
from korch.resources.quantities import canonical, check_quantity
from korch.resources.resource import Context, Object, Resource, Strategy
from korch.resources.storage_rules import check_access_modes, check_volume_mode, shown_modes
from korch.resources.subresources import STATUS
from korch.runtime.clock import rfc3339

_POLICIES = ("Delete", "Recycle", "Retain")
# Fields of the spec that are no volume source.
_PLAIN = frozenset(
    {
        "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy", "storageClassName",
        "volumeAttributesClassName", "volumeMode",
    }
)  # fmt: skip
_IMMUTABLE_SOURCE = "spec.persistentvolumesource is immutable after creation"


def sources(spec: Object) -> dict[str, Object]:
    """Return the volume sources in a spec by name; a good one has exactly one."""
    return {key: value for key, value in spec.items() if key not in _PLAIN and value is not None}


def default(obj: Object) -> None:
    """Fill in a PersistentVolume, in place. Mirrors SetDefaults_PersistentVolume."""
    spec = fill(obj, "spec", {})
    fill(spec, "persistentVolumeReclaimPolicy", "Retain")
    fill(spec, "volumeMode", "Filesystem")
    if spec.get("hostPath"):
        spec["hostPath"].setdefault("type", "")


def prepare_create(obj: Object, context: Context) -> None:
    """Start as Pending, since now."""
    obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": rfc3339(context.now)}


def prepare_status_update(new: Object, old: Object, context: Context) -> None:
    """Note the time of a change of phase."""
    status = fill(new, "status", {})
    given, before = status.get("lastPhaseTransitionTime"), at(old, "status", "lastPhaseTransitionTime")
    if status.get("phase") != at(old, "status", "phase") and (given is None or given == before):
        status["lastPhaseTransitionTime"] = rfc3339(context.now)


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a PersistentVolume. Mirrors ValidatePersistentVolume."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_access_modes(causes, spec.get("accessModes"), "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        causes.append(required("spec.capacity"))
    elif list(capacity) != ["storage"]:
        causes.append(Cause("FieldValueNotSupported", 'Unsupported value: {}: supported values: "storage"', "spec.capacity"))
    for name, value in capacity.items():
        check_quantity(causes, value, f"spec.capacity[{name}]", minimum=1)
    check_enum(causes, spec.get("persistentVolumeReclaimPolicy"), "spec.persistentVolumeReclaimPolicy", _POLICIES, is_required=False)
    found = sources(spec)
    if not found:
        causes.append(required("spec", "must specify a volume type"))
    for extra in list(found)[1:]:
        causes.append(forbidden_field(f"spec.{extra}", "may not specify more than 1 volume type"))
    if path := at(spec, "hostPath", "path"):
        if ".." in path.split("/"):
            causes.append(invalid("spec.hostPath.path", path, "must not contain '..'"))
        if path == "/" and spec.get("persistentVolumeReclaimPolicy") == "Recycle":
            causes.append(forbidden_field("spec.persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'"))
    elif "hostPath" in found:
        causes.append(required("spec.hostPath.path"))
    if csi := found.get("csi"):
        causes += [required(f"spec.csi.{field}") for field in ("driver", "volumeHandle") if not csi.get(field)]
    if (local := found.get("local")) is not None:
        if not local.get("path"):
            causes.append(required("spec.local.path"))
        if not spec.get("nodeAffinity"):
            causes.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    if spec.get("nodeAffinity") is not None and not at(spec, "nodeAffinity", "required"):
        causes.append(required("spec.nodeAffinity.required", "must specify required node constraints"))
    name = spec.get("storageClassName") or ""
    causes += [invalid("spec.storageClassName", name, why) for why in is_dns_subdomain(name)] if name else []
    check_volume_mode(causes, spec.get("volumeMode"), "spec.volumeMode")
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change: the source, the volume mode, a node affinity that is set."""
    causes: list[Cause] = []
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    if sources(new_spec) != sources(old_spec):
        causes.append(forbidden_field("spec.persistentvolumesource", _IMMUTABLE_SOURCE))
    check_immutable(causes, new_spec.get("volumeMode"), old_spec.get("volumeMode"), "spec.volumeMode")
    if old_spec.get("nodeAffinity"):
        check_immutable(causes, new_spec.get("nodeAffinity"), old_spec.get("nodeAffinity"), "spec.nodeAffinity")
    return causes


def _claim(obj: Object) -> str:
    reference = at(obj, "spec", "claimRef")
    return f"{reference.get('namespace') or ''}/{reference.get('name') or ''}" if reference else ""


def _status(obj: Object) -> str:
    return "Terminating" if is_deleting(obj) else at(obj, "status", "phase") or ""


RESOURCE = Resource(
    group="",
    version="v1",
    kind="PersistentVolume",
    plural="persistentvolumes",
    singular="persistentvolume",
    schema="io.k8s.api.core.v1.PersistentVolume",
    short_names=("pv",),
    namespaced=False,
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        prepare_status_update=prepare_status_update,
        validate=validate,
        validate_update=validate_update,
        has_status=True,
        keeps_status_on_create=True,
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        cell("Capacity", lambda obj: canonical(at(obj, "spec", "capacity", "storage")), description="How much it holds."),
        cell("Access Modes", lambda obj: shown_modes(at(obj, "spec", "accessModes")), description="In which ways it can be mounted."),
        text("Reclaim Policy", "spec", "persistentVolumeReclaimPolicy", description="What happens when its claim is gone."),
        cell("Status", _status, description="Whether it is free."),
        cell("Claim", _claim, description="Who has it."),
        cell("StorageClass", class_of, description="The class that it belongs to."),
        text("VolumeAttributesClass", "spec", "volumeAttributesClassName", description="The class of its attributes.", missing=UNSET),
        text("Reason", "status", "reason", description="Why it is in its phase."),
        AGE,
        text("VolumeMode", "spec", "volumeMode", description="File system or block device.", priority=1, missing=UNSET),
    ),
)
