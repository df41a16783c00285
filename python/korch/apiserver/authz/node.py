"""The Node authorizer: a node may do what its agent needs, and see only the secrets, config maps and volumes of its own pods.

Nothing is kept beside the store: whether an object belongs to a pod of the node is found in the store's index of spec.nodeName at
the time of asking, so an answer is never older than the pods. Mirrors kubernetes' plugin/pkg/auth/authorizer/node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from korch.apiserver.authz.default_roles import NODE_RULES
from korch.apiserver.authz.policy_text import parse_rules
from korch.apiserver.identity import ALLOWED, NO_OPINION, User, Verdict
from korch.apiserver.request_info import RequestInfo
from korch.apiserver.selection import selected_value
from korch.resources.core import pod
from korch.storage import Storage

Object = Mapping[str, Any]

_USER_PREFIX = "system:node:"
_GROUP = "system:nodes"
_LEASE_NAMESPACE = "kube-node-lease"
_READS = ("get", "list", "watch")


def node_of(user: User) -> str:
    """Return the name of the node that speaks as this user, "" when it is none."""
    return user.name.removeprefix(_USER_PREFIX) if _GROUP in user.groups and user.name.startswith(_USER_PREFIX) else ""


class NodeAuthorizer:
    """Answers for users of the group system:nodes, and has no opinion on others."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._rules = parse_rules(NODE_RULES)

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        """Return whether the node may."""
        node, info = node_of(user), request_info
        if not node:
            return NO_OPINION
        if info.is_resource:
            match info.group, info.resource:
                case "", "secrets" | "configmaps":
                    return self._owned(node, info, _READS)
                case "", "persistentvolumeclaims":
                    return self._owned(node, info, ("get", "update", "patch") if info.subresource == "status" else ("get",))
                case ("", "persistentvolumes") | ("storage.k8s.io", "volumeattachments") | ("resource.k8s.io", "resourceclaims"):
                    return self._owned(node, info, ("get",))
                case "", "serviceaccounts":
                    return self._account(node, info)
                case "", "nodes":
                    return self._own_node(node, info)
                case "", "pods":
                    return self._own_pods(node, info)
                case "coordination.k8s.io", "leases":
                    return _own(node, info, namespace=_LEASE_NAMESPACE)
                case "storage.k8s.io", "csinodes":
                    return _own(node, info)
                case "resource.k8s.io", "resourceslices":
                    return _own_slices(node, info)
                case _:
                    pass
        return ALLOWED if any(rule.allows(info) for rule in self._rules) else NO_OPINION

    def _owned(self, node: str, info: RequestInfo, verbs: tuple[str, ...]) -> Verdict:
        """Allow reading one object that a pod of the node refers to."""
        if info.verb not in verbs:
            return _no(
                f"can only {'read' if verbs == _READS else 'get'} {'namespaced object' if verbs == _READS else 'individual resources'} "
                "of this type"
            )
        if info.subresource and not (info.resource == "persistentvolumeclaims" and info.subresource == "status"):
            return _no("cannot get subresource")
        name = info.name or selected_value(info.field_selector, "metadata.name")
        if not name:
            return _no("no object name found")
        if self._is_referenced(node, info.resource, info.namespace, name):
            return ALLOWED
        return _no(f"no relationship found between node '{node}' and this object")

    def _account(self, node: str, info: RequestInfo) -> Verdict:
        if info.verb == "create" and info.subresource == "token":
            if not info.name:
                return _no("no object name found")
            if self._is_referenced(node, "serviceaccounts", info.namespace, info.name):
                return ALLOWED
            return _no(f"no relationship found between node '{node}' and this object")
        return _no("can only create tokens for individual service accounts" if info.verb == "create" else "")

    def _own_node(self, node: str, info: RequestInfo) -> Verdict:
        if info.subresource not in ("", "status"):
            return _no("can only access subresource status of nodes")
        # Which node is created or changed is told by the NodeRestriction plugin, which sees the object.
        if info.verb in ("create", "update", "patch") and info.name in ("", node):
            return ALLOWED
        if info.verb in _READS and (info.name == node or selected_value(info.field_selector, "metadata.name") == node):
            return ALLOWED
        return _no(f"node '{node}' cannot {info.verb} other nodes" if info.name else "")

    def _own_pods(self, node: str, info: RequestInfo) -> Verdict:
        if info.verb in ("list", "watch") and selected_value(info.field_selector, "spec.nodeName") != node:
            return _no("can only list/watch pods with spec.nodeName field selector")
        if info.verb in ("get", "delete") and info.name and info.subresource in ("", "status"):
            found = self._storage.get(pod.RESOURCE.key(info.namespace, info.name))
            if found is None or orjson.loads(found.value).get("spec", {}).get("nodeName") != node:
                return _no(f"no relationship found between node '{node}' and this object")
        return ALLOWED if any(rule.allows(info) for rule in self._rules) else NO_OPINION

    def _is_referenced(self, node: str, plural: str, namespace: str, name: str) -> bool:
        needle = name.encode()
        if plural == "volumeattachments":
            found = self._storage.get(b"/registry/storage.k8s.io/volumeattachments/" + needle)
            return found is not None and orjson.loads(found.value).get("spec", {}).get("nodeName") == node
        if plural == "persistentvolumes":
            found = self._storage.get(b"/registry/core/persistentvolumes/" + needle)
            claim = orjson.loads(found.value).get("spec", {}).get("claimRef") if found is not None else None
            return bool(claim) and self._is_referenced(node, "persistentvolumeclaims", claim.get("namespace", ""), claim.get("name", ""))
        page = self._storage.range(pod.RESOURCE.key_prefix(namespace), selector=(("field", "spec.nodeName", "=", (node,)),))
        # Most pods do not mention the name at all; only those that do are decoded. A generated claim's name starts with its pod's.
        return any((plural, name) in references(orjson.loads(value)) for value in page.values if _mentions(value, needle))


def references(pod: Object) -> set[tuple[str, str]]:
    """Return what a pod needs of its namespace, as (plural, name)."""
    return set(_references(pod))


def _references(pod: Object) -> Iterator[tuple[str, str]]:
    spec, pod_name = pod.get("spec") or {}, pod["metadata"]["name"]
    yield "serviceaccounts", spec.get("serviceAccountName") or "default"
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", secret.get("name") or ""
    for volume in spec.get("volumes") or ():
        yield from _of_volume(volume, pod_name)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            for source in container.get("envFrom") or ():
                yield from _named(source, ("secretRef", "secrets"), ("configMapRef", "configmaps"))
            for variable in container.get("env") or ():
                yield from _named(variable.get("valueFrom") or {}, ("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps"))
    for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        yield "resourceclaims", status.get("resourceClaimName") or ""
    for claim in spec.get("resourceClaims") or ():
        yield "resourceclaims", claim.get("resourceClaimName") or ""


def _of_volume(volume: Object, pod_name: str) -> Iterator[tuple[str, str]]:
    if secret := volume.get("secret"):
        yield "secrets", secret.get("secretName") or ""
    yield from _named(volume, ("configMap", "configmaps"))
    if claim := volume.get("persistentVolumeClaim"):
        yield "persistentvolumeclaims", claim.get("claimName") or ""
    if volume.get("ephemeral"):
        yield "persistentvolumeclaims", f"{pod_name}-{volume.get('name')}"
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from _named(source, ("secret", "secrets"), ("configMap", "configmaps"))
    for kind in ("csi", "cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"):
        for field in ("nodePublishSecretRef", "secretRef"):
            if reference := (volume.get(kind) or {}).get(field):
                yield "secrets", reference.get("name") or ""


def _named(holder: Object, *fields: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for field, plural in fields:
        if reference := holder.get(field):
            yield plural, reference.get("name") or ""


def _mentions(value: bytes, name: bytes) -> bool:
    return name in value or b'"ephemeral":' in value or (name == b"default" and b'"serviceAccountName"' not in value)


def _own(node: str, info: RequestInfo, *, namespace: str = "") -> Verdict:
    """Allow everything but listing on the one object that is named as the node is."""
    if info.namespace != namespace:
        return _no(f'can only access leases in the "{namespace}" system namespace')
    if info.subresource or info.verb not in ("get", "create", "update", "patch", "delete"):
        return _no(
            "can only get, create, update, patch, or delete a node lease"
            if namespace
            else "can only get, create, update, patch, or delete a CSINode"
        )
    if info.verb != "create" and info.name != node:
        return _no(
            "can only access node lease with the same name as the requesting node"
            if namespace
            else "can only access CSINode with the same name as the requesting node"
        )
    return ALLOWED


def _own_slices(node: str, info: RequestInfo) -> Verdict:
    if info.subresource:
        return _no("cannot access ResourceSlice subresources")
    if info.verb == "create" or (info.name and info.verb in ("get", "update", "patch", "delete")):
        return ALLOWED
    if info.verb in ("list", "watch", "deletecollection") and selected_value(info.field_selector, "spec.nodeName") == node:
        return ALLOWED
    return _no("can only list/watch/deletecollection resourceslices with nodeName field selector")


def _no(reason: str) -> Verdict:
    return Verdict(False, reason)
