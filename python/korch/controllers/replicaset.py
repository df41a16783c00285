"""Keeps as many pods alive as a ReplicaSet asks for.

Watches ReplicaSets and pods; writes pods (create, delete, adopt, release) and ReplicaSet status. Invariants: a pod counts while it is
neither over nor being deleted; only pods whose controller reference names this ReplicaSet are ever deleted; nothing is created or
deleted for a ReplicaSet that is itself being deleted (the garbage collector takes its pods).
Mirrors upstream pkg/controller/replicaset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from korch.api import selectors
from korch.api.conditions import is_condition_true, remove_condition, set_condition
from korch.api.errors import ApiError
from korch.api.gvk import PODS, REPLICA_SETS, ResourceRef
from korch.api.meta import at, controller_of, is_deleting, labels_of
from korch.api.pods import available_in_s, is_active, is_available, is_ready, is_terminal
from korch.client.controller import Requeue
from korch.controllers.workload.controller import WorkloadController, is_namespace_ending, watch_dependents, watch_own
from korch.controllers.workload.ownership import CONTROLLED, candidates, controlled
from korch.controllers.workload.ranking import pods_to_delete
from korch.controllers.workload.slow_start import slow_start

Object = dict[str, Any]

# The most pods that one reconcile creates or deletes.
BURST = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """Why pods could not be created or deleted, as the ReplicaFailure condition tells it."""

    reason: str
    message: str


class ReplicaSetController(WorkloadController):
    """Reconciles one ReplicaSet a key."""

    name = "replicaset-controller"
    workers = 5
    resource: ClassVar[ResourceRef] = REPLICA_SETS
    watches = (watch_own(REPLICA_SETS), watch_dependents(PODS))

    async def reconcile(self, key: str) -> Requeue | None:
        if (wait_s := self.pacer.wait_s(key)) > 0:
            return Requeue(after_s=wait_s)
        owner = self.informer(self.resource).get_by_key(key)
        found = candidates(self.informer(PODS), owner) if owner is not None else []
        self.pacer.worked(key, len(found))
        if owner is None:
            return None
        terminating = self._terminating(owner, found)
        pods = await self.claimed(key, owner, PODS, [pod for pod in found if is_active(pod)])
        failure = None if is_deleting(owner) else await self._manage(key, owner, pods)
        now = self.now()
        await self.put_status(key, owner, plan_status(owner, pods, len(terminating), failure, now))
        if failure is not None:
            return Requeue()
        return _until_available(owner, pods, now)

    async def _manage(self, key: str, owner: Object, pods: Sequence[Object]) -> Failure | None:
        missing = wanted_replicas(owner) - len(pods)
        if missing > 0:
            return await self._create(key, owner, min(missing, BURST))
        if missing < 0:
            return await self._delete(key, owner, pods, min(-missing, BURST))
        return None

    async def _create(self, key: str, owner: Object, count: int) -> Failure | None:
        template = owner["spec"]["template"]
        outcome = await slow_start(count, lambda _index: self.create_pod(key, owner, template))
        errors = [error for error in outcome.errors if not (isinstance(error, ApiError) and is_namespace_ending(error))]
        return Failure("FailedCreate", str(errors[0])) if errors else None

    async def _delete(self, key: str, owner: Object, pods: Sequence[Object], count: int) -> Failure | None:
        victims = pods_to_delete(pods, self._related(owner), count, self.now())
        results = await asyncio.gather(*(self.delete_pod(key, owner, pod) for pod in victims), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                return Failure("FailedDelete", str(result))
            if result is not None:
                raise result
        return None

    def _related(self, owner: Object) -> list[Object]:
        """Return the active pods of this controller and of its siblings (the other ReplicaSets of its Deployment)."""
        parent = controller_of(owner)
        siblings = self.informer(self.resource).by_index(CONTROLLED, parent["uid"]) if parent is not None else [owner]
        return [pod for one in siblings for pod in controlled(self.informer(PODS), one) if is_active(pod)]

    def _terminating(self, owner: Object, found: Sequence[Object]) -> list[Object]:
        requirements = self.selector_of(owner)
        return [
            pod
            for pod in found
            if controller_of(pod) is not None
            and is_deleting(pod)
            and not is_terminal(pod)
            and selectors.matches(requirements, labels_of(pod))
        ]


def wanted_replicas(owner: Object) -> int:
    """Return spec.replicas; absent reads as 1."""
    value = at(owner, "spec", "replicas")
    return 1 if value is None else value


def plan_status(owner: Object, pods: Sequence[Object], terminating: int, failure: Failure | None, now: float) -> Object:
    """Return the status for these active `pods`. Conditions of others are kept. Mirrors calculateStatus."""
    wanted_labels = at(owner, "spec", "template", "metadata", "labels") or {}
    min_ready_s = at(owner, "spec", "minReadySeconds") or 0
    counted = {
        "fullyLabeledReplicas": sum(wanted_labels.items() <= labels_of(pod).items() for pod in pods),
        "readyReplicas": sum(map(is_ready, pods)),
        "availableReplicas": sum(is_available(pod, min_ready_s, now) for pod in pods),
    }
    status: Object = {"replicas": len(pods)} | {name: count for name, count in counted.items() if count}
    if owner.get("kind") != "ReplicationController":
        status["terminatingReplicas"] = terminating
    if generation := at(owner, "metadata", "generation"):
        status["observedGeneration"] = generation
    if old := at(owner, "status", "conditions"):
        status["conditions"] = list(old)
    if failure is None:
        remove_condition(status, "ReplicaFailure")
    elif not is_condition_true(owner, "ReplicaFailure"):
        # The first failure stays until all is well: a message names the pod that was refused, so every retry brings a new one, and a
        # status that changes with every retry would make the next at once, without back-off.
        set_condition(status, "ReplicaFailure", "True", now=now, reason=failure.reason, message=failure.message)
    if not status.get("conditions"):
        status.pop("conditions", None)
    return status


def _until_available(owner: Object, pods: Sequence[Object], now: float) -> Requeue | None:
    min_ready_s = at(owner, "spec", "minReadySeconds") or 0
    waits = [wait for pod in pods if (wait := available_in_s(pod, min_ready_s, now))]
    return Requeue(after_s=min(waits)) if waits else None
