"""ResourceClaimTemplate: from which each pod that names it gets a claim of its own."""

from __future__ import annotations

from korch.api.errors import Cause, invalid
from korch.api.meta import at
from korch.api.validation import check_annotations, check_labels
from korch.resources.columns import AGE, NAME
from korch.resources.dra.requests import check_claim_spec, default_spec
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object, Resource, Strategy


def default(obj: Object) -> None:
    """Fill in a ResourceClaimTemplate, in place."""
    default_spec(fill(fill(obj, "spec", {}), "spec", {}))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ResourceClaimTemplate."""
    causes: list[Cause] = []
    check_labels(causes, at(obj, "spec", "metadata", "labels"), "spec.metadata.labels")
    check_annotations(causes, at(obj, "spec", "metadata", "annotations"), "spec.metadata.annotations")
    check_claim_spec(causes, at(obj, "spec", "spec") or {}, "spec.spec")
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the spec."""
    return [invalid("spec", new.get("spec"), "field is immutable")] if new.get("spec") != old.get("spec") else []


RESOURCE = Resource(
    group="resource.k8s.io",
    version="v1",
    kind="ResourceClaimTemplate",
    plural="resourceclaimtemplates",
    singular="resourceclaimtemplate",
    schema="io.k8s.api.resource.v1.ResourceClaimTemplate",
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update),
    columns=(NAME, AGE),
)
