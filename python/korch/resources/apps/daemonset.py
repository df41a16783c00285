"""DaemonSet: one pod on every node that fits."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, not_supported, required
from korch.api.meta import at
from korch.api.validation import is_zero
from korch.resources.columns import AGE, NAME, cell, format_labels, number, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS
from korch.resources.workloads import check_counts, check_rolling_update, check_selector_and_template, validate_immutable_selector


def _node_selector(obj: Object) -> str:
    return format_labels(at(obj, "spec", "template", "spec", "nodeSelector"))


def default(obj: Object) -> None:
    """Fill in a DaemonSet, in place. Mirrors SetDefaults_DaemonSet of apps/v1."""
    spec = fill(obj, "spec", {})
    strategy = fill(spec, "updateStrategy", {})
    if fill(strategy, "type", "RollingUpdate") == "RollingUpdate":
        rolling_update = fill(strategy, "rollingUpdate", {})
        fill(rolling_update, "maxUnavailable", 1)
        fill(rolling_update, "maxSurge", 0)
    fill(spec, "revisionHistoryLimit", 10)
    default_pod_template(spec.get("template"))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a DaemonSet. Mirrors ValidateDaemonSetSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_selector_and_template(causes, spec, "DaemonSet", empty="daemonset")
    check_counts(causes, spec, ("minReadySeconds", "revisionHistoryLimit"))
    strategy, path = spec.get("updateStrategy") or {}, "spec.updateStrategy"
    rolling_update = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "OnDelete":
            pass
        case "RollingUpdate":
            if rolling_update is None:
                causes.append(required(f"{path}.rollingUpdate"))
            else:
                check_rolling_update(causes, rolling_update, f"{path}.rollingUpdate", both_zero="cannot be 0 when maxSurge is 0")
                _check_not_both(causes, rolling_update, f"{path}.rollingUpdate")
        case other:
            causes.append(not_supported(path, other or "", ("RollingUpdate", "OnDelete")))
    return causes


def _check_not_both(causes: list[Cause], rolling_update: Object, path: str) -> None:
    """A node has either one pod too few for a while, or one too many."""
    if not is_zero(rolling_update.get("maxUnavailable")) and not is_zero(rolling_update.get("maxSurge")):
        causes.append(invalid(f"{path}.maxSurge", rolling_update["maxSurge"], "may not be set when maxUnavailable is non-zero"))


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="DaemonSet",
    plural="daemonsets",
    singular="daemonset",
    schema="io.k8s.api.apps.v1.DaemonSet",
    short_names=("ds",),
    categories=("all",),
    strategy=Strategy(
        default=default,
        validate=validate,
        validate_update=validate_immutable_selector,
        has_status=True,
        status_counts=("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"),
        has_generation=True,
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        number("Desired", "status", "desiredNumberScheduled", description="Nodes that should run its pod."),
        number("Current", "status", "currentNumberScheduled", description="Nodes that run its pod and should."),
        number("Ready", "status", "numberReady", description="Nodes whose pod is ready."),
        number("Up-to-date", "status", "updatedNumberScheduled", description="Nodes whose pod is of the newest template."),
        number("Available", "status", "numberAvailable", description="Nodes whose pod is available."),
        cell("Node Selector", _node_selector, description="Which nodes it wants."),
        AGE,
        *template_columns("spec", "template"),
    ),
)
