"""PersistentVolumeClaim: a pod's wish for storage."""

from __future__ import annotations

from typing import Any

from korch.api import quantity
from korch.api.errors import Cause, forbidden_field, invalid, required
from korch.api.meta import annotations_of, at, is_deleting
from korch.api.names import is_dns_subdomain
from korch.api.validation import check_label_selector
from korch.api.volumes import CLASS_ANNOTATION, class_of
from korch.resources.columns import AGE, NAME, UNSET, cell, text
from korch.resources.podspec.defaults import fill
from korch.resources.quantities import canonical, check_quantity
from korch.resources.resource import Context, Object, Resource, Strategy
from korch.resources.storage_rules import check_access_modes, check_volume_mode, shown_modes
from korch.resources.subresources import STATUS

_IMMUTABLE = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def default_claim_spec(spec: Object) -> None:
    """Fill in the spec of a claim, in place, also in a template. Mirrors SetDefaults_PersistentVolumeClaimSpec."""
    fill(spec, "volumeMode", "Filesystem")


def default(obj: Object) -> None:
    """Fill in a PersistentVolumeClaim, in place."""
    default_claim_spec(fill(obj, "spec", {}))


def _sync_data_sources(spec: Object) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source and not reference:
        spec["dataSourceRef"] = dict(source)
    elif reference and not source and not reference.get("namespace"):
        spec["dataSource"] = {key: value for key, value in reference.items() if key != "namespace"}


def prepare_create(obj: Object, _context: Context) -> None:
    """Start as Pending; a data source is written into both of its fields."""
    obj["status"] = {"phase": "Pending"}
    _sync_data_sources(obj["spec"])


def prepare_update(new: Object, _old: Object, _context: Context) -> None:
    """Keep both fields of the data source alike."""
    _sync_data_sources(new.get("spec") or {})


def check_claim_spec(causes: list[Cause], spec: Object, path: str) -> None:
    """Check the spec of a claim. Mirrors ValidatePersistentVolumeClaimSpec."""
    check_access_modes(causes, spec.get("accessModes"), f"{path}.accessModes")
    check_label_selector(causes, spec.get("selector"), f"{path}.selector")
    storage = at(spec, "resources", "requests", "storage")
    if storage is None:
        causes.append(required(f"{path}.resources[storage]"))
    else:
        check_quantity(causes, storage, f"{path}.resources[storage]", minimum=1)
    for field in ("storageClassName", "volumeAttributesClassName"):
        name = spec.get(field) or ""
        causes += [invalid(f"{path}.{field}", name, why) for why in is_dns_subdomain(name)] if name else []
    check_volume_mode(causes, spec.get("volumeMode"), f"{path}.volumeMode")
    for field in ("dataSource", "dataSourceRef"):
        source = spec.get(field)
        if source is not None:
            causes += [required(f"{path}.{field}.{one}") for one in ("name", "kind") if not source.get(one)]
            if not source.get("apiGroup") and source.get("kind") != "PersistentVolumeClaim":
                why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
                causes.append(invalid(f"{path}.{field}", source.get("kind") or "", why))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a PersistentVolumeClaim."""
    causes: list[Cause] = []
    check_claim_spec(causes, obj.get("spec") or {}, "spec")
    return causes


def _frozen(spec: Object, *, may_resize: bool) -> dict[str, Any]:
    """Return the part of the spec that an update must leave alone."""
    kept = {key: value for key, value in spec.items() if key not in ("resources", "volumeAttributesClassName")}
    resources = dict(spec.get("resources") or {})
    if may_resize:
        requests = {key: value for key, value in (resources.get("requests") or {}).items() if key != "storage"}
        resources = {**resources, "requests": requests}
    return kept | {"resources": resources}


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change. Mirrors ValidatePersistentVolumeClaimUpdate."""
    causes: list[Cause] = []
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    compared = dict(new_spec)
    if not old_spec.get("volumeName"):
        # The binder gives a claim its volume, once.
        compared.pop("volumeName", None)
        if old_spec.get("volumeName") is not None:
            compared["volumeName"] = old_spec["volumeName"]
    if "storageClassName" not in old_spec and CLASS_ANNOTATION not in annotations_of(old):
        compared.pop("storageClassName", None)
    is_bound = at(old, "status", "phase") == "Bound"
    if _frozen(compared, may_resize=is_bound) != _frozen(old_spec, may_resize=is_bound):
        causes.append(forbidden_field("spec", _IMMUTABLE))
    new_size, old_size = at(new_spec, "resources", "requests", "storage"), at(old_spec, "resources", "requests", "storage")
    had = at(old, "status", "capacity", "storage")
    if new_size is not None and old_size is not None and quantity.milli(new_size) < quantity.milli(old_size):
        is_recovering = had is not None and quantity.milli(new_size) > quantity.milli(had)
        if not is_recovering:
            causes.append(forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity"))
    if annotations_of(new).get(CLASS_ANNOTATION) != annotations_of(old).get(CLASS_ANNOTATION):
        causes.append(invalid("metadata.annotations", annotations_of(new).get(CLASS_ANNOTATION), "field is immutable"))
    return causes


def _status(obj: Object) -> str:
    return "Terminating" if is_deleting(obj) else at(obj, "status", "phase") or ""


def _bound(obj: Object, shown: str) -> str:
    return shown if at(obj, "spec", "volumeName") else ""


RESOURCE = Resource(
    group="",
    version="v1",
    kind="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    singular="persistentvolumeclaim",
    schema="io.k8s.api.core.v1.PersistentVolumeClaim",
    short_names=("pvc",),
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        validate=validate,
        validate_update=validate_update,
        has_status=True,
        keeps_status_on_create=True,
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        cell("Status", _status, description="Whether it has a volume."),
        text("Volume", "spec", "volumeName", description="The volume."),
        cell("Capacity", lambda obj: _bound(obj, canonical(at(obj, "status", "capacity", "storage"))), description="How much it holds."),
        cell("Access Modes", lambda obj: _bound(obj, shown_modes(at(obj, "status", "accessModes"))), description="How it can be mounted."),
        cell("StorageClass", class_of, description="The class that it asks for."),
        text("VolumeAttributesClass", "spec", "volumeAttributesClassName", description="The class of its attributes.", missing=UNSET),
        AGE,
        text("VolumeMode", "spec", "volumeMode", description="File system or block device.", priority=1, missing=UNSET),
    ),
)
