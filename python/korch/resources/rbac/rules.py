"""What roles and bindings may say. Mirrors kubernetes' pkg/apis/rbac/validation and pkg/apis/rbac/v1/defaults.go."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_path_segment
from korch.api.validation import check_label_selector
from korch.resources.columns import AGE, NAME, cell
from korch.resources.resource import Column, Object

GROUP = "rbac.authorization.k8s.io"
_SUBJECT_KINDS = ("ServiceAccount", "User", "Group")


def created_at(obj: Object, _now: float) -> str:
    """Return the cell of the column `Created At`."""
    return at(obj, "metadata", "creationTimestamp") or ""


CREATED_AT = Column("Created At", created_at, type="date", description="When the object was created.")
ROLE_COLUMNS = (NAME, CREATED_AT)


def _names(obj: Object, kind: str) -> str:
    subjects = (one for one in obj.get("subjects") or () if one.get("kind") == kind)
    if kind == "ServiceAccount":
        return ", ".join(f"{one.get('namespace') or ''}/{one.get('name') or ''}" for one in subjects)
    return ", ".join(one.get("name") or "" for one in subjects)


def _role(obj: Object) -> str:
    return f"{at(obj, 'roleRef', 'kind') or ''}/{at(obj, 'roleRef', 'name') or ''}"


BINDING_COLUMNS = (
    NAME,
    cell("Role", _role, description="The role that is granted."),
    AGE,
    cell("Users", lambda obj: _names(obj, "User"), description="Users who are granted it.", priority=1),
    cell("Groups", lambda obj: _names(obj, "Group"), description="Groups that are granted it.", priority=1),
    cell("ServiceAccounts", lambda obj: _names(obj, "ServiceAccount"), description="Accounts that are granted it.", priority=1),
)


def validate_role(obj: Object) -> list[Cause]:
    """Return what is wrong with a Role."""
    causes: list[Cause] = []
    _check_rules(causes, obj, is_namespaced=True)
    return causes


def validate_cluster_role(obj: Object) -> list[Cause]:
    """Return what is wrong with a ClusterRole."""
    causes: list[Cause] = []
    _check_rules(causes, obj, is_namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        path = "aggregationRule.clusterRoleSelectors"
        selectors = aggregation.get("clusterRoleSelectors") or ()
        if not selectors:
            causes.append(required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
        for position, selector in enumerate(selectors):
            check_label_selector(causes, selector, f"{path}[{position}]")
    return causes


def default_binding(obj: Object) -> None:
    """Fill in the API groups of role and subjects, in place."""
    role = obj.get("roleRef")
    if role is not None and not role.get("apiGroup"):
        role["apiGroup"] = GROUP
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP


def validate_role_binding(obj: Object) -> list[Cause]:
    """Return what is wrong with a RoleBinding."""
    return _binding_causes(obj, ("Role", "ClusterRole"), is_namespaced=True)


def validate_cluster_role_binding(obj: Object) -> list[Cause]:
    """Return what is wrong with a ClusterRoleBinding."""
    return _binding_causes(obj, ("ClusterRole",), is_namespaced=False)


def validate_binding_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update grants another role, which a binding must not."""
    if new.get("roleRef") != old.get("roleRef"):
        return [invalid("roleRef", new.get("roleRef") or {}, "cannot change roleRef")]
    return []


def _check_rules(causes: list[Cause], obj: Object, *, is_namespaced: bool) -> None:
    for position, rule in enumerate(obj.get("rules") or ()):
        path = f"rules[{position}]"
        if not rule.get("verbs"):
            causes.append(required(f"{path}.verbs", "verbs must contain at least one value"))
        urls = rule.get("nonResourceURLs")
        if urls:
            where = f"{path}.nonResourceURLs"
            if is_namespaced:
                causes.append(invalid(where, urls, "namespaced rules cannot apply to non-resource URLs"))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                causes.append(invalid(where, urls, "rules cannot apply to both regular resources and non-resource URLs"))
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{path}.resources", "resource rules must supply at least one resource"))


def _binding_causes(obj: Object, kinds: tuple[str, ...], *, is_namespaced: bool) -> list[Cause]:
    causes: list[Cause] = []
    role = obj.get("roleRef") or {}
    if role.get("apiGroup") != GROUP:
        causes.append(not_supported("roleRef.apiGroup", role.get("apiGroup") or "", (GROUP,)))
    if role.get("kind") not in kinds:
        causes.append(not_supported("roleRef.kind", role.get("kind") or "", kinds))
    name = role.get("name") or ""
    if not name:
        causes.append(required("roleRef.name"))
    causes += [invalid("roleRef.name", name, why) for why in is_path_segment(name)] if name else []
    for position, subject in enumerate(obj.get("subjects") or ()):
        _check_subject(causes, subject, f"subjects[{position}]", is_namespaced=is_namespaced)
    return causes


def _check_subject(causes: list[Cause], subject: Object, path: str, *, is_namespaced: bool) -> None:
    kind, group = subject.get("kind") or "", subject.get("apiGroup") or ""
    if not subject.get("name"):
        causes.append(required(f"{path}.name"))
    if kind not in _SUBJECT_KINDS:
        causes.append(not_supported(f"{path}.kind", kind, _SUBJECT_KINDS))
        return
    expected = "" if kind == "ServiceAccount" else GROUP
    if group != expected:
        causes.append(not_supported(f"{path}.apiGroup", group, (expected,)))
    if kind == "ServiceAccount" and not is_namespaced and not subject.get("namespace"):
        causes.append(required(f"{path}.namespace"))
