"""StatefulSet: pods with lasting names and storage."""

from __future__ import annotations

from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell, template_columns
from korch.resources.resource import Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS


def _ready(obj: Object) -> str:
    return f"{at(obj, 'status', 'readyReplicas') or 0}/{at(obj, 'spec', 'replicas') or 0}"


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="StatefulSet",
    plural="statefulsets",
    singular="statefulset",
    schema="io.k8s.api.apps.v1.StatefulSet",
    short_names=("sts",),
    categories=("all",),
    strategy=Strategy(has_status=True, has_generation=True),
    subresources=(SCALE, STATUS),
    scale=Scale(),
    columns=(
        NAME,
        cell("Ready", _ready, description="Pods that are ready, of those wanted."),
        AGE,
        *template_columns("spec", "template", selector=False),
    ),
)
