"""Job: runs pods until enough of them have succeeded."""

from __future__ import annotations

from korch.api.conditions import is_condition_true
from korch.api.duration import human_duration
from korch.api.meta import at, is_deleting
from korch.resources.columns import AGE, NAME, cell, template_columns
from korch.resources.job_rules import NAME_LABEL, OLD_NAME_LABEL, OLD_UID_LABEL, UID_LABEL, validate_job, validate_job_update
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Column, Context, Object, Resource, Strategy
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


_NO_BACKOFF_LIMIT = 2**31 - 1


def default(job: Object) -> None:
    """Fill in a Job, in place. Mirrors SetDefaults_Job."""
    spec = fill(job, "spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    fill(spec, "parallelism", 1)
    fill(spec, "backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else _NO_BACKOFF_LIMIT)
    fill(spec, "completionMode", "NonIndexed")
    fill(spec, "suspend", False)
    fill(spec, "manualSelector", False)
    failure_policy = spec.get("podFailurePolicy")
    for rule in (failure_policy or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            fill(pattern, "status", "True")
    fill(spec, "podReplacementPolicy", "TerminatingOrFailed" if failure_policy is None else "Failed")
    labels = at(spec, "template", "metadata", "labels")
    if labels:
        metadata = fill(job, "metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    default_pod_template(spec.get("template"))


def prepare_create(job: Object, _context: Context) -> None:
    """Give the job's pods labels that no other job has, and select by them, unless the user does so (manualSelector).

    The object has its name and uid already. Mirrors generateSelector of the job strategy.
    """
    spec = job["spec"]
    template = spec.get("template")
    if spec.get("manualSelector") or template is None:
        return
    name, uid = job["metadata"].get("name", ""), job["metadata"].get("uid", "")
    labels = fill(fill(template, "metadata", {}), "labels", {})
    for label, value in ((OLD_NAME_LABEL, name), (NAME_LABEL, name), (OLD_UID_LABEL, uid), (UID_LABEL, uid)):
        # What the user wrote stays, and validation refuses it.
        labels.setdefault(label, value)
    selector = fill(spec, "selector", {})
    fill(fill(selector, "matchLabels", {}), UID_LABEL, uid)


RESOURCE = Resource(
    group="batch",
    version="v1",
    kind="Job",
    plural="jobs",
    singular="job",
    schema="io.k8s.api.batch.v1.Job",
    categories=("all",),
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        validate=validate_job,
        validate_update=validate_job_update,
        has_status=True,
        has_generation=True,
        default_propagation="Orphan",
    ),
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
