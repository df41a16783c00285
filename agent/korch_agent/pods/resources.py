"""Quality of service, cgroup limits and out-of-memory scores of pods and containers: pure arithmetic on the spec.

Mirrors kubelet's cm/helpers_linux.go and qos/policy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from korch.api import quantity as quantities
from korch_agent.cgroups import SHARES_MIN, quota_of, shares_of
from korch_agent.cri.protocol import Resources
from korch_agent.pods.observed import Pod, app_containers, init_containers, is_sidecar

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]
CPU_PERIOD_US = 100_000
OOM_GUARANTEED = -997
OOM_BEST_EFFORT = 1000
OOM_BURSTABLE_MIN = 3


class PodLimits(msgspec.Struct, frozen=True):
    """Limits of a pod's own cgroup; None leaves a file as it is."""

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    memory_limit: int | None = None


def quantity(text: str | float | None) -> float:
    """Return a resource quantity as a number in its base unit; nothing is 0. Raises ValueError when it is none."""
    return quantities.milli(text) / 1000 if text not in (None, "") else 0.0


def milli_cpu(text: str | float | None) -> int:
    """Return thousandths of a CPU, rounded up."""
    return quantities.milli(text) if text not in (None, "") else 0


def qos_class(pod: Pod) -> QosClass:
    """Return the pod's class: what the server said, else computed from requests and limits of cpu and memory."""
    said = (pod.get("status") or {}).get("qosClass")
    if said in ("Guaranteed", "Burstable", "BestEffort"):
        return said
    guaranteed, anything = True, False
    for container in (*init_containers(pod), *app_containers(pod)):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = quantity(limits.get(name)), quantity(requests.get(name, limits.get(name)))
            anything = anything or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and limit == request
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def cgroup_path(pod: Pod) -> str:
    """Return the pod's cgroup below the node's root, such as `kubepods/burstable/pod<uid>`."""
    parent = {"Guaranteed": "kubepods", "Burstable": "kubepods/burstable", "BestEffort": "kubepods/besteffort"}[qos_class(pod)]
    return f"{parent}/pod{pod['metadata']['uid']}"


def pod_limits(pod: Pod) -> PodLimits:
    """Return the limits of the pod's cgroup: sums over containers, the largest init container, and the overhead."""
    qos = qos_class(pod)
    if qos == "BestEffort":
        return PodLimits(cpu_shares=SHARES_MIN)
    cpu_request, _ = _pod_total(pod, "requests", "cpu")
    cpu_limit, every_cpu = _pod_total(pod, "limits", "cpu")
    memory_limit, every_memory = _pod_total(pod, "limits", "memory")
    return PodLimits(
        cpu_shares=shares_of(round(cpu_request * 1000)),
        cpu_quota=quota_of(round(cpu_limit * 1000)) if every_cpu and cpu_limit else -1,
        memory_limit=int(memory_limit) if every_memory and memory_limit else -1,
    )


def _pod_total(pod: Pod, sort: str, name: str) -> tuple[float, bool]:
    """Return what the pod asks of `name` in all, and whether every container names it."""
    whole = ((pod["spec"].get("resources") or {}).get(sort) or {}).get(name)
    overhead = quantity((pod["spec"].get("overhead") or {}).get(name))
    if whole is not None:
        return quantity(whole) + overhead, True
    every = True

    def of(container: Mapping[str, Any]) -> float:
        nonlocal every
        resources = container.get("resources") or {}
        value = (resources.get(sort) or {}).get(name)
        if value is None and sort == "requests":
            value = (resources.get("limits") or {}).get(name)
        every = every and quantity(value) > 0
        return quantity(value)

    running = sum(of(container) for container in app_containers(pod))
    sidecars, peak = 0.0, 0.0
    for container in init_containers(pod):
        if is_sidecar(container):
            sidecars += of(container)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + of(container))
    return max(running + sidecars, peak) + overhead, every


def container_resources(pod: Pod, container: Mapping[str, Any], *, memory_capacity: int) -> Resources:
    """Return the cgroup limits of one container on a node with `memory_capacity` bytes."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    cpu_request = milli_cpu(requests.get("cpu", limits.get("cpu")))
    return Resources(
        cpu_period=CPU_PERIOD_US,
        cpu_quota=quota_of(milli_cpu(limits.get("cpu"))),
        cpu_shares=shares_of(cpu_request),
        memory_limit=int(quantity(limits.get("memory"))),
        oom_score_adj=oom_score(pod, container, memory_capacity=memory_capacity),
    )


def oom_score(pod: Pod, container: Mapping[str, Any], *, memory_capacity: int) -> int:
    """Return oom_score_adj: the more memory a burstable container asked for, the later it is killed."""
    if (pod["spec"].get("priority") or 0) >= 2_000_000_000:
        return OOM_GUARANTEED
    qos = qos_class(pod)
    if qos == "Guaranteed":
        return OOM_GUARANTEED
    if qos == "BestEffort":
        return OOM_BEST_EFFORT
    resources = container.get("resources") or {}
    request = quantity((resources.get("requests") or resources.get("limits") or {}).get("memory"))
    score = 1000 - int(1000 * request) // max(1, memory_capacity)
    return max(OOM_BURSTABLE_MIN, min(OOM_BEST_EFFORT - 1, score))
