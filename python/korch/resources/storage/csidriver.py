"""CSIDriver: a storage driver, and how the cluster should deal with it. Its name is the driver's."""

from __future__ import annotations

from korch.api.errors import Cause, duplicate, not_supported, required
from korch.api.meta import at
from korch.resources.columns import AGE, NAME, UNSET, cell
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.storage.csinode import check_driver_name

_MODES = ("Ephemeral", "Persistent")
_FS_GROUP = ("File", "None", "ReadWriteOnceWithFSType")
_IMMUTABLE = ("attachRequired", "volumeLifecycleModes")


def default(obj: Object) -> None:
    """Fill in a CSIDriver, in place. Mirrors SetDefaults_CSIDriver."""
    spec = fill(obj, "spec", {})
    for field, value in (
        ("attachRequired", True),
        ("podInfoOnMount", False),
        ("storageCapacity", False),
        ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("requiresRepublish", False),
        ("seLinuxMount", False),
    ):
        if spec.get(field) is None:
            spec[field] = value
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a CSIDriver. Mirrors ValidateCSIDriver."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_driver_name(causes, at(obj, "metadata", "name") or "", "metadata.name")
    for field in ("attachRequired", "podInfoOnMount", "storageCapacity"):
        if spec.get(field) is None:
            causes.append(required(f"spec.{field}"))
    if spec.get("fsGroupPolicy") not in _FS_GROUP:
        causes.append(not_supported("spec.fsGroupPolicy", spec.get("fsGroupPolicy") or "", _FS_GROUP))
    seen: set[str] = set()
    for position, request in enumerate(spec.get("tokenRequests") or ()):
        audience = request.get("audience") or ""
        if audience in seen:
            causes.append(duplicate(f"spec.tokenRequests[{position}].audience", audience))
        seen.add(audience)
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in _MODES:
            causes.append(not_supported("spec.volumeLifecycleModes", mode, _MODES))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change."""
    return [
        Cause("FieldValueInvalid", "Invalid value: " + str(at(new, "spec", field)).lower() + ": field is immutable", f"spec.{field}")
        for field in _IMMUTABLE
        if at(new, "spec", field) != at(old, "spec", field)
    ]


def _flag(name: str, field: str, description: str) -> Column:
    return Column(name, lambda obj, _now: bool(at(obj, "spec", field)), type="boolean", description=description)


def _tokens(obj: Object) -> str:
    requests = at(obj, "spec", "tokenRequests")
    return ",".join(one.get("audience") or "" for one in requests) if requests else UNSET


RESOURCE = Resource(
    group="storage.k8s.io",
    version="v1",
    kind="CSIDriver",
    plural="csidrivers",
    singular="csidriver",
    schema="io.k8s.api.storage.v1.CSIDriver",
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update, has_generation=True),
    columns=(
        NAME,
        _flag("AttachRequired", "attachRequired", "Whether volumes are attached before they are mounted."),
        _flag("PodInfoOnMount", "podInfoOnMount", "Whether the driver is told about the pod."),
        _flag("StorageCapacity", "storageCapacity", "Whether the driver tells how much it has."),
        cell("TokenRequests", _tokens, description="Audiences of the tokens that it gets."),
        _flag("RequiresRepublish", "requiresRepublish", "Whether volumes are published again and again."),
        cell("Modes", lambda obj: ",".join(at(obj, "spec", "volumeLifecycleModes") or ()) or "<none>", description="Lives of its volumes."),
        AGE,
    ),
)
