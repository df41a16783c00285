"""What webhooks and policies share: the rules that say which requests they are about, and CEL conditions.

Mirrors kubernetes' pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from korch._core import native
from korch.api.errors import Cause, duplicate, invalid, not_supported, required
from korch.api.names import is_qualified_name
from korch.api.validation import check_label_selector
from korch.resources.admissionregistration.authorizer import AskingExpression, asking
from korch.resources.podspec.defaults import fill

Object = dict[str, Any]

OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
SCOPES = ("*", "Cluster", "Namespaced")
# What a match condition may name.
CONDITION_VARIABLES = ("object", "oldObject", "request", "authorizer")
_CONDITIONS_MAX = 64
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@lru_cache(maxsize=4096)
def compiled(source: str, variables: tuple[str, ...], result: str) -> native.CelExpression | AskingExpression:
    """Return an expression, parsed once. Raises ValueError with cel-go's report."""
    if "authorizer" in source and "authorizer" in variables and (found := asking(source, variables, result)) is not None:
        return found
    return native.CelExpression(source, variables, result)


def default_rules(rules: Sequence[Object] | None) -> None:
    """A rule without a scope is for all scopes."""
    for rule in rules or ():
        if not rule.get("scope"):
            rule["scope"] = "*"


def default_match(match: Object) -> None:
    """Fill in a MatchResources, in place."""
    fill(match, "matchPolicy", "Equivalent")
    fill(match, "namespaceSelector", {})
    fill(match, "objectSelector", {})
    default_rules(match.get("resourceRules"))
    default_rules(match.get("excludeResourceRules"))


def check_match(causes: list[Cause], match: Mapping[str, Any], path: str) -> None:
    """Check a MatchResources."""
    policy = match.get("matchPolicy")
    if policy is not None and policy not in ("Equivalent", "Exact"):
        causes.append(not_supported(f"{path}.matchPolicy", policy, ("Equivalent", "Exact")))
    for name in ("namespaceSelector", "objectSelector"):
        check_label_selector(causes, match.get(name), f"{path}.{name}")
    for name in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(name) or ()):
            check_rule(causes, rule, f"{path}.{name}[{index}]")


def check_rule(causes: list[Cause], rule: Mapping[str, Any], path: str) -> None:
    """Check a RuleWithOperations. Mirrors validateRuleWithOperations."""
    for name in ("apiGroups", "apiVersions"):
        values: Sequence[str] = rule.get(name) or ()
        if not values:
            causes.append(required(f"{path}.{name}"))
        if "*" in values and len(values) > 1:
            what = "groups" if name == "apiGroups" else "versions"
            causes.append(invalid(f"{path}.{name}", list(values), f"if '*' is present, must not specify other API {what}"))
        if name == "apiVersions":
            causes += [required(f"{path}.{name}[{index}]") for index, one in enumerate(values) if not one]
    _check_resources(causes, rule.get("resources") or (), f"{path}.resources")
    scope = rule.get("scope")
    if scope is not None and scope not in SCOPES:
        causes.append(not_supported(f"{path}.scope", scope, SCOPES))
    operations: Sequence[str] = rule.get("operations") or ()
    if not operations:
        causes.append(required(f"{path}.operations"))
    if "*" in operations and len(operations) > 1:
        causes.append(invalid(f"{path}.operations", list(operations), "if '*' is present, must not specify other operations"))
    for index, one in enumerate(operations):
        if one not in OPERATIONS:
            causes.append(not_supported(f"{path}.operations[{index}]", one, OPERATIONS))


def _check_resources(causes: list[Cause], resources: Sequence[str], path: str) -> None:
    if not resources:
        causes.append(required(path))
    for index, one in enumerate(resources):
        if not one:
            causes.append(required(f"{path}[{index}]"))
        if one == "*/*" and len(resources) > 1:
            causes.append(invalid(f"{path}[{index}]", list(resources), "if '*/*' is present, must not specify other resources"))
    if "*" in resources and any("/" not in one and one != "*" for one in resources):
        why = "if '*' is present, must not specify other resources without subresources"
        causes.append(invalid(path, list(resources), why))


def check_conditions(causes: list[Cause], conditions: Sequence[Object] | None, path: str, variables: tuple[str, ...]) -> None:
    """Check a list of MatchConditions: their names, and that their expressions compile."""
    listed: Sequence[Object] = conditions or ()
    if len(listed) > _CONDITIONS_MAX:
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(listed)}: must have at most {_CONDITIONS_MAX} items", path))
    seen: set[str] = set()
    for index, one in enumerate(listed):
        where, name = f"{path}[{index}]", one.get("name") or ""
        check_expression(causes, one.get("expression"), f"{where}.expression", variables, "bool")
        if not name:
            causes.append(required(f"{where}.name"))
            continue
        causes += [invalid(f"{where}.name", name, why) for why in is_qualified_name(name)]
        if name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)


def check_expression(causes: list[Cause], expression: str | None, path: str, variables: tuple[str, ...], result: str) -> bool:
    """Check that an expression is there and compiles; return whether it does."""
    if not (expression or "").strip():
        causes.append(required(path))
        return False
    assert expression is not None
    try:
        compiled(expression, variables, result)
    except ValueError as error:
        report = str(error)
        wanted = {
            "bool": "must evaluate to bool",
            "string": "must evaluate to string",
            "string or null": "must evaluate to string or null_type",
        }
        why = f"compilation failed: {report}" if report else wanted.get(result, "has a wrong type")
        causes.append(invalid(path, expression, why))
        return False
    return True


def check_variables(causes: list[Cause], declared: Sequence[Object] | None, path: str, variables: tuple[str, ...]) -> None:
    """Check the variables that a policy declares: identifiers, each once, whose expressions compile."""
    seen: set[str] = set()
    for index, one in enumerate(declared or ()):
        where, name = f"{path}[{index}]", one.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name", "name is not specified"))
        elif not _IDENTIFIER.fullmatch(name):
            causes.append(invalid(f"{where}.name", name, "name is not a valid CEL identifier"))
        elif name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)
        check_expression(causes, one.get("expression"), f"{where}.expression", variables, "")
