"""What a request is about, read from its method, path and query alone, before any body is read.

Authorization, metrics, the audit line and routing all speak in these words. Mirrors apiserver's
pkg/endpoints/request/requestinfo.go: `/api/v1/namespaces/d/pods/p/log` is resource `pods`, subresource `log`, name `p`, namespace
`d`; `/api/v1/namespaces/d` is resource `namespaces`, name `d` and namespace `d` too; `?watch=1` turns list into watch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_COLLECTION_VERBS = ("list", "watch", "deletecollection")
# Path parts below a namespace that belong to the namespace itself.
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
# Subresources behind which the rest of the path is the target's own.
_PATH_SUBRESOURCES = ("proxy",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """A parsed request. `verb` is Kubernetes' (get, list, watch, create, update, patch, delete, deletecollection), or the
    lower-case HTTP method when `is_resource` is False. `tail` is the path behind `.../proxy`, with its leading slash;
    `field_selector` is the query's, of requests on collections."""

    verb: str
    path: str
    is_resource: bool = False
    api_prefix: str = ""
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    tail: str = ""
    field_selector: str = ""


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """Return what `method` on `path` asks for. Paths that are no resource's give `is_resource=False`, never an error."""
    parts = [part for part in path.strip("/").split("/") if part]
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return _other(method, path)
    if parts[0] == "api":
        prefix, group, version, rest = "api", "", parts[1], parts[2:]
    else:
        if len(parts) < 4:
            return _other(method, path)
        prefix, group, version, rest = "apis", parts[1], parts[2], parts[3:]
    verb = _VERBS.get(method, "")
    if rest[0] == "watch" and len(rest) > 1:
        # The deprecated form /api/v1/watch/... .
        verb, rest = "watch", rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    resource = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    tail = ""
    if subresource in _PATH_SUBRESOURCES:
        _, _, behind = path.partition(f"/{resource}/{name}/{subresource}")
        tail = behind or "/"
    elif len(rest) > 3:
        return _other(method, path)
    verb = _collection_verb(verb, name, query)
    return RequestInfo(
        verb=verb,
        path=path,
        is_resource=True,
        api_prefix=prefix,
        group=group,
        version=version,
        namespace=namespace,
        resource=resource,
        subresource=subresource,
        name=name,
        tail=tail,
        field_selector=query.get("fieldSelector", "") if verb in _COLLECTION_VERBS else "",
    )


def is_true(text: str | None) -> bool:
    """Whether a query parameter means true, as apimachinery reads booleans: present and neither `0` nor `false`."""
    return text is not None and text.lower() not in ("0", "false")


def _other(method: str, path: str) -> RequestInfo:
    return RequestInfo(verb=method.lower(), path=path)


def _collection_verb(verb: str, name: str, query: Mapping[str, str]) -> str:
    if name:
        return verb
    if verb == "get":
        return "watch" if is_true(query.get("watch")) else "list"
    if verb == "delete":
        return "deletecollection"
    return verb
