"""What both versions of HorizontalPodAutoscaler share: defaults, checks and columns, all on the v2 form.

Mirrors kubernetes' pkg/apis/autoscaling (v2/defaults.go, validation) and printHorizontalPodAutoscaler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_path_segment
from korch.api.validation import check_label_selector
from korch.resources.columns import AGE, NAME, NONE, UNKNOWN, UNSET, cell, number
from korch.resources.podspec.defaults import fill
from korch.resources.quantities import canonical, check_quantity
from korch.resources.resource import Column, Object

_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_TARGETS = ("Utilization", "Value", "AverageValue")
_POLICY_TYPES = ("Percent", "Pods")
_SELECT = ("Disabled", "Max", "Min")
_WINDOW_S_MAX, _PERIOD_S_MAX = 3600, 1800
_SHOWN_MAX = 2


def default(obj: Object) -> None:
    """Fill in a HorizontalPodAutoscaler (v2), in place."""
    spec = fill(obj, "spec", {})
    fill(spec, "minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        up = [{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]
        down = [{"type": "Percent", "value": 100, "periodSeconds": 15}]
        for direction, policies in (("scaleUp", up), ("scaleDown", down)):
            rules = fill(behavior, direction, {})
            if direction == "scaleUp" and rules.get("stabilizationWindowSeconds") is None:
                rules["stabilizationWindowSeconds"] = 0
            fill(rules, "selectPolicy", "Max")
            if rules.get("policies") is None:
                rules["policies"] = policies


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a HorizontalPodAutoscaler (v2). Mirrors validateHorizontalPodAutoscalerSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < 1:
        causes.append(invalid("spec.minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        causes.append(invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    _check_reference(causes, spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
    for position, metric in enumerate(spec.get("metrics") or ()):
        _check_metric(causes, metric, f"spec.metrics[{position}]")
    for direction in ("scaleUp", "scaleDown"):
        if rules := at(spec, "behavior", direction):
            _check_rules(causes, rules, f"spec.behavior.{direction}")
    return causes


def _check_reference(causes: list[Cause], reference: Object, path: str) -> None:
    for field in ("kind", "name"):
        value = reference.get(field) or ""
        if not value:
            causes.append(required(f"{path}.{field}"))
        causes += [invalid(f"{path}.{field}", value, why) for why in is_path_segment(value)] if value else []


def _check_metric(causes: list[Cause], metric: Object, path: str) -> None:
    kind = metric.get("type") or ""
    if not kind:
        causes.append(required(f"{path}.type", "must specify a metric source type"))
        return
    if kind not in _SOURCES:
        causes.append(not_supported(f"{path}.type", kind, sorted(_SOURCES)))
        return
    field = _SOURCES[kind]
    source = metric.get(field)
    if source is None:
        causes.append(required(f"{path}.{field}", "must populate information for the given metric source"))
        return
    for other in _SOURCES.values():
        if other != field and metric.get(other) is not None:
            causes.append(forbidden_field(f"{path}.{other}", "must populate the given metric source only"))
    where = f"{path}.{field}"
    if kind in ("Resource", "ContainerResource"):
        if not source.get("name"):
            causes.append(required(f"{where}.name", "must specify a resource name"))
        if kind == "ContainerResource" and not source.get("container"):
            causes.append(required(f"{where}.container", "must specify a container"))
    else:
        if not at(source, "metric", "name"):
            causes.append(required(f"{where}.metric.name", "must specify a metric name"))
        check_label_selector(causes, at(source, "metric", "selector"), f"{where}.metric.selector")
    if kind == "Object":
        _check_reference(causes, source.get("describedObject") or {}, f"{where}.describedObject")
    _check_target(causes, source.get("target") or {}, kind, f"{where}.target")


def _check_target(causes: list[Cause], target: Object, kind: str, path: str) -> None:
    if target.get("type") not in _TARGETS:
        causes.append(
            required(f"{path}.type", "must specify a metric target type")
            if not target.get("type")
            else invalid(f"{path}.type", target["type"], "must be either Utilization, Value, or AverageValue")
        )
    for field in ("value", "averageValue"):
        if target.get(field) is not None:
            check_quantity(causes, target[field], f"{path}.{field}", minimum=1)
    utilization, average, value = target.get("averageUtilization"), target.get("averageValue"), target.get("value")
    if utilization is not None and utilization < 1:
        causes.append(invalid(f"{path}.averageUtilization", utilization, "must be greater than 0"))
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and average is None:
            causes.append(required(f"{path}.averageUtilization", "must set either a target raw value or a target utilization"))
        if utilization is not None and average is not None:
            causes.append(forbidden_field(f"{path}.averageValue", "may not set both a target raw value and a target utilization"))
    elif kind == "Pods" and average is None:
        causes.append(required(f"{path}.averageValue", "must specify a positive target averageValue"))
    elif kind in ("External", "Object") and value is None and average is None:
        causes.append(required(f"{path}.averageValue", "must set either a target value for metric or a per-pod target"))
    elif kind == "External" and value is not None and average is not None:
        causes.append(forbidden_field(f"{path}.value", "may not set both a target value for metric and a per-pod target"))


def _check_rules(causes: list[Cause], rules: Object, path: str) -> None:
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        causes.append(invalid(f"{path}.stabilizationWindowSeconds", window, "must be greater than or equal to zero"))
    if window is not None and window > _WINDOW_S_MAX:
        causes.append(invalid(f"{path}.stabilizationWindowSeconds", window, f"must be less than or equal to {_WINDOW_S_MAX}"))
    if rules.get("selectPolicy") is not None and rules["selectPolicy"] not in _SELECT:
        causes.append(not_supported(f"{path}.selectPolicy", rules["selectPolicy"], _SELECT))
    if not rules.get("policies"):
        causes.append(required(f"{path}.policies", "must specify at least one Policy"))
    for position, policy in enumerate(rules.get("policies") or ()):
        where = f"{path}.policies[{position}]"
        if policy.get("type") not in _POLICY_TYPES:
            causes.append(not_supported(f"{where}.type", policy.get("type") or "", _POLICY_TYPES))
        for field in ("value", "periodSeconds"):
            if (policy.get(field) or 0) <= 0:
                causes.append(invalid(f"{where}.{field}", policy.get(field) or 0, "must be greater than zero"))
        if (policy.get("periodSeconds") or 0) > _PERIOD_S_MAX:
            causes.append(invalid(f"{where}.periodSeconds", policy["periodSeconds"], f"must be less than or equal to {_PERIOD_S_MAX}"))


def _target(spec: Object, status: Object | None) -> str:
    kind = spec.get("type") or ""
    field = _SOURCES.get(kind, "")
    source, current = spec.get(field) or {}, ((status or {}).get(field) or {}).get("current") or {}
    target = source.get("target") or {}

    def pair(key: str, suffix: str = "") -> str:
        have = current.get(key)
        return f"{UNKNOWN if have is None else canonical(have)}/{canonical(target.get(key))}{suffix}"

    if kind in ("Resource", "ContainerResource"):
        name = f"{source.get('name')}: "
        if target.get("averageValue") is not None:
            return name + pair("averageValue")
        have = current.get("averageUtilization")
        wanted = target.get("averageUtilization")
        return f"{name}{UNKNOWN if have is None else f'{have}%'}/{'<auto>' if wanted is None else f'{wanted}%'}"
    if kind == "Pods":
        return pair("averageValue")
    if target.get("averageValue") is not None:
        return pair("averageValue", " (avg)")
    return pair("value") if kind in _SOURCES else "<unknown type>"


def _targets(obj: Object) -> str:
    specs: Sequence[Object] = at(obj, "spec", "metrics") or ()
    if not specs:
        return NONE
    statuses: Sequence[Object] = at(obj, "status", "currentMetrics") or ()
    shown = [_target(one, statuses[position] if position < len(statuses) else None) for position, one in enumerate(specs)]
    more = len(shown) - _SHOWN_MAX
    return ", ".join(shown[:_SHOWN_MAX]) + (f" + {more} more..." if more > 0 else "")


def _reference(obj: Object) -> str:
    return f"{at(obj, 'spec', 'scaleTargetRef', 'kind') or ''}/{at(obj, 'spec', 'scaleTargetRef', 'name') or ''}"


def _least(obj: Object) -> str:
    value = at(obj, "spec", "minReplicas")
    return UNSET if value is None else str(value)


def columns(as_v2: Callable[[Object], Object]) -> tuple[Column, ...]:
    """Return the printer columns of a version whose objects `as_v2` turns into the v2 form."""
    return (
        NAME,
        cell("Reference", _reference, description="What is scaled."),
        cell("Targets", lambda obj: _targets(as_v2(obj)), description="What is measured, and what it should be."),
        cell("MinPods", _least, description="Never fewer pods."),
        number("MaxPods", "spec", "maxReplicas", description="Never more pods."),
        number("Replicas", "status", "currentReplicas", description="Pods now."),
        AGE,
    )
