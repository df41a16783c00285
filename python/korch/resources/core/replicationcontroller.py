"""ReplicationController: keeps a number of pods running; the elder of ReplicaSet."""

from __future__ import annotations

from korch.api.errors import Cause, required
from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell, format_labels, number, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS
from korch.resources.workloads import check_counts, check_template


def default(obj: Object) -> None:
    """Fill in a ReplicationController, in place: selector and labels come from the template. Mirrors SetDefaults_ReplicationController."""
    spec = fill(obj, "spec", {})
    labels = at(spec, "template", "metadata", "labels")
    if labels:
        if not spec.get("selector"):
            spec["selector"] = dict(labels)
        metadata = fill(obj, "metadata", {})
        if not metadata.get("labels"):
            metadata["labels"] = dict(labels)
    fill(spec, "replicas", 1)
    default_pod_template(spec.get("template"))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ReplicationController. Mirrors ValidateReplicationControllerSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_counts(causes, spec, ("minReadySeconds", "replicas"))
    selector = spec.get("selector")
    if not selector:
        causes.append(required("spec.selector"))
    check_template(causes, spec, {"matchLabels": selector or {}}, "ReplicationController")
    return causes


RESOURCE = Resource(
    group="",
    version="v1",
    kind="ReplicationController",
    plural="replicationcontrollers",
    singular="replicationcontroller",
    schema="io.k8s.api.core.v1.ReplicationController",
    short_names=("rc",),
    categories=("all",),
    strategy=Strategy(
        default=default, validate=validate, has_status=True, status_counts=("replicas",), has_generation=True, default_propagation="Orphan"
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
        *template_columns("spec", "template", selector=False),
        cell("Selector", lambda obj: format_labels(at(obj, "spec", "selector")), description="Which pods belong to it.", priority=1),
    ),
)
