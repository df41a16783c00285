"""ValidatingAdmissionPolicyBinding: where a ValidatingAdmissionPolicy holds, with which parameters, and what a failure does."""

from __future__ import annotations

from korch.api.errors import Cause, duplicate, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_dns_subdomain
from korch.resources.admissionregistration.webhooks import check_match, check_param_ref, default_match, shown_param_ref
from korch.resources.columns import AGE, NAME, cell, text
from korch.resources.resource import Object, Resource, Strategy

_ACTIONS = ("Audit", "Deny", "Warn")


def default(obj: Object) -> None:
    """Fill in a binding, in place."""
    default_match(at(obj, "spec", "matchResources"))


def check_policy_name(causes: list[Cause], spec: Object) -> None:
    """Check the name of the policy that a binding is about."""
    name = spec.get("policyName") or ""
    if not name:
        causes.append(required("spec.policyName"))
    causes += [invalid("spec.policyName", name, why) for why in is_dns_subdomain(name)] if name else []


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a binding. Mirrors validateValidatingAdmissionPolicyBindingSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_policy_name(causes, spec)
    check_param_ref(causes, spec.get("paramRef"), "spec.paramRef")
    check_match(causes, spec.get("matchResources"), "spec.matchResources", is_required=False)
    actions = spec.get("validationActions") or []
    if not actions:
        causes.append(required("spec.validationActions", "at least one validation action is required"))
    for position, action in enumerate(actions):
        path = f"spec.validationActions[{position}]"
        if action not in _ACTIONS:
            causes.append(not_supported(path, action, _ACTIONS))
        if action in actions[:position]:
            causes.append(duplicate(path, action))
    if "Deny" in actions and "Warn" in actions:
        why = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers "
            "serves no purpose)"
        )
        causes.append(invalid("spec.validationActions", actions, why))
    return causes


RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="ValidatingAdmissionPolicyBinding",
    plural="validatingadmissionpolicybindings",
    singular="validatingadmissionpolicybinding",
    schema="io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
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
