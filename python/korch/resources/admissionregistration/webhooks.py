"""What the two kinds of webhook configurations share. Mirrors kubernetes' pkg/apis/admissionregistration validation and defaults."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from korch.api.errors import Cause, duplicate, forbidden_field, invalid, not_supported, required
from korch.api.names import is_dns_subdomain, is_qualified_name
from korch.api.validation import check_label_selector
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object

_FAILURE = ("Fail", "Ignore")
_MATCH = ("Equivalent", "Exact")
_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REINVOCATION = ("IfNeeded", "Never")
_SCOPES = ("*", "Cluster", "Namespaced")
_OPERATIONS = ("*", "CREATE", "UPDATE", "DELETE", "CONNECT")
_VERSIONS = ("v1", "v1beta1")
_CONDITIONS_MAX = 64


def default_rules(rules: Sequence[Object]) -> None:
    """Fill in the scope of rules, in place."""
    for rule in rules:
        fill(rule, "scope", "*")


def default_webhooks(obj: Object, *, is_mutating: bool) -> None:
    """Fill in the webhooks of a configuration, in place."""
    for webhook in obj.get("webhooks") or ():
        fill(webhook, "failurePolicy", "Fail")
        fill(webhook, "matchPolicy", "Equivalent")
        for field in ("namespaceSelector", "objectSelector"):
            if webhook.get(field) is None:
                webhook[field] = {}
        if webhook.get("timeoutSeconds") is None:
            webhook["timeoutSeconds"] = 10
        if is_mutating:
            fill(webhook, "reinvocationPolicy", "Never")
        service = (webhook.get("clientConfig") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443
        default_rules(webhook.get("rules") or ())


def validate_webhooks(obj: Object, *, is_mutating: bool) -> list[Cause]:
    """Return what is wrong with the webhooks of a configuration."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for position, webhook in enumerate(obj.get("webhooks") or ()):
        path, name = f"webhooks[{position}]", webhook.get("name") or ""
        _check_webhook(causes, webhook, path)
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        policy = webhook.get("reinvocationPolicy")
        if is_mutating and policy is not None and policy not in _REINVOCATION:
            causes.append(not_supported(f"{path}.reinvocationPolicy", policy, _REINVOCATION))
    return causes


def _check_webhook(causes: list[Cause], webhook: Object, path: str) -> None:
    name = webhook.get("name") or ""
    _check_full_name(causes, name, f"{path}.name")
    versions = webhook.get("admissionReviewVersions") or ()
    if not versions:
        causes.append(required(f"{path}.admissionReviewVersions", f"must specify one of {', '.join(_VERSIONS)}"))
    elif not set(versions) & set(_VERSIONS):
        why = f"must include at least one of {', '.join(_VERSIONS)}"
        causes.append(invalid(f"{path}.admissionReviewVersions", list(versions), why))
    check_rules(causes, webhook.get("rules") or (), f"{path}.rules")
    for field, allowed in (("failurePolicy", _FAILURE), ("matchPolicy", _MATCH)):
        if webhook.get(field) not in allowed:
            causes.append(not_supported(f"{path}.{field}", webhook.get(field) or "", allowed))
    effects = webhook.get("sideEffects")
    if not effects:
        causes.append(required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    elif effects not in _SIDE_EFFECTS:
        causes.append(not_supported(f"{path}.sideEffects", effects, _SIDE_EFFECTS))
    timeout = webhook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        causes.append(invalid(f"{path}.timeoutSeconds", timeout, "the timeout value must be between 1 and 30 seconds"))
    for field in ("namespaceSelector", "objectSelector"):
        check_label_selector(causes, webhook.get(field), f"{path}.{field}")
    check_client_config(causes, webhook.get("clientConfig") or {}, f"{path}.clientConfig")
    check_conditions(causes, webhook.get("matchConditions") or (), f"{path}.matchConditions")


def _check_full_name(causes: list[Cause], name: str, path: str) -> None:
    if not name:
        causes.append(required(path))
        return
    reasons = is_dns_subdomain(name)
    causes += [invalid(path, name, why) for why in reasons]
    if not reasons and name.count(".") < 2:
        causes.append(invalid(path, name, "should be a domain with at least three segments separated by dots"))


def check_rules(causes: list[Cause], rules: Sequence[Object], path: str) -> None:
    """Check RuleWithOperations: operations, groups, versions, resources and scope."""
    for position, rule in enumerate(rules):
        where = f"{path}[{position}]"
        operations = rule.get("operations") or ()
        if not operations:
            causes.append(required(f"{where}.operations"))
        elif "*" in operations and len(operations) > 1:
            causes.append(invalid(f"{where}.operations", list(operations), "if '*' is present, must not specify other operations"))
        causes += [
            not_supported(f"{where}.operations[{index}]", one, _OPERATIONS)
            for index, one in enumerate(operations)
            if one not in _OPERATIONS
        ]
        for field in ("apiGroups", "apiVersions"):
            values = rule.get(field) or ()
            if not values:
                causes.append(required(f"{where}.{field}"))
            if "*" in values and len(values) > 1:
                words = "API groups" if field == "apiGroups" else "API versions"
                causes.append(invalid(f"{where}.{field}", list(values), f"if '*' is present, must not specify other {words}"))
            if field == "apiVersions":
                causes += [required(f"{where}.{field}[{index}]") for index, one in enumerate(values) if not one]
        _check_resources(causes, rule.get("resources") or (), f"{where}.resources")
        if rule.get("scope") is not None and rule["scope"] not in _SCOPES:
            causes.append(not_supported(f"{where}.scope", rule["scope"], _SCOPES))


def _check_resources(causes: list[Cause], resources: Sequence[str], path: str) -> None:
    if not resources:
        causes.append(required(path))
    whole = {one.rpartition("/")[0] for one in resources if one.endswith("/*")}
    anywhere = {one.partition("/")[2] for one in resources if one.startswith("*/")}
    for position, one in enumerate(resources):
        where = f"{path}[{position}]"
        if not one:
            causes.append(required(where))
        name, slash, sub = one.partition("/")
        if slash and name in whole and sub != "*":
            causes.append(invalid(where, one, f"if '{name}/*' is present, must not specify {one}"))
        if slash and sub in anywhere and name != "*":
            causes.append(invalid(where, one, f"if '*/{sub}' is present, must not specify {one}"))
    if len(resources) > 1 and "*/*" in resources:
        causes.append(invalid(path, list(resources), "if '*/*' is present, must not specify other resources"))
    if "*" in resources and any("/" not in one and one != "*" for one in resources):
        causes.append(invalid(path, list(resources), "if '*' is present, must not specify other resources without subresources"))


def check_client_config(causes: list[Cause], config: Object, path: str) -> None:
    """Check how a webhook is reached: by URL or by Service, not by both."""
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        causes.append(required(path, "exactly one of url or service is required"))
    elif url is not None:
        _check_url(causes, url, f"{path}.url")
    else:
        check_service_reference(causes, service or {}, f"{path}.service")


def check_service_reference(causes: list[Cause], service: Object, path: str) -> None:
    """Check the Service of a webhook."""
    causes += [required(f"{path}.{field}", f"service {field} is required") for field in ("name", "namespace") if not service.get(field)]
    port = service.get("port")
    if port is not None and not 1 <= port <= 65535:
        causes.append(invalid(f"{path}.port", port, "port is not valid: must be between 1 and 65535, inclusive"))
    text = service.get("path")
    if text is None or text == "/":
        return
    if not text.startswith("/"):
        causes.append(invalid(f"{path}.path", text, "must start with a '/'"))
    segments = text.strip("/").split("/")
    for position, segment in enumerate(segments):
        if not segment:
            causes.append(invalid(f"{path}.path", text, f"segment[{position}] may not be empty"))
        else:
            causes += [invalid(f"{path}.path", text, f"segment[{position}]: {why}") for why in is_dns_subdomain(segment)]


def _check_url(causes: list[Cause], url: str, path: str) -> None:
    form = "; desired format: https://host[/path]"
    try:
        parts = urlsplit(url)
    except ValueError as error:
        causes.append(required(path, f"url must be a valid URL: {error}{form}"))
        return
    if parts.scheme != "https":
        causes.append(invalid(path, parts.scheme, "'https' is the only allowed URL scheme" + form))
    if not parts.netloc:
        causes.append(invalid(path, parts.netloc, "host must be specified" + form))
    for value, words in (
        ("@" in parts.netloc, "user information is not permitted in the URL"),
        (bool(parts.fragment), "fragments are not permitted in the URL"),
        (bool(parts.query), "query parameters are not permitted in the URL"),
    ):
        if value:
            causes.append(invalid(path, parts.fragment or parts.query or parts.netloc, words))


def check_conditions(causes: list[Cause], conditions: Sequence[Object], path: str) -> None:
    """Check matchConditions: few, with names of their own and an expression each."""
    if len(conditions) > _CONDITIONS_MAX:
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(conditions)}: must have at most {_CONDITIONS_MAX} items", path))
    seen: set[str] = set()
    for position, condition in enumerate(conditions):
        where, name = f"{path}[{position}]", condition.get("name") or ""
        if not (condition.get("expression") or "").strip():
            causes.append(required(f"{where}.expression"))
        if not name:
            causes.append(required(f"{where}.name"))
        else:
            causes += [invalid(f"{where}.name", name, why) for why in is_qualified_name(name)]
            if name in seen:
                causes.append(duplicate(f"{where}.name", name))
        seen.add(name)


_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")


def check_variables(causes: list[Cause], variables: Sequence[Object], path: str) -> None:
    """Check the variables of a policy: CEL identifiers of their own, with an expression each."""
    seen: set[str] = set()
    for position, variable in enumerate(variables):
        where, name = f"{path}[{position}]", variable.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
        elif not _IDENTIFIER.fullmatch(name):
            causes.append(invalid(f"{where}.name", name, "name is not a valid CEL identifier"))
        elif name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)
        if not (variable.get("expression") or "").strip():
            causes.append(required(f"{where}.expression", "expression is not specified"))


def check_match(causes: list[Cause], match: Object | None, path: str, *, is_required: bool) -> None:
    """Check MatchResources (`matchConstraints` of a policy, `matchResources` of a binding)."""
    if match is None:
        if is_required:
            causes.append(required(path))
        return
    if match.get("matchPolicy") is not None and match["matchPolicy"] not in _MATCH:
        causes.append(not_supported(f"{path}.matchPolicy", match["matchPolicy"], _MATCH))
    for field in ("namespaceSelector", "objectSelector"):
        if is_required and match.get(field) is None:
            causes.append(required(f"{path}.{field}"))
        check_label_selector(causes, match.get(field), f"{path}.{field}")
    if is_required and not match.get("resourceRules"):
        causes.append(required(f"{path}.resourceRules"))
    for field in ("resourceRules", "excludeResourceRules"):
        check_rules(causes, match.get(field) or (), f"{path}.{field}")


def default_match(match: Object | None) -> None:
    """Fill in MatchResources, in place."""
    if match is None:
        return
    fill(match, "matchPolicy", "Equivalent")
    for field in ("namespaceSelector", "objectSelector"):
        if match.get(field) is None:
            match[field] = {}
    for field in ("resourceRules", "excludeResourceRules"):
        default_rules(match.get(field) or ())


def check_param_kind(causes: list[Cause], kind: Object | None, path: str) -> None:
    """Check paramKind."""
    if kind is None:
        return
    for field in ("apiVersion", "kind"):
        if not kind.get(field):
            causes.append(required(f"{path}.{field}"))
    version = kind.get("apiVersion") or ""
    if version.count("/") > 1:
        causes.append(invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))


def check_param_ref(causes: list[Cause], reference: Object | None, path: str) -> None:
    """Check paramRef: by name or by selector, and what happens when nothing is found."""
    if reference is None:
        return
    has_name, has_selector = bool(reference.get("name")), reference.get("selector") is not None
    if has_name and has_selector:
        causes.append(forbidden_field(f"{path}.name", "name and selector are mutually exclusive"))
    elif not has_name and not has_selector:
        causes.append(required(path, "one of name or selector must be specified"))
    check_label_selector(causes, reference.get("selector"), f"{path}.selector")
    action: Any = reference.get("parameterNotFoundAction")
    if not action:
        causes.append(required(f"{path}.parameterNotFoundAction"))
    elif action not in ("Allow", "Deny"):
        causes.append(not_supported(f"{path}.parameterNotFoundAction", action, ("Allow", "Deny")))


def shown_param_kind(obj: Object) -> str:
    """Return the cell of the column ParamKind."""
    kind = (obj.get("spec") or {}).get("paramKind")
    return f"{kind.get('apiVersion') or ''}/{kind.get('kind') or ''}" if kind else "<unset>"


def shown_param_ref(obj: Object) -> str:
    """Return the cell of the column ParamRef."""
    reference = (obj.get("spec") or {}).get("paramRef")
    if not reference:
        return "<unset>"
    if reference.get("name"):
        namespace = reference.get("namespace") or ""
        return f"{namespace}/{reference['name']}" if namespace else reference["name"]
    return "*" if reference.get("selector") is None else "<selector>"
