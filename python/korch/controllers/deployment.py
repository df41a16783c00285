"""Rolls the pods of a Deployment from one template to the next, by sizing one ReplicaSet for each template.

Watches Deployments and ReplicaSets; writes ReplicaSets (create, size, annotations, delete beyond the history limit), the Deployment's
revision annotation and its status. It never looks at pods: ReplicaSets count them. Invariants: the ReplicaSet of a template is found by
comparing templates, never remembered; during a rolling update spec.replicas summed over all ReplicaSets stays within the surge,
and available pods do not fall below what maxUnavailable allows on this controller's account. Mirrors upstream pkg/controller/deployment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from korch.api.conditions import get_condition
from korch.api.errors import AlreadyExists, ApiError
from korch.api.gvk import DEPLOYMENTS, REPLICA_SETS
from korch.api.meta import annotations_of, at, controller_of, is_deleting, name_of, namespace_of, uid_of
from korch.client.controller import Requeue
from korch.client.protocol import DeleteOptions
from korch.controllers.workload import rollout
from korch.controllers.workload.controller import WorkloadController, decode_object, is_namespace_ending, watch_dependents, watch_own
from korch.controllers.workload.rollout import new_replica_set, spec_replicas, status_count
from korch.runtime.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]

AVAILABLE = "Available"
PROGRESSING = "Progressing"
REPLICA_FAILURE = "ReplicaFailure"
NEW_AVAILABLE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
# A Deployment that is looked at again because its deadline nears gets a second more, for clocks that round.
DEADLINE_SLACK_S = 1.0


@dataclass(frozen=True, slots=True)
class Family:
    """The ReplicaSets of one Deployment: the one with its present template, if any, and all others."""

    new: Object | None
    old: list[Object]

    @property
    def everything(self) -> list[Object]:
        return [*self.old, self.new] if self.new is not None else list(self.old)


class DeploymentController(WorkloadController):
    """Reconciles one Deployment a key. Every turn makes at most one step (create, scale up or scale down) and writes the status."""

    name = "deployment-controller"
    workers = 5
    resource = DEPLOYMENTS
    watches = (watch_own(DEPLOYMENTS), watch_dependents(REPLICA_SETS))

    async def reconcile(self, key: str) -> Requeue | None:
        deployment = self.informer(DEPLOYMENTS).get_by_key(key)
        if deployment is None:
            return None
        if not at(deployment, "spec", "selector"):
            self.recorder.event(
                deployment, "Warning", "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required."
            )
            return None
        owned = await self.claimed(key, deployment, REPLICA_SETS)
        new = rollout.find_new(deployment, owned)
        family = Family(new, [one for one in owned if new is None or uid_of(one) != uid_of(new)])
        if is_deleting(deployment):
            return await self._report(key, deployment, family)
        deployment = await self._note_pause(key, deployment)
        if at(deployment, "spec", "paused") or rollout.is_scaling_event(deployment, family.everything):
            return await self._scale(key, deployment, family)
        if rollout.is_rolling(deployment):
            return await self._roll(key, deployment, family)
        return await self._recreate(key, deployment, family)

    # -- strategies

    async def _roll(self, key: str, deployment: Object, family: Family) -> Requeue | None:
        deployment, family = await self._with_new(key, deployment, family)
        if family.new is None:
            return None
        size = rollout.new_size(deployment, family.new, family.everything)
        if size != spec_replicas(family.new):
            await self._resize(key, deployment, family, {name_of(family.new): size})
            return await self._report(key, deployment, family, tracks_progress=True)
        sizes = rollout.old_sizes(deployment, family.new, family.old)
        if sizes:
            await self._resize(key, deployment, family, sizes)
            return await self._report(key, deployment, family, tracks_progress=True)
        return await self._finish(key, deployment, family)

    async def _recreate(self, key: str, deployment: Object, family: Family) -> Requeue | None:
        running = rollout.active(family.old)
        if running:
            await self._resize(key, deployment, family, {name_of(one): 0 for one in running})
            return await self._report(key, deployment, family, tracks_progress=True)
        if any(map(_may_have_pods, family.old)):
            return await self._report(key, deployment, family, tracks_progress=True)
        deployment, family = await self._with_new(key, deployment, family)
        if family.new is None:
            return None
        if spec_replicas(family.new) != spec_replicas(deployment):
            await self._resize(key, deployment, family, {name_of(family.new): spec_replicas(deployment)})
        return await self._finish(key, deployment, family)

    async def _scale(self, key: str, deployment: Object, family: Family) -> Requeue | None:
        """Resize without rolling. A paused Deployment keeps its ReplicaSets, but their number is still bounded."""
        if family.new is not None:
            deployment, family = await self._with_new(key, deployment, family)
        await self._resize(key, deployment, family, rollout.scaled_sizes(deployment, family.new, family.old))
        if at(deployment, "spec", "paused"):
            await self._clean_up(key, deployment, family)
        return await self._report(key, deployment, family)

    async def _finish(self, key: str, deployment: Object, family: Family) -> Requeue | None:
        if rollout.is_complete(deployment, rollout.counts(deployment, family.new, family.everything)):
            await self._clean_up(key, deployment, family)
        return await self._report(key, deployment, family, tracks_progress=True)

    # -- ReplicaSets

    async def _with_new(self, key: str, deployment: Object, family: Family) -> tuple[Object, Family]:
        """Return the Deployment and its family with a new ReplicaSet in them that carries the right annotations; without one when it
        could not be had in this turn (the Deployment's change brings the next)."""
        revision = max((rollout.revision_of(one) for one in family.old), default=0) + 1
        if family.new is not None:
            new = await self._annotate(key, deployment, family.new, revision)
            if get_condition(deployment, PROGRESSING) is None and rollout.has_deadline(deployment):
                found = _condition(PROGRESSING, "True", "FoundNewReplicaSet", f'Found new replica set "{name_of(new)}"', self.now())
                deployment = await self._put_conditions(key, deployment, [found])
        else:
            deployment, new = await self._create_new(key, deployment, family.old, revision)
            if new is None:
                return deployment, family
        shown = annotations_of(new).get(rollout.REVISION, "")
        if annotations_of(deployment).get(rollout.REVISION) != shown:
            deployment = await self._patch(key, deployment, {"metadata": {"annotations": {rollout.REVISION: shown}}})
        return deployment, Family(new, family.old)

    async def _annotate(self, key: str, deployment: Object, new: Object, revision: int) -> Object:
        wanted = rollout.replica_set_annotations(deployment, annotations_of(new), revision, is_new=False)
        min_ready_s = at(deployment, "spec", "minReadySeconds") or 0
        change: Object = {}
        if wanted != annotations_of(new):
            change["metadata"] = {"annotations": wanted}
        if min_ready_s != (at(new, "spec", "minReadySeconds") or 0):
            change["spec"] = {"minReadySeconds": min_ready_s}
        return await self._patch_replica_set(key, new, change) if change else new

    async def _create_new(self, key: str, deployment: Object, old: Sequence[Object], revision: int) -> tuple[Object, Object | None]:
        body = new_replica_set(deployment)
        size = rollout.new_size(deployment, body, [*old, body])
        body["spec"]["replicas"] = size
        body["metadata"]["annotations"] = rollout.replica_set_annotations(deployment, {}, revision, is_new=True)
        body["metadata"]["ownerReferences"] = [self.reference_to(deployment)]
        name, namespace = name_of(body), namespace_of(deployment)
        try:
            stored = await self.client.create(REPLICA_SETS, body, namespace=namespace)
        except AlreadyExists:
            return await self._taken(key, deployment, name)
        except ApiError as error:
            if is_namespace_ending(error):
                return deployment, None
            message = f'Failed to create new replica set "{name}": {error.message}'
            self.recorder.event(deployment, "Warning", "ReplicaSetCreateError", message)
            failed = _condition(PROGRESSING, "False", "ReplicaSetCreateError", message, self.now())
            await self._put_conditions(key, deployment, [failed])
            raise
        self.wrote(key, REPLICA_SETS, stored)
        if size > 0:
            self.recorder.event(deployment, "Normal", "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}")
        made = _condition(PROGRESSING, "True", "NewReplicaSetCreated", f'Created new replica set "{name}"', self.now())
        return await self._put_conditions(key, deployment, [made]), decode_object(stored)

    async def _taken(self, key: str, deployment: Object, name: str) -> tuple[Object, Object | None]:
        """The name exists. It is ours when an earlier create succeeded unheard; else two templates share a hash: count and try another."""
        stored = await self.client.get(REPLICA_SETS, name, namespace=namespace_of(deployment))
        found = decode_object(stored)
        controller = controller_of(found)
        if controller is not None and controller.get("uid") == uid_of(deployment) and rollout.find_new(deployment, [found]) is not None:
            self.wrote(key, REPLICA_SETS, stored)
            return deployment, found
        status = dict(deployment.get("status") or {})
        status["collisionCount"] = status.get("collisionCount", 0) + 1
        return await self.put_status(key, deployment, status), None

    async def _resize(self, key: str, deployment: Object, family: Family, sizes: Mapping[str, int]) -> None:
        marks = rollout.size_annotations(deployment)
        for one in family.everything:
            size = sizes.get(name_of(one))
            if size is None:
                continue
            before = spec_replicas(one)
            change: Object = {}
            if size != before:
                change["spec"] = {"replicas": size}
            if any(annotations_of(one).get(name) != value for name, value in marks.items()):
                change["metadata"] = {"annotations": marks}
            if not change:
                continue
            await self._patch_replica_set(key, one, change)
            if size != before:
                direction = "up" if size > before else "down"
                message = f"Scaled {direction} replica set {name_of(one)} from {before} to {size}"
                self.recorder.event(deployment, "Normal", "ScalingReplicaSet", message)

    async def _clean_up(self, key: str, deployment: Object, family: Family) -> None:
        for one in rollout.to_clean_up(deployment, family.old):
            options = DeleteOptions(uid=uid_of(one), propagation_policy="Background")
            await self.client.delete(REPLICA_SETS, name_of(one), namespace=namespace_of(one), options=options)

    async def _patch_replica_set(self, key: str, replica_set: Object, change: Object) -> Object:
        """Change a ReplicaSet as it was seen: sizes were computed from what it was, so a newer one is a Conflict."""
        change = {**change, "metadata": {"resourceVersion": at(replica_set, "metadata", "resourceVersion"), **change.get("metadata", {})}}
        stored = await self.client.patch(REPLICA_SETS, name_of(replica_set), change, namespace=namespace_of(replica_set))
        self.wrote(key, REPLICA_SETS, stored)
        return decode_object(stored)

    # -- the Deployment itself

    async def _patch(self, key: str, deployment: Object, change: Object) -> Object:
        stored = await self.client.patch(DEPLOYMENTS, name_of(deployment), change, namespace=namespace_of(deployment))
        self.wrote(key, DEPLOYMENTS, stored)
        return decode_object(stored)

    async def _put_conditions(self, key: str, deployment: Object, changed: Sequence[Object]) -> Object:
        """Change conditions ahead of the report. Without a deadline there is no Progressing condition to change."""
        if not rollout.has_deadline(deployment):
            return deployment
        status = dict(deployment.get("status") or {})
        status["conditions"] = merge_conditions(status.get("conditions") or [], changed)
        return await self.put_status(key, deployment, status)

    async def _note_pause(self, key: str, deployment: Object) -> Object:
        """Show pausing and resuming in the Progressing condition, so that paused time does not count against the deadline."""
        current = get_condition(deployment, PROGRESSING)
        if not rollout.has_deadline(deployment) or (current is not None and current.get("reason") == TIMED_OUT):
            return deployment
        is_shown = current is not None and current.get("reason") == "DeploymentPaused"
        if at(deployment, "spec", "paused") and not is_shown:
            noted = _condition(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused", self.now())
        elif not at(deployment, "spec", "paused") and is_shown:
            noted = _condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", self.now())
        else:
            return deployment
        return await self._put_conditions(key, deployment, [noted])

    async def _report(self, key: str, deployment: Object, family: Family, *, tracks_progress: bool = False) -> Requeue | None:
        """Write the status from what the ReplicaSets said when this turn began; the next turn sees what this one did."""
        now = self.now()
        status = plan_status(deployment, family.new, family.everything, now, tracks_progress=tracks_progress)
        written = await self.put_status(key, deployment, status)
        if not tracks_progress:
            return None
        wait = deadline_in_s(written, now)
        return Requeue(after_s=wait + DEADLINE_SLACK_S) if wait is not None else None


def _may_have_pods(replica_set: Object) -> bool:
    """Whether pods of this ReplicaSet may still run: it counts some, or has not yet seen its newest size."""
    lags = status_count(replica_set, "observedGeneration") < (at(replica_set, "metadata", "generation") or 0)
    return lags or status_count(replica_set, "replicas") > 0 or status_count(replica_set, "terminatingReplicas") > 0


def _condition(condition_type: str, status: str, reason: str, message: str, now: float) -> Object:
    stamp = rfc3339(now)
    return {
        "type": condition_type,
        "status": status,
        "lastUpdateTime": stamp,
        "lastTransitionTime": stamp,
        "reason": reason,
        "message": message,
    }


def merge_conditions(present: Sequence[Object], changed: Sequence[Object]) -> list[Object]:
    """Return `present` with `changed` put in: untouched when status and reason are the same, the transition time kept when only
    the status is. Mirrors SetDeploymentCondition."""
    merged = list(present)
    for one in changed:
        old = next((index for index, had in enumerate(merged) if had.get("type") == one["type"]), None)
        if old is None:
            merged.append(one)
            continue
        had = merged[old]
        if had.get("status") == one["status"] and had.get("reason") == one["reason"]:
            continue
        since = had.get("lastTransitionTime") if had.get("status") == one["status"] else None
        merged[old] = {**one, "lastTransitionTime": since} if since else one
    return merged


def plan_status(deployment: Object, new: Object | None, everything: Sequence[Object], now: float, *, tracks_progress: bool) -> Object:
    """Return the Deployment's status. With `tracks_progress` the Progressing and ReplicaFailure conditions follow the rollout too.

    Mirrors calculateStatus and syncRolloutStatus.
    """
    status = rollout.counts(deployment, new, everything)
    conditions: list[Object] = list(at(deployment, "status", "conditions") or [])
    _, max_unavailable = rollout.fenceposts(deployment)
    if status.get("availableReplicas", 0) >= spec_replicas(deployment) - max_unavailable:
        shown = _condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    else:
        shown = _condition(AVAILABLE, "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", now)
    conditions = merge_conditions(conditions, [shown])
    if tracks_progress:
        conditions = _track_progress(deployment, new, status, conditions, now)
        failures = [failure for one in everything if (failure := get_condition(one, REPLICA_FAILURE)) is not None]
        of_new = get_condition(new, REPLICA_FAILURE) if new is not None else None
        failure = of_new or (failures[0] if failures else None)
        if failure is None:
            conditions = [one for one in conditions if one.get("type") != REPLICA_FAILURE]
        else:
            told = _condition(REPLICA_FAILURE, failure["status"], failure.get("reason", ""), failure.get("message", ""), now)
            conditions = merge_conditions(conditions, [told])
    status["conditions"] = conditions
    return status


def _track_progress(deployment: Object, new: Object | None, status: Object, conditions: list[Object], now: float) -> list[Object]:
    if not rollout.has_deadline(deployment):
        return [one for one in conditions if one.get("type") != PROGRESSING]
    current = next((one for one in conditions if one.get("type") == PROGRESSING), None)
    was_complete = (
        status.get("replicas", 0) == status.get("updatedReplicas", 0) and current is not None and current.get("reason") == NEW_AVAILABLE
    )
    if was_complete:
        return conditions
    subject = f'ReplicaSet "{name_of(new)}"' if new is not None else f'Deployment "{name_of(deployment)}"'
    if rollout.is_complete(deployment, status):
        told = _condition(PROGRESSING, "True", NEW_AVAILABLE, f"{subject} has successfully progressed.", now)
    elif rollout.is_progressing(deployment, status):
        told = _condition(PROGRESSING, "True", "ReplicaSetUpdated", f"{subject} is progressing.", now)
        # Progress restarts the deadline, so its time moves even when nothing else does.
        since = current.get("lastTransitionTime") if current is not None and current.get("status") == "True" else None
        kept = [one for one in conditions if one.get("type") != PROGRESSING]
        return [*kept, {**told, "lastTransitionTime": since} if since else told]
    elif _is_timed_out(current, deployment["spec"]["progressDeadlineSeconds"], now):
        told = _condition(PROGRESSING, "False", TIMED_OUT, f"{subject} has timed out progressing.", now)
    else:
        return conditions
    return merge_conditions(conditions, [told])


def _is_timed_out(progressing: Object | None, deadline_s: int, now: float) -> bool:
    if progressing is None or progressing.get("reason") == NEW_AVAILABLE:
        return False
    return progressing.get("reason") == TIMED_OUT or parse_rfc3339(progressing["lastUpdateTime"]) + deadline_s < now


def deadline_in_s(deployment: Object, now: float) -> float | None:
    """Return the seconds until the rollout times out unless it moves; None when it is done, timed out or without a deadline."""
    current = get_condition(deployment, PROGRESSING)
    if current is None or not rollout.has_deadline(deployment):
        return None
    if current.get("reason") in (TIMED_OUT, NEW_AVAILABLE) or rollout.is_complete(deployment, deployment.get("status") or {}):
        return None
    return max(0.0, parse_rfc3339(current["lastUpdateTime"]) + deployment["spec"]["progressDeadlineSeconds"] - now)
