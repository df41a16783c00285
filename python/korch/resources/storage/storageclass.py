"""StorageClass: a kind of storage that claims can ask for, and who makes it."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, required, too_long
from korch.api.meta import annotations_of, at
from korch.api.names import is_qualified_name
from korch.api.validation import check_enum, check_immutable
from korch.resources.columns import AGE, UNSET, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Object, Resource, Strategy

DEFAULT_ANNOTATIONS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_POLICIES = ("Delete", "Retain")
_MODES = ("Immediate", "WaitForFirstConsumer")
_PARAMETERS_BYTES_MAX = 256 * 1024


def is_default(obj: Object) -> bool:
    """Whether claims without a class get this one."""
    return any(annotations_of(obj).get(one) == "true" for one in DEFAULT_ANNOTATIONS)


def default(obj: Object) -> None:
    """Fill in a StorageClass, in place."""
    fill(obj, "reclaimPolicy", "Delete")
    fill(obj, "volumeBindingMode", "Immediate")


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a StorageClass. Mirrors ValidateStorageClass."""
    causes: list[Cause] = []
    provisioner = obj.get("provisioner") or ""
    if not provisioner:
        causes.append(required("provisioner"))
    causes += [invalid("provisioner", provisioner, why) for why in is_qualified_name(provisioner.lower())] if provisioner else []
    size = 0
    for key, value in (obj.get("parameters") or {}).items():
        if not key:
            causes.append(invalid("parameters", key, "field can not be empty."))
        size += len(key) + len(value or "")
    if size > _PARAMETERS_BYTES_MAX:
        causes.append(too_long("parameters", _PARAMETERS_BYTES_MAX))
    check_enum(causes, obj.get("reclaimPolicy"), "reclaimPolicy", _POLICIES, is_required=False)
    check_enum(causes, obj.get("volumeBindingMode"), "volumeBindingMode", _MODES)
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change."""
    causes: list[Cause] = []
    if (new.get("parameters") or {}) != (old.get("parameters") or {}):
        causes.append(Cause("FieldValueForbidden", "Forbidden: updates to parameters are forbidden.", "parameters"))
    if new.get("provisioner") != old.get("provisioner"):
        causes.append(Cause("FieldValueForbidden", "Forbidden: updates to provisioner are forbidden.", "provisioner"))
    if new.get("reclaimPolicy") != old.get("reclaimPolicy"):
        causes.append(Cause("FieldValueForbidden", "Forbidden: updates to reclaimPolicy are forbidden.", "reclaimPolicy"))
    check_immutable(causes, new.get("volumeBindingMode"), old.get("volumeBindingMode"), "volumeBindingMode")
    return causes


def _name(obj: Object) -> str:
    return (at(obj, "metadata", "name") or "") + (" (default)" if is_default(obj) else "")


RESOURCE = Resource(
    group="storage.k8s.io",
    version="v1",
    kind="StorageClass",
    plural="storageclasses",
    singular="storageclass",
    schema="io.k8s.api.storage.v1.StorageClass",
    short_names=("sc",),
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update),
    columns=(
        Column("Name", lambda obj, _now: _name(obj), format="name", description="Name, marked when it is the default."),
        text("Provisioner", "provisioner", description="Who makes volumes of it."),
        text("ReclaimPolicy", "reclaimPolicy", description="What happens to a volume whose claim is gone.", missing="Delete"),
        text("VolumeBindingMode", "volumeBindingMode", description="When a claim gets its volume.", missing=UNSET),
        Column(
            "AllowVolumeExpansion",
            lambda obj, _now: bool(obj.get("allowVolumeExpansion")),
            type="boolean",
            description="Whether claims may grow.",
        ),
        AGE,
    ),
)
