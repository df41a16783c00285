"""ConfigMap: configuration as keys and values, text or bytes."""

from __future__ import annotations

from korch.resources.columns import AGE, NAME
from korch.resources.resource import Column, Resource, Strategy

RESOURCE = Resource(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    schema="io.k8s.api.core.v1.ConfigMap",
    short_names=("cm",),
    strategy=Strategy(),
    columns=(
        NAME,
        Column(
            "Data",
            lambda obj, _now: len(obj.get("data") or ()) + len(obj.get("binaryData") or ()),
            type="string",
            description="Number of keys.",
        ),
        AGE,
    ),
)
