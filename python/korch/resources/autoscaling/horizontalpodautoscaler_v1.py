"""HorizontalPodAutoscaler (v1): the older form, which speaks of processor use alone. Stored in the form of v2.

What v1 has no field for stands in annotations, so that nothing is lost by a client that reads and writes v1.
Mirrors kubernetes' pkg/apis/autoscaling/v1/conversion.go.
"""

from __future__ import annotations

from typing import Any

import orjson

from korch.api.meta import annotations_of, at
from korch.resources.autoscaling import rules
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS

_PREFIX = "autoscaling.alpha.kubernetes.io/"


def _is_cpu(metric: Object, holder: str, field: str) -> bool:
    source = metric.get("resource") or {}
    return metric.get("type") == "Resource" and source.get("name") == "cpu" and (source.get(holder) or {}).get(field) is not None


def from_storage(obj: Object) -> None:
    """Turn v2 into v1, in place."""
    obj["apiVersion"] = "autoscaling/v1"
    notes: dict[str, Any] = {}
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    rest: list[Object] = []
    for metric in spec.pop("metrics", None) or ():
        if _is_cpu(metric, "target", "averageUtilization") and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"]
        else:
            rest.append(metric)
    notes["metrics"] = rest
    notes["behavior"] = spec.pop("behavior", None)
    for metric in status.pop("currentMetrics", None) or ():
        if _is_cpu(metric, "current", "averageUtilization"):
            status["currentCPUUtilizationPercentage"] = metric["resource"]["current"]["averageUtilization"]
        notes.setdefault("current-metrics", []).append(metric)
    notes["conditions"] = status.pop("conditions", None)
    written = {_PREFIX + key: orjson.dumps(value).decode() for key, value in notes.items() if value}
    if written:
        obj["metadata"]["annotations"] = annotations_of(obj) | written


def to_storage(obj: Object) -> None:
    """Turn v1 into v2, in place."""
    obj["apiVersion"] = "autoscaling/v2"
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    notes = _take_notes(obj)
    cpu = spec.pop("targetCPUUtilizationPercentage", None)
    metrics: list[Object] = []
    if cpu is not None:
        target = {"type": "Utilization", "averageUtilization": cpu}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    metrics += notes.get("metrics") or []
    if metrics:
        spec["metrics"] = metrics
    if notes.get("behavior"):
        spec["behavior"] = notes["behavior"]
    used = status.pop("currentCPUUtilizationPercentage", None)
    current: list[Object] = notes.get("current-metrics") or []
    if used is not None and not any(_is_cpu(one, "current", "averageUtilization") for one in current):
        current = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": used}}}, *current]
    if current:
        status["currentMetrics"] = current
    if notes.get("conditions"):
        status["conditions"] = notes["conditions"]


def _take_notes(obj: Object) -> dict[str, Any]:
    annotations = dict(annotations_of(obj))
    notes: dict[str, Any] = {}
    for key in [key for key in annotations if key.startswith(_PREFIX)]:
        try:
            notes[key.removeprefix(_PREFIX)] = orjson.loads(annotations[key])
        except orjson.JSONDecodeError:
            continue
        del annotations[key]
    if notes:
        if annotations:
            obj["metadata"]["annotations"] = annotations
        else:
            obj["metadata"].pop("annotations", None)
    return notes


def _as_v2(obj: Object) -> Object:
    copy: Object = orjson.loads(orjson.dumps(obj))
    to_storage(copy)
    return copy


def default(obj: Object) -> None:
    """Fill in a HorizontalPodAutoscaler (v1), in place."""
    spec = fill(obj, "spec", {})
    fill(spec, "minReplicas", 1)
    if spec.get("targetCPUUtilizationPercentage") is None and f"{_PREFIX}metrics" not in annotations_of(obj):
        spec["targetCPUUtilizationPercentage"] = 80


def validate(obj: Object) -> list[Any]:
    """Return what is wrong, with the words and paths of v2."""
    return rules.validate(_as_v2(obj)) if at(obj, "spec") is not None else rules.validate(obj)


RESOURCE = Resource(
    group="autoscaling",
    version="v1",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    singular="horizontalpodautoscaler",
    schema="io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    short_names=("hpa",),
    categories=("all",),
    strategy=Strategy(default=default, validate=validate, has_status=True, status_counts=("currentReplicas", "desiredReplicas")),
    subresources=(STATUS,),
    columns=rules.columns(_as_v2),
    storage=("autoscaling", "horizontalpodautoscalers"),
    from_storage=from_storage,
    to_storage=to_storage,
)
