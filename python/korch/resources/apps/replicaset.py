"""ReplicaSet: keeps a number of equal pods running."""

from __future__ import annotations

from korch.api.errors import Cause
from korch.api.meta import at
from korch.resources.columns import AGE, NAME, number, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS
from korch.resources.workloads import check_counts, check_selector_and_template, validate_immutable_selector


def default(obj: Object) -> None:
    """Fill in a ReplicaSet, in place. Mirrors SetDefaults_ReplicaSet of apps/v1."""
    spec = fill(obj, "spec", {})
    fill(spec, "replicas", 1)
    default_pod_template(spec.get("template"))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ReplicaSet. Mirrors ValidateReplicaSetSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_counts(causes, spec, ("replicas", "minReadySeconds"))
    # Upstream speaks of a deployment here too.
    check_selector_and_template(causes, spec, "ReplicaSet", empty="deployment")
    return causes


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    singular="replicaset",
    schema="io.k8s.api.apps.v1.ReplicaSet",
    short_names=("rs",),
    categories=("all",),
    strategy=Strategy(
        default=default,
        validate=validate,
        validate_update=validate_immutable_selector,
        has_status=True,
        status_counts=("replicas",),
        has_generation=True,
    ),
    subresources=(SCALE, STATUS),
    scale=Scale(),
    selectable_fields={"status.replicas": lambda obj: str(at(obj, "status", "replicas") or 0)},
    columns=(
        NAME,
        number("Desired", "spec", "replicas", description="Pods that there should be."),
        number("Current", "status", "replicas", description="Pods that there are."),
        number("Ready", "status", "readyReplicas", description="Pods that are ready."),
        AGE,
        *template_columns("spec", "template"),
    ),
)
