"""Rules for where a pod may run: tolerations, affinity, spreading.

Mirrors ValidateTolerations, validateAffinity and validateTopologySpreadConstraints of kubernetes' pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence

from korch.api import names
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, not_supported, required
from korch.api.validation import check_label_selector, is_empty_selector
from korch.resources.resource import Object

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_WEIGHT = "must be in the range 1-100"
_EMPTY = "can not be empty"


def check_placement(causes: list[Cause], spec: Object, path: str) -> None:
    """Check all of a pod spec that the scheduler and the eviction rules read."""
    check_tolerations(causes, spec.get("tolerations") or (), f"{path}.tolerations")
    affinity = spec.get("affinity") or {}
    if (node := affinity.get("nodeAffinity")) is not None:
        _check_node_affinity(causes, node, f"{path}.affinity.nodeAffinity")
    for kind in ("podAffinity", "podAntiAffinity"):
        if (pods := affinity.get(kind)) is not None:
            _check_pod_affinity(causes, pods, f"{path}.affinity.{kind}")
    _check_spreading(causes, spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints")


def check_tolerations(causes: list[Cause], tolerations: Sequence[Object], path: str) -> None:
    """Check a list of Toleration."""
    for position, toleration in enumerate(tolerations):
        where = f"{path}[{position}]"
        key, operator, effect = toleration.get("key"), toleration.get("operator") or "", toleration.get("effect")
        if key:
            causes += [invalid(f"{where}.key", key, why) for why in names.is_qualified_name(key)]
        elif operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            causes.append(invalid(f"{where}.operator", operator, detail))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            causes.append(invalid(f"{where}.effect", effect or "", "effect must be 'NoExecute' when `tolerationSeconds` is set"))
        if operator in ("", "Equal"):
            causes += [invalid(f"{where}.operator", toleration["value"], why) for why in _value_reasons(toleration)]
        elif operator == "Exists":
            if toleration.get("value"):
                causes.append(invalid(f"{where}.operator", toleration, "value must be empty when `operator` is 'Exists'"))
        else:
            causes.append(not_supported(f"{where}.operator", operator, ("Equal", "Exists")))
        if effect and effect not in _EFFECTS:
            causes.append(not_supported(f"{where}.effect", effect, _EFFECTS))


def _value_reasons(toleration: Object) -> list[str]:
    return names.is_label_value(toleration["value"]) if toleration.get("value") else []


def _check_node_affinity(causes: list[Cause], affinity: Object, path: str) -> None:
    hard = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if hard is not None:
        where = f"{path}.requiredDuringSchedulingIgnoredDuringExecution"
        terms = hard.get("nodeSelectorTerms") or ()
        if not terms:
            causes.append(required(f"{where}.nodeSelectorTerms", "must have at least one node selector term"))
        for position, term in enumerate(terms):
            _check_node_term(causes, term, f"{where}.nodeSelectorTerms[{position}]")
    for position, soft in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        where = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{position}]"
        _check_weight(causes, soft.get("weight"), where)
        _check_node_term(causes, soft.get("preference") or {}, f"{where}.preference")


def _check_node_term(causes: list[Cause], term: Object, path: str) -> None:
    for position, requirement in enumerate(term.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{position}]"
        key, operator, values = requirement.get("key") or "", requirement.get("operator") or "", requirement.get("values") or ()
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                causes.append(forbidden_field(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
        elif operator in ("Gt", "Lt"):
            if len(values) != 1:
                causes.append(required(f"{where}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
        else:
            causes.append(invalid(f"{where}.operator", operator, "not a valid selector operator"))
        causes += [invalid(f"{where}.key", key, why) for why in names.is_qualified_name(key)]
    for position, requirement in enumerate(term.get("matchFields") or ()):
        where = f"{path}.matchFields[{position}]"
        if requirement.get("operator") not in ("In", "NotIn"):
            causes.append(invalid(f"{where}.operator", requirement.get("operator") or "", "not a valid selector operator"))
        elif len(requirement.get("values") or ()) != 1:
            causes.append(required(f"{where}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
        if requirement.get("key") != "metadata.name":
            causes.append(invalid(f"{where}.key", requirement.get("key") or "", "not a valid field selector key"))


def _check_pod_affinity(causes: list[Cause], affinity: Object, path: str) -> None:
    for position, term in enumerate(affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
        _check_pod_term(causes, term, f"{path}.requiredDuringSchedulingIgnoredDuringExecution[{position}]")
    for position, soft in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        where = f"{path}.preferredDuringSchedulingIgnoredDuringExecution[{position}]"
        _check_weight(causes, soft.get("weight"), where)
        _check_pod_term(causes, soft.get("podAffinityTerm") or {}, f"{where}.podAffinityTerm")


def _check_pod_term(causes: list[Cause], term: Object, path: str) -> None:
    check_label_selector(causes, term.get("labelSelector"), f"{path}.labelSelector")
    check_label_selector(causes, term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for position, namespace in enumerate(term.get("namespaces") or ()):
        causes += [invalid(f"{path}.namespaces[{position}]", namespace, why) for why in names.is_dns_label(namespace)]
    key = term.get("topologyKey") or ""
    if not key:
        causes.append(required(f"{path}.topologyKey", _EMPTY))
    causes += [invalid(f"{path}.topologyKey", key, why) for why in names.is_qualified_name(key)]


def _check_weight(causes: list[Cause], weight: int | None, path: str) -> None:
    if not 1 <= (weight or 0) <= 100:
        causes.append(invalid(f"{path}.weight", weight or 0, _WEIGHT))


def _check_spreading(causes: list[Cause], constraints: Sequence[Object], path: str) -> None:
    seen: set[tuple[str, str]] = set()
    for position, constraint in enumerate(constraints):
        where = f"{path}[{position}]"
        if (constraint.get("maxSkew") or 0) <= 0:
            causes.append(invalid(f"{where}.maxSkew", constraint.get("maxSkew") or 0, "must be greater than zero"))
        key, action = constraint.get("topologyKey") or "", constraint.get("whenUnsatisfiable") or ""
        if not key:
            causes.append(required(f"{where}.topologyKey", _EMPTY))
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            causes.append(not_supported(f"{where}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway")))
        if (key, action) in seen:
            causes.append(duplicate(f"{where}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        seen.add((key, action))
        domains = constraint.get("minDomains")
        if domains is not None and domains <= 0:
            causes.append(invalid(f"{where}.minDomains", domains, "must be greater than zero"))
        if domains is not None and action == "ScheduleAnyway":
            detail = 'can only use minDomains if whenUnsatisfiable=DoNotSchedule, not "ScheduleAnyway"'
            causes.append(invalid(f"{where}.minDomains", domains, detail))
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(name) not in (None, "Honor", "Ignore"):
                causes.append(not_supported(f"{where}.{name}", constraint[name], ("Honor", "Ignore")))
        check_label_selector(causes, constraint.get("labelSelector"), f"{where}.labelSelector")
        if constraint.get("matchLabelKeys") and is_empty_selector(constraint.get("labelSelector")):
            causes.append(forbidden_field(f"{where}.matchLabelKeys", "must not be specified when labelSelector is not set"))
