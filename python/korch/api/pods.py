"""What controllers, scheduler and agent ask of a pod: is it ready, available, over, how important is it, how much does it want?

Pure functions over plain dict pods. Mirrors kubernetes' pkg/api/v1/pod and the component-helpers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from korch.api.conditions import get_condition, is_condition_true
from korch.api.meta import at, is_deleting
from korch.runtime.clock import parse_rfc3339

Object = Mapping[str, Any]
QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]


def phase_of(pod: Object) -> str:
    return at(pod, "status", "phase") or ""


def is_ready(pod: Object) -> bool:
    """Whether the Ready condition is True. Mirrors podutil.IsPodReady."""
    return is_condition_true(pod, "Ready")


def is_available(pod: Object, min_ready_s: float, now: float) -> bool:
    """Whether the pod has been ready for at least `min_ready_s` seconds at `now` (since the epoch). Mirrors podutil.IsPodAvailable."""
    condition = get_condition(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return False
    if min_ready_s <= 0:
        return True
    since = condition.get("lastTransitionTime")
    return bool(since) and parse_rfc3339(since) + min_ready_s <= now


def available_in_s(pod: Object, min_ready_s: float, now: float) -> float | None:
    """Return the seconds until a ready pod is available (0: it is), None when it is not ready: when to look again."""
    condition = get_condition(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return None
    since = condition.get("lastTransitionTime")
    return max(0.0, parse_rfc3339(since) + min_ready_s - now) if since and min_ready_s > 0 else 0.0


def is_terminal(pod: Object) -> bool:
    """Whether the pod has run to its end: phase Succeeded or Failed."""
    return phase_of(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """Whether the pod counts for its controller: neither over nor being deleted. Mirrors controller.IsPodActive."""
    return not is_terminal(pod) and not is_deleting(pod)


def is_sidecar(container: Object) -> bool:
    """Whether an init container runs for the pod's whole life."""
    return container.get("restartPolicy") == "Always"


def all_containers(pod: Object) -> list[Any]:
    """Return init containers and containers, in that order; ephemeral ones are left out."""
    return [*(at(pod, "spec", "initContainers") or ()), *(at(pod, "spec", "containers") or ())]


def qos_class(pod: Object) -> QosClass:
    """Return the quality of service that requests and limits of cpu and memory give. Mirrors qos.ComputePodQOS.

    Guaranteed: every container has limits of both, and requests equal to them. BestEffort: nobody names any.
    """
    spec = pod.get("spec") or {}
    parts = [spec] if spec.get("resources") else all_containers(pod)
    names_any = False
    is_guaranteed = True
    for part in parts:
        resources = part.get("resources") or {}
        requests, limits = _compute(resources.get("requests")), _compute(resources.get("limits"))
        names_any = names_any or bool(requests or limits)
        if len(limits) != 2 or any(requests.get(name, amount) != amount for name, amount in limits.items()):
            is_guaranteed = False
    if not names_any:
        return "BestEffort"
    return "Guaranteed" if is_guaranteed else "Burstable"


def requests(pod: Object) -> dict[str, int]:
    """Return what the scheduler sets aside for the pod, by resource: cpu in thousandths, everything else in whole units.

    Containers and sidecars add up; an init container only counts where it wants more than those that run beside it; requests of
    the pod itself replace the sum; overhead comes on top. Mirrors component-helpers' resource.PodRequests.
    """
    return _totals(pod, "requests")


def limits(pod: Object) -> dict[str, int]:
    """Return how much the pod may use at most, by resource, in the units and by the rules of `requests`. Mirrors resource.PodLimits."""
    return _totals(pod, "limits")


def _totals(pod: Object, field: str) -> dict[str, int]:
    running: dict[str, int] = {}
    for container in at(pod, "spec", "containers") or ():
        _add(running, amounts(at(container, "resources", field)))
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for container in at(pod, "spec", "initContainers") or ():
        wanted = amounts(at(container, "resources", field))
        if is_sidecar(container):
            _add(running, wanted)
            _add(sidecars, wanted)
            wanted = sidecars
        else:
            _add(wanted, sidecars)
        for name, amount in wanted.items():
            starting[name] = max(starting.get(name, 0), amount)
    total = {name: max(running.get(name, 0), starting.get(name, 0)) for name in running | starting}
    total |= amounts(at(pod, "spec", "resources", field))
    _add(total, amounts(at(pod, "spec", "overhead")))
    return total


def amounts(resources: Mapping[str, Any] | None) -> dict[str, int]:
    """Return a resource list as numbers: cpu in thousandths, everything else in whole units. Raises ValueError for no quantity."""
    from korch.api import quantity

    return {name: quantity.milli(text) if name == "cpu" else quantity.value(text) for name, text in (resources or {}).items()}


def _compute(resources: Mapping[str, Any] | None) -> Mapping[str, int]:
    return _cpu_and_memory(resources.get("cpu"), resources.get("memory")) if resources else {}


@lru_cache(maxsize=4096)
def _cpu_and_memory(cpu: Any, memory: Any) -> Mapping[str, int]:
    """Those of both that are given and not zero. Remembered, because what workloads ask for is alike: do not change it."""
    given = {name: text for name, text in (("cpu", cpu), ("memory", memory)) if text is not None}
    return {name: amount for name, amount in amounts(given).items() if amount > 0}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
