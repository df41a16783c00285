"""CSIStorageCapacity: how much a driver can give of a class, in a part of the cluster."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, required
from korch.api.names import is_dns_subdomain
from korch.api.validation import check_immutable, check_label_selector
from korch.resources.columns import NAME, cell, text
from korch.resources.quantities import canonical, check_quantity
from korch.resources.resource import Object, Resource, Strategy


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a CSIStorageCapacity. Mirrors ValidateCSIStorageCapacity."""
    causes: list[Cause] = []
    name = obj.get("storageClassName") or ""
    if not name:
        causes.append(required("storageClassName"))
    causes += [invalid("storageClassName", name, why) for why in is_dns_subdomain(name)] if name else []
    check_label_selector(causes, obj.get("nodeTopology"), "nodeTopology")
    for field in ("capacity", "maximumVolumeSize"):
        if obj.get(field) is not None:
            check_quantity(causes, obj[field], field)
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update speaks of another class or place."""
    causes: list[Cause] = []
    for field in ("nodeTopology", "storageClassName"):
        check_immutable(causes, new.get(field), old.get(field), field)
    return causes


RESOURCE = Resource(
    group="storage.k8s.io",
    version="v1",
    kind="CSIStorageCapacity",
    plural="csistoragecapacities",
    singular="csistoragecapacity",
    schema="io.k8s.api.storage.v1.CSIStorageCapacity",
    strategy=Strategy(validate=validate, validate_update=validate_update),
    columns=(
        NAME,
        text("StorageClassName", "storageClassName", description="The class."),
        cell("Capacity", lambda obj: canonical(obj.get("capacity")) or "<unset>", description="How much there is."),
    ),
)
