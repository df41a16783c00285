"""To which flow a request belongs: the first flow schema, by matching precedence, whose rules are about it.

What a schema says is compared once for each kind of request of each user and then remembered, until a schema or level changes.
Mirrors apiserver's pkg/util/flowcontrol/rule.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from korch.apiserver.authz.rules import url_matches
from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo

Object = Mapping[str, Any]
_ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Schema:
    """A flow schema: `level` is the name of its priority level, `distinguisher` ByUser, ByNamespace or ""."""

    name: str
    uid: str
    level: str
    precedence: int
    distinguisher: str
    rules: Sequence[Object]

    @staticmethod
    def of(obj: Object) -> Schema:
        """Return the schema that a FlowSchema object says."""
        metadata, spec = obj["metadata"], obj.get("spec") or {}
        return Schema(
            metadata["name"],
            metadata.get("uid") or "",
            (spec.get("priorityLevelConfiguration") or {}).get("name") or "",
            spec.get("matchingPrecedence") or 1000,
            (spec.get("distinguisherMethod") or {}).get("type") or "",
            spec.get("rules") or (),
        )

    def is_about(self, user: User, info: RequestInfo) -> bool:
        """Whether the request belongs here."""
        return any(
            any(_is_subject(one, user) for one in rule.get("subjects") or ())
            and (
                any(_is_resource(one, info) for one in rule.get("resourceRules") or ())
                if info.is_resource
                else any(_is_url(one, info) for one in rule.get("nonResourceRules") or ())
            )
            for rule in self.rules
        )

    def flow(self, user: User, info: RequestInfo) -> str:
        """Return what tells the flows of this schema apart."""
        if self.distinguisher == "ByUser":
            return user.name
        return info.namespace if self.distinguisher == "ByNamespace" else ""


def _is_subject(subject: Object, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            name = (subject.get("user") or {}).get("name")
            return name in ("*", user.name)
        case "Group":
            name = (subject.get("group") or {}).get("name")
            return name == "*" or name in user.groups
        case "ServiceAccount":
            account = subject.get("serviceAccount") or {}
            if not user.name.startswith(_ACCOUNT_PREFIX):
                return False
            namespace, _, name = user.name.removeprefix(_ACCOUNT_PREFIX).partition(":")
            return account.get("namespace") == namespace and account.get("name") in ("*", name)
        case _:
            return False


def _has(listed: Sequence[str] | None, wanted: str) -> bool:
    return bool(listed) and (wanted in (listed or ()) or "*" in (listed or ()))


def _is_resource(rule: Object, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (_has(rule.get("verbs"), info.verb) and _has(rule.get("apiGroups"), info.group) and _has(rule.get("resources"), resource)):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _is_url(rule: Object, info: RequestInfo) -> bool:
    return _has(rule.get("verbs"), info.verb) and any(url_matches(url, info.path) for url in rule.get("nonResourceURLs") or ())
