"""The audit policy: the first rule that is about a request says how much of it is told, and at which stages.

A policy is read once, at the start; a wrong one stops the server with the field and what is wrong with it. Mirrors apiserver's
pkg/audit/policy (checker.go, reader.go) and pkg/apis/audit/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import yaml

from korch.api.errors import Cause, invalid, not_supported, required
from korch.api.names import is_dns_subdomain
from korch.apiserver.authz.rules import url_matches
from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo

API_VERSION = "audit.k8s.io/v1"
RECEIVED, STARTED, COMPLETE, PANIC = "RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"
_STAGES = (PANIC, RECEIVED, COMPLETE, STARTED)


class Level(IntEnum):
    """How much is told; each level tells all that the one before it tells."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def word(self) -> str:
        """The name in policies and events."""
        return _WORDS[self]


_WORDS = {Level.NONE: "None", Level.METADATA: "Metadata", Level.REQUEST: "Request", Level.REQUEST_RESPONSE: "RequestResponse"}
_LEVELS = {word: level for level, word in _WORDS.items()}


class BadPolicy(ValueError):
    """A policy that cannot be used; the message says what is wrong, in upstream's words."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is told of one request."""

    level: Level
    omitted_stages: frozenset[str] = frozenset()
    omits_managed_fields: bool = False


SILENCE = Decision(Level.NONE)


@dataclass(frozen=True, slots=True)
class _Resources:
    group: str
    resources: tuple[str, ...]
    names: frozenset[str]

    def matches(self, info: RequestInfo) -> bool:
        if self.group != info.group:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        combined = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        return any(_resource_matches(one, combined, info) for one in self.resources)


def _resource_matches(pattern: str, combined: str, info: RequestInfo) -> bool:
    if pattern in ("*", combined):
        return True
    if info.subresource and pattern == f"*/{info.subresource}":
        return True
    return pattern.endswith("/*") and pattern.removesuffix("/*") == info.resource


@dataclass(frozen=True, slots=True)
class _Rule:
    decision: Decision
    users: frozenset[str]
    groups: frozenset[str]
    verbs: frozenset[str]
    namespaces: frozenset[str]
    resources: tuple[_Resources, ...]
    urls: tuple[str, ...]

    @property
    def is_about_single_objects(self) -> bool:
        return bool(self.namespaces) or any(one.names for one in self.resources)

    def is_about(self, user: User | None, verb: str) -> bool:
        if self.users and (user is None or user.name not in self.users):
            return False
        if self.groups and (user is None or not self.groups.intersection(user.groups)):
            return False
        return not self.verbs or verb in self.verbs

    def matches(self, user: User | None, info: RequestInfo) -> bool:
        if not self.is_about(user, info.verb):
            return False
        if self.namespaces or self.resources:
            if not info.is_resource or (self.namespaces and info.namespace not in self.namespaces):
                return False
            return not self.resources or any(one.matches(info) for one in self.resources)
        if self.urls:
            return not info.is_resource and any(url_matches(url, info.path) for url in self.urls)
        return True


class Policy:
    """An audit policy."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Read a policy. Raises BadPolicy."""
        causes = list(_causes(document))
        if causes:
            raise BadPolicy("; ".join(cause.line() for cause in causes))
        self._rules = [_rule(one, document) for one in document["rules"]]

    def decide(self, user: User | None, info: RequestInfo) -> Decision:
        """Return what is told of a request. `user` None: of one that nobody could be found to have made."""
        for rule in self._rules:
            if rule.matches(user, info):
                return rule.decision
        return SILENCE

    def may_tell(self, user: User, info: RequestInfo) -> bool:
        """Whether any request of this user with this verb on this resource is told of, in whatever namespace, under whatever name."""
        for rule in self._rules:
            if rule.is_about_single_objects:
                if rule.decision.level and rule.is_about(user, info.verb):
                    return True
            elif rule.matches(user, info):
                return rule.decision.level > Level.NONE
        return False


def load(file: Path) -> Policy:
    """Return the policy in a YAML or JSON file. Raises BadPolicy, which names the file."""
    try:
        document = yaml.safe_load(file.read_text())
    except OSError as error:
        raise BadPolicy(f'failed to read file path "{file}": {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadPolicy(f"failed decoding: {error}: from file {file}") from error
    if not isinstance(document, dict) or document.get("apiVersion") != API_VERSION or document.get("kind") != "Policy":
        found = f"{document.get('apiVersion')}, Kind={document.get('kind')}" if isinstance(document, dict) else "no object"
        raise BadPolicy(f"failed decoding: expected {API_VERSION}, Kind=Policy, got {found}: from file {file}")
    if not document.get("rules"):
        raise BadPolicy(f"loaded illegal policy with 0 rules from file {file}")
    try:
        return Policy(document)
    except BadPolicy as error:
        raise BadPolicy(f"{error}: from file {file}") from error


_RULE_FIELDS = (
    "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages", "omitManagedFields",
)  # fmt: skip
_POLICY_FIELDS = ("apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields")


def _rule(rule: Mapping[str, Any], policy: Mapping[str, Any]) -> _Rule:
    omits = rule.get("omitManagedFields")
    decision = Decision(
        level=_LEVELS[rule["level"]],
        omitted_stages=frozenset((*(rule.get("omitStages") or ()), *(policy.get("omitStages") or ()))),
        omits_managed_fields=bool(policy.get("omitManagedFields") if omits is None else omits),
    )
    resources = tuple(
        _Resources(one.get("group") or "", tuple(one.get("resources") or ()), frozenset(one.get("resourceNames") or ()))
        for one in rule.get("resources") or ()
    )
    sets = {name: frozenset(rule.get(field) or ()) for name, field in (("users", "users"), ("groups", "userGroups"), ("verbs", "verbs"))}
    namespaces = frozenset(rule.get("namespaces") or ())
    return _Rule(decision, namespaces=namespaces, resources=resources, urls=tuple(rule.get("nonResourceURLs") or ()), **sets)


def _causes(policy: Mapping[str, Any]) -> Iterator[Cause]:
    yield from (_unknown(one, one) for one in policy if one not in _POLICY_FIELDS)
    yield from _stage_causes(policy.get("omitStages"), "omitStages")
    for index, rule in enumerate(policy.get("rules") or ()):
        if isinstance(rule, dict):
            yield from _rule_causes(rule, f"rules[{index}]")
        else:
            yield invalid(f"rules[{index}]", rule, "must be an object")


def _rule_causes(rule: Mapping[str, Any], path: str) -> Iterator[Cause]:
    yield from (_unknown(f"{path}.{one}", one) for one in rule if one not in _RULE_FIELDS)
    level = rule.get("level")
    if not level:
        yield required(f"{path}.level")
    elif level not in _LEVELS:
        yield not_supported(f"{path}.level", level, sorted(_LEVELS))
    for field in ("users", "userGroups", "verbs", "namespaces", "nonResourceURLs", "omitStages", "resources"):
        if not isinstance(rule.get(field) or [], list):
            yield invalid(f"{path}.{field}", rule[field], "must be a list")
            return
    yield from _url_causes(rule.get("nonResourceURLs") or (), f"{path}.nonResourceURLs")
    for index, one in enumerate(rule.get("resources") or ()):
        yield from _resource_causes(one, f"{path}.resources[{index}]")
    yield from _stage_causes(rule.get("omitStages"), f"{path}.omitStages")
    if rule.get("nonResourceURLs") and (rule.get("resources") or rule.get("namespaces")):
        why = "rules cannot apply to both regular resources and non-resource URLs"
        yield invalid(f"{path}.nonResourceURLs", rule["nonResourceURLs"], why)


def _url_causes(urls: Sequence[str], path: str) -> Iterator[Cause]:
    for index, url in enumerate(urls):
        if url == "*":
            continue
        if not url.startswith("/"):
            yield invalid(f"{path}[{index}]", url, "non-resource URL rules must begin with a '/' character")
        if "*" in url[:-1]:
            yield invalid(f"{path}[{index}]", url, "non-resource URL wildcards '*' must be the final character of the rule")


def _resource_causes(one: Any, path: str) -> Iterator[Cause]:
    if not isinstance(one, dict):
        yield invalid(path, one, "must be an object with group, resources and resourceNames")
        return
    yield from (_unknown(f"{path}.{field}", field) for field in one if field not in ("group", "resources", "resourceNames"))
    group = one.get("group") or ""
    if group and (why := is_dns_subdomain(group)):
        yield invalid(f"{path}.group", group, why[0])
    if one.get("resourceNames") and not one.get("resources"):
        yield invalid(f"{path}.resourceNames", one["resourceNames"], "using resourceNames requires at least one resource")


def _stage_causes(stages: Any, path: str) -> Iterator[Cause]:
    for index, stage in enumerate(stages or ()):
        if stage not in _STAGES:
            yield not_supported(f"{path}[{index}]", stage, _STAGES)


def _unknown(path: str, name: str) -> Cause:
    return Cause("FieldValueInvalid", f'unknown field "{name}"', path)
