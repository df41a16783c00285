"""ControllerRevision: an immutable snapshot of a workload's template, kept for rollbacks."""

from __future__ import annotations

from korch.api.errors import Cause, required
from korch.api.meta import controller_of
from korch.api.validation import check_immutable, check_not_negative
from korch.resources.columns import AGE, NAME, NONE, cell
from korch.resources.resource import Column, Object, Resource, Strategy


def _controller(obj: Object) -> str:
    reference = controller_of(obj)
    if reference is None:
        return NONE
    group = reference.get("apiVersion", "").rpartition("/")[0]
    kind = reference.get("kind", "").lower()
    return f"{kind}.{group}/{reference.get('name')}" if group else f"{kind}/{reference.get('name')}"


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ControllerRevision."""
    causes: list[Cause] = []
    check_not_negative(causes, obj.get("revision"), "revision")
    if obj.get("data") is None:
        causes.append(required("data", "data is mandatory"))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the snapshot."""
    causes: list[Cause] = []
    check_immutable(causes, new.get("data"), old.get("data"), "data")
    return causes


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="ControllerRevision",
    plural="controllerrevisions",
    singular="controllerrevision",
    schema="io.k8s.api.apps.v1.ControllerRevision",
    strategy=Strategy(validate=validate, validate_update=validate_update),
    columns=(
        NAME,
        cell("Controller", _controller, description="Whose history it belongs to."),
        Column("Revision", lambda obj, _now: obj.get("revision") or 0, type="string", description="Its number in that history."),
        AGE,
    ),
)
