"""ValidatingAdmissionPolicy: expressions that what is about to be stored must satisfy. Bindings say where it holds."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, not_supported, required
from korch.api.meta import at
from korch.resources.admissionregistration.webhooks import (
    check_conditions,
    check_match,
    check_param_kind,
    check_variables,
    default_match,
    shown_param_kind,
)
from korch.resources.columns import AGE, NAME, cell
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.subresources import STATUS

_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")


def default(obj: Object) -> None:
    """Fill in a ValidatingAdmissionPolicy, in place."""
    spec = fill(obj, "spec", {})
    fill(spec, "failurePolicy", "Fail")
    default_match(spec.get("matchConstraints"))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ValidatingAdmissionPolicy, expressions aside. Mirrors validateValidatingAdmissionPolicySpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    if spec.get("failurePolicy") not in ("Fail", "Ignore"):
        causes.append(not_supported("spec.failurePolicy", spec.get("failurePolicy") or "", ("Fail", "Ignore")))
    check_param_kind(causes, spec.get("paramKind"), "spec.paramKind")
    check_match(causes, spec.get("matchConstraints"), "spec.matchConstraints", is_required=True)
    check_conditions(causes, spec.get("matchConditions") or (), "spec.matchConditions")
    check_variables(causes, spec.get("variables") or (), "spec.variables")
    validations, annotations = spec.get("validations") or (), spec.get("auditAnnotations") or ()
    if not validations and not annotations:
        for field in ("validations", "auditAnnotations"):
            causes.append(required(f"spec.{field}", "validations or auditAnnotations must contain at least one item"))
    for position, validation in enumerate(validations):
        _check_validation(causes, validation, f"spec.validations[{position}]")
    for position, annotation in enumerate(annotations):
        path = f"spec.auditAnnotations[{position}]"
        causes += [required(f"{path}.{field}") for field in ("key", "valueExpression") if not (annotation.get(field) or "").strip()]
    return causes


def _check_validation(causes: list[Cause], validation: Object, path: str) -> None:
    expression, message = (validation.get("expression") or "").strip(), validation.get("message") or ""
    if not expression:
        causes.append(required(f"{path}.expression", "expression is not specified"))
    if message and not message.strip():
        causes.append(invalid(f"{path}.message", message, "message must be non-empty if specified"))
    if "\n" in message.strip():
        causes.append(invalid(f"{path}.message", message, "message must not contain line breaks"))
    if "\n" in expression and not message:
        causes.append(required(f"{path}.message", "message must be specified if expression contains line breaks"))
    reason = validation.get("reason")
    if reason is not None and reason not in _REASONS:
        causes.append(not_supported(f"{path}.reason", reason, _REASONS))


RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="ValidatingAdmissionPolicy",
    plural="validatingadmissionpolicies",
    singular="validatingadmissionpolicy",
    schema="io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column(
            "Validations", lambda obj, _now: len(at(obj, "spec", "validations") or ()), type="integer", description="How many rules it has."
        ),
        cell("ParamKind", shown_param_kind, description="The kind of its parameters."),
        AGE,
    ),
)
