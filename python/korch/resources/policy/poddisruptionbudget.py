"""PodDisruptionBudget: how many pods of an application may be evicted at once."""

from __future__ import annotations

from korch.api.errors import Cause, invalid
from korch.api.meta import at
from korch.api.validation import check_enum, check_int_or_percent, check_label_selector, check_not_negative, percent_of
from korch.resources.columns import AGE, NAME, cell, number
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS

_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a PodDisruptionBudget. Mirrors ValidatePodDisruptionBudgetSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        causes.append(invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        if value is not None:
            check_int_or_percent(causes, value, f"spec.{field}")
            if (percent_of(value) or 0) > 100:
                causes.append(invalid(f"spec.{field}", value, "must not be greater than 100%"))
    check_label_selector(causes, spec.get("selector"), "spec.selector")
    check_enum(causes, spec.get("unhealthyPodEvictionPolicy"), "spec.unhealthyPodEvictionPolicy", _POLICIES, is_required=False)
    return causes


def validate_status_update(new: Object, _old: Object) -> list[Cause]:
    """Return what is wrong with the counts of a status."""
    causes: list[Cause] = []
    for field in _COUNTS:
        check_not_negative(causes, at(new, "status", field), f"status.{field}")
    return causes


def _shown(obj: Object, field: str) -> str:
    value = at(obj, "spec", field)
    return "N/A" if value is None else str(value)


RESOURCE = Resource(
    group="policy",
    version="v1",
    kind="PodDisruptionBudget",
    plural="poddisruptionbudgets",
    singular="poddisruptionbudget",
    schema="io.k8s.api.policy.v1.PodDisruptionBudget",
    short_names=("pdb",),
    strategy=Strategy(
        validate=validate, validate_status_update=validate_status_update, has_status=True, status_counts=_COUNTS, has_generation=True
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        cell("Min Available", lambda obj: _shown(obj, "minAvailable"), description="Pods that must stay available."),
        cell("Max Unavailable", lambda obj: _shown(obj, "maxUnavailable"), description="Pods that may be missing."),
        number("Allowed Disruptions", "status", "disruptionsAllowed", description="Pods that may be evicted now."),
        AGE,
    ),
)
