"""Which names a declaration may have: those that no other declaration of its group has been given.

A declaration is Established once its names were accepted, and stays so. Mirrors apiextensions' controller/status/naming_controller.go
and controller/establish.
"""

from __future__ import annotations

from collections.abc import Iterable

from korch.api.meta import at
from korch.resources.resource import Object
from korch.runtime.clock import rfc3339

_ACCEPTED, _ESTABLISHED = "NamesAccepted", "Established"


def decided(crd: Object, others: Iterable[Object], now: float) -> Object:
    """Return the status of `crd` with names and conditions decided. `others` are all declarations; `now` is seconds since the epoch."""
    group, own = at(crd, "spec", "group"), crd["metadata"]["name"]
    taken_resources: set[str] = set()
    taken_kinds: set[str] = set()
    for other in others:
        if at(other, "spec", "group") != group or other["metadata"]["name"] == own:
            continue
        names: Object = at(other, "status", "acceptedNames") or {}
        taken_resources |= {one for one in (names.get("plural"), names.get("singular"), *(names.get("shortNames") or ())) if one}
        taken_kinds |= {one for one in (names.get("kind"), names.get("listKind")) if one}
    status: Object = dict(crd.get("status") or {})
    accepted, problem = _accepted(crd["spec"]["names"], status.get("acceptedNames") or {}, taken_resources, taken_kinds)
    status["acceptedNames"] = accepted
    conditions: list[Object] = list(status.get("conditions") or [])
    if problem:
        _set(conditions, _ACCEPTED, "False", *problem, now)
    else:
        _set(conditions, _ACCEPTED, "True", "NoConflicts", "no conflicts found", now)
    if not any(one.get("type") == _ESTABLISHED and one.get("status") == "True" for one in conditions):
        if problem:
            _set(conditions, _ESTABLISHED, "False", "NotAccepted", "not all names are accepted", now)
        else:
            _set(conditions, _ESTABLISHED, "True", "InitialNamesAccepted", "the initial names have been accepted", now)
    status["conditions"] = conditions
    return status


def terminating(crd: Object, now: float, *, is_done: bool, problem: str = "") -> Object:
    """Return the status of a declaration whose objects are being deleted."""
    status: Object = dict(crd.get("status") or {})
    conditions: list[Object] = list(status.get("conditions") or [])
    if is_done:
        _set(conditions, "Terminating", "False", "InstanceDeletionCompleted", "removed all instances", now)
    elif problem:
        _set(conditions, "Terminating", "True", "InstanceDeletionFailed", problem, now)
    else:
        _set(conditions, "Terminating", "True", "InstanceDeletionInProgress", "CustomResource deletion is in progress", now)
    status["conditions"] = conditions
    return status


def _accepted(wanted: Object, before: Object, resources: set[str], kinds: set[str]) -> tuple[Object, tuple[str, str] | None]:
    """Return the names that are accepted, and (reason, message) of the last conflict."""
    accepted: Object = dict(before)
    conflict: tuple[str, str] | None = None
    for field, taken, reason in (
        ("plural", resources, "PluralConflict"),
        ("singular", resources, "SingularConflict"),
        ("shortNames", resources, "ShortNamesConflict"),
        ("kind", kinds, "KindConflict"),
        ("listKind", kinds, "ListKindConflict"),
    ):
        found = wanted.get(field) or ""
        names: list[str] = [found] if isinstance(found, str) else list(found)
        busy = [f'"{one}" is already in use' for one in names if one in taken]
        if busy:
            # The last conflict is the one that is told, as upstream has it.
            conflict = (reason, busy[0] if len(busy) == 1 else f"[{', '.join(busy)}]")
        else:
            _copy(accepted, wanted, field)
    _copy(accepted, wanted, "categories")
    accepted.setdefault("plural", "")
    accepted.setdefault("kind", "")
    return accepted, conflict


def _copy(into: Object, source: Object, field: str) -> None:
    if source.get(field):
        into[field] = source[field]
    else:
        into.pop(field, None)


def _set(conditions: list[Object], kind: str, status: str, reason: str, message: str, now: float) -> None:
    """Set one condition; its transition time changes with its status alone."""
    found = next((index for index, one in enumerate(conditions) if one.get("type") == kind), None)
    since = rfc3339(now)
    if found is not None and conditions[found].get("status") == status:
        since = conditions[found].get("lastTransitionTime") or since
    condition: Object = {"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
    if found is None:
        conditions.append(condition)
    else:
        conditions[found] = {**conditions[found], **condition}
