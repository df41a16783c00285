"""Deployment: rolls a set of pods from one template to the next."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell, number, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS
from korch.resources.workloads import check_counts, check_rolling_update, check_selector_and_template, validate_immutable_selector


def _ready(obj: Object) -> str:
    return f"{at(obj, 'status', 'readyReplicas') or 0}/{at(obj, 'spec', 'replicas') or 0}"


def default(obj: Object) -> None:
    """Fill in a Deployment, in place. Mirrors SetDefaults_Deployment of apps/v1."""
    spec = fill(obj, "spec", {})
    fill(spec, "replicas", 1)
    strategy = fill(spec, "strategy", {})
    if fill(strategy, "type", "RollingUpdate") == "RollingUpdate":
        rolling_update = fill(strategy, "rollingUpdate", {})
        fill(rolling_update, "maxUnavailable", "25%")
        fill(rolling_update, "maxSurge", "25%")
    fill(spec, "revisionHistoryLimit", 10)
    fill(spec, "progressDeadlineSeconds", 600)
    default_pod_template(spec.get("template"))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a Deployment. Mirrors ValidateDeploymentSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_counts(causes, spec, ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"))
    check_selector_and_template(causes, spec, "ReplicaSet", empty="deployment")
    _check_strategy(causes, spec.get("strategy") or {}, "spec.strategy")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        causes.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return causes


def _check_strategy(causes: list[Cause], strategy: Object, path: str) -> None:
    rolling_update = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "Recreate":
            if rolling_update is not None:
                detail = "may not be specified when strategy `type` is 'Recreate'"
                causes.append(forbidden_field(f"{path}.rollingUpdate", detail))
        case "RollingUpdate":
            if rolling_update is None:
                causes.append(required(f"{path}.rollingUpdate", "this should be defaulted and never be nil"))
            else:
                check_rolling_update(causes, rolling_update, f"{path}.rollingUpdate", both_zero="may not be 0 when `maxSurge` is 0")
        case other:
            causes.append(not_supported(f"{path}.type", other or "", ("Recreate", "RollingUpdate")))


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    schema="io.k8s.api.apps.v1.Deployment",
    short_names=("deploy",),
    categories=("all",),
    strategy=Strategy(
        default=default, validate=validate, validate_update=validate_immutable_selector, has_status=True, has_generation=True
    ),
    subresources=(SCALE, STATUS),
    scale=Scale(),
    columns=(
        NAME,
        cell("Ready", _ready, description="Pods that are ready, of those wanted."),
        number("Up-to-date", "status", "updatedReplicas", description="Pods of the newest template."),
        number("Available", "status", "availableReplicas", description="Pods ready for at least minReadySeconds."),
        AGE,
        *template_columns("spec", "template"),
    ),
)
