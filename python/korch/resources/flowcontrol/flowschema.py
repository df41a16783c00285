"""FlowSchema: which requests belong together, and at which priority they are served."""

from __future__ import annotations

from collections.abc import Sequence

from korch.api.conditions import get_condition
from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_dns_label, is_path_segment
from korch.resources.columns import AGE, NAME, NONE, cell, number, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS

_PRECEDENCE_MAX = 10000
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}


def default(obj: Object) -> None:
    """Fill in a FlowSchema, in place."""
    spec = fill(obj, "spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a FlowSchema. Mirrors ValidateFlowSchemaSpec."""
    causes: list[Cause] = []
    spec, name = obj.get("spec") or {}, at(obj, "metadata", "name") or ""
    precedence = spec.get("matchingPrecedence") or 0
    if precedence <= 0:
        causes.append(invalid("spec.matchingPrecedence", precedence, "must be a positive value"))
    if precedence > _PRECEDENCE_MAX:
        causes.append(invalid("spec.matchingPrecedence", precedence, f"must not be greater than {_PRECEDENCE_MAX}"))
    if precedence == 1 and name != "exempt":
        causes.append(invalid("spec.matchingPrecedence", precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
    kind = at(spec, "distinguisherMethod", "type")
    if spec.get("distinguisherMethod") is not None and kind not in ("ByNamespace", "ByUser"):
        causes.append(not_supported("spec.distinguisherMethod", spec["distinguisherMethod"], ("ByNamespace", "ByUser")))
    level = at(spec, "priorityLevelConfiguration", "name") or ""
    if not level:
        causes.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    causes += [invalid("spec.priorityLevelConfiguration.name", level, why) for why in is_path_segment(level)] if level else []
    for position, rule in enumerate(spec.get("rules") or ()):
        _check_rule(causes, rule, f"spec.rules[{position}]")
    return causes


def _check_rule(causes: list[Cause], rule: Object, path: str) -> None:
    if not rule.get("subjects"):
        causes.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for position, subject in enumerate(rule.get("subjects") or ()):
        _check_subject(causes, subject, f"{path}.subjects[{position}]")
    resources, urls = rule.get("resourceRules") or (), rule.get("nonResourceRules") or ()
    if not resources and not urls:
        causes.append(required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for position, one in enumerate(resources):
        where = f"{path}.resourceRules[{position}]"
        _check_set(causes, one.get("verbs") or (), f"{where}.verbs", _VERBS)
        for field, what in (
            ("apiGroups", "resource rules must supply at least one api group"),
            ("resources", "resource rules must supply at least one resource"),
        ):
            values = one.get(field) or ()
            if not values:
                causes.append(required(f"{where}.{field}", what))
            elif len(values) > 1 and "*" in values:
                causes.append(
                    invalid(
                        f"{where}.{field}",
                        list(values),
                        "if '*' is present, must not specify other " + ("api groups" if field == "apiGroups" else "resources"),
                    )
                )
        namespaces = one.get("namespaces") or ()
        if not namespaces and not one.get("clusterScope"):
            why = "resource rules that are not cluster scoped must supply at least one namespace"
            causes.append(required(f"{where}.namespaces", why))
        elif "*" in namespaces and len(namespaces) > 1:
            causes.append(invalid(f"{where}.namespaces", list(namespaces), "may not specify other values when '*' is included"))
    for position, one in enumerate(urls):
        where = f"{path}.nonResourceRules[{position}]"
        _check_set(causes, one.get("verbs") or (), f"{where}.verbs", None)
        if not one.get("nonResourceURLs"):
            causes.append(required(f"{where}.nonResourceURLs", "nonResourceURLs must contain at least one value"))


def _check_subject(causes: list[Cause], subject: Object, path: str) -> None:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        causes.append(not_supported(f"{path}.kind", kind, sorted(_SUBJECTS)))
        return
    for other, field in _SUBJECTS.items():
        given = subject.get(field)
        if other == kind and given is None:
            causes.append(required(f"{path}.{field}", f"{field} is required when subject kind is '{kind}'"))
        if other != kind and given is not None:
            causes.append(forbidden_field(f"{path}.{field}", f"{field} is forbidden when subject kind is not '{other}'"))
    given = subject.get(_SUBJECTS[kind]) or {}
    if not given.get("name") and subject.get(_SUBJECTS[kind]) is not None:
        causes.append(required(f"{path}.{_SUBJECTS[kind]}.name"))
    if kind == "ServiceAccount" and subject.get("serviceAccount") is not None:
        namespace = given.get("namespace") or ""
        if not namespace:
            causes.append(required(f"{path}.serviceAccount.namespace", "must specify namespace for service account"))
        elif namespace != "*":
            causes += [invalid(f"{path}.serviceAccount.namespace", namespace, why) for why in is_dns_label(namespace)]


def _check_set(causes: list[Cause], verbs: Sequence[str], path: str, allowed: Sequence[str] | None) -> None:
    if not verbs:
        causes.append(required(path, "verbs must contain at least one value"))
    elif "*" in verbs:
        if len(verbs) > 1:
            causes.append(invalid(path, list(verbs), "if '*' is present, must not specify other verbs"))
    elif allowed is not None and not set(verbs) <= set(allowed):
        causes.append(not_supported(path, list(verbs), allowed))


def _missing(obj: Object) -> str:
    condition = get_condition(obj, "Dangling")
    return "?" if condition is None else condition.get("status") or "?"


RESOURCE = Resource(
    group="flowcontrol.apiserver.k8s.io",
    version="v1",
    kind="FlowSchema",
    plural="flowschemas",
    singular="flowschema",
    schema="io.k8s.api.flowcontrol.v1.FlowSchema",
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, validate_name=is_path_segment, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=(
        NAME,
        text("PriorityLevel", "spec", "priorityLevelConfiguration", "name", description="Where its requests queue.", missing=NONE),
        number("MatchingPrecedence", "spec", "matchingPrecedence", description="Lower ones are tried first."),
        text("DistinguisherMethod", "spec", "distinguisherMethod", "type", description="How its flows are told apart.", missing=NONE),
        AGE,
        cell("MissingPL", _missing, description="Whether its priority level is missing."),
    ),
)
