"""The arithmetic of a Deployment's rollout: how many replicas which ReplicaSet should have next, and what its status says.

Everything here is a function from values to values: a Deployment, its ReplicaSets (plain dicts, read-only) and the time go in, sizes
and conditions come out. Mirrors upstream pkg/controller/deployment/{rolling,sync,progress}.go and util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from korch.api.meta import annotations_of, at, is_deleting, name_of, namespace_of
from korch.controllers.workload.hashing import fnv32a, safe_encode

Object = dict[str, Any]

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
# Annotations of a Deployment that its ReplicaSets do not inherit.
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    }
)
# What kubectl 1.5 and the API say when a history is not to be limited.
NO_LIMIT = 2**31 - 1


def spec_replicas(obj: Object) -> int:
    """Return spec.replicas; absent reads as 1."""
    value = at(obj, "spec", "replicas")
    return 1 if value is None else value


def status_count(obj: Object, field: str) -> int:
    """Return a counter of the status; absent reads as 0."""
    return at(obj, "status", field) or 0


def resolve(value: int | str | None, total: int, *, round_up: bool) -> int:
    """Return an IntOrString as a number: `25%` of `total`, rounded as asked. Raises ValueError when it is neither."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError(f"invalid value for IntOrString: invalid type: string is not a percentage: {value}")
    scaled = int(value[:-1]) * total
    return -(-scaled // 100) if round_up else scaled // 100


def has_deadline(deployment: Object) -> bool:
    """Whether the rollout may take only so long: then, and only then, there is a Progressing condition."""
    return at(deployment, "spec", "progressDeadlineSeconds") not in (None, NO_LIMIT)


def is_rolling(deployment: Object) -> bool:
    return at(deployment, "spec", "strategy", "type") != "Recreate"


def fenceposts(deployment: Object) -> tuple[int, int]:
    """Return (max surge, max unavailable) in pods. Never both 0, since no rollout could then move; both 0 for Recreate."""
    if not is_rolling(deployment):
        return 0, 0
    total = spec_replicas(deployment)
    rolling = at(deployment, "spec", "strategy", "rollingUpdate") or {}
    surge = resolve(rolling.get("maxSurge", "25%"), total, round_up=True)
    unavailable = resolve(rolling.get("maxUnavailable", "25%"), total, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, total)


def template_hash(template: Object, collision_count: int | None) -> str:
    """Return the value of the pod-template-hash label: the same for equal templates, other after a collision."""
    text = orjson.dumps(without_hash(template), option=orjson.OPT_SORT_KEYS)
    if collision_count is not None:
        text += collision_count.to_bytes(8, "little")
    return safe_encode(str(fnv32a(text)))


def new_replica_set(deployment: Object) -> Object:
    """Return a ReplicaSet of the Deployment's template without size, annotations and owner; its name and labels carry the hash."""
    template = deployment["spec"]["template"]
    label = {HASH_LABEL: template_hash(template, at(deployment, "status", "collisionCount"))}
    selector = at(deployment, "spec", "selector") or {}
    template_meta = template.get("metadata") or {}
    labels = {**(template_meta.get("labels") or {}), **label}
    spec: Object = {
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **label}},
        "template": {**template, "metadata": {**template_meta, "labels": labels}},
    }
    if min_ready_s := at(deployment, "spec", "minReadySeconds"):
        spec["minReadySeconds"] = min_ready_s
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": f"{name_of(deployment)}-{label[HASH_LABEL]}", "namespace": namespace_of(deployment), "labels": labels},
        "spec": {"replicas": 0, **spec},
    }


def without_hash(template: Object) -> Object:
    """Return the template without its pod-template-hash label and empty parts of metadata, to be compared."""
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH_LABEL}
    meta.pop("labels", None)
    if labels:
        meta["labels"] = labels
    return {"metadata": meta, "spec": template.get("spec") or {}}


def by_age(objects: Sequence[Object]) -> list[Object]:
    """Return the objects oldest first, ties by name."""
    return sorted(objects, key=lambda one: (at(one, "metadata", "creationTimestamp") or "", name_of(one)))


def find_new(deployment: Object, replica_sets: Sequence[Object]) -> Object | None:
    """Return the ReplicaSet whose template is the Deployment's, the oldest of several, or None."""
    wanted = without_hash(deployment["spec"]["template"])
    for one in by_age(replica_sets):
        if without_hash(one["spec"]["template"]) == wanted:
            return one
    return None


def active(replica_sets: Sequence[Object]) -> list[Object]:
    """Return those that want pods."""
    return [one for one in replica_sets if spec_replicas(one) > 0]


def total(replica_sets: Sequence[Object]) -> int:
    """Return the sum of spec.replicas."""
    return sum(spec_replicas(one) for one in replica_sets)


def available(replica_sets: Sequence[Object]) -> int:
    """Return the sum of status.availableReplicas."""
    return sum(status_count(one, "availableReplicas") for one in replica_sets)


# -- revisions and annotations -------------------------------------------------------------------------------------------------------


def revision_of(obj: Object) -> int:
    """Return the revision annotation as a number; 0 when it is missing or no number."""
    text = annotations_of(obj).get(REVISION, "0")
    return int(text) if text.isdecimal() else 0


def replica_set_annotations(deployment: Object, current: dict[str, str], revision: int, *, is_new: bool) -> dict[str, str]:
    """Return what the new ReplicaSet's annotations should be, from what they are now (`current`) and `revision`.

    The Deployment's own are copied; a revision only grows, and the one it had before is appended to the history, since
    a rollback brings an old ReplicaSet back under a new number.
    """
    wanted = dict(current)
    wanted.update({key: value for key, value in annotations_of(deployment).items() if key not in _NOT_COPIED})
    had = current.get(REVISION, "")
    if not had.isdecimal() or int(had) < revision:
        wanted[REVISION] = str(revision)
        if had and had != str(revision):
            history = current.get(REVISION_HISTORY, "")
            wanted[REVISION_HISTORY] = f"{history},{had}" if history else had
    if is_new:
        wanted |= size_annotations(deployment)
    return wanted


def size_annotations(deployment: Object) -> dict[str, str]:
    """Return the annotations that tell later scaling what the sizes were when a ReplicaSet was last scaled."""
    surge, _ = fenceposts(deployment)
    replicas = spec_replicas(deployment)
    return {DESIRED_REPLICAS: str(replicas), MAX_REPLICAS: str(replicas + surge)}


# -- scaling -------------------------------------------------------------------------------------------------------------------------


def is_scaling_event(deployment: Object, replica_sets: Sequence[Object]) -> bool:
    """Whether the Deployment's size was changed since its active ReplicaSets were last scaled."""
    wanted = str(spec_replicas(deployment))
    return any(annotations_of(one).get(DESIRED_REPLICAS, wanted) != wanted for one in active(replica_sets))


def new_size(deployment: Object, new: Object, everything: Sequence[Object]) -> int:
    """Return the next spec.replicas of the new ReplicaSet: as many as the surge allows. Mirrors NewRSNewReplicas."""
    wanted = spec_replicas(deployment)
    if not is_rolling(deployment):
        return wanted
    surge, _ = fenceposts(deployment)
    room = wanted + surge - total(everything)
    if room <= 0:
        return spec_replicas(new)
    return spec_replicas(new) + min(room, wanted - spec_replicas(new))


def old_sizes(deployment: Object, new: Object | None, old: Sequence[Object]) -> dict[str, int]:
    """Return the next spec.replicas of old ReplicaSets, by name, those that change only. Mirrors reconcileOldReplicaSets.

    Pods that are not available go first, since they serve nobody; then available ones, as far as maxUnavailable allows.
    """
    everything = [*old, new] if new is not None else list(old)
    _, max_unavailable = fenceposts(deployment)
    min_available = spec_replicas(deployment) - max_unavailable
    not_yet = spec_replicas(new) - status_count(new, "availableReplicas") if new is not None else 0
    may_go = total(everything) - min_available - not_yet
    if total(old) == 0 or may_go <= 0:
        return {}
    sizes = {name_of(one): spec_replicas(one) for one in old}
    ordered = by_age(old)
    for one in ordered:
        unhealthy = max(0, spec_replicas(one) - status_count(one, "availableReplicas"))
        step = min(may_go, unhealthy)
        sizes[name_of(one)] -= step
        may_go -= step
    surplus = available(everything) - min_available
    for one in ordered:
        step = max(0, min(surplus, sizes[name_of(one)]))
        sizes[name_of(one)] -= step
        surplus -= step
    return {name_of(one): sizes[name_of(one)] for one in ordered if sizes[name_of(one)] != spec_replicas(one)}


def is_saturated(deployment: Object, new: Object | None) -> bool:
    """Whether the new ReplicaSet has, and was asked for, everything the Deployment wants, and all of it is available."""
    if new is None:
        return False
    wanted = spec_replicas(deployment)
    desired = annotations_of(new).get(DESIRED_REPLICAS)
    return spec_replicas(new) == wanted and desired == str(wanted) and status_count(new, "availableReplicas") == wanted


def scaled_sizes(deployment: Object, new: Object | None, old: Sequence[Object]) -> dict[str, int]:
    """Return the sizes after the Deployment was resized (or while it is paused), by name; every ReplicaSet named is to be written,
    be it only for its size annotations. Mirrors upstream's `scale`: amid a rollout the change is spread in proportion."""
    everything = [*old, new] if new is not None else list(old)
    running = active(everything)
    wanted = spec_replicas(deployment)
    if len(running) <= 1:
        target = running[0] if running else (new if new is not None else (by_age(old)[-1] if old else None))
        return {} if target is None else {name_of(target): wanted}
    if is_saturated(deployment, new):
        return {name_of(one): 0 for one in active(old)}
    if not is_rolling(deployment):
        # Their sizes are the strategy's business; naming them marks the change as seen.
        return {name_of(one): spec_replicas(one) for one in running}
    surge, _ = fenceposts(deployment)
    allowed = wanted + surge if wanted > 0 else 0
    to_add = allowed - total(running)
    ordered = _largest_first(running, newest_first=to_add > 0)
    sizes: dict[str, int] = {}
    added = 0
    for one in ordered:
        share = _proportion(one, deployment, to_add, added)
        added += share
        sizes[name_of(one)] = spec_replicas(one) + share
    if to_add != 0:
        largest = name_of(ordered[0])
        sizes[largest] = max(0, sizes[largest] + to_add - added)
    return sizes


def _largest_first(replica_sets: Sequence[Object], *, newest_first: bool) -> list[Object]:
    aged = by_age(replica_sets)
    if newest_first:
        aged.reverse()
    return sorted(aged, key=lambda one: -spec_replicas(one))


def _proportion(replica_set: Object, deployment: Object, to_add: int, added: int) -> int:
    size = spec_replicas(replica_set)
    if size == 0 or to_add in (0, added):
        return 0
    share, left = _fraction(replica_set, deployment), to_add - added
    return min(share, left) if to_add > 0 else max(share, left)


def _fraction(replica_set: Object, deployment: Object) -> int:
    size, wanted = spec_replicas(replica_set), spec_replicas(deployment)
    if wanted == 0:
        return -size
    surge, _ = fenceposts(deployment)
    text = annotations_of(replica_set).get(MAX_REPLICAS, "")
    before = int(text) if text.isdecimal() else status_count(deployment, "replicas")
    if before == 0:
        return 0
    # Half away from zero, as Go's math.Round.
    return (2 * size * (wanted + surge) + before) // (2 * before) - size


def to_clean_up(deployment: Object, old: Sequence[Object]) -> list[Object]:
    """Return old ReplicaSets beyond revisionHistoryLimit, lowest revision first; only those without pods. Mirrors cleanupDeployment."""
    limit = at(deployment, "spec", "revisionHistoryLimit")
    if limit is None or limit == NO_LIMIT:
        return []
    idle = [
        one
        for one in old
        if not is_deleting(one)
        and spec_replicas(one) == 0
        and status_count(one, "replicas") == 0
        and (at(one, "metadata", "generation") or 0) <= status_count(one, "observedGeneration")
    ]
    surplus = len(idle) - limit
    return sorted(idle, key=lambda one: (revision_of(one), name_of(one)))[:surplus] if surplus > 0 else []


# -- status --------------------------------------------------------------------------------------------------------------------------


def counts(deployment: Object, new: Object | None, everything: Sequence[Object]) -> Object:
    """Return the counters of the Deployment's status (no conditions). Mirrors calculateStatus."""
    total_available = available(everything)
    found: Object = {
        "observedGeneration": at(deployment, "metadata", "generation") or 0,
        "replicas": sum(status_count(one, "replicas") for one in everything),
        "updatedReplicas": status_count(new, "replicas") if new is not None else 0,
        "readyReplicas": sum(status_count(one, "readyReplicas") for one in everything),
        "availableReplicas": total_available,
        "unavailableReplicas": max(0, total(everything) - total_available),
    }
    found = {key: value for key, value in found.items() if value}
    if all(at(one, "status", "terminatingReplicas") is not None for one in everything):
        found["terminatingReplicas"] = sum(status_count(one, "terminatingReplicas") for one in everything)
    collisions = at(deployment, "status", "collisionCount")
    if collisions is not None:
        found["collisionCount"] = collisions
    return found


def is_complete(deployment: Object, status: Object) -> bool:
    """Whether all wanted replicas are updated and available and no other is left. Mirrors DeploymentComplete."""
    wanted = spec_replicas(deployment)
    return (
        status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("observedGeneration", 0) >= (at(deployment, "metadata", "generation") or 0)
    )


def is_progressing(deployment: Object, status: Object) -> bool:
    """Whether `status` is nearer to completion than the status the Deployment has. Mirrors DeploymentProgressing."""
    before = deployment.get("status") or {}

    def old_pods(counted: Object) -> int:
        return counted.get("replicas", 0) - counted.get("updatedReplicas", 0)

    return (
        status.get("updatedReplicas", 0) > before.get("updatedReplicas", 0)
        or old_pods(status) < old_pods(before)
        or status.get("readyReplicas", 0) > before.get("readyReplicas", 0)
        or status.get("availableReplicas", 0) > before.get("availableReplicas", 0)
    )
