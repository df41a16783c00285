"""Which pods to delete first when there are too many.

Every rule looks at one property of a pod and decides unless it is a tie; the rules are folded into one sort key, smallest
deleted first. Ages are compared by their order of magnitude (a logarithm), so that among pods of like age the choice is spread
by uid instead of always hitting the newest. Mirrors upstream pkg/controller/controller_utils.go, ActivePodsWithRanks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from korch.api import pods
from korch.api.conditions import get_condition
from korch.runtime.clock import parse_rfc3339

Pod = dict[str, Any]

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


def pods_to_delete(candidates: Sequence[Pod], related: Sequence[Pod], count: int, now: float) -> list[Pod]:
    """Return the `count` pods of `candidates` to delete, in order. `related` are the active pods of all sibling controllers:
    pods on nodes that hold many of them go before others. `now` is seconds since the epoch."""
    if count >= len(candidates):
        return list(candidates)
    on_node = Counter(node for pod in related if (node := pod["spec"].get("nodeName")))
    return sorted(candidates, key=lambda pod: _deletion_key(pod, on_node[pod["spec"].get("nodeName", "")], now))[:count]


def _deletion_key(pod: Pod, neighbours: int, now: float) -> tuple[Any, ...]:
    ready = pods.is_ready(pod)
    return (
        bool(pod["spec"].get("nodeName")),
        _PHASE_ORDER.get(pod.get("status", {}).get("phase", "Pending"), 3),
        ready,
        deletion_cost(pod),
        -neighbours,
        _age_rank(_ready_since(pod), now) if ready else 0,
        -restarts(pod),
        _age_rank(pod["metadata"].get("creationTimestamp"), now),
        pod["metadata"].get("uid", ""),
    )


def deletion_cost(pod: Pod) -> int:
    """Return the pod's deletion cost; 0 when the annotation is missing or no 32-bit number."""
    text = (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    try:
        cost = int(text)
    except ValueError:
        return 0
    return cost if -(2**31) <= cost < 2**31 else 0


def restarts(pod: Pod) -> int:
    """Return the highest restart count among the pod's containers."""
    return max((one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses") or ()), default=0)


def _ready_since(pod: Pod) -> str | None:
    found = get_condition(pod, "Ready")
    return found.get("lastTransitionTime") if found else None


def _age_rank(since: str | None, now: float) -> int:
    """Return 0 for no time, then 1, 2, ... for every doubling of the age in seconds: the older the later deleted."""
    if not since:
        return 0
    return 1 + math.floor(math.log2(max(1.0, now - parse_rfc3339(since))))
