"""Namespace: a scope for names; it ends when everything inside is gone and `spec.finalizers` is empty."""

from __future__ import annotations

from korch.api.meta import at
from korch.resources.columns import AGE, NAME, text
from korch.resources.resource import Resource, Strategy, Subresource
from korch.resources.subresources import STATUS

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
    strategy=Strategy(has_status=True, keeps_status_on_create=True),
    subresources=(Subresource(name="finalize", verbs=("update",)), STATUS),
    selectable_fields={
        "name": lambda namespace: at(namespace, "metadata", "name") or "",
        "status.phase": lambda namespace: at(namespace, "status", "phase") or "",
    },
    columns=(NAME, text("Status", "status", "phase", description="Active or Terminating."), AGE),
)
