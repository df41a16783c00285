"""What may change in a pod that exists: images, tolerations that are added, a shorter deadline, scheduling gates that open.

All else is fixed, because the pod may be running. Mirrors ValidatePodUpdate of kubernetes' pkg/apis/core/validation.
"""

from __future__ import annotations

from typing import Any

import orjson

from korch.api.errors import Cause, forbidden_field, invalid, required
from korch.resources.resource import Object

_ONLY = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_CONTAINERS = ("containers", "initContainers")


def validate_pod_update(new: Object, old: Object) -> list[Cause]:
    """Return which changes of a pod's spec are not allowed."""
    causes: list[Cause] = []
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    for kind in _CONTAINERS:
        path = f"spec.{kind}"
        if len(new_spec.get(kind) or ()) != len(old_spec.get(kind) or ()):
            return [*causes, forbidden_field(path, "pod updates may not add or remove containers")]
        causes += [required(f"{path}[{i}].image") for i, one in enumerate(new_spec.get(kind) or ()) if not one.get("image")]
    _check_deadline(causes, new_spec.get("activeDeadlineSeconds"), old_spec.get("activeDeadlineSeconds"))
    is_gated = bool(old_spec.get("schedulingGates"))
    _check_gates(causes, new_spec, old_spec)
    _check_tolerations(causes, new_spec.get("tolerations") or [], old_spec.get("tolerations") or [])
    if causes:
        return causes
    munged = _munge(new_spec, old_spec, is_gated=is_gated)
    changed = sorted(key for key in munged.keys() | old_spec.keys() if (munged.get(key) or None) != (old_spec.get(key) or None))
    if changed:
        causes.append(forbidden_field("spec", f"{_ONLY}\n{_difference(munged, old_spec, changed)}"))
    return causes


def _munge(new_spec: Object, old_spec: Object, *, is_gated: bool) -> Object:
    """Return the new spec with all that may differ taken from the old one."""
    munged = dict(new_spec)
    for kind in _CONTAINERS:
        if kind in new_spec and kind in old_spec:
            pairs = zip(new_spec[kind] or (), old_spec[kind] or (), strict=True)
            munged[kind] = [new | {"image": old.get("image")} for new, old in pairs]
    free = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    grace = old_spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and new_spec.get("terminationGracePeriodSeconds") == 1:
        free.append("terminationGracePeriodSeconds")
    if is_gated and _only_narrows(new_spec, old_spec):
        free += ["nodeSelector", "affinity"]
    for key in free:
        if key in old_spec:
            munged[key] = old_spec[key]
        else:
            munged.pop(key, None)
    return munged


def _only_narrows(new_spec: Object, old_spec: Object) -> bool:
    """Whether a gated pod's node selector only gains keys. Its affinity may be set when there was none."""
    old_selector, new_selector = old_spec.get("nodeSelector") or {}, new_spec.get("nodeSelector") or {}
    keeps_selector = all(new_selector.get(key) == value for key, value in old_selector.items())
    keeps_affinity = not old_spec.get("affinity") or old_spec["affinity"] == new_spec.get("affinity")
    return keeps_selector and keeps_affinity


def _check_deadline(causes: list[Cause], new: int | None, old: int | None) -> None:
    path = "spec.activeDeadlineSeconds"
    if new is not None:
        if not 0 <= new <= 2**31 - 1:
            causes.append(invalid(path, new, "must be between 0 and 2147483647, inclusive"))
        elif old is not None and new > old:
            causes.append(invalid(path, new, "must be less than or equal to previous value"))
    elif old is not None:
        causes.append(invalid(path, None, "must not update from a positive integer to nil value"))


def _check_gates(causes: list[Cause], new_spec: Object, old_spec: Object) -> None:
    old_names = {gate.get("name") for gate in old_spec.get("schedulingGates") or ()}
    for gate in new_spec.get("schedulingGates") or ():
        if gate.get("name") not in old_names:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            causes.append(forbidden_field("spec.schedulingGates", detail))


def _check_tolerations(causes: list[Cause], new: list[Object], old: list[Object]) -> None:
    def without_seconds(toleration: Object) -> Object:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds" and value}

    kept = [without_seconds(one) for one in new]
    if any(without_seconds(one) not in kept for one in old):
        causes.append(forbidden_field("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"))


def _difference(new: Object, old: Object, changed: list[str]) -> str:
    """Return the fields that differ as lines of a diff."""

    def render(value: Any) -> str:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()

    lines: list[str] = []
    for key in changed:
        lines += [f"- {key}: {render(old[key])}"] if key in old else []
        lines += [f"+ {key}: {render(new[key])}"] if key in new else []
    return "\n".join(lines)
