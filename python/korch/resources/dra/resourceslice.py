"""ResourceSlice: the devices that a driver offers, on one node or on many."""

from __future__ import annotations

from korch.api.errors import Cause, duplicate, invalid, required
from korch.api.meta import at
from korch.api.names import is_dns_label, is_dns_subdomain
from korch.resources.columns import AGE, NAME, UNSET, text
from korch.resources.dra.requests import check_driver
from korch.resources.resource import Object, Resource, Strategy

_PLACES = ("nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection")
_DEVICES_MAX = 128


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ResourceSlice. Mirrors ValidateResourceSlice."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_driver(causes, spec.get("driver") or "", "spec.driver")
    pool = spec.get("pool") or {}
    _check_pool(causes, pool)
    places = [field for field in _PLACES if spec.get(field)]
    if not places:
        causes.append(required("spec", "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"))
    elif len(places) > 1:
        shown = "{" + ", ".join(f"`{one}`" for one in places) + "}"
        why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set"
        causes.append(invalid("spec", shown, why))
    if name := spec.get("nodeName"):
        causes += [invalid("spec.nodeName", name, why) for why in is_dns_subdomain(name)]
    devices = spec.get("devices") or ()
    if len(devices) > _DEVICES_MAX:
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(devices)}: must have at most {_DEVICES_MAX} items", "spec.devices"))
    seen: set[str] = set()
    for position, device in enumerate(devices):
        path, name = f"spec.devices[{position}].name", device.get("name") or ""
        if not name:
            causes.append(required(path))
        causes += [invalid(path, name, why) for why in is_dns_label(name)] if name else []
        if name in seen:
            causes.append(duplicate(path, name))
        seen.add(name)
    return causes


def _check_pool(causes: list[Cause], pool: Object) -> None:
    name = pool.get("name") or ""
    if not name:
        causes.append(required("spec.pool.name"))
    for part in name.split("/") if name else ():
        causes += [invalid("spec.pool.name", name, why) for why in is_dns_subdomain(part)]
    if (pool.get("resourceSliceCount") or 0) <= 0:
        causes.append(invalid("spec.pool.resourceSliceCount", pool.get("resourceSliceCount") or 0, "must be greater than zero"))
    if (pool.get("generation") or 0) < 0:
        causes.append(invalid("spec.pool.generation", pool["generation"], "must be greater than or equal to zero"))


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change."""
    causes: list[Cause] = []
    for path in (("driver",), ("pool", "name"), ("nodeName",)):
        if at(new, "spec", *path) != at(old, "spec", *path):
            causes.append(invalid("spec." + ".".join(path), at(new, "spec", *path), "field is immutable"))
    return causes


RESOURCE = Resource(
    group="resource.k8s.io",
    version="v1",
    kind="ResourceSlice",
    plural="resourceslices",
    singular="resourceslice",
    schema="io.k8s.api.resource.v1.ResourceSlice",
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update, has_generation=True),
    selectable_fields={
        "spec.nodeName": lambda obj: at(obj, "spec", "nodeName") or "",
        "spec.driver": lambda obj: at(obj, "spec", "driver") or "",
    },
    columns=(
        NAME,
        text("Node", "spec", "nodeName", description="The node that has the devices.", missing=UNSET),
        text("Driver", "spec", "driver", description="Who offers them."),
        text("Pool", "spec", "pool", "name", description="The pool that they belong to."),
        AGE,
    ),
)
