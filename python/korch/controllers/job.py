"""Runs pods until enough of them have succeeded, or too many have failed.

Watches Jobs and pods; writes pods (create, delete, adopt, release, the finalizer that keeps an ended pod until it is counted), Job status,
and deletes Jobs whose ttlSecondsAfterFinished has passed. Invariants: a terminated pod is counted exactly once, whatever is lost or
repeated; a finished Job is not touched again; Complete or Failed is said only when every pod has ended and is counted, after
SuccessCriteriaMet or FailureTarget has said how it will end. Mirrors upstream pkg/controller/job and ttlafterfinished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from korch.api.conditions import get_condition, is_condition_true, set_condition
from korch.api.errors import ApiError, NotFound
from korch.api.gvk import JOBS, PODS
from korch.api.meta import annotations_of, at, controller_of, is_deleting, labels_of, name_of, namespace_of, uid_of
from korch.api.pods import is_active
from korch.client.controller import Requeue, Watch
from korch.client.protocol import DeleteOptions
from korch.controllers.workload import job_state
from korch.controllers.workload.controller import WorkloadController, decode_object, is_namespace_ending, watch_own
from korch.controllers.workload.job_state import INDEX, INDEX_FAILURES, TRACKING, State, Verdict, is_tracked
from korch.controllers.workload.ownership import OWNER_INDEXES
from korch.controllers.workload.pod_template import pod_from_template
from korch.controllers.workload.pods import decode_pod
from korch.controllers.workload.ranking import pods_to_delete
from korch.controllers.workload.slow_start import slow_start
from korch.runtime.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]

BURST = 500
COMPLETE, FAILED, SUSPENDED = "Complete", "Failed", "Suspended"
SUCCESS_CRITERIA_MET, FAILURE_TARGET = "SuccessCriteriaMet", "FailureTarget"
BY_JOB = "job"
# Keys of pods that carry the finalizer and that no Job controls; `#` is in no name.
STRAY = "#stray"


def _job_keys(pod: Object) -> Iterable[str]:
    """Index pods by the key of the Job that controls them, whether or not it exists."""
    controller = controller_of(pod)
    if controller is not None and controller.get("kind") == JOBS.kind and controller.get("apiVersion") == JOBS.api_version:
        return (f"{namespace_of(pod)}/{controller.get('name')}",)
    return ()


class JobController(WorkloadController):
    """Reconciles one Job a key."""

    name = "job-controller"
    workers = 5
    resource = JOBS
    watches = (watch_own(JOBS), Watch(PODS, keys="dependent_keys", decode=decode_pod, indexes={**OWNER_INDEXES, BY_JOB: _job_keys}))

    def dependent_keys(self, obj: Object) -> Iterable[str]:
        keys = list(super().dependent_keys(obj))
        if is_tracked(obj) and controller_of(obj) is None:
            keys.append(f"{namespace_of(obj)}/{name_of(obj)}{STRAY}")
        return keys

    async def reconcile(self, key: str) -> Requeue | None:
        if key.endswith(STRAY):
            return await self._release_stray(key)
        if (wait_s := self.pacer.wait_s(key)) > 0:
            return Requeue(after_s=wait_s)
        job = self.informer(JOBS).get_by_key(key)
        self.pacer.worked(key, len(self.informer(PODS).by_index(BY_JOB, key)))
        # Pods of a Job that is gone, be it one of the same name, are counted by nobody.
        for pod in self.informer(PODS).by_index(BY_JOB, key):
            if is_tracked(pod) and (job is None or at(controller_of(pod), "uid") != uid_of(job)):
                await self._release(key, pod)
        if job is None:
            return None
        if is_finished(job):
            for pod in self.informer(PODS).by_index(BY_JOB, key):
                if is_tracked(pod):
                    await self._release(key, pod)
            return await self._expire(job)
        return await self._advance(key, job)

    async def _advance(self, key: str, job: Object) -> Requeue | None:
        now = self.now()
        pods = await self.claimed(key, job, PODS)
        pods = [await self._track(key, pod) if is_active(pod) and not is_tracked(pod) else pod for pod in pods]
        status = job_state.settle(job.get("status") or {}, pods)
        self._note_start(job, status, now)
        state = job_state.assess(job, status, pods)
        verdict = _verdict_of(job) or job_state.judge(state, status, now)
        wait_s: float | None = None
        failure: ApiError | None = None
        if verdict is not None or at(job, "spec", "suspend"):
            await self._delete_pods(key, job, state.active)
        elif not is_deleting(job):
            wait_s, failure = await self._manage(key, state, now)
        released = job_state.releasable(state, is_ending=verdict is not None or is_deleting(job))
        status = job_state.plan_status(state, status, released)
        is_over = False
        if verdict is not None:
            is_over = not (state.active or state.terminating or released or status["uncountedTerminatedPods"])
            conclude(status, verdict, now, is_over=is_over)
        await self.put_status(key, job, status)
        for pod in {uid_of(one): one for one in [*released, *self._uncounted(status, pods)]}.values():
            await self._release(key, pod)
        if is_over and verdict is not None:
            self._tell_end(job, verdict)
        if failure is not None:
            return Requeue()
        deadline_s = job_state.deadline_in_s(job, status, now) if verdict is None else None
        waits = [one for one in (wait_s, deadline_s) if one is not None and one > 0]
        return Requeue(after_s=min(waits)) if waits else None

    # -- pods

    async def _manage(self, key: str, state: State, now: float) -> tuple[float | None, ApiError | None]:
        """Create or delete pods. Return (seconds until a held back pod may be made, why creating failed)."""
        wanted = job_state.wanted_active(state)
        doomed = job_state.surplus_indexed(state) if state.is_indexed else []
        surplus = len(state.active) - len(doomed) - wanted
        if surplus > 0:
            gone = {uid_of(pod) for pod in doomed}
            rest = [pod for pod in state.active if uid_of(pod) not in gone]
            doomed = [*doomed, *pods_to_delete(rest, state.active, min(surplus, BURST), now)]
        if doomed:
            await self._delete_pods(key, state.job, doomed)
            return None, None
        missing = wanted - len(state.active) - (len(state.terminating) if state.replaces_only_failed else 0)
        if missing <= 0:
            return None, None
        if state.is_indexed:
            return await self._create_indexed(key, state, min(missing, BURST), now)
        wait_s = job_state.backoff_s(state, now)
        if wait_s > 0:
            return wait_s, None
        return None, await self._create(key, state.job, [new_pod(state.job, self.reference_to(state.job))] * min(missing, BURST))

    async def _create_indexed(self, key: str, state: State, count: int, now: float) -> tuple[float | None, ApiError | None]:
        indexes = job_state.free_indexes(state, count)
        waits: list[float] = []
        if state.per_index_limit is None:
            if (wait_s := job_state.backoff_s(state, now)) > 0:
                return wait_s, None
        else:
            delays = {one: job_state.backoff_s(state, now, one) for one in indexes}
            waits = [delay for delay in delays.values() if delay > 0]
            indexes = [one for one in indexes if delays[one] <= 0]
        reference = self.reference_to(state.job)
        made = []
        for one in indexes:
            failures = job_state.last_failures(state, one) if state.per_index_limit is not None else None
            made.append(indexed_pod(new_pod(state.job, reference), name_of(state.job), one, failures))
        return min(waits, default=None), await self._create(key, state.job, made)

    async def _create(self, key: str, job: Object, pods: Sequence[Object]) -> ApiError | None:
        outcome = await slow_start(len(pods), lambda number: self.create_prepared(key, job, pods[number]))
        for error in outcome.errors:
            if not isinstance(error, ApiError):
                raise error
            if not is_namespace_ending(error):
                return error
        return None

    async def _delete_pods(self, key: str, job: Object, pods: Sequence[Object]) -> None:
        await asyncio.gather(*(self.delete_pod(key, job, pod) for pod in pods))

    def _uncounted(self, status: Object, pods: Sequence[Object]) -> list[Object]:
        """Return the pods that an earlier turn noted as uncounted and did not get to release."""
        uncounted = status.get("uncountedTerminatedPods") or {}
        uids = {uid for part in uncounted.values() for uid in part}
        return [pod for pod in pods if uid_of(pod) in uids and is_tracked(pod)]

    async def _track(self, key: str, pod: Object) -> Object:
        """Put the finalizer on a pod that was adopted."""
        return await self._set_finalizers(key, pod, [*(at(pod, "metadata", "finalizers") or ()), TRACKING]) or pod

    async def _release(self, key: str, pod: Object) -> None:
        """Take the finalizer off: the pod is counted, or nobody counts it."""
        await self._set_finalizers(key, pod, [one for one in at(pod, "metadata", "finalizers") or () if one != TRACKING])

    async def _set_finalizers(self, key: str, pod: Object, finalizers: list[str]) -> Object | None:
        meta = {"uid": uid_of(pod), "resourceVersion": at(pod, "metadata", "resourceVersion"), "finalizers": finalizers or None}
        try:
            stored = await self.client.patch(PODS, name_of(pod), {"metadata": meta}, namespace=namespace_of(pod), patch_type="merge")
        except NotFound:
            return None
        self.wrote(key, PODS, stored)
        return decode_object(stored)

    async def _release_stray(self, key: str) -> None:
        pod = self.informer(PODS).get_by_key(key.removesuffix(STRAY))
        if pod is not None and is_tracked(pod) and controller_of(pod) is None:
            await self._release(key, pod)

    # -- the Job itself

    def _note_start(self, job: Object, status: Object, now: float) -> None:
        """Set or clear startTime and the Suspended condition, in `status`."""
        status["conditions"] = list(status.get("conditions") or [])
        suspended = get_condition({"status": status}, SUSPENDED)
        if at(job, "spec", "suspend"):
            if suspended is None or suspended.get("status") != "True":
                _set(status, SUSPENDED, "True", "JobSuspended", "Job suspended", now)
                self.recorder.event(job, "Normal", "Suspended", "Job suspended")
            status.pop("startTime", None)
        else:
            if suspended is not None and suspended.get("status") == "True":
                _set(status, SUSPENDED, "False", "JobResumed", "Job resumed", now)
                self.recorder.event(job, "Normal", "Resumed", "Job resumed")
            status.setdefault("startTime", rfc3339(now))
        if not status["conditions"]:
            del status["conditions"]

    async def _expire(self, job: Object) -> Requeue | None:
        """Delete a finished Job when its time has come."""
        ttl_s = at(job, "spec", "ttlSecondsAfterFinished")
        if ttl_s is None or is_deleting(job):
            return None
        finished = next(one for one in job["status"]["conditions"] if one["type"] in (COMPLETE, FAILED) and one["status"] == "True")
        left_s = parse_rfc3339(finished["lastTransitionTime"]) + ttl_s - self.now()
        if left_s > 0:
            return Requeue(after_s=left_s)
        version = at(job, "metadata", "resourceVersion")
        options = DeleteOptions(uid=uid_of(job), resource_version=version, propagation_policy="Foreground")
        try:
            await self.client.delete(JOBS, name_of(job), namespace=namespace_of(job), options=options)
        except NotFound:
            return None
        return None

    def _tell_end(self, job: Object, verdict: Verdict) -> None:
        if verdict.is_failure:
            self.recorder.event(job, "Warning", verdict.reason, verdict.message)
        else:
            self.recorder.event(job, "Normal", "Completed", "Job completed")


def is_finished(job: Object) -> bool:
    return is_condition_true(job, COMPLETE) or is_condition_true(job, FAILED)


def _verdict_of(job: Object) -> Verdict | None:
    """Return the verdict that the status already bears; it is never taken back."""
    for condition_type in (FAILURE_TARGET, SUCCESS_CRITERIA_MET):
        condition = get_condition(job, condition_type)
        if condition is not None and condition.get("status") == "True":
            return Verdict(condition_type == FAILURE_TARGET, condition.get("reason", ""), condition.get("message", ""))
    return None


def conclude(status: Object, verdict: Verdict, now: float, *, is_over: bool) -> None:
    """Put the verdict's conditions into `status`: how it will end, and, when it is over, that it has."""
    status["conditions"] = list(status.get("conditions") or [])
    interim, final = (FAILURE_TARGET, FAILED) if verdict.is_failure else (SUCCESS_CRITERIA_MET, COMPLETE)
    if not is_condition_true({"status": status}, interim):
        _set(status, interim, "True", verdict.reason, verdict.message, now)
    if is_over:
        _set(status, final, "True", verdict.reason, verdict.message, now)
        if not verdict.is_failure:
            status["completionTime"] = rfc3339(now)


def _set(status: Object, condition_type: str, value: str, reason: str, message: str, now: float) -> None:
    set_condition(status, condition_type, value, now=now, reason=reason, message=message, lastProbeTime=rfc3339(now))


def new_pod(job: Object, reference: Object) -> Object:
    """Return a pod of the Job, with the finalizer that keeps it until it is counted."""
    pod = pod_from_template(job["spec"]["template"], job, reference)
    pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or ()), TRACKING]
    return pod


def indexed_pod(pod: Object, job_name: str, index: int, failures: int | None) -> Object:
    """Return the pod as the one for completion index `index`: it learns its index by label, annotation, host name and environment."""
    meta, spec = pod["metadata"], pod["spec"]
    marks = {INDEX: str(index)} | ({INDEX_FAILURES: str(failures)} if failures is not None else {})
    metadata = {
        **meta,
        "generateName": f"{job_name}-{index}-",
        "labels": {**labels_of(pod), INDEX: str(index)},
        "annotations": {**annotations_of(pod), **marks},
    }
    source = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}}
    changed: Object = {"hostname": f"{job_name}-{index}"}
    for part in ("initContainers", "containers"):
        if spec.get(part):
            changed[part] = [_with_env(one, source) for one in spec[part]]
    return {**pod, "metadata": metadata, "spec": {**spec, **changed}}


def _with_env(container: Object, source: Object) -> Object:
    present = container.get("env") or []
    return container if any(one.get("name") == source["name"] for one in present) else {**container, "env": [*present, source]}
