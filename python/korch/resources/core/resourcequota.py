"""ResourceQuota: how much all objects of a namespace may use together."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, not_supported
from korch.api.meta import at
from korch.api.names import is_qualified_name
from korch.api.validation import check_immutable
from korch.resources.columns import AGE, NAME, cell
from korch.resources.quantities import canonical, check_quantity
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS

_SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_EXCLUSIVE = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
STANDARD_RESOURCES = frozenset(
    {
        "cpu", "memory", "ephemeral-storage", "storage", "requests.cpu", "requests.memory", "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu", "limits.memory", "limits.ephemeral-storage", "pods", "resourcequotas", "services", "replicationcontrollers",
        "secrets", "persistentvolumeclaims", "configmaps", "services.nodeports", "services.loadbalancers",
    }
)  # fmt: skip


def _usage(obj: Object, *, is_limit: bool) -> str:
    hard, used = at(obj, "status", "hard") or {}, at(obj, "status", "used") or {}
    names = [name for name in sorted(hard) if name.startswith("limits") is is_limit]
    return ", ".join(f"{name}: {canonical(used.get(name) or '0')}/{canonical(hard[name])}" for name in names)


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ResourceQuota. Mirrors ValidateResourceQuotaSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    _check_amounts(causes, spec.get("hard"), "spec.hard")
    scopes = spec.get("scopes") or []
    for position, scope in enumerate(scopes):
        if scope not in _SCOPES:
            causes.append(invalid("spec.scopes", scopes, "unsupported scope"))
            break
        del position
    if any(one in scopes and other in scopes for one, other in _EXCLUSIVE):
        causes.append(invalid("spec.scopes", scopes, "conflicting scopes"))
    for position, requirement in enumerate(at(spec, "scopeSelector", "matchExpressions") or ()):
        path, operator = f"spec.scopeSelector.matchExpressions[{position}]", requirement.get("operator") or ""
        if requirement.get("scopeName") not in _SCOPES:
            causes.append(invalid(f"{path}.scopeName", requirement.get("scopeName") or "", "unsupported scope"))
        if operator not in _OPERATORS:
            causes.append(not_supported(f"{path}.operator", operator, _OPERATORS))
        elif operator in ("In", "NotIn") and not requirement.get("values"):
            causes.append(
                Cause(
                    "FieldValueRequired",
                    "Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                    f"{path}.values",
                )
            )
        elif operator in ("Exists", "DoesNotExist") and requirement.get("values"):
            why = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector"
            causes.append(invalid(f"{path}.values", requirement["values"], why))
    return causes


def _check_amounts(causes: list[Cause], amounts: Object | None, path: str) -> None:
    for name, value in (amounts or {}).items():
        where = f"{path}[{name}]"
        causes += [invalid(where, name, why) for why in is_qualified_name(name)]
        if "/" not in name and name not in STANDARD_RESOURCES and not name.startswith(("hugepages-", "requests.", "limits.", "count.")):
            causes.append(invalid(where, name, "must be a standard resource for quota"))
        check_quantity(causes, value, where)


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the scopes."""
    causes: list[Cause] = []
    check_immutable(causes, sorted(at(new, "spec", "scopes") or ()), sorted(at(old, "spec", "scopes") or ()), "spec.scopes")
    return causes


def validate_status_update(new: Object, _old: Object) -> list[Cause]:
    """Return what is wrong with the amounts in a status."""
    causes: list[Cause] = []
    for field in ("hard", "used"):
        _check_amounts(causes, at(new, "status", field), f"status.{field}")
    return causes


RESOURCE = Resource(
    group="",
    version="v1",
    kind="ResourceQuota",
    plural="resourcequotas",
    singular="resourcequota",
    schema="io.k8s.api.core.v1.ResourceQuota",
    short_names=("quota",),
    strategy=Strategy(validate=validate, validate_update=validate_update, validate_status_update=validate_status_update, has_status=True),
    subresources=(STATUS,),
    columns=(
        NAME,
        cell("Request", lambda obj: _usage(obj, is_limit=False), description="What is used of each request that is limited."),
        cell("Limit", lambda obj: _usage(obj, is_limit=True), description="What is used of each limit that is limited."),
        AGE,
    ),
)
