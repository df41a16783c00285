"""What a DELETE does to an object: end it, mark it, or nothing more than was done before. Pure: no store, no clock.

An object with finalizers, or with a grace period to run, is only marked with deletionTimestamp; whoever removes the last
finalizer (or deletes again with grace 0) ends it. Mirrors apiserver's registry/rest/delete.go and generic/registry/store.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from korch.api.errors import Conflict
from korch.apiserver.options import RemovalOptions
from korch.resources.resource import Resource
from korch.runtime.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"

# Kinds whose DELETE answers the object as it was instead of a Status.
_ANSWERS_OBJECT = {
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
}


@dataclass(frozen=True, slots=True)
class Removal:
    """What to do: `ends` the object, or store it marked (`changes`), or leave it as it is (neither)."""

    ends: bool
    changes: bool


def answers_object(resource: Resource) -> bool:
    """Whether a completed DELETE of this kind answers the object instead of a Status."""
    return (resource.group, resource.plural) in _ANSWERS_OBJECT


def mark(resource: Resource, obj: Object, options: RemovalOptions, now: float) -> Removal:
    """Change `obj` in place as a DELETE with `options` at `now` (seconds since the epoch) demands. Raises Conflict."""
    metadata = obj["metadata"]
    if resource.group == "" and resource.kind == "Namespace":
        return _mark_namespace(resource, obj, now)
    grace_s = _grace_period(resource, obj, options)
    finalizers_changed = _set_propagation_finalizers(resource, metadata, options)
    if metadata.get("deletionTimestamp"):
        shortened = _shorten(metadata, options, grace_s)
        ends = not metadata.get("finalizers") and not metadata.get("deletionGracePeriodSeconds")
        return Removal(ends=ends, changes=shortened or finalizers_changed)
    finalizers = metadata.get("finalizers") or []
    if not grace_s and not finalizers:
        return Removal(ends=True, changes=False)
    metadata["deletionTimestamp"] = rfc3339(now + grace_s)
    metadata["deletionGracePeriodSeconds"] = grace_s
    if metadata.get("generation"):
        metadata["generation"] += 1
    return Removal(ends=False, changes=True)


def _mark_namespace(resource: Resource, namespace: Object, now: float) -> Removal:
    """A namespace turns Terminating; it ends when the namespace controller has emptied `spec.finalizers`."""
    metadata = namespace["metadata"]
    spec_finalizers = (namespace.get("spec") or {}).get("finalizers") or []
    if metadata.get("deletionTimestamp"):
        if spec_finalizers:
            why = (
                "The system is ensuring all content is removed from this namespace.  "
                "Upon completion, this namespace will automatically be purged by the system."
            )
            raise Conflict(resource.group, resource.plural, metadata["name"], why)
        return Removal(ends=not metadata.get("finalizers"), changes=False)
    metadata["deletionTimestamp"] = rfc3339(now)
    namespace.setdefault("status", {})["phase"] = "Terminating"
    if not spec_finalizers and not metadata.get("finalizers"):
        return Removal(ends=True, changes=False)
    return Removal(ends=False, changes=True)


def _grace_period(resource: Resource, obj: Object, options: RemovalOptions) -> int:
    default = resource.strategy.default_grace_period_s
    at_once = resource.strategy.is_deleted_at_once
    if default is None or (at_once is not None and at_once(obj)):
        return 0
    grace_s = options.grace_period_s
    if grace_s is None:
        grace_s = default(obj)
    return 1 if grace_s < 0 else grace_s


def _shorten(metadata: Object, options: RemovalOptions, grace_s: int) -> bool:
    """A second delete may shorten the grace period, never lengthen it."""
    current = metadata.get("deletionGracePeriodSeconds") or 0
    if options.grace_period_s is None or grace_s >= current:
        return False
    began = parse_rfc3339(metadata["deletionTimestamp"]) - current
    metadata["deletionTimestamp"] = rfc3339(began + grace_s)
    metadata["deletionGracePeriodSeconds"] = grace_s
    return True


def _set_propagation_finalizers(resource: Resource, metadata: Object, options: RemovalOptions) -> bool:
    """Make the garbage collector's finalizers say what the request asks for; whether that changed anything."""
    before = list(metadata.get("finalizers") or [])
    policy = options.propagation_policy
    if options.orphan_dependents is not None:
        policy = "Orphan" if options.orphan_dependents else "Background"
    if policy is None:
        if ORPHAN in before or FOREGROUND in before:
            return False
        policy = resource.strategy.default_propagation
    after = [one for one in before if one not in (ORPHAN, FOREGROUND)]
    if policy == "Orphan":
        after.append(ORPHAN)
    elif policy == "Foreground":
        after.append(FOREGROUND)
    if after == before:
        return False
    if after:
        metadata["finalizers"] = after
    else:
        metadata.pop("finalizers", None)
    return True
