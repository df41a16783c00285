"""Namespace: a scope for names; it ends when everything inside is gone and `spec.finalizers` is empty."""

from __future__ import annotations

from korch.api.errors import Cause, invalid
from korch.api.meta import at
from korch.api.names import is_dns_label
from korch.resources.columns import AGE, NAME, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Context, Object, Resource, Strategy, Subresource
from korch.resources.subresources import STATUS

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"


def default(namespace: Object) -> None:
    """Fill in a Namespace, in place: its name is also a label, so that selectors can find it. Mirrors SetDefaults_Namespace."""
    metadata = fill(namespace, "metadata", {})
    if metadata.get("name"):
        fill(metadata, "labels", {})[NAME_LABEL] = metadata["name"]


def prepare_create(namespace: Object, _context: Context) -> None:
    """Start as Active, with the finalizer that keeps the namespace until it is empty; a generated name is a label only now."""
    default(namespace)
    namespace["status"] = {"phase": "Active"}
    spec = fill(namespace, "spec", {})
    finalizers = fill(spec, "finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)


def prepare_update(new: Object, old: Object, _context: Context) -> None:
    """Only the finalize subresource changes the finalizers of the spec."""
    fill(new, "spec", {})["finalizers"] = at(old, "spec", "finalizers") or []


def validate(namespace: Object) -> list[Cause]:
    """Return what is wrong with a Namespace."""
    causes: list[Cause] = []
    for position, finalizer in enumerate(at(namespace, "spec", "finalizers") or ()):
        if finalizer != FINALIZER and "/" not in finalizer:
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(invalid(f"spec.finalizers[{position}]", finalizer, detail))
    return causes


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    singular="namespace",
    schema="io.k8s.api.core.v1.Namespace",
    short_names=("ns",),
    namespaced=False,
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        validate=validate,
        validate_name=is_dns_label,
        has_status=True,
        keeps_status_on_create=True,
    ),
    subresources=(Subresource(name="finalize", verbs=("update",)), STATUS),
    selectable_fields={
        "name": lambda namespace: at(namespace, "metadata", "name") or "",
        "status.phase": lambda namespace: at(namespace, "status", "phase") or "",
    },
    columns=(NAME, text("Status", "status", "phase", description="Active or Terminating."), AGE),
)
