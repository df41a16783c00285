"""One rule of a role: does it allow a request, does it cover another rule, how is it shown.

Mirrors kubernetes' pkg/apis/rbac/v1/evaluation_helpers.go and component-helpers' auth/rbac/validation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from korch.apiserver.request_info import RequestInfo


@dataclass(frozen=True, slots=True)
class Rule:
    """A PolicyRule with sets for lists; `*` in a set stands for everything."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()

    @staticmethod
    def of(rule: Mapping[str, Any]) -> Rule:
        """Return the rule that a PolicyRule object says."""
        return Rule(
            frozenset(rule.get("verbs") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("resources") or ()),
            frozenset(rule.get("resourceNames") or ()),
            tuple(rule.get("nonResourceURLs") or ()),
        )

    def allows(self, info: RequestInfo) -> bool:
        """Whether this rule lets the request through."""
        if info.verb not in self.verbs and "*" not in self.verbs:
            return False
        if not info.is_resource:
            return any(url_matches(url, info.path) for url in self.urls)
        if info.group not in self.groups and "*" not in self.groups:
            return False
        if not self._has_resource(info.resource, info.subresource):
            return False
        return not self.names or info.name in self.names

    def _has_resource(self, resource: str, subresource: str) -> bool:
        if "*" in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def covers(self, other: Rule) -> bool:
        """Whether everything that `other` (broken down to single resources) allows is allowed by this rule."""
        if not ("*" in self.verbs or other.verbs <= self.verbs):
            return False
        if other.urls:
            return all(any(url_covers(url, one) for url in self.urls) for one in other.urls)
        if not ("*" in self.groups or other.groups <= self.groups):
            return False
        if not all(self._covers_resource(one) for one in other.resources):
            return False
        return not self.names or (bool(other.names) and other.names <= self.names)

    def _covers_resource(self, combined: str) -> bool:
        resource, _, subresource = combined.partition("/")
        return self._has_resource(resource, subresource)

    def pieces(self) -> Iterable[Rule]:
        """Break the rule down into rules of one verb and one resource (or URL) each."""
        for verb in sorted(self.verbs):
            one = frozenset({verb})
            for group in sorted(self.groups):
                for resource in sorted(self.resources):
                    for name in sorted(self.names) or [""]:
                        yield Rule(one, frozenset({group}), frozenset({resource}), frozenset({name} if name else ()))
            for url in self.urls:
                yield Rule(one, urls=(url,))

    def show(self) -> str:
        """Return the rule as upstream prints it in refusals: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`."""
        parts = (
            ("APIGroups", sorted(self.groups)),
            ("Resources", sorted(self.resources)),
            ("NonResourceURLs", self.urls),
            ("ResourceNames", sorted(self.names)),
            ("Verbs", sorted(self.verbs)),
        )
        return "{" + ", ".join(f"{label}:{quoted(values)}" for label, values in parts if values) + "}"

    def as_object(self) -> dict[str, Any]:
        """Return the PolicyRule object."""
        parts: dict[str, Sequence[str]] = {
            "verbs": sorted(self.verbs),
            "apiGroups": sorted(self.groups),
            "resources": sorted(self.resources),
            "resourceNames": sorted(self.names),
            "nonResourceURLs": self.urls,
        }
        return {key: list(values) for key, values in parts.items() if values}


# Two rules that allow everything.
EVERYTHING = (
    Rule(frozenset("*"), frozenset("*"), frozenset("*")),
    Rule(frozenset("*"), urls=("*",)),
)


def quoted(values: Iterable[str]) -> str:
    """Return strings as Go prints a slice of them with %q."""
    return "[" + " ".join(f'"{one}"' for one in values) + "]"


def url_matches(pattern: str, path: str) -> bool:
    """Whether a nonResourceURL, which may end with `*`, is about `path`."""
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def url_covers(owner: str, other: str) -> bool:
    """Whether everything that the pattern `other` matches is matched by `owner`."""
    return owner in ("*", other) or (owner.endswith("*") and other.startswith(owner.rstrip("*")))


def uncovered(owned: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """Return what of `wanted` is not covered by `owned`, verbs on the same things put together."""
    missing: dict[Rule, set[str]] = {}
    for piece in (piece for rule in wanted for piece in rule.pieces()):
        if not any(rule.covers(piece) for rule in owned):
            thing = Rule(frozenset(), piece.groups, piece.resources, piece.names, piece.urls)
            missing.setdefault(thing, set()).update(piece.verbs)
    return [Rule(frozenset(verbs), one.groups, one.resources, one.names, one.urls) for one, verbs in missing.items()]
