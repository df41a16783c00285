"""LocalSubjectAccessReview: may this user do that in this namespace? Answered, never stored."""

from __future__ import annotations

from korch.resources.resource import Resource

RESOURCE = Resource(
    group="authorization.k8s.io",
    version="v1",
    kind="LocalSubjectAccessReview",
    plural="localsubjectaccessreviews",
    singular="localsubjectaccessreview",
    schema="io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    namespaced=True,
    verbs=("create",),
    is_virtual=True,
)
