"""What policies and their bindings share: defaults, rules and columns of admission in CEL, evaluated by the server itself.

Mirrors kubernetes' pkg/apis/admissionregistration: v1/defaults.go and validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from korch.api.errors import Cause, duplicate, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_dns_subdomain, is_qualified_name
from korch.api.validation import check_label_selector
from korch.resources.admissionregistration.matching import (
    CONDITION_VARIABLES,
    check_conditions,
    check_expression,
    check_match,
    check_variables,
    default_match,
)
from korch.resources.columns import AGE, NAME, cell, number_of, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Object

VARIABLES = ("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized")
_ACTIONS = ("Audit", "Deny", "Warn")
_VARIABLES_MAX = 100


def variables_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the expressions of a policy may name: parameters only when it has a kind of them."""
    return VARIABLES if spec.get("paramKind") else tuple(one for one in VARIABLES if one != "params")


def default_policy(policy: Object) -> None:
    """Fill in a policy of either kind, in place."""
    spec = fill(policy, "spec", {})
    fill(spec, "failurePolicy", "Fail")
    if isinstance(spec.get("matchConstraints"), dict):
        default_match(spec["matchConstraints"])


def default_binding(binding: Object) -> None:
    """Fill in a binding of either kind, in place."""
    match = at(binding, "spec", "matchResources")
    if isinstance(match, dict):
        default_match(match)


def validate_validating(policy: Object) -> list[Cause]:
    """Return what is wrong with a ValidatingAdmissionPolicy."""
    causes: list[Cause] = []
    spec: Object = policy.get("spec") or {}
    variables = _check_common(causes, spec)
    validations: Sequence[Object] = spec.get("validations") or ()
    annotations: Sequence[Object] = spec.get("auditAnnotations") or ()
    if not validations and not annotations:
        causes.append(required("spec.validations", "validations or auditAnnotations must contain at least one item"))
        causes.append(required("spec.auditAnnotations", "validations or auditAnnotations must contain at least one item"))
    for index, one in enumerate(validations):
        path = f"spec.validations[{index}]"
        check_expression(causes, one.get("expression"), f"{path}.expression", variables, "bool")
        message = one.get("message")
        if message is not None and (not message.strip() or "\n" in message):
            why = "message must not contain line breaks" if "\n" in message else "message must be non-empty if specified"
            causes.append(invalid(f"{path}.message", message, why))
        if (one.get("messageExpression") or "").strip():
            check_expression(causes, one["messageExpression"], f"{path}.messageExpression", variables, "string")
        if one.get("reason") and one["reason"] not in _REASONS:
            causes.append(not_supported(f"{path}.reason", one["reason"], _REASONS))
    keys: set[str] = set()
    for index, one in enumerate(annotations):
        path, key = f"spec.auditAnnotations[{index}]", one.get("key") or ""
        if not key:
            causes.append(required(f"{path}.key"))
        causes += [invalid(f"{path}.key", key, why) for why in is_qualified_name(key)] if key else []
        if key in keys:
            causes.append(duplicate(f"{path}.key", key))
        keys.add(key)
        check_expression(causes, one.get("valueExpression"), f"{path}.valueExpression", variables, "string or null")
    return causes


def validate_mutating(policy: Object) -> list[Cause]:
    """Return what is wrong with a MutatingAdmissionPolicy."""
    causes: list[Cause] = []
    spec: Object = policy.get("spec") or {}
    variables = _check_common(causes, spec)
    mutations: Sequence[Object] = spec.get("mutations") or ()
    if not mutations:
        causes.append(required("spec.mutations", "mutations must contain at least one item"))
    for index, one in enumerate(mutations):
        path, kind = f"spec.mutations[{index}]", one.get("patchType") or ""
        if not kind:
            causes.append(required(f"{path}.patchType"))
            continue
        field = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}.get(kind)
        if field is None:
            causes.append(not_supported(f"{path}.patchType", kind, ("ApplyConfiguration", "JSONPatch")))
            continue
        if one.get(field) is None:
            causes.append(required(f"{path}.{field}"))
            continue
        check_expression(causes, one[field].get("expression"), f"{path}.{field}.expression", variables, "")
    reinvocation = spec.get("reinvocationPolicy") or ""
    if not reinvocation:
        causes.append(required("spec.reinvocationPolicy"))
    elif reinvocation not in ("IfNeeded", "Never"):
        causes.append(not_supported("spec.reinvocationPolicy", reinvocation, ("IfNeeded", "Never")))
    return causes


def _check_common(causes: list[Cause], spec: Mapping[str, Any]) -> tuple[str, ...]:
    failure = spec.get("failurePolicy")
    if failure is not None and failure not in ("Fail", "Ignore"):
        causes.append(not_supported("spec.failurePolicy", failure, ("Fail", "Ignore")))
    kind = spec.get("paramKind")
    if kind is not None:
        causes += [required(f"spec.paramKind.{one}") for one in ("apiVersion", "kind") if not kind.get(one)]
    match = spec.get("matchConstraints")
    if match is None:
        causes.append(required("spec.matchConstraints"))
    else:
        check_match(causes, match, "spec.matchConstraints")
        if not match.get("resourceRules"):
            causes.append(required("spec.matchConstraints.resourceRules"))
    variables = variables_of(spec)
    own = (*CONDITION_VARIABLES, "namespaceObject", *(("params",) if kind is not None else ()))
    check_conditions(causes, spec.get("matchConditions"), "spec.matchConditions", own)
    declared: Sequence[Object] = spec.get("variables") or ()
    if len(declared) > _VARIABLES_MAX:
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(declared)}: must have at most {_VARIABLES_MAX} items", "spec.variables"))
    check_variables(causes, declared, "spec.variables", variables)
    return variables


def validate_binding(binding: Object) -> list[Cause]:
    """Return what is wrong with a MutatingAdmissionPolicyBinding."""
    causes: list[Cause] = []
    spec: Object = binding.get("spec") or {}
    name = spec.get("policyName") or ""
    if not name:
        causes.append(required("spec.policyName"))
    causes += [invalid("spec.policyName", name, why) for why in is_dns_subdomain(name)] if name else []
    reference = spec.get("paramRef")
    if reference is not None:
        has_name, selector = bool(reference.get("name")), reference.get("selector")
        if has_name and selector is not None:
            causes.append(Cause("FieldValueForbidden", "Forbidden: name and selector are mutually exclusive", "spec.paramRef.name"))
        if not has_name and selector is None:
            causes.append(required("spec.paramRef", "one of name or selector must be specified"))
        check_label_selector(causes, selector, "spec.paramRef.selector")
        action = reference.get("parameterNotFoundAction")
        if not action:
            causes.append(required("spec.paramRef.parameterNotFoundAction"))
        elif action not in ("Allow", "Deny"):
            causes.append(not_supported("spec.paramRef.parameterNotFoundAction", action, ("Deny", "Allow")))
    if spec.get("matchResources") is not None:
        check_match(causes, spec["matchResources"], "spec.matchResources")
    return causes


def validate_validating_binding(binding: Object) -> list[Cause]:
    """Return what is wrong with a ValidatingAdmissionPolicyBinding."""
    causes = validate_binding(binding)
    actions: Sequence[str] = at(binding, "spec", "validationActions") or ()
    path = "spec.validationActions"
    if not actions:
        causes.append(required(path, "at least one validation action is required"))
    for index, one in enumerate(actions):
        if one not in _ACTIONS:
            causes.append(not_supported(f"{path}[{index}]", one, _ACTIONS))
        if one in actions[:index]:
            causes.append(duplicate(f"{path}[{index}]", one))
    if "Deny" in actions and "Warn" in actions:
        why = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers "
            "serves no purpose)"
        )
        causes.append(invalid(path, list(actions), why))
    return causes


def param_kind(policy: Object) -> str:
    """Return the column that names the kind of a policy's parameters."""
    kind = at(policy, "spec", "paramKind")
    return f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else "<unset>"


def policy_columns(count: str, *path: str) -> tuple[Column, ...]:
    """Return the columns of a policy, with the number of what it does."""
    kind = cell("ParamKind", param_kind, description="The kind of its parameters.")
    return (NAME, number_of(count, *path, description="How many of them it has."), kind, AGE)


def _param_ref(binding: Object) -> str:
    reference = at(binding, "spec", "paramRef")
    if not reference:
        return "<unset>"
    name = reference.get("name") or "*"
    return f"{reference['namespace']}/{name}" if reference.get("namespace") else name


BINDING_COLUMNS = (
    NAME,
    text("PolicyName", "spec", "policyName", description="The policy that it puts to work."),
    cell("ParamRef", _param_ref, description="Where the parameters are."),
    AGE,
)
