"""What a Job's pods amount to, and what follows: is it over, how many pods are missing, which indexes.

Pure functions over plain dicts. A terminated pod is counted once although the controller may crash at any point: its uid is put
into status.uncountedTerminatedPods, then its finalizer is removed, then it moves into the counters. A pod of an indexed Job that
succeeded is counted by its index alone. Mirrors upstream pkg/controller/job.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from korch.api.meta import annotations_of, at, is_deleting, name_of, namespace_of, uid_of
from korch.api.pods import is_active, is_ready, is_terminal, phase_of
from korch.controllers.workload.indexes import format_indexes, parse_indexes
from korch.runtime.clock import parse_rfc3339

Object = dict[str, Any]

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
BACKOFF_S_FIRST, BACKOFF_S_MAX = 10.0, 600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a Job ends: the condition that says so, why, and (failures) nothing is left to decide."""

    is_failure: bool
    reason: str
    message: str


@dataclass(slots=True)
class State:
    """A Job and its pods, counted. `succeeded` and `failed` include what the status does not show yet."""

    job: Object
    pods: Sequence[Object]
    active: list[Object] = field(default_factory=list)
    terminating: list[Object] = field(default_factory=list)
    # Terminated pods that still carry the finalizer and are not in the uncounted lists.
    new_succeeded: list[Object] = field(default_factory=list)
    new_failed: list[Object] = field(default_factory=list)
    ignored: list[Object] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0
    succeeded_indexes: set[int] = field(default_factory=set)
    failed_indexes: set[int] = field(default_factory=set)

    @property
    def is_indexed(self) -> bool:
        return at(self.job, "spec", "completionMode") == "Indexed"

    @property
    def completions(self) -> int | None:
        return at(self.job, "spec", "completions")

    @property
    def per_index_limit(self) -> int | None:
        return at(self.job, "spec", "backoffLimitPerIndex")

    @property
    def replaces_only_failed(self) -> bool:
        """Whether a pod that is shutting down is waited for before another takes its place."""
        return at(self.job, "spec", "podReplacementPolicy") == "Failed" or bool(at(self.job, "spec", "podFailurePolicy"))


def is_tracked(pod: Object) -> bool:
    return TRACKING in (at(pod, "metadata", "finalizers") or ())


def index_of(pod: Object) -> int | None:
    """Return the pod's completion index, None when it has none."""
    text = annotations_of(pod).get(INDEX, "")
    return int(text) if text.isdecimal() else None


def index_failures(pod: Object) -> int:
    """Return how often the pod's index had failed before this pod."""
    text = annotations_of(pod).get(INDEX_FAILURES, "")
    return int(text) if text.isdecimal() else 0


def settle(status: Object, pods: Sequence[Object]) -> Object:
    """Return `status` with those uncounted pods counted that have lost their finalizer or are gone."""
    uncounted = status.get("uncountedTerminatedPods") or {}
    tracked = {uid_of(pod) for pod in pods if is_tracked(pod)}
    settled = dict(status)
    left: Object = {}
    for part in ("succeeded", "failed"):
        uids = uncounted.get(part) or []
        kept = [uid for uid in uids if uid in tracked]
        if counted := len(uids) - len(kept):
            settled[part] = settled.get(part, 0) + counted
        if kept:
            left[part] = kept
    settled["uncountedTerminatedPods"] = left
    return settled


def assess(job: Object, status: Object, pods: Sequence[Object]) -> State:
    """Count the pods. `status` is the Job's, already settled."""
    state = State(job, pods)
    uncounted = status.get("uncountedTerminatedPods") or {}
    known = {uid for part in ("succeeded", "failed") for uid in uncounted.get(part) or ()}
    for pod in pods:
        if is_active(pod):
            state.active.append(pod)
        elif is_deleting(pod) and not is_terminal(pod):
            state.terminating.append(pod)
        if not is_tracked(pod) or uid_of(pod) in known:
            continue
        if phase_of(pod) == "Succeeded":
            state.new_succeeded.append(pod)
        elif _has_failed(state, pod):
            action = failure_action(job, pod)[0]
            (state.ignored if action == "Ignore" else state.new_failed).append(pod)
    if state.is_indexed:
        completions = state.completions or 0
        state.succeeded_indexes = parse_indexes(status.get("completedIndexes"), completions)
        fresh = (index for pod in state.new_succeeded if (index := index_of(pod)) is not None)
        state.succeeded_indexes |= {one for one in fresh if one < completions}
        state.succeeded = len(state.succeeded_indexes)
        if state.per_index_limit is not None:
            state.failed_indexes = parse_indexes(status.get("failedIndexes"), completions) | set(_exhausted(state, state.per_index_limit))
    else:
        state.succeeded = status.get("succeeded", 0) + len(uncounted.get("succeeded") or ()) + len(state.new_succeeded)
    state.failed = status.get("failed", 0) + len(uncounted.get("failed") or ()) + len(state.new_failed)
    return state


def _has_failed(state: State, pod: Object) -> bool:
    if phase_of(pod) == "Failed":
        return True
    return not state.replaces_only_failed and is_deleting(pod)


def _exhausted(state: State, limit: int) -> list[int]:
    """Return the indexes that failed for good: one time more than allowed, or by a FailIndex rule."""
    found: list[int] = []
    for pod in state.new_failed:
        index = index_of(pod)
        if index is None or index in state.succeeded_indexes:
            continue
        if index_failures(pod) >= limit or failure_action(state.job, pod)[0] == "FailIndex":
            found.append(index)
    return found


def failure_action(job: Object, pod: Object) -> tuple[str, str]:
    """Return (action, message) of the first rule of the pod failure policy that matches; `Count` when none does."""
    if phase_of(pod) != "Failed":
        return "Count", ""
    for number, rule in enumerate(at(job, "spec", "podFailurePolicy", "rules") or ()):
        action = rule["action"]
        subject = f"pod {namespace_of(pod)}/{name_of(pod)}"
        if (codes := rule.get("onExitCodes")) is not None:
            hit = _matching_exit(codes, pod)
            if hit is not None:
                container, code = hit
                return action, f"Container {container} for {subject} failed with exit code {code} matching {action} rule at index {number}"
        elif (hit_condition := _matching_condition(rule.get("onPodConditions") or (), pod)) is not None:
            return action, f"Pod {namespace_of(pod)}/{name_of(pod)} has condition {hit_condition} matching {action} rule at index {number}"
    return "Count", ""


def _matching_exit(codes: Object, pod: Object) -> tuple[str, int] | None:
    values = codes.get("values") or ()
    for part in ("initContainerStatuses", "containerStatuses"):
        for one in at(pod, "status", part) or ():
            code = at(one, "state", "terminated", "exitCode")
            if not code or (codes.get("containerName") and codes["containerName"] != one.get("name")):
                continue
            if (code in values) == (codes.get("operator") == "In"):
                return one.get("name", ""), code
    return None


def _matching_condition(patterns: Sequence[Object], pod: Object) -> str | None:
    for condition in at(pod, "status", "conditions") or ():
        for pattern in patterns:
            if (pattern["type"], pattern.get("status", "True")) == (condition.get("type"), condition.get("status")):
                return condition["type"]
    return None


# -- is it over ----------------------------------------------------------------------------------------------------------------------


def judge(state: State, status: Object, now: float) -> Verdict | None:
    """Return how the Job ends, None while it goes on."""
    for pod in state.new_failed:
        action, message = failure_action(state.job, pod)
        if action == "FailJob":
            return Verdict(True, "PodFailurePolicy", message)
    if state.failed > (at(state.job, "spec", "backoffLimit") or 0) or _restarted_too_often(state):
        return Verdict(True, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if (left := deadline_in_s(state.job, status, now)) is not None and left <= 0:
        return Verdict(True, "DeadlineExceeded", "Job was active longer than specified deadline")
    if state.per_index_limit is not None and (verdict := _judge_indexes(state)) is not None:
        return verdict
    if (rule := _success_rule(state)) is not None:
        return Verdict(False, "SuccessPolicy", f"Matched rules at index {rule}")
    if _is_complete(state):
        return Verdict(False, "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _is_complete(state: State) -> bool:
    if state.completions is None:
        return state.succeeded > 0 and not state.active and not state.terminating
    return state.succeeded >= state.completions


def _judge_indexes(state: State) -> Verdict | None:
    most = at(state.job, "spec", "maxFailedIndexes")
    if most is not None and len(state.failed_indexes) > most:
        return Verdict(True, "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
    if state.failed_indexes and len(state.failed_indexes | state.succeeded_indexes) >= (state.completions or 0):
        return Verdict(True, "FailedIndexes", "Job has failed indexes")
    return None


def _success_rule(state: State) -> int | None:
    completions = state.completions
    if not state.is_indexed or completions is None:
        return None
    for number, rule in enumerate(at(state.job, "spec", "successPolicy", "rules") or ()):
        wanted = parse_indexes(rule["succeededIndexes"], completions) if rule.get("succeededIndexes") else set(range(completions))
        have = len(wanted & state.succeeded_indexes)
        if have >= (rule.get("succeededCount") or len(wanted)):
            return number
    return None


def _restarted_too_often(state: State) -> bool:
    if at(state.job, "spec", "template", "spec", "restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        one.get("restartCount", 0)
        for pod in state.active
        for part in ("initContainerStatuses", "containerStatuses")
        for one in at(pod, "status", part) or ()
    )
    limit = at(state.job, "spec", "backoffLimit") or 0
    return restarts > 0 if limit == 0 else restarts >= limit


def deadline_in_s(job: Object, status: Object, now: float) -> float | None:
    """Return the seconds left of activeDeadlineSeconds; None when there is none or the Job does not run."""
    limit_s, started = at(job, "spec", "activeDeadlineSeconds"), status.get("startTime")
    if limit_s is None or not started or at(job, "spec", "suspend"):
        return None
    return parse_rfc3339(started) + limit_s - now


# -- which pods are missing ----------------------------------------------------------------------------------------------------------


def wanted_active(state: State) -> int:
    """Return how many pods should run now."""
    parallelism = at(state.job, "spec", "parallelism")
    parallelism = 1 if parallelism is None else parallelism
    if state.completions is None:
        return min(len(state.active), parallelism) if state.succeeded > 0 else parallelism
    return max(0, min(state.completions - state.succeeded - len(state.failed_indexes), parallelism))


def free_indexes(state: State, count: int) -> list[int]:
    """Return the lowest `count` indexes without a pod that runs, ended well, failed for good, or must be waited for."""
    taken = {index_of(pod) for pod in state.active} | state.succeeded_indexes | state.failed_indexes
    if state.replaces_only_failed:
        taken |= {index_of(pod) for pod in state.terminating}
    found: list[int] = []
    for one in range(state.completions or 0):
        if len(found) >= count:
            break
        if one not in taken:
            found.append(one)
    return found


def surplus_indexed(state: State) -> list[Object]:
    """Return active pods of indexed Jobs that do a taken or impossible index: all but the oldest of each."""
    seen: set[int] = set()
    found: list[Object] = []
    for pod in sorted(state.active, key=lambda one: (at(one, "metadata", "creationTimestamp") or "", name_of(one))):
        index = index_of(pod)
        if index is None or index >= (state.completions or 0) or index in seen or index in state.succeeded_indexes | state.failed_indexes:
            found.append(pod)
        else:
            seen.add(index)
    return found


def last_failures(state: State, index: int) -> int:
    """Return how often this index has failed, as its pods tell."""
    failed = [*state.new_failed, *(pod for pod in state.pods if phase_of(pod) == "Failed")]
    return max((index_failures(pod) + 1 for pod in failed if index_of(pod) == index), default=0)


def backoff_s(state: State, now: float, index: int | None = None) -> float:
    """Return the seconds to wait before another pod is made after failures (10 s, doubling, 10 min at most), 0 when none.

    Counts failed pods since the last success that ended; with `index` only those of that index."""
    ended: list[tuple[float, bool]] = []
    for pod in state.pods:
        if (index is None or index_of(pod) == index) and (is_terminal(pod) or is_deleting(pod)):
            finished = finish_time(pod)
            if finished is not None:
                ended.append((finished, phase_of(pod) == "Succeeded"))
    last_success = max((when for when, is_success in ended if is_success), default=0.0)
    failures = [when for when, is_success in ended if not is_success and when > last_success]
    if not failures:
        return 0.0
    delay_s = min(BACKOFF_S_FIRST * 2 ** min(len(failures) - 1, 30), BACKOFF_S_MAX)
    return max(0.0, max(failures) + delay_s - now)


def finish_time(pod: Object) -> float | None:
    """Return when the pod ended (seconds since the epoch): its last container's end, or the time it turned not ready or was deleted."""
    statuses = [one for part in ("initContainerStatuses", "containerStatuses") for one in at(pod, "status", part) or ()]
    ends = [end for one in statuses if (end := at(one, "state", "terminated", "finishedAt"))]
    if ends:
        return max(map(parse_rfc3339, ends))
    ready = next((one for one in at(pod, "status", "conditions") or () if one.get("type") == "Ready"), None)
    if ready is not None and ready.get("status") == "False" and is_terminal(pod) and ready.get("lastTransitionTime"):
        return parse_rfc3339(ready["lastTransitionTime"])
    deleted = at(pod, "metadata", "deletionTimestamp") or at(pod, "metadata", "creationTimestamp")
    grace = at(pod, "metadata", "deletionGracePeriodSeconds") or 0
    return parse_rfc3339(deleted) - grace if deleted else None


# -- status --------------------------------------------------------------------------------------------------------------------------


def plan_status(state: State, settled: Object, releasable: Sequence[Object]) -> Object:
    """Return the status with the pods in `releasable` (terminated, about to lose their finalizer) noted as uncounted or by index."""
    status = dict(settled)
    uncounted = {part: list(uids) for part, uids in (settled.get("uncountedTerminatedPods") or {}).items() if uids}
    released = {uid_of(pod) for pod in releasable}
    if not state.is_indexed:
        uncounted.setdefault("succeeded", []).extend(uid_of(pod) for pod in state.new_succeeded if uid_of(pod) in released)
    uncounted.setdefault("failed", []).extend(uid_of(pod) for pod in state.new_failed if uid_of(pod) in released)
    status["uncountedTerminatedPods"] = {part: uids for part, uids in uncounted.items() if uids}
    if state.is_indexed:
        if state.succeeded:
            status["succeeded"] = state.succeeded
        if text := format_indexes(state.succeeded_indexes):
            status["completedIndexes"] = text
        if state.per_index_limit is not None:
            status["failedIndexes"] = format_indexes(state.failed_indexes)
    if state.active:
        status["active"] = len(state.active)
    else:
        status.pop("active", None)
    status["ready"] = sum(map(is_ready, state.active))
    status["terminating"] = len(state.terminating)
    return status


def releasable(state: State, *, is_ending: bool) -> list[Object]:
    """Return the terminated pods whose finalizer may go now. With a limit per index the newest failed pod of an index that will be
    tried again stays until its successor exists, since it knows how often the index has failed."""
    ended = [*state.new_succeeded, *state.ignored]
    for pod in state.new_failed:
        index = index_of(pod)
        if (
            state.per_index_limit is None
            or is_ending
            or index is None
            or index in state.failed_indexes | state.succeeded_indexes
            or any(index_of(other) == index and index_failures(other) > index_failures(pod) for other in state.pods)
        ):
            ended.append(pod)
    return ended
