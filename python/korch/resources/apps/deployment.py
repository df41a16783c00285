"""Deployment: rolls a set of pods from one template to the next."""

from __future__ import annotations

from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell, number, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS


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


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    singular="deployment",
    schema="io.k8s.api.apps.v1.Deployment",
    short_names=("deploy",),
    categories=("all",),
    strategy=Strategy(default=default, has_status=True, has_generation=True),
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
