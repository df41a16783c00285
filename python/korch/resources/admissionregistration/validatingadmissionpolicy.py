"""ValidatingAdmissionPolicy: refuses writes for which its expressions do not hold."""

from __future__ import annotations

from korch.resources.admissionregistration.policies import default_policy, policy_columns, validate_validating
from korch.resources.resource import Resource, Strategy
from korch.resources.subresources import STATUS

RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="ValidatingAdmissionPolicy",
    plural="validatingadmissionpolicies",
    singular="validatingadmissionpolicy",
    schema="io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default_policy, validate=validate_validating, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=policy_columns("Validations", "spec", "validations"),
)
