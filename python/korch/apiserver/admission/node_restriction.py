"""NodeRestriction: what the Node authorizer cannot see from the path alone. A node writes only itself and its own pods.

Mirrors plugin/pkg/admission/noderestriction/admission.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from korch.api.errors import Forbidden
from korch.api.meta import annotations_of, at, labels_of
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.authz.node import node_of, references
from korch.apiserver.records import Records
from korch.resources.core import pod

Object = dict[str, Any]

_MIRROR = "kubernetes.io/config.mirror"
_RESTRICTED_PREFIX = "node-restriction.kubernetes.io/"
_LEASE_NAMESPACE = "kube-node-lease"
# Labels of the kubernetes.io and k8s.io domains that an agent may set on its node, beside the prefixes kubelet. and node. .
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
    }
)
_OWN_PREFIXES = ("kubelet.kubernetes.io/", "node.kubernetes.io/")


class NodeRestriction:
    """Sees every write of a user in system:nodes."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for what is not the node's own."""
        node = node_of(request.user)
        if not node:
            return
        match request.resource.group, request.resource.plural, request.subresource:
            case "", "pods", "":
                self._pod(request, node)
            case "", "pods", "status":
                self._pod_status(request, node)
            case "", "pods", "eviction":
                self._eviction(request, node)
            case "", "nodes", _:
                _check_node(request, node)
            case "", "serviceaccounts", "token":
                self._token(request, node)
            case "coordination.k8s.io", "leases", _:
                _check_lease(request, node)
            case "storage.k8s.io", "csinodes", _:
                if request.name != node:
                    raise _no(request, "can only access CSINode with the same name as the requesting node")
            case "resource.k8s.io", "resourceslices", _:
                if (request.obj or request.old or {}).get("spec", {}).get("nodeName") != node:
                    raise _no(request, "can only access ResourceSlice of the requesting node")
            case _:
                return

    def _pod(self, request: AdmissionRequest, node: str) -> None:
        if request.operation == "DELETE":
            if at(request.old, "spec", "nodeName") != node:
                raise _no(request, f'node "{node}" can only delete pods with spec.nodeName set to itself')
            return
        if request.operation != "CREATE":
            raise _no(request, f'unexpected operation "{request.operation}", node "{node}" can only create and delete mirror pods')
        obj = request.obj or {}
        if _MIRROR not in annotations_of(obj):
            raise _no(request, f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods')
        if at(obj, "spec", "nodeName") != node:
            raise _no(request, f'node "{node}" can only create pods with spec.nodeName set to itself')
        if at(obj, "spec", "serviceAccountName"):
            raise _no(request, f'node "{node}" can not create pods that reference a service account')
        named = {"secrets": "secrets", "configmaps": "configmaps", "persistentvolumeclaims": "persistentvolumeclaims"}
        for plural, _ in references(obj):
            if plural in named:
                raise _no(request, f'node "{node}" can not create pods that reference {named[plural]}')

    def _pod_status(self, request: AdmissionRequest, node: str) -> None:
        old, new = request.old or {}, request.obj or {}
        if at(old, "spec", "nodeName") != node:
            raise _no(request, f'node "{node}" can only update pod status for pods with spec.nodeName set to itself')
        if labels_of(old) != labels_of(new):
            raise _no(request, f'node "{node}" cannot update labels through pod status')

    def _eviction(self, request: AdmissionRequest, node: str) -> None:
        found = self._records.read(pod.RESOURCE, request.namespace, request.name)
        if found is not None and at(orjson.loads(found[0]), "spec", "nodeName") != node:
            raise _no(request, f"node {node} can only evict pods with spec.nodeName set to itself")

    def _token(self, request: AdmissionRequest, node: str) -> None:
        bound = at(request.obj, "spec", "boundObjectRef") or {}
        if bound.get("kind") != "Pod" or bound.get("apiVersion", "v1") != "v1" or not bound.get("name"):
            raise _no(request, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise _no(request, "node requested token with a pod binding without a uid")
        found = self._records.read(pod.RESOURCE, request.namespace, bound["name"])
        if found is None or at(obj := orjson.loads(found[0]), "metadata", "uid") != bound["uid"]:
            raise _no(request, f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record")
        if at(obj, "spec", "nodeName") != node:
            raise _no(request, "node requested token bound to a pod scheduled on a different node")


def _check_node(request: AdmissionRequest, node: str) -> None:
    if request.name != node:
        raise _no(request, f'node "{node}" is not allowed to modify node "{request.name}"')
    new, old = request.obj, request.old
    if new is None:
        return
    if request.operation == "CREATE":
        forbidden = _forbidden_labels(labels_of(new), {})
        if forbidden:
            raise _no(request, f'node "{node}" is not allowed to set the following labels: {", ".join(forbidden)}')
        return
    if (at(new, "spec", "taints") or []) != (at(old, "spec", "taints") or []):
        raise _no(request, f'node "{node}" is not allowed to modify taints')
    forbidden = _forbidden_labels(labels_of(new), labels_of(old or {}))
    if forbidden:
        raise _no(request, f"is not allowed to modify labels: {', '.join(forbidden)}")
    if at(new, "metadata", "ownerReferences") != at(old, "metadata", "ownerReferences"):
        raise _no(request, f'node "{node}" is not allowed to modify ownerReferences')


def _check_lease(request: AdmissionRequest, node: str) -> None:
    if request.namespace != _LEASE_NAMESPACE:
        raise _no(request, f'can only access leases in the "{_LEASE_NAMESPACE}" system namespace')
    if request.name != node:
        raise _no(request, "can only access node lease with the same name as the requesting node")


def _forbidden_labels(new: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """Return the changed labels that a node may not give itself, in order."""
    changed = sorted(key for key in {*new, *old} if new.get(key) != old.get(key))
    return [key for key in changed if _is_forbidden(key)]


def _is_forbidden(label: str) -> bool:
    if label in _OWN_LABELS or label.startswith(_OWN_PREFIXES):
        return False
    domain = label.partition("/")[0] if "/" in label else ""
    if domain == _RESTRICTED_PREFIX.rstrip("/") or domain.endswith("." + _RESTRICTED_PREFIX.rstrip("/")):
        return True
    return any(domain == one or domain.endswith("." + one) for one in ("kubernetes.io", "k8s.io"))


def _no(request: AdmissionRequest, why: str) -> Forbidden:
    return Forbidden(request.resource.group, request.resource.plural, request.name, why)
