"""Conditions in an object's status: one entry a type, whose lastTransitionTime moves only when its status does.

Works for the classic conditions of pods, nodes and workloads and for metav1.Condition. Mirrors apimachinery's meta.SetStatusCondition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from korch.api.meta import at
from korch.runtime.clock import rfc3339

Object = dict[str, Any]


def get_condition(obj: Mapping[str, Any], condition_type: str) -> Object | None:
    """Return the condition of this type from `obj.status.conditions`, or None."""
    for condition in at(obj, "status", "conditions") or ():
        if condition.get("type") == condition_type:
            return condition
    return None


def condition_status(obj: Mapping[str, Any], condition_type: str) -> str:
    """Return `True`, `False` or `Unknown`; a missing condition reads as the empty string."""
    condition = get_condition(obj, condition_type)
    return condition.get("status", "") if condition else ""


def is_condition_true(obj: Mapping[str, Any], condition_type: str) -> bool:
    return condition_status(obj, condition_type) == "True"


def set_condition(status: Object, condition_type: str, value: str, *, now: float, reason: str = "", message: str = "", **more: Any) -> bool:
    """Put a condition into `status` (the status dict, changed in place) and return whether anything but a time changed.

    `value` is True, False or Unknown. lastTransitionTime becomes `now` (seconds since the epoch) only when `value` differs from what
    was there. `more` holds further fields as they stand in the object, such as lastProbeTime, lastUpdateTime or
    observedGeneration; those that end in `Time` do not count as a change.
    """
    conditions: list[Object] = status.get("conditions") or []
    status["conditions"] = conditions
    fresh: Object = {"type": condition_type, "status": value, **more}
    if reason:
        fresh["reason"] = reason
    if message:
        fresh["message"] = message
    for position, old in enumerate(conditions):
        if old.get("type") != condition_type:
            continue
        keeps_time = old.get("status") == value and old.get("lastTransitionTime")
        fresh["lastTransitionTime"] = old["lastTransitionTime"] if keeps_time else rfc3339(now)
        conditions[position] = fresh
        return _without_times(old) != _without_times(fresh)
    fresh["lastTransitionTime"] = rfc3339(now)
    conditions.append(fresh)
    return True


def remove_condition(status: Object, condition_type: str) -> bool:
    """Take the condition out of `status` in place and return whether it was there."""
    conditions = status.get("conditions") or []
    kept = [one for one in conditions if one.get("type") != condition_type]
    if len(kept) == len(conditions):
        return False
    status["conditions"] = kept
    return True


def _without_times(condition: Object) -> Object:
    return {key: value for key, value in condition.items() if not key.endswith("Time") and value not in ("", None)}
