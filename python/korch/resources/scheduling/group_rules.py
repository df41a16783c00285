"""What PodGroups and the templates of Workloads share: how a group is scheduled, disrupted and ranked, and which of it is gated.

Mirrors the declarative validation of scheduling/v1beta1 with the gate GenericWorkload alone: fields of TopologyAwareWorkloadScheduling,
DRAWorkloadResourceClaims, PodGroupPreemptionPolicy and CompositePodGroup are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from korch.api import names
from korch.api.errors import Cause, invalid, required
from korch.api.validation import check_immutable
from korch.resources.resource import Object
from korch.resources.scheduling.priorityclass import HIGHEST_USER_PRIORITY

_GATED = ("schedulingConstraints", "resourceClaims", "preemptionPolicy", "parentCompositePodGroupName")


def drop_gated(group: Object) -> None:
    """Drop from a group or template what other gates would allow."""
    for field in _GATED:
        group.pop(field, None)


def check_group(causes: list[Cause], group: Object, path: str) -> None:
    """Check a new group's or template's policies and rank."""
    policy: Object = group.get("schedulingPolicy") or {}
    _check_union(causes, policy, f"{path}.schedulingPolicy", ("basic", "gang"))
    _check_min_count(causes, policy, f"{path}.schedulingPolicy")
    if group.get("disruptionMode") is not None:
        _check_union(causes, group["disruptionMode"], f"{path}.disruptionMode", ("single", "all"))
    if class_name := group.get("priorityClassName"):
        causes += [invalid(f"{path}.priorityClassName", class_name, why) for why in names.is_dns_subdomain(class_name)]
    priority = group.get("priority")
    if priority is not None and priority > HIGHEST_USER_PRIORITY:
        causes.append(invalid(f"{path}.priority", priority, f"must be less than or equal to {HIGHEST_USER_PRIORITY}"))


def check_group_update(causes: list[Cause], new: Object, old: Object, path: str) -> None:
    """Check what an update may change of a group or template: the gang's size, and nothing else."""
    policy, before = new.get("schedulingPolicy") or {}, old.get("schedulingPolicy") or {}
    where = f"{path}.schedulingPolicy"
    if _is_set(policy, "basic") != _is_set(before, "basic") or _is_set(policy, "gang") != _is_set(before, "gang"):
        _check_union(causes, policy, where, ("basic", "gang"))
    if _is_set(policy, "basic") != _is_set(before, "basic"):
        causes.append(invalid(f"{where}.basic", policy.get("basic"), "field is immutable"))
    if _is_set(policy, "gang") and not _is_set(before, "gang"):
        causes.append(invalid(f"{where}.gang", None, "field cannot be set once created"))
    elif _is_set(before, "gang") and not _is_set(policy, "gang"):
        causes.append(invalid(f"{where}.gang", None, "field cannot be cleared once set"))
    else:
        _check_min_count(causes, policy, where)
    if new.get("disruptionMode") != old.get("disruptionMode"):
        causes.append(invalid(f"{path}.disruptionMode", new.get("disruptionMode"), "field is immutable"))
    for field in ("priorityClassName", "priority"):
        check_immutable(causes, new.get(field), old.get(field), f"{path}.{field}")


def _check_union(causes: list[Cause], given: Object, path: str, members: Sequence[str]) -> None:
    """Check that exactly one member is there."""
    there = [one for one in members if _is_set(given, one)]
    every = ", ".join(f"`{one}`" for one in members)
    if not there:
        causes.append(invalid(path, "", f"must specify one of: {every}"))
    elif len(there) > 1:
        causes.append(invalid(path, "{" + ", ".join(there) + "}", f"must specify exactly one of: {every}"))


def _check_min_count(causes: list[Cause], policy: Object, path: str) -> None:
    if not _is_set(policy, "gang"):
        return
    count = policy["gang"].get("minCount") or 0
    if not count:
        causes.append(required(f"{path}.gang.minCount"))
    elif count < 1:
        causes.append(invalid(f"{path}.gang.minCount", count, "must be greater than or equal to 1"))


def _is_set(given: Object, member: str) -> bool:
    return given.get(member) is not None
