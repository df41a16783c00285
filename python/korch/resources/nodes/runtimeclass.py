"""RuntimeClass: a way to run containers, by the name that the node's runtime knows."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, required
from korch.api.meta import at
from korch.api.names import is_dns_label
from korch.api.validation import check_immutable, check_labels
from korch.resources.columns import AGE, NAME, text
from korch.resources.podspec.placement import check_tolerations
from korch.resources.quantities import check_resource_list
from korch.resources.resource import Object, Resource, Strategy


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a RuntimeClass. Mirrors ValidateRuntimeClass."""
    causes: list[Cause] = []
    handler = obj.get("handler") or ""
    if not handler:
        causes.append(required("handler"))
    causes += [invalid("handler", handler, why) for why in is_dns_label(handler)] if handler else []
    check_resource_list(causes, at(obj, "overhead", "podFixed"), "overhead.podFixed")
    check_labels(causes, at(obj, "scheduling", "nodeSelector"), "scheduling.nodeSelector")
    check_tolerations(causes, at(obj, "scheduling", "tolerations") or (), "scheduling.tolerations")
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the handler."""
    causes: list[Cause] = []
    check_immutable(causes, new.get("handler"), old.get("handler"), "handler")
    return causes


RESOURCE = Resource(
    group="node.k8s.io",
    version="v1",
    kind="RuntimeClass",
    plural="runtimeclasses",
    singular="runtimeclass",
    schema="io.k8s.api.node.v1.RuntimeClass",
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update),
    columns=(NAME, text("Handler", "handler", description="What the runtime calls it."), AGE),
)
