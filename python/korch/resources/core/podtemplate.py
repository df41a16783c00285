"""PodTemplate: a pod template that stands alone."""

from __future__ import annotations

from korch.api.errors import Cause
from korch.api.meta import at
from korch.resources.columns import NAME, cell, format_labels
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.podspec.validation import check_pod_template
from korch.resources.resource import Object, Resource, Strategy


def _join(obj: Object, key: str) -> str:
    return ",".join(one.get(key, "") for one in at(obj, "template", "spec", "containers") or ())


def default(obj: Object) -> None:
    """Fill in a PodTemplate, in place."""
    default_pod_template(fill(obj, "template", {}))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a PodTemplate."""
    causes: list[Cause] = []
    check_pod_template(causes, obj.get("template") or {}, "template")
    return causes


RESOURCE = Resource(
    group="",
    version="v1",
    kind="PodTemplate",
    plural="podtemplates",
    singular="podtemplate",
    schema="io.k8s.api.core.v1.PodTemplate",
    strategy=Strategy(default=default, validate=validate, has_generation=True),
    columns=(
        NAME,
        cell("Containers", lambda obj: _join(obj, "name"), description="Names of each container in the template."),
        cell("Images", lambda obj: _join(obj, "image"), description="Images referenced by each container in the template."),
        cell("Pod Labels", lambda obj: format_labels(at(obj, "template", "metadata", "labels")), description="Labels of the pods."),
    ),
)
