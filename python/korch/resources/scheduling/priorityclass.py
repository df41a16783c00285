"""PriorityClass: a name for a pod's priority, and whether others make way for it."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field
from korch.api.meta import at
from korch.api.validation import check_enum, check_immutable
from korch.resources.columns import AGE, NAME, number
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Object, Resource, Strategy

HIGHEST_USER_PRIORITY = 1_000_000_000
SYSTEM_CLASSES = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


def default(obj: Object) -> None:
    """Fill in a PriorityClass, in place."""
    fill(obj, "preemptionPolicy", "PreemptLowerPriority")


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a PriorityClass. Mirrors ValidatePriorityClass."""
    causes: list[Cause] = []
    name, value = at(obj, "metadata", "name") or "", obj.get("value") or 0
    if name.startswith("system-"):
        if SYSTEM_CLASSES.get(name) != value or obj.get("globalDefault"):
            known = f"{name} is not a known system priority class"
            why = f"priority class names with 'system-' prefix are reserved for system use only. error: {known}"
            causes.append(forbidden_field("metadata.name", why))
    elif value > HIGHEST_USER_PRIORITY:
        why = f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        causes.append(forbidden_field("value", why))
    check_enum(causes, obj.get("preemptionPolicy"), "preemptionPolicy", ("Never", "PreemptLowerPriority"), is_required=False)
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes value or preemption policy."""
    causes: list[Cause] = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        causes.append(forbidden_field("value", "may not be changed in an update."))
    check_immutable(causes, new.get("preemptionPolicy"), old.get("preemptionPolicy"), "preemptionPolicy")
    return causes


RESOURCE = Resource(
    group="scheduling.k8s.io",
    version="v1",
    kind="PriorityClass",
    plural="priorityclasses",
    singular="priorityclass",
    schema="io.k8s.api.scheduling.v1.PriorityClass",
    short_names=("pc",),
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update, has_generation=True),
    columns=(
        NAME,
        number("Value", "value", description="The priority."),
        Column(
            "Global-Default",
            lambda obj, _now: bool(obj.get("globalDefault")),
            type="boolean",
            description="Whether pods without a class get it.",
        ),
        AGE,
        Column("PreemptionPolicy", lambda obj, _now: obj.get("preemptionPolicy") or "", description="Whether others make way."),
    ),
)
