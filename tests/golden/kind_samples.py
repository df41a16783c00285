"""Objects of the smaller kinds, in the states that their table rows tell apart."""

from __future__ import annotations

from tests.golden.samples import Object, meta


def wide(name: str, **more: object) -> Object:
    """Return the metadata of a cluster-wide object."""
    metadata = meta(name, **more)
    del metadata["namespace"]
    return metadata


_SUBJECTS = [
    {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "User", "name": "tom", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "Group", "name": "team", "apiGroup": "rbac.authorization.k8s.io"},
    {"kind": "ServiceAccount", "name": "robot", "namespace": "default"},
]
_ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}

KIND_SAMPLES: dict[tuple[str, str], list[Object]] = {
    ("rbac.authorization.k8s.io", "roles"): [{"metadata": meta("reader")}],
    ("rbac.authorization.k8s.io", "clusterroles"): [{"metadata": wide("view")}],
    ("rbac.authorization.k8s.io", "rolebindings"): [{"metadata": meta("readers"), "subjects": _SUBJECTS, "roleRef": _ROLE}],
    ("rbac.authorization.k8s.io", "clusterrolebindings"): [{"metadata": wide("all"), "subjects": _SUBJECTS, "roleRef": _ROLE}],
}
