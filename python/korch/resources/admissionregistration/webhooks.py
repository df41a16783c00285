"""What both kinds of webhook configurations share: who is asked about which writes, and how.

Mirrors kubernetes' pkg/apis/admissionregistration: v1/defaults.go and validation/validation.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from korch.api.errors import Cause, duplicate, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_dns_subdomain
from korch.api.validation import check_label_selector
from korch.resources.admissionregistration.matching import CONDITION_VARIABLES, check_conditions, check_rule, default_rules
from korch.resources.apiextensions.definition import check_client_config
from korch.resources.columns import AGE, NAME, number_of
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Context, Object

_SIDE_EFFECTS = ("None", "NoneOnDryRun")
_REVIEWS = ("v1", "v1beta1")


def _default(configuration: Object, *, is_mutating: bool) -> None:
    for webhook in configuration.get("webhooks") or ():
        fill(webhook, "failurePolicy", "Fail")
        fill(webhook, "matchPolicy", "Equivalent")
        fill(webhook, "namespaceSelector", {})
        fill(webhook, "objectSelector", {})
        fill(webhook, "timeoutSeconds", 10)
        if is_mutating:
            fill(webhook, "reinvocationPolicy", "Never")
        service = at(webhook, "clientConfig", "service")
        if isinstance(service, dict) and not service.get("port"):
            service["port"] = 443
        default_rules(webhook.get("rules"))


def default_mutating(configuration: Object) -> None:
    """Fill in a MutatingWebhookConfiguration, in place."""
    _default(configuration, is_mutating=True)


def default_validating(configuration: Object) -> None:
    """Fill in a ValidatingWebhookConfiguration, in place."""
    _default(configuration, is_mutating=False)


def prepare_update(new: Object, old: Object, _context: Context) -> None:
    """A configuration has no spec: its generation follows its webhooks."""
    if new.get("webhooks") != old.get("webhooks"):
        new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1


def validate(configuration: Object) -> list[Cause]:
    """Return what is wrong with a configuration of either kind."""
    causes: list[Cause] = []
    names: set[str] = set()
    for index, webhook in enumerate(configuration.get("webhooks") or ()):
        path, name = f"webhooks[{index}]", webhook.get("name") or ""
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names.add(name)
        _check_webhook(causes, webhook, path)
    return causes


def _check_webhook(causes: list[Cause], webhook: Mapping[str, Any], path: str) -> None:
    _check_name(causes, webhook.get("name") or "", f"{path}.name")
    for index, rule in enumerate(webhook.get("rules") or ()):
        check_rule(causes, rule, f"{path}.rules[{index}]")
    for field, allowed in (("failurePolicy", ("Fail", "Ignore")), ("matchPolicy", ("Equivalent", "Exact"))):
        value = webhook.get(field)
        if value is not None and value not in allowed:
            causes.append(not_supported(f"{path}.{field}", value, allowed))
    effects = webhook.get("sideEffects")
    if effects is None:
        causes.append(required(f"{path}.sideEffects", f"must specify one of {', '.join(_SIDE_EFFECTS)}"))
    elif effects not in _SIDE_EFFECTS:
        causes.append(not_supported(f"{path}.sideEffects", effects, _SIDE_EFFECTS))
    timeout = webhook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= 30:
        causes.append(invalid(f"{path}.timeoutSeconds", timeout, "the timeout value must be between 1 and 30 seconds"))
    for field in ("namespaceSelector", "objectSelector"):
        check_label_selector(causes, webhook.get(field), f"{path}.{field}")
    reinvocation = webhook.get("reinvocationPolicy")
    if reinvocation is not None and reinvocation not in ("IfNeeded", "Never"):
        causes.append(not_supported(f"{path}.reinvocationPolicy", reinvocation, ("IfNeeded", "Never")))
    check_client_config(causes, webhook.get("clientConfig") or {}, f"{path}.clientConfig")
    _check_reviews(causes, webhook.get("admissionReviewVersions") or (), f"{path}.admissionReviewVersions")
    check_conditions(causes, webhook.get("matchConditions"), f"{path}.matchConditions", CONDITION_VARIABLES)


def _check_name(causes: list[Cause], name: str, path: str) -> None:
    if not name:
        causes.append(required(path))
    elif reasons := is_dns_subdomain(name):
        causes.append(invalid(path, name, ",".join(reasons)))
    elif name.count(".") < 2:
        causes.append(invalid(path, name, "should be a domain with at least three segments separated by dots"))


def _check_reviews(causes: list[Cause], versions: Sequence[str], path: str) -> None:
    if not versions:
        causes.append(required(path, f"must specify one of {', '.join(_REVIEWS)}"))
    elif not any(one in _REVIEWS for one in versions):
        causes.append(invalid(path, list(versions), f"must include at least one of {', '.join(_REVIEWS)}"))
    for index, one in enumerate(versions):
        if one in versions[:index]:
            causes.append(invalid(f"{path}[{index}]", one, "duplicate version"))


COLUMNS = (NAME, number_of("Webhooks", "webhooks", description="How many webhooks it names."), AGE)
