"""AuthenticationConfiguration: identity providers in a file, in place of the --oidc- options, any number of them.

Mirrors apiserver's pkg/apis/apiserver/validation (ValidateAuthenticationConfiguration) for the part that is about JWT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from korch._core import native
from korch.api.errors import Cause, duplicate, invalid, required
from korch.apiserver.authn.oidc import SIGNING_ALGORITHMS, Expression, Mapped, Provider

Object = Mapping[str, Any]
_API_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
_JWT_FIELDS = ("issuer", "claimValidationRules", "claimMappings", "userValidationRules")


class BadConfiguration(ValueError):
    """A configuration that cannot be used; the message says what is wrong, in upstream's words."""


def load(file: Path) -> list[tuple[Provider, str]]:
    """Return the providers in a file, each with the PEM of who signs its certificate ("": the system's). Raises BadConfiguration."""
    try:
        document: Any = yaml.safe_load(file.read_text())
    except OSError as error:
        raise BadConfiguration(f"failed to read authentication configuration file {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"failed to decode authentication configuration file {file}: {error}") from error
    if (
        not isinstance(document, dict)
        or document.get("apiVersion") not in _API_VERSIONS
        or document.get("kind") != "AuthenticationConfiguration"
    ):
        raise BadConfiguration(f"expected AuthenticationConfiguration of {_API_VERSIONS[0]} in {file}")
    causes: list[Cause] = [
        Cause("FieldValueInvalid", f'unknown field "{one}"', one) for one in document if one not in ("apiVersion", "kind", "jwt")
    ]
    providers: list[tuple[Provider, str]] = []
    seen: set[str] = set()
    for index, one in enumerate(document.get("jwt") or ()):
        path = f"jwt[{index}]"
        _check(causes, one, path)
        url = (one.get("issuer") or {}).get("url") or ""
        if url in seen:
            causes.append(duplicate(f"{path}.issuer.url", url))
        seen.add(url)
    if causes:
        raise BadConfiguration("; ".join(cause.line() for cause in causes))
    for one in document.get("jwt") or ():
        providers.append((_provider(one), one["issuer"].get("certificateAuthority") or ""))
    return providers


def check_issuer(url: str, path: str, causes: list[Cause]) -> None:
    """Check an issuer's URL. Mirrors validateURL."""
    if not url:
        causes.append(required(path, "URL is required"))
        return
    parts = urlsplit(url)
    if parts.scheme != "https":
        causes.append(invalid(path, url, "URL scheme must be https"))
    if parts.username:
        causes.append(invalid(path, url, "URL must not contain a username or password"))
    if parts.query:
        causes.append(invalid(path, url, "URL must not contain a query"))
    if parts.fragment:
        causes.append(invalid(path, url, "URL must not contain a fragment"))


def _check(causes: list[Cause], one: Object, path: str) -> None:
    causes += [Cause("FieldValueInvalid", f'unknown field "{name}"', f"{path}.{name}") for name in one if name not in _JWT_FIELDS]
    issuer: Object = one.get("issuer") or {}
    check_issuer(issuer.get("url") or "", f"{path}.issuer.url", causes)
    audiences: Sequence[str] = issuer.get("audiences") or ()
    if not audiences:
        causes.append(required(f"{path}.issuer.audiences", f"at least one {path}.issuer.audiences is required"))
    policy = issuer.get("audienceMatchPolicy") or ""
    if len(audiences) > 1 and policy != "MatchAny":
        why = "audienceMatchPolicy must be MatchAny for multiple audiences"
        causes.append(invalid(f"{path}.issuer.audienceMatchPolicy", policy, why))
    for index, rule in enumerate(one.get("claimValidationRules") or ()):
        where = f"{path}.claimValidationRules[{index}]"
        if bool(rule.get("claim")) == bool(rule.get("expression")):
            causes.append(required(where, "claim or expression is required"))
        _check_expression(causes, rule.get("expression"), ("claims",), f"{where}.expression", "bool")
    mappings: Object = one.get("claimMappings") or {}
    username: Object = mappings.get("username") or {}
    if not username.get("claim") and not username.get("expression"):
        causes.append(required(f"{path}.claimMappings.username", "claim or expression is required"))
    for name in ("username", "groups"):
        mapped: Object = mappings.get(name) or {}
        where = f"{path}.claimMappings.{name}"
        if mapped.get("claim") and mapped.get("expression"):
            causes.append(invalid(where, "", "claim and expression can't both be set"))
        if mapped.get("claim") and mapped.get("prefix") is None:
            causes.append(
                required(f"{where}.prefix", "prefix is required when claim is set. It can be set to an empty string to disable prefixing")
            )
        if mapped.get("expression") and mapped.get("prefix") is not None:
            causes.append(invalid(f"{where}.prefix", mapped["prefix"], "prefix can't be set when expression is set"))
        _check_expression(causes, mapped.get("expression"), ("claims",), f"{where}.expression", "")
    _check_expression(causes, (mappings.get("uid") or {}).get("expression"), ("claims",), f"{path}.claimMappings.uid.expression", "")
    for index, extra in enumerate(mappings.get("extra") or ()):
        where = f"{path}.claimMappings.extra[{index}]"
        if not extra.get("key"):
            causes.append(required(f"{where}.key"))
        if not extra.get("valueExpression"):
            causes.append(required(f"{where}.valueExpression", "valueExpression is required"))
        _check_expression(causes, extra.get("valueExpression"), ("claims",), f"{where}.valueExpression", "")
    for index, rule in enumerate(one.get("userValidationRules") or ()):
        where = f"{path}.userValidationRules[{index}].expression"
        if not rule.get("expression"):
            causes.append(required(where, "expression is required"))
        _check_expression(causes, rule.get("expression"), ("user",), where, "bool")


def _check_expression(causes: list[Cause], source: str | None, names: tuple[str, ...], path: str, result: str) -> None:
    if not source:
        return
    try:
        native.CelExpression(source, names, result)
    except ValueError as error:
        causes.append(invalid(path, source, f"compilation failed: {error}"))


def _provider(one: Object) -> Provider:
    issuer: Object = one["issuer"]
    mappings: Object = one["claimMappings"]
    rules: Sequence[Object] = one.get("claimValidationRules") or ()
    return Provider(
        issuer=issuer["url"],
        discovery_url=issuer.get("discoveryURL") or "",
        audiences=tuple(issuer["audiences"]),
        username=_mapped(mappings["username"]),
        groups=_mapped(mappings["groups"]) if mappings.get("groups") else None,
        uid=_mapped(mappings["uid"]) if mappings.get("uid") else None,
        extra=tuple((extra["key"], extra["valueExpression"]) for extra in mappings.get("extra") or ()),
        required_claims={rule["claim"]: rule.get("requiredValue") or "" for rule in rules if rule.get("claim")},
        claim_rules=tuple(_expression(rule) for rule in rules if rule.get("expression")),
        user_rules=tuple(_expression(rule) for rule in one.get("userValidationRules") or ()),
        algorithms=SIGNING_ALGORITHMS,
    )


def _mapped(one: Object) -> Mapped:
    return Mapped(claim=one.get("claim") or "", prefix=one.get("prefix") or "", expression=one.get("expression") or "")


def _expression(rule: Object) -> Expression:
    return Expression(source=rule["expression"], message=rule.get("message") or "")
