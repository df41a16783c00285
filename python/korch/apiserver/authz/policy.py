"""The default policy as objects, and how it comes into a store: what is missing is written in one commit, what was cut is mended.

An object whose annotation `rbac.authorization.kubernetes.io/autoupdate` is "false" is the administrator's own and left alone; in the
others missing rules and subjects are added, and what was added by hand stays. Mirrors kubernetes' pkg/registry/rbac/reconciliation
and its post-start hook rbac/bootstrap-roles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from korch.api.features import Features
from korch.api.meta import annotations_of
from korch.apiserver import objects
from korch.apiserver.authz.default_roles import (
    CLUSTER_ROLES,
    CONTROLLER_ROLES,
    NODE_RULES,
    ROLES,
    WORKLOAD_CONTROLLER_ROLES,
    WORKLOAD_ROLES,
)
from korch.apiserver.authz.policy_text import parse_rules
from korch.apiserver.authz.rules import Rule, uncovered
from korch.apiserver.records import Records
from korch.resources.rbac import clusterrole, clusterrolebinding, role, rolebinding
from korch.resources.rbac.rules import GROUP
from korch.resources.resource import Resource
from korch.runtime.context import Runtime

if TYPE_CHECKING:
    from korch._core._native import Op

Object = dict[str, Any]

_AUTO_UPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE_PREFIX = "rbac.authorization.k8s.io/aggregate-to-"
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}


@dataclass(frozen=True, slots=True)
class _Section:
    """One role of the text: `sums` and `adds_to` are keys of aggregation, "" for none."""

    name: str
    namespace: str
    subjects: tuple[str, ...]
    rules: tuple[Rule, ...]
    sums: str = ""
    adds_to: str = ""


def default_policy(features: Features = Features()) -> list[tuple[Resource, Object]]:
    """Return every default role and binding with its kind, roles first. Takes some milliseconds."""
    more = WORKLOAD_CONTROLLER_ROLES if features.generic_workload else ""
    sections = [
        *_sections(CLUSTER_ROLES),
        _Section("system:node", "", (), tuple(parse_rules(NODE_RULES))),
        *(_controller_section(one) for one in _sections(CONTROLLER_ROLES + more)),
        *_sections(ROLES),
    ]
    if features.generic_workload:
        added = {one.name: one.rules for one in _sections(WORKLOAD_ROLES)}
        sections = [replace(one, rules=(*one.rules, *added.get(one.name, ()))) for one in sections]
    roles = [_role(one, sections) for one in sections]
    bindings = [_binding(one) for one in sections if one.subjects]
    # The role exists for those who bind it by hand; nodes have an authorizer of their own.
    bindings.append((clusterrolebinding.RESOURCE, _bound("ClusterRoleBinding", "system:node", "ClusterRole", [])))
    return roles + bindings


def missing_policy(records: Records, runtime: Runtime, features: Features = Features()) -> list[Op]:
    """Return the operations that make the default policy true in the store."""
    operations: list[Op] = []
    for resource, wanted in default_policy(features):
        metadata = wanted["metadata"]
        found = records.read(resource, metadata.get("namespace") or "", metadata["name"])
        if found is None:
            objects.stamp_new(resource, wanted, uid=runtime.rng.uid(), now=runtime.clock.now())
            operations.append(records.put(resource, wanted, 0))
            continue
        present: Object = orjson.loads(found[0])
        if annotations_of(present).get(_AUTO_UPDATE) != "false" and _mend(present, wanted):
            operations.append(records.put(resource, present, found[1]))
    return operations


def _mend(present: Object, wanted: Object) -> bool:
    """Add to `present` what `wanted` has and it lacks; whether that was anything."""
    if "roleRef" in wanted:
        missing = [one for one in wanted.get("subjects") or () if one not in (present.get("subjects") or ())]
        if missing:
            present["subjects"] = [*(present.get("subjects") or ()), *missing]
        return bool(missing)
    if wanted.get("aggregationRule"):
        return False
    lacking = uncovered([Rule.of(one) for one in present.get("rules") or ()], [Rule.of(one) for one in wanted.get("rules") or ()])
    if lacking:
        present["rules"] = [*(present.get("rules") or ()), *(one.as_object() for one in lacking)]
    return bool(lacking)


def _sections(text: str) -> Iterator[_Section]:
    for block in text.split("\n= ")[1:]:
        head, _, rules = block.partition("\n")
        title, _, subjects = head.partition(" -> ")
        words = title.split()
        namespace, _, name = words[0].rpartition("/")
        sums = words[words.index("of") + 1] if "of" in words else ""
        adds_to = next((word[1:] for word in words if word.startswith("+")), "")
        yield _Section(name, namespace, tuple(subjects.split()), tuple(parse_rules(rules)), sums, adds_to)


def _controller_section(section: _Section) -> _Section:
    subject = f"ServiceAccount:kube-system:{section.name}"
    events = parse_rules("create,patch,update: events events.events.k8s.io")
    return _Section(f"system:controller:{section.name}", "", (subject,), (*section.rules, *events))


def _role(section: _Section, sections: list[_Section]) -> tuple[Resource, Object]:
    resource = role.RESOURCE if section.namespace else clusterrole.RESOURCE
    rules = _summed(section.sums, sections) if section.sums else section.rules
    obj = _object(resource.kind, section.name, section.namespace)
    if section.adds_to:
        obj["metadata"]["labels"] = {**_LABELS, f"{_AGGREGATE_PREFIX}{section.adds_to}": "true"}
    if section.sums:
        selector = {"matchLabels": {f"{_AGGREGATE_PREFIX}{section.sums}": "true"}}
        obj["aggregationRule"] = {"clusterRoleSelectors": [selector]}
    obj["rules"] = [one.as_object() for one in rules]
    return resource, obj


def _summed(key: str, sections: list[_Section]) -> tuple[Rule, ...]:
    """Return what the aggregation controller would gather, so that the role is whole before that controller has run."""
    found: dict[Rule, None] = {}
    for section in sections:
        if section.adds_to == key:
            found.update(dict.fromkeys(_summed(section.sums, sections) if section.sums else section.rules))
    return tuple(found)


def _binding(section: _Section) -> tuple[Resource, Object]:
    subjects = [_subject(one) for one in section.subjects]
    if not section.namespace:
        return clusterrolebinding.RESOURCE, _bound("ClusterRoleBinding", section.name, "ClusterRole", subjects)
    name = f"system::{section.name}" if not section.name.startswith("system:") else section.name
    binding = _bound("RoleBinding", name, "Role", subjects, namespace=section.namespace, role_name=section.name)
    return rolebinding.RESOURCE, binding


def _bound(kind: str, name: str, role_kind: str, subjects: list[Object], *, namespace: str = "", role_name: str = "") -> Object:
    obj = _object(kind, name, namespace)
    obj["roleRef"] = {"apiGroup": GROUP, "kind": role_kind, "name": role_name or name}
    if subjects:
        obj["subjects"] = subjects
    return obj


def _subject(text: str) -> Object:
    kind, _, name = text.partition(":")
    if kind == "ServiceAccount":
        namespace, _, name = name.partition(":")
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}


def _object(kind: str, name: str, namespace: str) -> Object:
    metadata: Object = {"name": name, "labels": dict(_LABELS), "annotations": {_AUTO_UPDATE: "true"}}
    if namespace:
        metadata["namespace"] = namespace
    return {"kind": kind, "apiVersion": f"{GROUP}/v1", "metadata": metadata}
