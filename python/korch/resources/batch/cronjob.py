"""CronJob: makes a Job at every tick of a schedule."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from korch.api.duration import since
from korch.api.errors import Cause, invalid, not_supported, required
from korch.api.meta import at
from korch.api.validation import check_enum
from korch.resources.columns import AGE, NAME, NONE, UNSET, cell, format_selector, template_columns, text
from korch.resources.cron import schedule_error
from korch.resources.job_rules import check_job_spec
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.subresources import STATUS
from korch.resources.workloads import check_counts


def _suspend(obj: Object) -> str:
    suspend = at(obj, "spec", "suspend")
    return UNSET if suspend is None else str(bool(suspend))


def _last_schedule(obj: Object, now: float) -> str:
    last = at(obj, "status", "lastScheduleTime")
    return since(last, now) if last else NONE


def _selector(obj: Object) -> str:
    return format_selector(at(obj, "spec", "jobTemplate", "spec", "selector"))


def default(obj: Object) -> None:
    """Fill in a CronJob, in place; its job template is filled in only when a Job is made of it. Mirrors SetDefaults_CronJob."""
    spec = fill(obj, "spec", {})
    fill(spec, "concurrencyPolicy", "Allow")
    fill(spec, "suspend", False)
    fill(spec, "successfulJobsHistoryLimit", 3)
    fill(spec, "failedJobsHistoryLimit", 1)
    default_pod_template(at(spec, "jobTemplate", "spec", "template"))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a CronJob. Mirrors ValidateCronJobCreate."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    name = at(obj, "metadata", "name") or ""
    if len(name) > _NAME_MAX:
        causes.append(invalid("metadata.name", name, f"must be no more than {_NAME_MAX} characters"))
    schedule = spec.get("schedule") or ""
    if not schedule:
        causes.append(required("spec.schedule"))
    elif "TZ" in schedule:
        causes.append(invalid("spec.schedule", schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
    elif error := schedule_error(schedule):
        causes.append(invalid("spec.schedule", schedule, error))
    _check_zone(causes, spec)
    check_counts(causes, spec, ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"))
    check_enum(causes, spec.get("concurrencyPolicy"), "spec.concurrencyPolicy", ("Allow", "Forbid", "Replace"))
    job_spec = at(spec, "jobTemplate", "spec") or {}
    if job_spec.get("manualSelector"):
        causes.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    if job_spec.get("selector") is not None:
        causes.append(invalid("spec.jobTemplate.spec.selector", job_spec["selector"], "`selector` will be auto-generated"))
    check_job_spec(causes, job_spec, "spec.jobTemplate.spec")
    return causes


def _check_zone(causes: list[Cause], spec: Object) -> None:
    """Check the time zone. Mirrors validateTimeZone."""
    zone = spec.get("timeZone")
    if zone is None:
        return
    if not zone:
        causes.append(invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string"))
    elif zone.lower() == "local":
        causes.append(
            invalid("spec.timeZone", zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")
        )
    else:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            causes.append(invalid("spec.timeZone", zone, f"unknown time zone {zone}"))


# The jobs' names get eleven characters more.
_NAME_MAX = 52


RESOURCE = Resource(
    group="batch",
    version="v1",
    kind="CronJob",
    plural="cronjobs",
    singular="cronjob",
    schema="io.k8s.api.batch.v1.CronJob",
    short_names=("cj",),
    categories=("all",),
    strategy=Strategy(default=default, validate=validate, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=(
        NAME,
        text("Schedule", "spec", "schedule", description="When, in cron's five fields."),
        text("Timezone", "spec", "timeZone", description="Whose wall clock the schedule follows.", missing=NONE),
        Column("Suspend", lambda obj, _now: _suspend(obj), type="boolean", description="Whether it is held back."),
        Column("Active", lambda obj, _now: len(at(obj, "status", "active") or ()), type="integer", description="Jobs that run now."),
        Column("Last Schedule", _last_schedule, description="Time since the last tick that made a job."),
        AGE,
        *template_columns("spec", "jobTemplate", "spec", "template", selector=False),
        cell("Selector", _selector, description="Which pods belong to its jobs.", priority=1),
    ),
)
