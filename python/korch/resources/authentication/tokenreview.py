"""TokenReview: whose bearer token is this? Answered, never stored."""

from __future__ import annotations

from korch.resources.resource import Resource

RESOURCE = Resource(
    group="authentication.k8s.io",
    version="v1",
    kind="TokenReview",
    plural="tokenreviews",
    singular="tokenreview",
    schema="io.k8s.api.authentication.v1.TokenReview",
    namespaced=False,
    verbs=("create",),
    is_virtual=True,
)
