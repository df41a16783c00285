"""MutatingAdmissionPolicy: changes objects on their way into the store."""

from __future__ import annotations

from korch.resources.admissionregistration.policies import default_policy, policy_columns, validate_mutating
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="MutatingAdmissionPolicy",
    plural="mutatingadmissionpolicies",
    singular="mutatingadmissionpolicy",
    schema="io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default_policy, validate=validate_mutating, has_generation=True),
    columns=policy_columns("Mutations", "spec", "mutations"),
)
