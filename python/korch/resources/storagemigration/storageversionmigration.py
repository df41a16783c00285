"""StorageVersionMigration: the wish that all objects of a kind be stored anew in the current form."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, required
from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a StorageVersionMigration."""
    resource = at(obj, "spec", "resource") or {}
    return [] if resource.get("resource") else [required("spec.resource.resource", "resource is required")]


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update asks for another kind."""
    if at(new, "spec", "resource") != at(old, "spec", "resource"):
        return [invalid("spec.resource", at(new, "spec", "resource"), "field is immutable")]
    return []


def _resource(obj: Object) -> str:
    resource = at(obj, "spec", "resource") or {}
    return ".".join(part for part in (resource.get("resource"), resource.get("group")) if part)


RESOURCE = Resource(
    group="storagemigration.k8s.io",
    version="v1",
    kind="StorageVersionMigration",
    plural="storageversionmigrations",
    singular="storageversionmigration",
    schema="io.k8s.api.storagemigration.v1.StorageVersionMigration",
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=(NAME, cell("Resource", _resource, description="What is stored anew."), AGE),
)
