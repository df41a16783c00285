"""CSINode: the storage drivers of a node, and what they can do there."""

from __future__ import annotations

from korch.api.errors import Cause, duplicate, invalid, required
from korch.api.meta import at
from korch.api.names import is_dns_subdomain, is_qualified_name
from korch.resources.columns import AGE, NAME
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.subresources import STATUS

_DRIVER_MAX, _NODE_ID_MAX = 63, 256


def check_driver_name(causes: list[Cause], name: str, path: str) -> None:
    """Check the name of a CSI driver."""
    if not name:
        causes.append(required(path))
    if len(name) > _DRIVER_MAX:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {_DRIVER_MAX} bytes", path))
    causes += [invalid(path, name, why) for why in is_dns_subdomain(name.lower())] if name else []


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a CSINode. Mirrors ValidateCSINodeSpec."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for position, driver in enumerate(at(obj, "spec", "drivers") or ()):
        path, name = f"spec.drivers[{position}]", driver.get("name") or ""
        check_driver_name(causes, name, f"{path}.name")
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        if not driver.get("nodeID"):
            causes.append(required(f"{path}.nodeID"))
        elif len(driver["nodeID"]) > _NODE_ID_MAX:
            causes.append(invalid(f"{path}.nodeID", driver["nodeID"], f"must be {_NODE_ID_MAX} characters or less"))
        for key in at(driver, "topologyKeys") or ():
            causes += [invalid(f"{path}.topologyKeys", key, why) for why in is_qualified_name(key)]
        count = at(driver, "allocatable", "count")
        if count is not None and count < 0:
            causes.append(invalid(f"{path}.allocatable.count", count, "must be greater than or equal to 0"))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes a driver that stays."""
    before = {one.get("name"): one for one in at(old, "spec", "drivers") or ()}
    return [
        invalid(f"spec.drivers[{position}]", driver, "field is immutable")
        for position, driver in enumerate(at(new, "spec", "drivers") or ())
        if driver.get("name") in before and {**driver, "allocatable": None} != {**before[driver["name"]], "allocatable": None}
    ]


RESOURCE = Resource(
    group="storage.k8s.io",
    version="v1",
    kind="CSINode",
    plural="csinodes",
    singular="csinode",
    schema="io.k8s.api.storage.v1.CSINode",
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column("Drivers", lambda obj, _now: len(at(obj, "spec", "drivers") or ()), type="integer", description="How many drivers it has."),
        AGE,
    ),
)
