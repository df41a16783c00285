"""What a node's conditions should say when its agent falls silent, and which taints follow from conditions.

Pure functions over plain dict nodes. Mirrors pkg/controller/nodelifecycle/node_lifecycle_controller.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from korch.api.conditions import condition_status, get_condition
from korch.api.meta import at
from korch.runtime.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]

READY = "Ready"
# Conditions that only the agent knows; Ready is the one that counts.
AGENT_CONDITIONS = (READY, "MemoryPressure", "DiskPressure", "PIDPressure")

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
# (condition type, status) -> the taint that keeps new pods away.
_CONDITION_TAINTS = {
    (READY, "False"): NOT_READY,
    (READY, "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
}
_NO_SCHEDULE_KEYS = frozenset(_CONDITION_TAINTS.values()) | {UNSCHEDULABLE}

NEVER_POSTED = ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
STOPPED_POSTING = ("NodeStatusUnknown", "Kubelet stopped posting node status.")


def heartbeat(node: Object, lease: Object | None) -> tuple[str, str]:
    """Return what changes whenever the agent gives a sign of life: its lease's renewTime, and what it last said of Ready.

    The second is empty while Ready is Unknown, which is this side's word and not the agent's."""
    renewed = at(lease, "spec", "renewTime") or "" if lease is not None else ""
    ready = get_condition(node, READY)
    if ready is None or ready.get("status") == "Unknown":
        return renewed, ""
    return renewed, f"{ready.get('status')} {ready.get('lastHeartbeatTime') or ''}"


def unknown_conditions(node: Object, now: float) -> list[Object]:
    """Return the conditions that must change because the agent is silent; empty when they already say so."""
    changed: list[Object] = []
    for condition_type in AGENT_CONDITIONS:
        current = get_condition(node, condition_type)
        if current is not None and current.get("status") == "Unknown":
            continue
        reason, message = STOPPED_POSTING if current is not None else NEVER_POSTED
        heard = current.get("lastHeartbeatTime") if current is not None else at(node, "metadata", "creationTimestamp")
        changed.append(
            {
                "type": condition_type,
                "status": "Unknown",
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": heard,
                "lastTransitionTime": rfc3339(now),
            }
        )
    return changed


def no_schedule_taints(node: Object) -> list[Object]:
    """Return the NoSchedule taints that the node's conditions and spec.unschedulable ask for, by key."""
    keys = {key for (condition, status), key in _CONDITION_TAINTS.items() if condition_status(node, condition) == status}
    if at(node, "spec", "unschedulable"):
        keys.add(UNSCHEDULABLE)
    return [{"key": key, "effect": "NoSchedule"} for key in sorted(keys)]


def no_execute_key(node: Object) -> str:
    """Return the key of the NoExecute taint that the Ready condition asks for; empty for a ready node or one that never reported."""
    status = condition_status(node, READY)
    return {"False": NOT_READY, "Unknown": UNREACHABLE}.get(status, "")


def is_managed_taint(taint: Object) -> bool:
    """Whether the node lifecycle controller puts and removes this taint; all others are the users'."""
    effect = taint.get("effect")
    return (effect == "NoSchedule" and taint.get("key") in _NO_SCHEDULE_KEYS) or is_lifecycle_no_execute(taint)


def is_lifecycle_no_execute(taint: Object) -> bool:
    return taint.get("effect") == "NoExecute" and taint.get("key") in (NOT_READY, UNREACHABLE)


def desired_taints(node: Object, now: float, *, may_evict: bool, withdraw: bool) -> list[Object] | None:
    """Return the node's whole list of taints as it should be, or None when it already is.

    `may_evict`: a new NoExecute taint may be put now. `withdraw`: the whole cluster looks dead, which says more about this controller's
    network than about the nodes: NoExecute taints are taken back.
    """
    present: list[Object] = at(node, "spec", "taints") or []
    wanted = [one for one in present if not is_managed_taint(one)]
    known = {(one.get("key"), one.get("effect")): one for one in present}
    wanted += [known.get((one["key"], one["effect"]), one) for one in no_schedule_taints(node)]
    key = no_execute_key(node)
    if key and not withdraw:
        had = known.get((key, "NoExecute"))
        was_tainted = any(is_lifecycle_no_execute(one) for one in present)
        if had is not None:
            wanted.append(had)
        elif may_evict or was_tainted:
            wanted.append({"key": key, "effect": "NoExecute", "timeAdded": rfc3339(now)})
    if _by_key(wanted) == _by_key(present):
        return None
    return wanted


def _by_key(taints: Sequence[Object]) -> list[tuple[str, str, str, str]]:
    return sorted((one.get("key", ""), one.get("effect", ""), one.get("value", ""), one.get("timeAdded", "")) for one in taints)


def has_lifecycle_no_execute(node: Object) -> bool:
    return any(is_lifecycle_no_execute(one) for one in at(node, "spec", "taints") or ())


@dataclass(frozen=True, slots=True)
class Disruption:
    """How bad things are: evictions a second that are allowed, and whether everything looks dead."""

    evictions_per_s: float
    is_total: bool


def disruption(nodes: Sequence[Object], *, rate_per_s: float, slow_rate_per_s: float, large_cluster: int, threshold: float) -> Disruption:
    """Judge the nodes of the cluster. With `threshold` (0..1) or more of them not ready, and more than two, evictions slow down to
    `slow_rate_per_s`, or stop when there are no more than `large_cluster` nodes. Mirrors ComputeZoneState and ReducedQPSFunc."""
    down = sum(1 for node in nodes if condition_status(node, READY) != "True")
    if nodes and down == len(nodes):
        return Disruption(0.0, True)
    if down > 2 and down / len(nodes) >= threshold:
        return Disruption(slow_rate_per_s if len(nodes) > large_cluster else 0.0, False)
    return Disruption(rate_per_s, False)


def next_eviction_in_s(nodes: Sequence[Object], rate_per_s: float, now: float) -> float:
    """Return the seconds until one more node may be tainted NoExecute; infinity when the rate is 0.

    Read off the taints themselves: the newest timeAdded says when the last node was tainted, whoever did it.
    """
    if rate_per_s <= 0:
        return float("inf")
    newest = max(
        (
            parse_rfc3339(taint["timeAdded"])
            for node in nodes
            for taint in at(node, "spec", "taints") or ()
            if is_lifecycle_no_execute(taint) and taint.get("timeAdded")
        ),
        default=0.0,
    )
    return max(0.0, newest + 1 / rate_per_s - now)
