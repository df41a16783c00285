"""DaemonSet: one pod on every node that fits."""

from __future__ import annotations

from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell, format_labels, number, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS


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


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="DaemonSet",
    plural="daemonsets",
    singular="daemonset",
    schema="io.k8s.api.apps.v1.DaemonSet",
    short_names=("ds",),
    categories=("all",),
    strategy=Strategy(default=default, has_status=True, has_generation=True),
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
