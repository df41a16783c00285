"""MutatingAdmissionPolicy: expressions that change what is about to be stored. Bindings say where it holds."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, not_supported, required
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

_TYPES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}


def default(obj: Object) -> None:
    """Fill in a MutatingAdmissionPolicy, in place."""
    spec = fill(obj, "spec", {})
    fill(spec, "failurePolicy", "Fail")
    default_match(spec.get("matchConstraints"))


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a MutatingAdmissionPolicy, expressions aside. Mirrors validateMutatingAdmissionPolicySpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    if spec.get("failurePolicy") not in ("Fail", "Ignore"):
        causes.append(not_supported("spec.failurePolicy", spec.get("failurePolicy") or "", ("Fail", "Ignore")))
    check_param_kind(causes, spec.get("paramKind"), "spec.paramKind")
    check_match(causes, spec.get("matchConstraints"), "spec.matchConstraints", is_required=True)
    check_conditions(causes, spec.get("matchConditions") or (), "spec.matchConditions")
    check_variables(causes, spec.get("variables") or (), "spec.variables")
    if not spec.get("mutations"):
        causes.append(required("spec.mutations", "mutations must contain at least one item"))
    for position, mutation in enumerate(spec.get("mutations") or ()):
        _check_mutation(causes, mutation, f"spec.mutations[{position}]")
    policy = spec.get("reinvocationPolicy")
    if not policy:
        causes.append(required("spec.reinvocationPolicy"))
    elif policy not in ("IfNeeded", "Never"):
        causes.append(not_supported("spec.reinvocationPolicy", policy, ("IfNeeded", "Never")))
    return causes


def _check_mutation(causes: list[Cause], mutation: Object, path: str) -> None:
    kind = mutation.get("patchType") or ""
    if kind not in _TYPES:
        causes.append(required(f"{path}.patchType") if not kind else not_supported(f"{path}.patchType", kind, tuple(_TYPES)))
        return
    for patch_type, field in _TYPES.items():
        given = mutation.get(field)
        if patch_type != kind and given is not None:
            causes.append(forbidden_field(f"{path}.{field}", f"must not be specified when patchType is {kind}"))
        if patch_type == kind:
            if given is None:
                causes.append(required(f"{path}.{field}", f"must be specified when patchType is {kind}"))
            elif not (given.get("expression") or "").strip():
                causes.append(required(f"{path}.{field}.expression", "expression is not specified"))


RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="MutatingAdmissionPolicy",
    plural="mutatingadmissionpolicies",
    singular="mutatingadmissionpolicy",
    schema="io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, has_generation=True),
    columns=(
        NAME,
        Column(
            "Mutations", lambda obj, _now: len(at(obj, "spec", "mutations") or ()), type="integer", description="How many changes it makes."
        ),
        cell("ParamKind", shown_param_kind, description="The kind of its parameters."),
        AGE,
    ),
)
