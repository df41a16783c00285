"""Job: runs pods until enough of them have succeeded."""

from __future__ import annotations

from korch.api.conditions import is_condition_true
from korch.api.duration import human_duration
from korch.api.meta import at, is_deleting
from korch.resources.columns import AGE, NAME, cell, template_columns
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.subresources import STATUS
from korch.runtime.clock import parse_rfc3339


def _status(job: Object) -> str:
    for condition in ("Complete", "Failed"):
        if is_condition_true(job, condition):
            return condition
    if is_deleting(job):
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if is_condition_true(job, condition):
            return condition
    return "Running"


def _completions(job: Object) -> str:
    succeeded, wanted = at(job, "status", "succeeded") or 0, at(job, "spec", "completions")
    if wanted is not None:
        return f"{succeeded}/{wanted}"
    parallelism = at(job, "spec", "parallelism") or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Object, now: float) -> str:
    started, completed = at(job, "status", "startTime"), at(job, "status", "completionTime")
    if not started:
        return ""
    return human_duration((parse_rfc3339(completed) if completed else now) - parse_rfc3339(started))


RESOURCE = Resource(
    group="batch",
    version="v1",
    kind="Job",
    plural="jobs",
    singular="job",
    schema="io.k8s.api.batch.v1.Job",
    categories=("all",),
    strategy=Strategy(has_status=True, has_generation=True, default_propagation="Orphan"),
    subresources=(STATUS,),
    selectable_fields={"status.successful": lambda job: str(at(job, "status", "succeeded") or 0)},
    columns=(
        NAME,
        cell("Status", _status, description="How far the job is."),
        cell("Completions", _completions, description="Pods that succeeded, of those wanted."),
        Column("Duration", _duration, description="Time from the start to the end or to now."),
        AGE,
        *template_columns("spec", "template"),
    ),
)
