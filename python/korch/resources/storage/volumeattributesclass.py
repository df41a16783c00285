"""VolumeAttributesClass: attributes of volumes that can be changed while they are in use."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, required
from korch.api.meta import annotations_of, at
from korch.api.validation import check_immutable
from korch.resources.columns import AGE, text
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.storage.csinode import check_driver_name

_DEFAULT = "volumeattributesclass.alpha.kubernetes.io/is-default-class"


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a VolumeAttributesClass. Mirrors ValidateVolumeAttributesClass."""
    causes: list[Cause] = []
    check_driver_name(causes, obj.get("driverName") or "", "driverName")
    if not obj.get("parameters"):
        causes.append(required("parameters", "must contain at least one key/value pair"))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change."""
    causes: list[Cause] = []
    check_immutable(causes, new.get("driverName"), old.get("driverName"), "driverName")
    if (new.get("parameters") or {}) != (old.get("parameters") or {}):
        causes.append(forbidden_field("parameters", "updates to parameters are forbidden."))
    return causes


def _name(obj: Object) -> str:
    return (at(obj, "metadata", "name") or "") + (" (default)" if annotations_of(obj).get(_DEFAULT) == "true" else "")


RESOURCE = Resource(
    group="storage.k8s.io",
    version="v1",
    kind="VolumeAttributesClass",
    plural="volumeattributesclasses",
    singular="volumeattributesclass",
    schema="io.k8s.api.storage.v1.VolumeAttributesClass",
    short_names=("vac",),
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update),
    columns=(
        Column("Name", lambda obj, _now: _name(obj), format="name", description="Name, marked when it is the default."),
        text("DriverName", "driverName", description="The driver that knows the attributes."),
        AGE,
    ),
)
