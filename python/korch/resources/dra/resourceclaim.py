"""ResourceClaim: the wish for devices, and which ones were given."""

from __future__ import annotations

from korch.api.errors import Cause, duplicate, invalid, required
from korch.api.meta import at, is_deleting
from korch.resources.columns import AGE, NAME, cell
from korch.resources.dra.requests import check_claim_spec, default_spec
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS

_CONSUMERS_MAX = 256


def default(obj: Object) -> None:
    """Fill in a ResourceClaim, in place."""
    default_spec(fill(obj, "spec", {}))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ResourceClaim."""
    causes: list[Cause] = []
    check_claim_spec(causes, obj.get("spec") or {}, "spec")
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the spec."""
    return [invalid("spec", new.get("spec"), "field is immutable")] if new.get("spec") != old.get("spec") else []


def validate_status_update(new: Object, old: Object) -> list[Cause]:
    """Return what is wrong with a status: who may use the devices, and whether they change while in use."""
    causes: list[Cause] = []
    status, before = new.get("status") or {}, old.get("status") or {}
    consumers = status.get("reservedFor") or []
    if len(consumers) > _CONSUMERS_MAX:
        causes.append(
            Cause("FieldValueTooMany", f"Too many: {len(consumers)}: must have at most {_CONSUMERS_MAX} items", "status.reservedFor")
        )
    if consumers and not status.get("allocation"):
        causes.append(Cause("FieldValueForbidden", "Forbidden: may not be specified when `allocated` is not set", "status.reservedFor"))
    seen: set[str] = set()
    for position, consumer in enumerate(consumers):
        path, uid = f"status.reservedFor[{position}]", consumer.get("uid") or ""
        causes += [required(f"{path}.{field}") for field in ("resource", "name", "uid") if not consumer.get(field)]
        if uid in seen:
            causes.append(duplicate(f"{path}.uid", uid))
        seen.add(uid)
    if before.get("allocation") and status.get("allocation") and before["allocation"] != status["allocation"]:
        causes.append(invalid("status.allocation", status["allocation"], "field is immutable"))
    return causes


def _state(obj: Object) -> str:
    words = ["deleted"] if is_deleting(obj) else []
    if not at(obj, "status", "allocation"):
        words += ["pending"] if not words else []
    else:
        words.append("allocated")
        words += ["reserved"] if at(obj, "status", "reservedFor") else []
    return ",".join(words)


RESOURCE = Resource(
    group="resource.k8s.io",
    version="v1",
    kind="ResourceClaim",
    plural="resourceclaims",
    singular="resourceclaim",
    schema="io.k8s.api.resource.v1.ResourceClaim",
    strategy=Strategy(
        default=default,
        validate=validate,
        validate_update=validate_update,
        validate_status_update=validate_status_update,
        has_status=True,
    ),
    subresources=(STATUS,),
    columns=(NAME, cell("State", _state, description="What became of it."), AGE),
)
