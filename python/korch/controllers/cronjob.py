"""Makes a Job whenever a CronJob's schedule is due.

Watches CronJobs and the Jobs that they control; writes Jobs (create, delete), and CronJob status. Invariants: a Job's name is that of the
minute it is for, so that the same time never makes two, whatever answer is lost; of several times that were missed only the last is
made up for; a Job is deleted only when it has finished and exceeds its history limit, or is replaced. Mirrors upstream
pkg/controller/cronjob (the v2 controller).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from korch.api.conditions import is_condition_true
from korch.api.cron import Schedule
from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import CRON_JOBS, JOBS
from korch.api.meta import annotations_of, at, controller_of, is_deleting, name_of, namespace_of, uid_of
from korch.client.controller import Requeue, Watch
from korch.client.protocol import DeleteOptions
from korch.controllers.workload.controller import WorkloadController, decode_object, is_namespace_ending, watch_own
from korch.controllers.workload.ownership import OWNER_INDEXES
from korch.runtime.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]

SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
# A turn comes a little after its time, so that a clock that rounds does not come before it.
_DELTA_S = 0.1
_MANY_MISSED = 100
_BY_CRON_JOB = "cron-job"


@dataclass(frozen=True, slots=True)
class Due:
    """What a schedule says at some moment: since when it is looked at, the last time that is due (None: none), and how many are."""

    earliest: float
    last: float | None
    missed: int


def due(cron_job: Object, schedule: Schedule, now: float, *, with_deadline: bool) -> Due:
    """Return what is due. Raises ValueError for a schedule that never is. Mirrors mostRecentScheduleTime."""
    earliest = parse_rfc3339(at(cron_job, "status", "lastScheduleTime") or cron_job["metadata"]["creationTimestamp"])
    deadline_s = at(cron_job, "spec", "startingDeadlineSeconds")
    if with_deadline and deadline_s is not None:
        earliest = max(earliest, now - deadline_s)
    first = schedule.next(earliest)
    second = schedule.next(first) if first is not None else None
    if first is None or second is None:
        raise ValueError("time difference between two schedules is less than 1 second")
    if now < first:
        return Due(earliest, None, 0)
    if now < second:
        return Due(earliest, first, 0)
    period_s = max(1, round(second - first))
    missed = int(now - first) // period_s + 1
    # Estimated by the first period, and one step back, for schedules whose times lie unevenly.
    last: float | None = None
    one = schedule.next(first + (missed - 2) * period_s)
    while one is not None and one <= now:
        last, one = one, schedule.next(one)
    return Due(earliest, last, missed)


def next_turn_s(cron_job: Object, schedule: Schedule, now: float) -> float | None:
    """Return in how many seconds the schedule is due next. Mirrors nextScheduleTimeDuration."""
    try:
        found = due(cron_job, schedule, now, with_deadline=False)
        start = found.last if found.last is not None else now if found.missed else found.earliest
    except ValueError:
        start = now
    following = schedule.next(start)
    return None if following is None else max(_DELTA_S, following + _DELTA_S - now)


class CronJobController(WorkloadController):
    """Reconciles one CronJob a key."""

    name = "cronjob-controller"
    workers = 5
    resource = CRON_JOBS
    watches = (
        watch_own(CRON_JOBS),
        Watch(JOBS, keys="dependent_keys", decode=decode_object, indexes={**OWNER_INDEXES, _BY_CRON_JOB: lambda job: _owners(job)}),
    )

    def dependent_keys(self, obj: Object) -> Iterable[str]:
        """Map a Job to the CronJob that controls it."""
        return _owners(obj)

    async def reconcile(self, key: str) -> Requeue | None:
        cron_job = self.informer(CRON_JOBS).get_by_key(key)
        if cron_job is None:
            return None
        jobs = [one for one in self.informer(JOBS).by_index(_BY_CRON_JOB, key) if at(controller_of(one), "uid") == uid_of(cron_job)]
        status = {**(cron_job.get("status") or {})}
        active: list[Object] = [*(status.get("active") or ())]
        self._observe(cron_job, jobs, status, active)
        turn = await self._start(key, cron_job, status, active)
        await self._forget_old(key, cron_job, jobs, active)
        status["active"] = active
        if not active:
            del status["active"]
        await self.put_status(key, cron_job, status)
        return turn

    # -- what has become of the Jobs

    def _observe(self, cron_job: Object, jobs: Sequence[Object], status: Object, active: list[Object]) -> None:
        listed = {one.get("uid") for one in active}
        for job in jobs:
            is_listed, end = uid_of(job) in listed, finished(job)
            if not is_listed and not end:
                message = f"Saw a job that the controller did not create or forgot: {name_of(job)}"
                self.recorder.event(cron_job, "Warning", "UnexpectedJob", message)
            elif is_listed and end:
                _unlist(active, uid_of(job))
                message = f"Saw completed job: {name_of(job)}, condition: {end}"
                self.recorder.event(cron_job, "Normal", "SawCompletedJob", message)
            completed = at(job, "status", "completionTime")
            if end == "Complete" and completed and completed > (status.get("lastSuccessfulTime") or ""):
                status["lastSuccessfulTime"] = completed
        present = {uid_of(job) for job in jobs}
        for one in [*active]:
            if one.get("uid") not in present:
                self.recorder.event(cron_job, "Normal", "MissingJob", f"Active job went missing: {one.get('name')}")
                _unlist(active, one.get("uid"))

    # -- what is due

    async def _start(self, key: str, cron_job: Object, status: Object, active: list[Object]) -> Requeue | None:
        """Make what is due, noting it in `status` and `active`; return when to look again."""
        spec: Object = cron_job["spec"]
        if is_deleting(cron_job):
            return None
        schedule = self._schedule(cron_job)
        if schedule is None or spec.get("suspend"):
            return None
        now = self.now()
        try:
            found = due(cron_job, schedule, now, with_deadline=True)
        except ValueError as error:
            self.recorder.event(cron_job, "Warning", "InvalidSchedule", f"invalid schedule: {spec['schedule']} : {error}")
            return None
        if found.missed > _MANY_MISSED:
            why = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.recorder.event(cron_job, "Warning", "TooManyMissedTimes", why)
        if found.last is not None and self._may_start(cron_job, active, found.last, now):
            await self._make(key, cron_job, status, active, found.last)
        noted = {**cron_job, "status": status}
        turn_s = next_turn_s(noted, schedule, now)
        return Requeue(after_s=turn_s) if turn_s is not None else None

    def _schedule(self, cron_job: Object) -> Schedule | None:
        spec: Object = cron_job["spec"]
        zone = spec.get("timeZone")
        try:
            known = _zone(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            message = f'invalid timeZone: "{zone}": unknown time zone {zone}'
            self.recorder.event(cron_job, "Warning", "UnknownTimeZone", message)
            return None
        try:
            return Schedule.parse(spec["schedule"], known)
        except ValueError as error:
            message = f'unparseable schedule: "{spec["schedule"]}" : {error}'
            self.recorder.event(cron_job, "Warning", "UnparseableSchedule", message)
            return None

    def _may_start(self, cron_job: Object, active: Sequence[Object], time: float, now: float) -> bool:
        spec: Object = cron_job["spec"]
        deadline_s = spec.get("startingDeadlineSeconds")
        if deadline_s is not None and time + deadline_s < now:
            shown = datetime.fromtimestamp(time, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
            self.recorder.event(cron_job, "Warning", "MissSchedule", f"Missed scheduled time to start a job: {shown}")
            return False
        if any(one.get("name") == job_name(cron_job, time) for one in active):
            return False
        if at(cron_job, "status", "lastScheduleTime") == rfc3339(time):
            return False
        if spec.get("concurrencyPolicy") == "Forbid" and active:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.recorder.event(cron_job, "Normal", "JobAlreadyActive", message)
            return False
        return True

    async def _make(self, key: str, cron_job: Object, status: Object, active: list[Object], time: float) -> None:
        if cron_job["spec"].get("concurrencyPolicy") == "Replace":
            for one in [*active]:
                await self._delete(key, cron_job, one["name"], one["uid"])
                _unlist(active, one["uid"])
        wanted = job_for(cron_job, self.reference_to(cron_job), time)
        namespace = namespace_of(cron_job)
        try:
            stored = await self.client.create(JOBS, wanted, namespace=namespace)
        except AlreadyExists:
            stored = await self.client.get(JOBS, name_of(wanted), namespace=namespace)
            present = decode_object(stored)
            if at(controller_of(present), "uid") != uid_of(cron_job):
                raise
            if finished(present):
                status["lastScheduleTime"] = rfc3339(time)
                return
        except ApiError as error:
            if is_namespace_ending(error):
                return
            self.recorder.event(cron_job, "Warning", "FailedCreate", f"Error creating job: {error.message}")
            raise
        else:
            self.recorder.event(cron_job, "Normal", "SuccessfulCreate", f"Created job {name_of(wanted)}")
        self.wrote(key, JOBS, stored)
        active.append(_listed(decode_object(stored)))
        status["lastScheduleTime"] = rfc3339(time)

    # -- what is over

    async def _forget_old(self, key: str, cron_job: Object, jobs: Sequence[Object], active: list[Object]) -> None:
        """Delete finished Jobs beyond the history limits, oldest first."""
        spec: Object = cron_job["spec"]
        for end, field in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
            limit = spec.get(field)
            ended = [one for one in jobs if finished(one) == end]
            if limit is None or len(ended) <= limit:
                continue
            ended.sort(key=lambda one: (at(one, "status", "startTime") or "", name_of(one)))
            for one in ended[: len(ended) - limit]:
                await self._delete(key, cron_job, name_of(one), uid_of(one))
                _unlist(active, uid_of(one))

    async def _delete(self, key: str, cron_job: Object, name: str, uid: str) -> None:
        options = DeleteOptions(uid=uid, propagation_policy="Background")
        try:
            await self.client.delete(JOBS, name, namespace=namespace_of(cron_job), options=options)
        except NotFound:
            return
        except ApiError as error:
            self.recorder.event(cron_job, "Warning", "FailedDelete", f"Deleted job: {error.message}")
            raise
        self.recorder.event(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {name}")


def finished(job: Object) -> str:
    """Return `Complete` or `Failed` for a Job that has ended, "" for one that goes on."""
    return next((one for one in ("Complete", "Failed") if is_condition_true(job, one)), "")


def job_name(cron_job: Object, time: float) -> str:
    """Return the name of the Job for a time: one a minute."""
    return f"{name_of(cron_job)}-{int(time) // 60}"


def job_for(cron_job: Object, reference: Object, time: float) -> Object:
    """Return the Job for a time."""
    template: Object = cron_job["spec"]["jobTemplate"]
    shown = datetime.fromtimestamp(time, _zone(cron_job["spec"].get("timeZone"))).isoformat().replace("+00:00", "Z")
    metadata: Object = {
        "name": job_name(cron_job, time),
        "namespace": namespace_of(cron_job),
        "annotations": {**annotations_of(template), SCHEDULED_AT: shown},
        "ownerReferences": [reference],
    }
    if labels := at(template, "metadata", "labels"):
        metadata["labels"] = labels
    return {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": metadata, "spec": template.get("spec") or {}}


def _owners(job: Object) -> Iterable[str]:
    controller = controller_of(job)
    if controller is None or controller.get("kind") != CRON_JOBS.kind or controller.get("apiVersion") != CRON_JOBS.api_version:
        return ()
    return (f"{namespace_of(job)}/{controller.get('name')}",)


def _zone(name: str | None) -> tzinfo:
    return ZoneInfo(name) if name else UTC


def _listed(job: Object) -> Object:
    meta = job["metadata"]
    return {
        "kind": JOBS.kind,
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
        "apiVersion": JOBS.api_version,
        "resourceVersion": meta["resourceVersion"],
    }


def _unlist(active: list[Object], uid: Any) -> None:
    active[:] = [one for one in active if one.get("uid") != uid]
