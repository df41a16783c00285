"""When a pod must leave a node because of NoExecute taints. Mirrors pkg/controller/tainteviction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Object = dict[str, Any]


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether the toleration matches the taint; an empty key with `Exists` matches all, an empty effect every effect."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if operator != "Equal" or not toleration.get("key"):
        return False
    return (toleration.get("value") or "") == (taint.get("value") or "")


def eviction_time(taints: Sequence[Object], tolerations: Sequence[Object], since: Callable[[Object], float]) -> float | None:
    """Return when (seconds since the epoch) the pod is to be evicted; None: never. `since(taint)` is when the taint was put.

    A taint that nothing tolerates evicts at once; of several limits on the same taint the shortest counts.
    """
    earliest: float | None = None
    for taint in taints:
        if taint.get("effect") != "NoExecute":
            continue
        matching = [one for one in tolerations if tolerates(one, taint)]
        if not matching:
            return since(taint)
        limits = [one["tolerationSeconds"] for one in matching if one.get("tolerationSeconds") is not None]
        if not limits:
            continue
        when = since(taint) + max(0, min(limits))
        earliest = when if earliest is None else min(earliest, when)
    return earliest
