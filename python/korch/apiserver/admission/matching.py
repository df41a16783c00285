"""Which requests a webhook or a policy is about: rules, scope, selectors, and CEL conditions.

Mirrors apiserver's plugin/webhook/rules, predicates and matchconditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from korch.api.validation import selector_matches
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.admission.attributes import Variables
from korch.resources.admissionregistration.matching import compiled
from korch.resources.resource import Catalogue, Resource

Object = dict[str, Any]

# What could lock everybody out: webhooks and policies are never asked about themselves.
_EXEMPT_GROUP = "admissionregistration.k8s.io"


class ConditionFailed(Exception):
    """A match condition could not be evaluated."""


def is_exempt(request: AdmissionRequest) -> bool:
    """Whether nobody is asked about this request."""
    return request.resource.group == _EXEMPT_GROUP


def matched(rules: Sequence[Mapping[str, Any]], match_policy: str, request: AdmissionRequest, catalogue: Catalogue) -> Resource | None:
    """Return the resource in whose version a request is meant by `rules`: its own, or an equivalent one; None when it is not."""
    if any(_rule_matches(rule, request, request.resource) for rule in rules):
        return request.resource
    if match_policy != "Equivalent":
        return None
    for other in catalogue.all():
        is_sibling = other.plural == request.resource.plural and other.group == request.resource.group
        if is_sibling and other.version != request.resource.version and any(_rule_matches(rule, request, other) for rule in rules):
            return other
    return None


def _rule_matches(rule: Mapping[str, Any], request: AdmissionRequest, resource: Resource) -> bool:
    names: Sequence[str] = rule.get("resourceNames") or ()
    return (
        _has(rule.get("operations"), request.operation)
        and _has(rule.get("apiGroups"), resource.group)
        and _has(rule.get("apiVersions"), resource.version)
        and _scope_matches(rule.get("scope") or "*", resource)
        and any(_resource_matches(one, resource.plural, request.subresource) for one in rule.get("resources") or ())
        and (not names or request.name in names)
    )


def _has(listed: Sequence[str] | None, wanted: str) -> bool:
    return listed is not None and ("*" in listed or wanted in listed)


def _scope_matches(scope: str, resource: Resource) -> bool:
    # A namespace is a cluster-scoped object.
    return scope == "*" or (scope == "Namespaced") == resource.namespaced


def _resource_matches(pattern: str, plural: str, subresource: str) -> bool:
    name, _, below = pattern.partition("/")
    return name in ("*", plural) and below in (("*", subresource) if subresource else ("", "*"))


def selected(holder: Mapping[str, Any], request: AdmissionRequest, namespace_object: Callable[[], Object | None]) -> bool:
    """Whether the selectors of a webhook or of MatchResources choose the request."""
    objects: Mapping[str, Any] = holder.get("objectSelector") or {}
    if objects and not any(one is not None and selector_matches(objects, _labels(one)) for one in (request.obj, request.old)):
        return False
    spaces: Mapping[str, Any] = holder.get("namespaceSelector") or {}
    if not spaces:
        return True
    if request.resource.group == "" and request.resource.plural == "namespaces":
        return selector_matches(spaces, _labels(request.obj or request.old or {}))
    if not request.namespace:
        return True
    namespace = namespace_object()
    return namespace is not None and selector_matches(spaces, _labels(namespace))


def _labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def conditions_hold(conditions: Sequence[Mapping[str, Any]] | None, variables: Variables, names: tuple[str, ...]) -> bool:
    """Whether all conditions hold. One that is false decides; otherwise raises ConditionFailed for those that cannot be evaluated."""
    problems: list[str] = []
    for one in conditions or ():
        try:
            if variables.evaluate(compiled(one["expression"], names, "bool")) is not True:
                return False
        except ValueError as error:
            problems.append(f"expression '{one['expression']}' resulted in error: {error}")
    if problems:
        raise ConditionFailed(", ".join(problems))
    return True
