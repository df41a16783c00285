"""ValidatingAdmissionPolicyBinding: puts a policy to work, with parameters and for some objects."""

from __future__ import annotations

from korch.resources.admissionregistration.policies import BINDING_COLUMNS, default_binding, validate_validating_binding
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="ValidatingAdmissionPolicyBinding",
    plural="validatingadmissionpolicybindings",
    singular="validatingadmissionpolicybinding",
    schema="io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default_binding, validate=validate_validating_binding, has_generation=True),
    columns=BINDING_COLUMNS,
)
