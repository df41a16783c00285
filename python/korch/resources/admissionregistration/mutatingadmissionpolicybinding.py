"""MutatingAdmissionPolicyBinding: where a MutatingAdmissionPolicy holds, and with which parameters."""

from __future__ import annotations

from korch.api.errors import Cause
from korch.resources.admissionregistration.validatingadmissionpolicybinding import check_policy_name, default
from korch.resources.admissionregistration.webhooks import check_match, check_param_ref, shown_param_ref
from korch.resources.columns import AGE, NAME, cell, text
from korch.resources.resource import Object, Resource, Strategy


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a binding. Mirrors validateMutatingAdmissionPolicyBindingSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_policy_name(causes, spec)
    check_param_ref(causes, spec.get("paramRef"), "spec.paramRef")
    check_match(causes, spec.get("matchResources"), "spec.matchResources", is_required=False)
    return causes


RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="MutatingAdmissionPolicyBinding",
    plural="mutatingadmissionpolicybindings",
    singular="mutatingadmissionpolicybinding",
    schema="io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, has_generation=True),
    columns=(
        NAME,
        text("PolicyName", "spec", "policyName", description="The policy."),
        cell("ParamRef", shown_param_ref, description="Its parameters."),
        AGE,
    ),
)
