"""Keeps the pods of a StatefulSet, each with a name of its own, and makes, ends and replaces them in order.

Watches StatefulSets, pods and ControllerRevisions; writes pods, ControllerRevisions and StatefulSet status. Invariants: at most one
pod of an ordinal; with OrderedReady a pod is made or ended only when all before it are available, and one at a time; below the
partition pods keep the current revision even when they must be made anew. Sets with volumeClaimTemplates are refused with an event,
because PersistentVolumeClaims are not served. Mirrors upstream pkg/controller/statefulset.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import CONTROLLER_REVISIONS, PODS, STATEFUL_SETS
from korch.api.meta import at, is_deleting, key_of, labels_of, name_of, namespace_of, uid_of
from korch.api.pods import available_in_s, is_available, is_ready, is_terminal, phase_of
from korch.client.controller import Requeue
from korch.client.protocol import DeleteOptions
from korch.controllers.workload import revisions
from korch.controllers.workload.controller import WorkloadController, decode_object, is_namespace_ending, watch_dependents, watch_own
from korch.controllers.workload.ownership import candidates
from korch.controllers.workload.pod_template import pod_from_template
from korch.controllers.workload.rollout import resolve, spec_replicas

Object = dict[str, Any]

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
_ORDINAL = re.compile(r"(.*)-([0-9]+)")


@dataclass(slots=True)
class Step:
    """What to do now: ordinals to make, pods to end, pods that failed and are ended to be made anew."""

    create: list[int] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    recreate: list[Object] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.create or self.delete or self.recreate)


class StatefulSetController(WorkloadController):
    """Reconciles one StatefulSet a key."""

    name = "statefulset-controller"
    workers = 5
    resource = STATEFUL_SETS
    watches = (watch_own(STATEFUL_SETS), watch_dependents(PODS), watch_dependents(CONTROLLER_REVISIONS))

    async def reconcile(self, key: str) -> Requeue | None:
        owner = self.informer(STATEFUL_SETS).get_by_key(key)
        if owner is None:
            return None
        if at(owner, "spec", "volumeClaimTemplates"):
            message = f"StatefulSet {name_of(owner)} has volumeClaimTemplates, but PersistentVolumeClaims are not served by this cluster"
            self.recorder.event(owner, "Warning", "FailedCreate", message)
            return None
        history = await self.claimed(key, owner, CONTROLLER_REVISIONS)
        update = await revisions.current_revision(self, key, owner, history)
        if update is None:
            return Requeue()
        named = next((one for one in history if name_of(one) == at(owner, "status", "currentRevision")), None)
        current = named or update
        found = [one for one in candidates(self.informer(PODS), owner) if ordinal_of(owner, one) is not None]
        pods = await self.claimed(key, owner, PODS, found)
        now = self.now()
        failure = None
        if not is_deleting(owner):
            failure = await self._perform(key, owner, plan(owner, pods, name_of(update), now), current, update)
        live = {labels_of(pod).get(revisions.HASH_LABEL, "") for pod in pods} | {name_of(current), name_of(update)}
        idle_names = {revisions.hash_of(one) for one in history if name_of(one) in live}
        await revisions.clean_up(self, owner, history, idle_names)
        await self.put_status(key, owner, plan_status(owner, pods, name_of(current), name_of(update), now))
        if failure is not None:
            return Requeue()
        min_ready_s = at(owner, "spec", "minReadySeconds") or 0
        waits = [wait for pod in pods if (wait := available_in_s(pod, min_ready_s, now))]
        return Requeue(after_s=min(waits)) if waits else None

    async def _perform(self, key: str, owner: Object, step: Step, current: Object, update: Object) -> ApiError | None:
        for pod in step.recreate:
            message = f"StatefulSet {key_of(owner)} is recreating {phase_of(pod).lower()} Pod {name_of(pod)}"
            self.recorder.event(owner, "Warning", "RecreatingFailedPod", message)
        for pod in [*step.recreate, *step.delete]:
            await self._delete(key, owner, pod)
        for ordinal in step.create:
            revision = current if keeps_current(owner, ordinal) else update
            try:
                await self._create(key, owner, new_pod(owner, ordinal, revision, self.reference_to(owner)))
            except AlreadyExists as error:
                # Its predecessor is not quite gone, or somebody else has the name.
                return error
            except ApiError as error:
                return None if is_namespace_ending(error) else error
        return None

    async def _create(self, key: str, owner: Object, pod: Object) -> None:
        subject = f"Pod {name_of(pod)} in StatefulSet {name_of(owner)}"
        try:
            self.wrote(key, PODS, await self.client.create(PODS, pod, namespace=namespace_of(owner)))
        except ApiError as error:
            if not is_namespace_ending(error):
                self.recorder.event(owner, "Warning", "FailedCreate", f"create {subject} failed error: {error.message}")
            raise
        self.recorder.event(owner, "Normal", "SuccessfulCreate", f"create {subject} successful")

    async def _delete(self, key: str, owner: Object, pod: Object) -> None:
        subject = f"Pod {name_of(pod)} in StatefulSet {name_of(owner)}"
        try:
            answer = await self.client.delete(PODS, name_of(pod), namespace=namespace_of(pod), options=DeleteOptions(uid=uid_of(pod)))
        except NotFound:
            return
        except ApiError as error:
            self.recorder.event(owner, "Warning", "FailedDelete", f"delete {subject} failed error: {error.message}")
            raise
        if decode_object(answer).get("kind") == "Pod":
            self.wrote(key, PODS, answer)
        self.recorder.event(owner, "Normal", "SuccessfulDelete", f"delete {subject} successful")


def ordinal_of(owner: Object, pod: Object) -> int | None:
    """Return the pod's ordinal in this set, None when its name is not of the set's making."""
    match = _ORDINAL.fullmatch(name_of(pod))
    return int(match[2]) if match is not None and match[1] == name_of(owner) else None


def ordinals(owner: Object) -> range:
    """Return the ordinals that the set should have."""
    start = at(owner, "spec", "ordinals", "start") or 0
    return range(start, start + spec_replicas(owner))


def is_parallel(owner: Object) -> bool:
    return at(owner, "spec", "podManagementPolicy") == "Parallel"


def partition(owner: Object) -> int:
    """Return the first ordinal (counted from the set's start) that a rolling update replaces."""
    return at(owner, "spec", "updateStrategy", "rollingUpdate", "partition") or 0


def keeps_current(owner: Object, ordinal: int) -> bool:
    """Whether a pod of this ordinal is made from the current revision instead of the newest. Mirrors isCurrentRevisionNeeded."""
    if at(owner, "spec", "updateStrategy", "type") == "OnDelete":
        return False
    return ordinal < ordinals(owner).start + partition(owner)


def plan(owner: Object, pods: Sequence[Object], update_revision: str, now: float) -> Step:
    """Return the next step. Mirrors updateStatefulSet."""
    wanted = ordinals(owner)
    by_ordinal = {number: pod for pod in pods if (number := ordinal_of(owner, pod)) is not None}
    min_ready_s = at(owner, "spec", "minReadySeconds") or 0
    step = Step()

    def is_healthy(pod: Object | None) -> bool:
        return pod is not None and phase_of(pod) == "Running" and not is_deleting(pod) and is_available(pod, min_ready_s, now)

    for ordinal in wanted:
        pod = by_ordinal.get(ordinal)
        if pod is None:
            step.create.append(ordinal)
        elif is_terminal(pod) and not is_deleting(pod):
            step.recreate.append(pod)
        elif is_healthy(pod):
            continue
        if not is_parallel(owner):
            return step
    condemned = [by_ordinal[number] for number in sorted(by_ordinal, reverse=True) if number not in wanted]
    if condemned:
        if is_parallel(owner):
            step.delete += [pod for pod in condemned if not is_deleting(pod)]
            return step
        _end_last(step, condemned, is_healthy)
        return step
    if not step.is_empty or at(owner, "spec", "updateStrategy", "type") == "OnDelete":
        return step
    step.delete = _outdated(owner, by_ordinal, update_revision, is_healthy)
    return step


def _end_last(step: Step, condemned: Sequence[Object], is_healthy: Any) -> None:
    """End the pod with the highest ordinal; an unhealthy one waits while one below it, which must go too, is unhealthy as well. Mirrors
    processCondemned."""
    last, *others = condemned
    if is_deleting(last) or (not is_healthy(last) and not all(map(is_healthy, others))):
        return
    step.delete.append(last)


def _outdated(owner: Object, pods: Mapping[int, Object], update_revision: str, is_healthy: Any) -> list[Object]:
    """Return the pods that a rolling update ends now: from the highest ordinal down to the partition, as many as may be unavailable."""
    wanted = ordinals(owner)
    first = wanted.start + partition(owner)
    allowed = at(owner, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable")
    budget = max(1, resolve(allowed, len(wanted), round_up=True)) if allowed is not None else 1
    found: list[Object] = []
    for number in sorted((one for one in pods if one in wanted and one >= first), reverse=True):
        pod = pods[number]
        if budget <= 0:
            break
        if labels_of(pod).get(revisions.HASH_LABEL) != update_revision and not is_deleting(pod):
            found.append(pod)
            budget -= 1
        elif not is_healthy(pod):
            budget -= 1
    return found


def new_pod(owner: Object, ordinal: int, revision: Object, reference: Object) -> Object:
    """Return the pod of this ordinal as the revision has it: named, labelled and known in DNS by its ordinal."""
    pod = pod_from_template(revisions.template_of(owner, revision), owner, reference)
    meta = pod["metadata"]
    del meta["generateName"]
    name = f"{name_of(owner)}-{ordinal}"
    meta["name"] = name
    meta["labels"] |= {POD_NAME_LABEL: name, POD_INDEX_LABEL: str(ordinal), revisions.HASH_LABEL: name_of(revision)}
    pod["spec"]["hostname"] = name
    if service := at(owner, "spec", "serviceName"):
        pod["spec"]["subdomain"] = service
    return pod


def plan_status(owner: Object, pods: Sequence[Object], current: str, update: str, now: float) -> Object:
    """Return the StatefulSet's status; a rolling update that is done makes the newest revision the current one."""
    min_ready_s = at(owner, "spec", "minReadySeconds") or 0
    live = [pod for pod in pods if not is_terminal(pod)]
    staying = [pod for pod in live if not is_deleting(pod)]
    ready = sum(is_ready(pod) for pod in live)
    updated = sum(labels_of(pod).get(revisions.HASH_LABEL) == update for pod in staying)
    counted = sum(labels_of(pod).get(revisions.HASH_LABEL) == current for pod in staying)
    is_rolling = at(owner, "spec", "updateStrategy", "type") != "OnDelete"
    if is_rolling and updated == ready == len(live) == spec_replicas(owner):
        current, counted = update, updated
    status: Object = {
        "observedGeneration": at(owner, "metadata", "generation") or 0,
        "replicas": len(live),
        "availableReplicas": sum(is_available(pod, min_ready_s, now) for pod in live),
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": at(owner, "status", "collisionCount") or 0,
    }
    status |= {
        name: count for name, count in (("readyReplicas", ready), ("currentReplicas", counted), ("updatedReplicas", updated)) if count
    }
    if (conditions := at(owner, "status", "conditions")) is not None:
        status["conditions"] = conditions
    return status
