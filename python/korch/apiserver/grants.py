"""What the front door is told instead of the answer to a read, so that it can answer this one and the next ones itself.

The front door asks with a header, on GET requests that it could serve from the store. When the request is allowed, and what
clients get of the kind is what the store holds, the answer is a grant and nothing else: the widest scope that the authorizer allows
the same identity (every namespace, this namespace, or this name), where the collection lies, and for how long. Widening is sound
because roles only add up: who may read without a name may read every name, who may read without a namespace may read in every namespace.
Nodes are allowed by what their pods refer to, which changes without a change of any role, so they are granted collections alone, and
with the field selector that they were allowed with. Roles, bindings, accounts and kinds that change end every grant: see `GUARDED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from korch.apiserver.encoding import dump
from korch.apiserver.identity import Authorizer, User
from korch.apiserver.request_info import RequestInfo
from korch.resources.resource import Catalogue, Resource

ASK_HEADER = "x-korch-ask"
GRANT_HEADER = "x-korch-grant"
# A change below one of these prefixes of the store ends every grant before the writer is answered.
GUARDED = (
    b"/registry/rbac.authorization.k8s.io/",
    b"/registry/core/serviceaccounts/",
    b"/registry/core/secrets/kube-system/",
    b"/registry/apiextensions.k8s.io/customresourcedefinitions/",
    b"/registry/apiregistration.k8s.io/apiservices/",
)
# A token may expire, or be bound to an object that goes; kube-apiserver remembers tokens for as long as this too.
TOKEN_TTL_S = 10
_CERTIFICATE_TTL_S = 300
_VERBS = ("get", "list", "watch")
_NODES = "system:nodes"


def is_node(user: User) -> bool:
    """Whether the user is a node, which is allowed by what its pods refer to."""
    return _NODES in user.groups


def grant(headers: Mapping[str, str], info: RequestInfo, user: User, *, authorizer: Authorizer, catalogue: Catalogue) -> bytes | None:
    """Return the grant for a request that was allowed, as JSON, or None when such requests are to come here."""
    if headers.get(ASK_HEADER) is None or info.verb not in _VERBS or not info.is_resource or info.subresource:
        return None
    resource = catalogue.get(info.group, info.version, info.resource)
    if resource is None or not _is_sent_as_stored(resource):
        return None
    scope, field_selector = _scope(user, info, resource, authorizer)
    if not scope:
        return None
    told = {
        "scope": scope,
        "ttl": TOKEN_TTL_S if "authorization" in headers else _CERTIFICATE_TTL_S,
        "prefix": resource.key_prefix().decode(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "list_kind": resource.list_name,
        "api_version": resource.api_version,
        "fields": sorted(resource.selectable_fields),
    }
    if field_selector:
        told["field_selector"] = field_selector
    return dump(told)


def _is_sent_as_stored(resource: Resource) -> bool:
    if resource.is_current is not None and not resource.is_current():
        # Its declaration has just changed: what is served next may differ from what is stored.
        return False
    # A deprecated version comes with a warning.
    return resource.storage is None and not resource.is_virtual and not resource.is_computed and not resource.warning


def _scope(user: User, info: RequestInfo, resource: Resource, authorizer: Authorizer) -> tuple[str, str]:
    """Return the scope ("" for none) and the field selector without which it does not hold ("" for any)."""
    anywhere = replace(info, namespace="", name="", field_selector="")
    if is_node(user):
        if info.verb == "get":
            return "", ""
        for field_selector in ("", info.field_selector):
            if authorizer.authorize(user, replace(anywhere, field_selector=field_selector)).is_allowed:
                return "cluster", field_selector
        return "", ""
    if authorizer.authorize(user, anywhere).is_allowed:
        return "cluster", ""
    if resource.namespaced and info.namespace and authorizer.authorize(user, replace(anywhere, namespace=info.namespace)).is_allowed:
        return "namespace", ""
    return ("name", "") if info.verb == "get" else ("", "")
