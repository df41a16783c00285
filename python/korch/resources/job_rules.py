"""Rules of a Job, alone and inside a CronJob. Mirrors kubernetes' pkg/apis/batch/validation."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, not_supported, required
from korch.api.meta import at, labels_of
from korch.api.validation import (
    SELECTOR_MISMATCH,
    check_enum,
    check_immutable,
    check_label_selector,
    selector_matches,
)
from korch.resources.podspec.validation import check_pod_template
from korch.resources.resource import Object
from korch.resources.workloads import check_counts

UID_LABEL, NAME_LABEL = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"
# The same labels under their first names, which old clients select by.
OLD_UID_LABEL, OLD_NAME_LABEL = "controller-uid", "job-name"
_PARALLELISM_INDEXED_MAX = 100_000
# What may change in the template of a job that is suspended and has never run.
_SCHEDULING_FIELDS = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def validate_job(job: Object) -> list[Cause]:
    """Return what is wrong with a Job."""
    causes: list[Cause] = []
    spec = job.get("spec") or {}
    _check_generated_selector(causes, job, spec)
    check_job_spec(causes, spec, "spec")
    selector, labels = spec.get("selector"), at(spec, "template", "metadata", "labels")
    if selector is not None and not selector_matches(selector, labels):
        causes.append(invalid("spec.template.metadata.labels", labels or {}, SELECTOR_MISMATCH))
    return causes


def check_job_spec(causes: list[Cause], spec: Object, path: str) -> None:
    """Check a JobSpec, but for what a selector must match."""
    counts = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "maxFailedIndexes")
    check_counts(causes, spec, (*counts, "backoffLimitPerIndex"), path=path)
    check_label_selector(causes, spec.get("selector"), f"{path}.selector")
    mode = spec.get("completionMode")
    check_enum(causes, mode, f"{path}.completionMode", ("Indexed", "NonIndexed"), is_required=False)
    if mode == "Indexed":
        if spec.get("completions") is None:
            causes.append(required(f"{path}.completions", f"when completion mode is {mode}"))
        elif (spec.get("parallelism") or 0) > _PARALLELISM_INDEXED_MAX:
            detail = f"must be less than or equal to {_PARALLELISM_INDEXED_MAX} when completion mode is {mode}"
            causes.append(invalid(f"{path}.parallelism", spec["parallelism"], detail))
    elif spec.get("backoffLimitPerIndex") is not None:
        causes.append(invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode"))
    policies = ("Failed", "TerminatingOrFailed") if spec.get("podFailurePolicy") is None else ("Failed",)
    check_enum(causes, spec.get("podReplacementPolicy"), f"{path}.podReplacementPolicy", policies, is_required=False)
    template = spec.get("template")
    if template is None:
        causes.append(required(f"{path}.template"))
        return
    check_pod_template(causes, template, f"{path}.template")
    policy, where = at(template, "spec", "restartPolicy"), f"{path}.template.spec.restartPolicy"
    if policy in (None, "", "Always"):
        # The default is Always, so nobody can tell whether it was written.
        causes.append(required(where, 'valid values: "OnFailure", "Never"'))
    elif policy not in ("OnFailure", "Never"):
        causes.append(not_supported(where, policy, ("OnFailure", "Never")))


def validate_job_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes what the job's pods were made from."""
    causes: list[Cause] = []
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    check_immutable(causes, new_spec.get("selector"), old_spec.get("selector"), "spec.selector")
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"):
        check_immutable(causes, new_spec.get(field), old_spec.get(field), f"spec.{field}")
    if new_spec.get("completions") != old_spec.get("completions"):
        # An indexed job may grow or shrink when its parallelism does the same.
        is_elastic = new_spec.get("completionMode") == "Indexed" and new_spec.get("completions") == new_spec.get("parallelism")
        if not is_elastic:
            check_immutable(causes, new_spec.get("completions"), old_spec.get("completions"), "spec.completions")
    new_template, old_template = new_spec.get("template") or {}, old_spec.get("template") or {}
    if old_spec.get("suspend") and not at(old, "status", "startTime"):
        new_template, old_template = _without_scheduling(new_template), _without_scheduling(old_template)
    check_immutable(causes, new_template, old_template, "spec.template")
    return causes


def _without_scheduling(template: Object) -> Object:
    spec = {key: value for key, value in (template.get("spec") or {}).items() if key not in _SCHEDULING_FIELDS}
    metadata = {key: value for key, value in (template.get("metadata") or {}).items() if key not in ("labels", "annotations")}
    return {**template, "spec": spec, "metadata": metadata}


def _check_generated_selector(causes: list[Cause], job: Object, spec: Object) -> None:
    """Unless the user selects (manualSelector), the pods carry the job's own labels, and nothing else may stand in their place."""
    if spec.get("manualSelector"):
        if spec.get("selector") is None:
            causes.append(required("spec.selector"))
        return
    if spec.get("selector") is None:
        return
    labels = labels_of(spec.get("template") or {})
    uid, name = at(job, "metadata", "uid") or "", at(job, "metadata", "name") or ""
    for label, wanted in ((OLD_UID_LABEL, uid), (OLD_NAME_LABEL, name), (UID_LABEL, uid), (NAME_LABEL, name)):
        have = labels.get(label)
        path = f"spec.template.metadata.labels[{label}]"
        if have is None:
            causes.append(required(path, f"must be '{wanted}'"))
        elif have != wanted:
            causes.append(invalid(path, labels, f"must be '{wanted}'"))
    if (at(spec, "selector", "matchLabels") or {}).get(UID_LABEL, uid) != uid:
        causes.append(invalid("spec.selector", spec["selector"], "`selector` not auto-generated"))
