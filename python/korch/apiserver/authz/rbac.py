"""Role-based access control: roles and bindings compiled to rules per subject, answers remembered until a role or binding changes.

The index follows the store through a watch that is emptied, without waiting, before every answer. The store wakes watches before
it answers a writer, so once a revocation has been acknowledged no request is answered by what was true before it. A change drops
every remembered answer (`generation` counts the changes), but only the changed object is decoded again.
Mirrors kubernetes' plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from korch._core import native
from korch.apiserver.authz.rules import Rule
from korch.apiserver.identity import ALLOWED, NO_OPINION, User, Verdict
from korch.apiserver.request_info import RequestInfo
from korch.storage import Storage, Watch

Object = dict[str, Any]

_PREFIX = b"/registry/rbac.authorization.k8s.io/"
_ACCOUNT_PREFIX = "system:serviceaccount:"
# Remembered answers and subjects are dropped when there are this many.
_ANSWERS_MAX = 20_000
_SUBJECTS_MAX = 5_000

# (kind, namespace, name); the namespace of cluster-wide objects is "".
_Key = tuple[str, str, str]


class RoleNotFound(LookupError):
    """The role that a binding names does not exist."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'{kind.lower()}.rbac.authorization.k8s.io "{name}" not found')
        self.kind = kind
        self.name = name


@dataclass(frozen=True, slots=True)
class _Binding:
    """A binding: its own address, the role's, and the subjects it speaks of, as `User:x` or `Group:x`."""

    key: _Key
    role: _Key
    subjects: tuple[str, ...]


@dataclass(slots=True)
class _Subject:
    """What is known of one user with his groups: rules by namespace ("" for the cluster's), and answers given."""

    named: tuple[str, ...]
    bindings: dict[str, list[_Binding]]
    rules: dict[str, list[tuple[Rule, _Binding]]] = field(default_factory=dict)
    answers: dict[tuple[str, ...], Verdict] = field(default_factory=dict)
    depends_on_names: bool = False


class Rbac:
    """The authorizer, and whoever else must know what rules a user has."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._roles: dict[_Key, tuple[Rule, ...]] = {}
        self._bindings: dict[_Key, _Binding] = {}
        self._by_subject: dict[str, dict[_Key, _Binding]] = {}
        self._subjects: dict[tuple[str, tuple[str, ...]], _Subject] = {}
        self._generation = 0
        self._watch: Watch | None = None
        self._load()

    @property
    def generation(self) -> int:
        """A number that changes whenever an answer may have changed."""
        self._follow()
        return self._generation

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        """Return whether a rule allows the request; a refusal has no reason unless a bound role is missing."""
        self._follow()
        subject = self._subject(user)
        info = request_info
        if info.is_resource:
            key = (info.verb, info.group, info.resource, info.subresource, info.namespace, info.name if subject.depends_on_names else "")
        else:
            key = (info.verb, info.path)
        answer = subject.answers.get(key)
        if answer is None:
            answer = self._decide(subject, info)
            # Only a compiled namespace knows whether it depends on names, so the key is made anew.
            if info.is_resource:
                key = (*key[:5], info.name if subject.depends_on_names else "")
            if len(subject.answers) >= _ANSWERS_MAX:
                subject.answers.clear()
            subject.answers[key] = answer
        return answer

    def rules_for(self, user: User, namespace: str) -> list[Rule]:
        """Return all rules that hold for the user in `namespace` ("" for the cluster's alone)."""
        self._follow()
        subject = self._subject(user)
        scopes = ("", namespace) if namespace else ("",)
        return [rule for scope in scopes for rule, _ in self._rules(subject, scope)]

    def rules_of_role(self, kind: str, namespace: str, name: str) -> tuple[Rule, ...]:
        """Return the rules of a Role or ClusterRole. Raises RoleNotFound."""
        self._follow()
        found = self._roles.get((kind, namespace if kind == "Role" else "", name))
        if found is None:
            raise RoleNotFound(kind, name)
        return found

    def _decide(self, subject: _Subject, info: RequestInfo) -> Verdict:
        namespace = info.namespace if info.is_resource else ""
        scopes = ("", namespace) if namespace else ("",)
        for scope in scopes:
            for rule, binding in self._rules(subject, scope):
                if rule.allows(info):
                    return Verdict(True, _reason(binding, subject.named))
        missing = [
            str(RoleNotFound(one.role[0], one.role[2]))
            for scope in scopes
            for one in subject.bindings.get(scope, ())
            if one.role not in self._roles
        ]
        return Verdict(False, f"RBAC: [{', '.join(missing)}]" if len(missing) > 1 else f"RBAC: {missing[0]}") if missing else NO_OPINION

    def _subject(self, user: User) -> _Subject:
        key = (user.name, tuple(user.groups))
        subject = self._subjects.get(key)
        if subject is None:
            bindings: dict[str, list[_Binding]] = {}
            named = (f"User:{user.name}", *(f"Group:{group}" for group in user.groups))
            found = {binding.key: binding for one in named for binding in self._by_subject.get(one, {}).values()}
            for binding in sorted(found.values(), key=lambda one: one.key):
                bindings.setdefault(binding.key[1], []).append(binding)
            if len(self._subjects) >= _SUBJECTS_MAX:
                self._subjects.clear()
            subject = self._subjects[key] = _Subject(named, bindings)
            self._rules(subject, "")
        return subject

    def _rules(self, subject: _Subject, scope: str) -> list[tuple[Rule, _Binding]]:
        rules = subject.rules.get(scope)
        if rules is None:
            if scope and scope not in subject.bindings:
                return []
            rules = [(rule, one) for one in subject.bindings.get(scope, ()) for rule in self._roles.get(one.role, ())]
            subject.rules[scope] = rules
            if not subject.depends_on_names and any(rule.names for rule, _ in rules):
                # Answers that were remembered for any name are no longer good enough.
                subject.depends_on_names = True
                subject.answers.clear()
        return rules

    # -- following the store ------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._roles, self._bindings, self._by_subject = {}, {}, {}
        page = self._storage.range(_PREFIX)
        for value in page.values:
            self._put(orjson.loads(value))
        if self._watch is not None:
            self._watch.close()
        self._watch = self._storage.watch(_PREFIX, page.revision)
        self._changed()

    def _follow(self) -> None:
        watch = self._watch
        if watch is None or not watch.has_news:
            return
        try:
            while events := watch.take():
                for event_type, _, value in events:
                    obj = orjson.loads(value)
                    if event_type == 2:
                        self._remove(obj)
                    else:
                        self._put(obj)
                self._changed()
        except native.StoreError:
            # Too many changes at once: the watch was cut.
            self._load()

    def _changed(self) -> None:
        self._generation += 1
        self._subjects.clear()

    def _put(self, obj: Object) -> None:
        key = _key(obj)
        if key[0] in ("Role", "ClusterRole"):
            self._roles[key] = tuple(Rule.of(rule) for rule in obj.get("rules") or ())
            return
        self._remove(obj)
        reference = obj.get("roleRef") or {}
        kind = reference.get("kind") or ""
        role_key = (kind, key[1] if kind == "Role" else "", reference.get("name") or "")
        binding = _Binding(key, role_key, tuple(_subjects(obj, key[1])))
        self._bindings[key] = binding
        for subject in binding.subjects:
            self._by_subject.setdefault(subject, {})[key] = binding

    def _remove(self, obj: Object) -> None:
        key = _key(obj)
        self._roles.pop(key, None)
        binding = self._bindings.pop(key, None)
        for subject in binding.subjects if binding is not None else ():
            self._by_subject.get(subject, {}).pop(key, None)


class SuperUsers:
    """An authorizer that allows everything to the group system:masters, so that a broken policy can always be mended."""

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        """Allow members of system:masters; have no opinion on others."""
        return ALLOWED if "system:masters" in user.groups else NO_OPINION


def _key(obj: Mapping[str, Any]) -> _Key:
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace") or "", metadata["name"]


def _subjects(binding: Mapping[str, Any], namespace: str) -> Iterator[str]:
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name") or ""
        if kind == "ServiceAccount":
            yield f"User:{_ACCOUNT_PREFIX}{subject.get('namespace') or namespace}:{name}"
        elif kind in ("User", "Group"):
            yield f"{kind}:{name}"


def _reason(binding: _Binding, named: tuple[str, ...]) -> str:
    kind, namespace, name = binding.key
    shown = f'"{name}/{namespace}"' if namespace else f'"{name}"'
    subject = next(one for one in binding.subjects if one in named)
    subject_kind, _, subject_name = subject.partition(":")
    if subject_name.startswith(_ACCOUNT_PREFIX) and subject_kind == "User":
        account_namespace, _, account = subject_name.removeprefix(_ACCOUNT_PREFIX).partition(":")
        subject_kind, subject_name = "ServiceAccount", f"{account}/{account_namespace}"
    return f'RBAC: allowed by {kind} {shown} of {binding.role[0]} "{binding.role[2]}" to {subject_kind} "{subject_name}"'
