"""ReplicationController: keeps a number of pods running; the elder of ReplicaSet."""

from __future__ import annotations

from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell, format_labels, number, template_columns
from korch.resources.resource import Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS

RESOURCE = Resource(
    group="",
    version="v1",
    kind="ReplicationController",
    plural="replicationcontrollers",
    singular="replicationcontroller",
    schema="io.k8s.api.core.v1.ReplicationController",
    short_names=("rc",),
    categories=("all",),
    strategy=Strategy(has_status=True, has_generation=True, default_propagation="Orphan"),
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
