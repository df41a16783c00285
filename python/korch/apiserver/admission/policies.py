"""ValidatingAdmissionPolicy and MutatingAdmissionPolicy: what bindings put to work, in CEL.

A policy does nothing by itself; each of its bindings says for which requests and with which parameters it is evaluated.
Mirrors apiserver's plugin/policy: generic, validating and mutating.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from korch.api import patch as patches
from korch.api import selectors
from korch.api.errors import ApiError, Forbidden
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.admission.attributes import Variables
from korch.apiserver.admission.configurations import Configurations
from korch.apiserver.admission.matching import ConditionFailed, conditions_hold, matched, selected
from korch.apiserver.audit.record import annotate
from korch.apiserver.field_managers import FieldManagers
from korch.apiserver.records import Records, load
from korch.resources.admissionregistration.matching import CONDITION_VARIABLES, compiled
from korch.resources.admissionregistration.policies import variables_of
from korch.resources.resource import Catalogue, Resource

Object = dict[str, Any]
NamespaceObject = Callable[[], Object | None]

_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


class PolicyFailed(Exception):
    """A policy could not be evaluated; what that means its failurePolicy says."""


@dataclass(frozen=True, slots=True)
class _Due:
    """One evaluation: a policy, the binding that puts it to work, and the parameter (None without)."""

    policy: Object
    binding: Object
    params: Object | None


class Policies:
    """Evaluates the policies of one kind. `word` is the kind, as messages name it."""

    def __init__(
        self,
        *,
        word: str,
        policies: Configurations,
        bindings: Configurations,
        catalogue: Catalogue,
        records: Records,
        managers: FieldManagers,
    ) -> None:
        self._word = word
        self._policies = policies
        self._bindings = bindings
        self._catalogue = catalogue
        self._records = records
        self._managers = managers

    def is_idle(self) -> bool:
        """Whether there is nothing to evaluate."""
        return not self._bindings.all()

    def validate(self, request: AdmissionRequest, variables: Variables, namespace_object: NamespaceObject) -> None:
        """Evaluate validating policies; raise what the first refusal says. Warnings go to the request."""
        for due in self._due(request, variables, namespace_object):
            spec, actions = due.policy["spec"], at(due.binding, "spec", "validationActions") or ()
            variables.set("params", due.params)
            if spec.get("auditAnnotations"):
                try:
                    self._tell_annotations(due, spec, variables)
                except PolicyFailed as error:
                    raise self._refused(request, due, str(error), "Invalid") from error
            for one in spec.get("validations") or ():
                problem = self._problem(one, spec, variables)
                if problem is None:
                    continue
                if "Audit" in actions:
                    self._tell(due, one, spec, problem)
                if "Warn" in actions:
                    names = f"'{due.policy['metadata']['name']}' with binding '{due.binding['metadata']['name']}'"
                    request.warnings.append(f"Validation failed for {self._word} {names}: {problem}")
                if "Deny" in actions:
                    raise self._refused(request, due, problem, one.get("reason") or "Invalid")

    def _tell(self, due: _Due, validation: Mapping[str, Any], spec: Mapping[str, Any], problem: str) -> None:
        """Note a failed validation in the audit event. Mirrors ValidationFailureValue."""
        validations: list[Mapping[str, Any]] = list(spec.get("validations") or ())
        failure = {
            "message": problem,
            "policy": due.policy["metadata"]["name"],
            "binding": due.binding["metadata"]["name"],
            "expressionIndex": validations.index(validation),
            "validationActions": at(due.binding, "spec", "validationActions"),
        }
        annotate("validation.policy.admission.k8s.io/validation_failure", orjson.dumps([failure]).decode())

    def _tell_annotations(self, due: _Due, spec: Mapping[str, Any], variables: Variables) -> None:
        """Evaluate the policy's own audit annotations. Mirrors apiserver's validating policy: an empty result is no annotation."""
        for one in spec.get("auditAnnotations") or ():
            try:
                value = self._evaluate(one["valueExpression"], "", spec, variables)
            except ValueError as error:
                if spec.get("failurePolicy") != "Ignore":
                    raise PolicyFailed(str(error)) from error
                continue
            if isinstance(value, str) and value.strip():
                annotate(f"{due.policy['metadata']['name']}/{one['key']}", value.strip())

    def mutate(self, request: AdmissionRequest, variables: Variables, namespace_object: NamespaceObject, replace: Any) -> bool:
        """Evaluate mutating policies; return whether they changed the object. `replace(request, body)` puts a changed one in place."""
        changed: list[_Due] = []
        due_again: list[_Due] = []
        for due in self._due(request, variables, namespace_object):
            if self._mutate_by(due, request, variables, replace):
                due_again += [one for one in changed if one.policy["spec"].get("reinvocationPolicy") == "IfNeeded"]
                changed.append(due)
        for due in due_again:
            self._mutate_by(due, request, variables, replace)
        return bool(changed)

    def _due(self, request: AdmissionRequest, variables: Variables, namespace_object: NamespaceObject) -> Iterator[_Due]:
        for binding in self._bindings.all():
            policy = self._policies.get(at(binding, "spec", "policyName") or "")
            if policy is None or not self._is_about(policy, binding, request, namespace_object):
                continue
            spec: Object = policy["spec"]
            try:
                params = self._params(spec, binding, request)
                names = (*CONDITION_VARIABLES, "namespaceObject", *(("params",) if spec.get("paramKind") else ()))
                for one in params:
                    variables.set("params", one)
                    if conditions_hold(spec.get("matchConditions"), variables, names):
                        yield _Due(policy, binding, one)
            except (PolicyFailed, ConditionFailed) as error:
                if spec.get("failurePolicy") != "Ignore":
                    raise self._refused(request, _Due(policy, binding, None), str(error), "Invalid") from error

    def _is_about(self, policy: Object, binding: Object, request: AdmissionRequest, namespace_object: NamespaceObject) -> bool:
        constraints: Sequence[Mapping[str, Any]] = [policy["spec"].get("matchConstraints") or {}]
        own = at(binding, "spec", "matchResources")
        if own is not None:
            constraints = [*constraints, own]
        for one in constraints:
            kind = one.get("matchPolicy") or "Equivalent"
            if matched(one.get("excludeResourceRules") or (), kind, request, self._catalogue) is not None:
                return False
            # A binding without rules takes over those of its policy.
            rules = one.get("resourceRules") or ()
            if (rules or one is constraints[0]) and matched(rules, kind, request, self._catalogue) is None:
                return False
            if not selected(one, request, namespace_object):
                return False
        return True

    def _params(self, spec: Mapping[str, Any], binding: Object, request: AdmissionRequest) -> list[Object | None]:
        """Return the parameters of a binding, [None] for a policy without. Raises PolicyFailed."""
        kind, reference = spec.get("paramKind"), at(binding, "spec", "paramRef")
        if not kind or not reference:
            return [None]
        group, _, version = kind["apiVersion"].rpartition("/")
        resource = self._catalogue.by_kind(group, version, kind["kind"])
        if resource is None:
            raise PolicyFailed(
                f"failed to configure policy: failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind['kind']}'"
            )
        namespace = (reference.get("namespace") or request.namespace) if resource.namespaced else ""
        found: list[Object | None] = list(self._referenced(resource, namespace, reference))
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise PolicyFailed("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    def _referenced(self, resource: Resource, namespace: str, reference: Mapping[str, Any]) -> Iterator[Object]:
        if reference.get("name"):
            record = self._records.storage.get(resource.key(namespace, reference["name"]))
            if record is not None:
                yield load(resource, record.value)
            return
        selector = selectors.from_label_selector(reference.get("selector") or {})
        for value in self._records.storage.range(resource.key_prefix(namespace), selector=selector).values:
            yield load(resource, value)

    def _evaluate(self, expression: str, result: str, spec: Mapping[str, Any], variables: Variables) -> Any:
        """Return what an expression gives, its policy's variables evaluated as far as it needs them. Raises ValueError."""
        names = variables_of(spec)
        wanted = compiled(expression, names, result)
        values: dict[str, Any] = {}
        problems: dict[str, str] = {}
        needed = self._needed(wanted, spec, names)
        for one in spec.get("variables") or ():
            if one["name"] not in needed:
                continue
            variables.set("variables", values)
            try:
                values[one["name"]] = variables.evaluate(compiled(one["expression"], names, ""))
            except ValueError as error:
                problems[one["name"]] = f'composited variable "{one["name"]}" fails to evaluate: {error}'
        variables.set("variables", values)
        try:
            return variables.evaluate(wanted)
        except ValueError:
            for name in wanted.fields_of("variables"):
                if name in problems:
                    raise ValueError(problems[name]) from None
            raise

    def _needed(self, expression: Any, spec: Mapping[str, Any], names: tuple[str, ...]) -> set[str]:
        declared = {one["name"]: one["expression"] for one in spec.get("variables") or ()}
        needed: set[str] = set()
        pending = list(expression.fields_of("variables"))
        while pending:
            name = pending.pop()
            if name in needed or name not in declared:
                continue
            needed.add(name)
            pending += compiled(declared[name], names, "").fields_of("variables")
        return needed

    def _problem(self, validation: Mapping[str, Any], spec: Mapping[str, Any], variables: Variables) -> str | None:
        """Return why a validation fails, None when it holds (or cannot be evaluated and may)."""
        expression = validation["expression"]
        try:
            if self._evaluate(expression, "bool", spec, variables) is True:
                return None
        except ValueError as error:
            return None if spec.get("failurePolicy") == "Ignore" else f"expression '{expression.strip()}' resulted in error: {error}"
        told = (validation.get("messageExpression") or "").strip()
        if told:
            try:
                message = self._evaluate(told, "string", spec, variables)
                if isinstance(message, str) and message.strip() and "\n" not in message.strip():
                    return message.strip()
            except ValueError:
                pass
        return (validation.get("message") or "").strip() or f"failed expression: {expression.strip()}"

    def _mutate_by(self, due: _Due, request: AdmissionRequest, variables: Variables, replace: Any) -> bool:
        spec = due.policy["spec"]
        is_changed = False
        for one in spec.get("mutations") or ():
            if request.obj is None:
                return is_changed
            variables.set("params", due.params)
            before = orjson.dumps(request.obj)
            try:
                after = self._mutated(one, spec, request.resource, before, variables)
            except (ValueError, patches.MalformedPatch, patches.UnprocessablePatch) as error:
                if spec.get("failurePolicy") == "Ignore":
                    return is_changed
                raise self._refused(request, due, str(error), "Invalid") from error
            if after != before:
                replace(request, after)
                variables.forget("object")
                is_changed = True
        return is_changed

    def _mutated(
        self, mutation: Mapping[str, Any], spec: Mapping[str, Any], resource: Resource, before: bytes, variables: Variables
    ) -> bytes:
        if mutation["patchType"] == "JSONPatch":
            operations = self._evaluate(mutation["jsonPatch"]["expression"], "", spec, variables)
            return patches.json_patch(before, orjson.dumps(operations))
        applied = self._evaluate(mutation["applyConfiguration"]["expression"], "", spec, variables)
        if not isinstance(applied, dict):
            raise ValueError("applyConfiguration must evaluate to an object")
        try:
            return self._managers.overlay(resource, before, orjson.dumps(applied))
        except ValueError as error:
            raise ValueError(f"error applying patch: {error}") from error

    def _refused(self, request: AdmissionRequest, due: _Due, problem: str, reason: str) -> ApiError:
        names = f"'{due.policy['metadata']['name']}' with binding '{due.binding['metadata']['name']}'"
        why = f"{self._word} {names} denied request: {problem}"
        error = Forbidden(request.resource.group, request.resource.plural, request.name, why)
        error.reason, error.code = reason, _CODES.get(reason, 422)
        error.details["causes"] = [{"message": why}]
        return error
