"""Acting as somebody else: the headers Impersonate-User, -Group, -Uid and -Extra-KEY, each of which needs the verb `impersonate`.

Mirrors apiserver's pkg/endpoints/filters/impersonation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from korch.api.errors import BadRequest, Forbidden
from korch.apiserver.identity import Authorizer, User
from korch.apiserver.request_info import RequestInfo

_ACCOUNT_PREFIX = "system:serviceaccount:"
_ANONYMOUS = "system:anonymous"
_EXTRA = "impersonate-extra-"
_AUTHENTICATION = "authentication.k8s.io"


def impersonated(user: User, headers: Sequence[tuple[bytes, bytes]], authorizer: Authorizer) -> User:
    """Return whom the request wants to be: `user` himself without impersonation headers. Raises Forbidden, BadRequest.

    `headers` are ASGI's pairs, because a repeated Impersonate-Group must not be joined with commas.
    """
    given = [
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers if name.lower().startswith(b"impersonate-")
    ]
    if not given:
        return user
    name = next((value for key, value in given if key == "impersonate-user"), "")
    uid = next((value for key, value in given if key == "impersonate-uid"), "")
    groups = [value for key, value in given if key == "impersonate-group"]
    extra: dict[str, tuple[str, ...]] = {}
    for key, value in given:
        if key.startswith(_EXTRA):
            label = unquote(key.removeprefix(_EXTRA))
            extra[label] = (*extra.get(label, ()), value)
    if not name:
        if groups or uid or extra:
            raise BadRequest("requested impersonation of groups, uid or extra without impersonating a user")
        return user
    for asked in _asked(name, uid, groups, extra):
        verdict = authorizer.authorize(user, asked)
        if not verdict.is_allowed:
            raise _refusal(user, asked, verdict.reason)
    return User(name, uid, tuple(_groups(name, groups)), extra)


def _asked(name: str, uid: str, groups: Sequence[str], extra: dict[str, tuple[str, ...]]) -> Iterator[RequestInfo]:
    namespace, account = _account(name)
    if account:
        yield _ask("", "serviceaccounts", account, namespace=namespace)
    else:
        yield _ask("", "users", name)
    for group in groups:
        yield _ask("", "groups", group)
    for key, values in extra.items():
        for value in values:
            yield _ask(_AUTHENTICATION, "userextras", value, subresource=key)
    if uid:
        yield _ask(_AUTHENTICATION, "uids", uid)


def _ask(group: str, resource: str, name: str, *, namespace: str = "", subresource: str = "") -> RequestInfo:
    return RequestInfo(
        verb="impersonate",
        path="",
        is_resource=True,
        group=group,
        version="v1",
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=name,
    )


def _groups(name: str, groups: Sequence[str]) -> Iterator[str]:
    namespace, account = _account(name)
    yield from groups
    if account and not groups:
        yield "system:serviceaccounts"
        yield f"system:serviceaccounts:{namespace}"
    standing = "system:unauthenticated" if name == _ANONYMOUS else "system:authenticated"
    if standing not in groups and (name == _ANONYMOUS or "system:unauthenticated" not in groups):
        yield standing


def _account(name: str) -> tuple[str, str]:
    """Return (namespace, name) when the user is a service account, else ("", "")."""
    namespace, _, account = name.removeprefix(_ACCOUNT_PREFIX).partition(":")
    return (namespace, account) if name.startswith(_ACCOUNT_PREFIX) and account else ("", "")


def _refusal(user: User, asked: RequestInfo, reason: str) -> Forbidden:
    resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
    scope = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot impersonate resource "{resource}" in API group "{asked.group}" {scope}'
    return Forbidden(asked.group, asked.resource, asked.name, f"{why}: {reason}" if reason else why)
