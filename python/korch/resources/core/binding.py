"""Binding: the scheduler's word that a pod runs on a node; posted, never stored."""

from __future__ import annotations

from korch.resources.resource import Resource

RESOURCE = Resource(
    group="",
    version="v1",
    kind="Binding",
    plural="bindings",
    singular="binding",
    schema="io.k8s.api.core.v1.Binding",
    verbs=("create",),
    is_virtual=True,
)
