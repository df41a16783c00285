"""ServiceAccount: the identity that processes in a pod have towards the API."""

from __future__ import annotations

from korch.resources.columns import AGE, NAME
from korch.resources.resource import Column, Resource, Strategy, Subresource

RESOURCE = Resource(
    group="",
    version="v1",
    kind="ServiceAccount",
    plural="serviceaccounts",
    singular="serviceaccount",
    schema="io.k8s.api.core.v1.ServiceAccount",
    short_names=("sa",),
    strategy=Strategy(),
    subresources=(Subresource(name="token", verbs=("create",), group="authentication.k8s.io", version="v1", kind="TokenRequest"),),
    columns=(
        NAME,
        Column("Secrets", lambda obj, _now: len(obj.get("secrets") or ()), type="string", description="Number of its secrets."),
        AGE,
    ),
)
