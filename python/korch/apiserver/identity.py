"""Who asks, and may they: the two protocols between the request pipeline and its authenticators and authorizers.

An authenticator turns headers into a `User` (or raises Unauthorized); an authorizer turns (user, request) into a `Verdict`. Both
are synchronous: answers come from memory, because they stand in front of every request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from korch.api.errors import ApiError, Forbidden
from korch.apiserver.request_info import RequestInfo


@dataclass(frozen=True, slots=True)
class User:
    """An identity, as `SelfSubjectReview` shows it. `extra` has lower-case keys."""

    name: str
    uid: str = ""
    groups: Sequence[str] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))
# The server's own identity, for what it writes without being asked.
APISERVER = User("system:apiserver", groups=("system:masters", "system:authenticated"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """An authorizer's answer. `reason` may be shown to the user; it may be empty either way."""

    is_allowed: bool
    reason: str = ""


ALLOWED = Verdict(True)
NO_OPINION = Verdict(False)


class Authenticator(Protocol):
    """Says who sent a request."""

    def authenticate(self, headers: Mapping[str, str]) -> User:
        """Return the sender of a request with these headers (names in lower case). Raises Unauthorized for bad credentials."""
        ...


class Authorizer(Protocol):
    """Says whether a user may do what a request asks."""

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        """Return whether the request may go on. Nobody's allowance is a refusal."""
        ...


class AllowEverybody:
    """Authenticates every request as one user and allows everything: for embedding without security, and for tests."""

    def __init__(self, user: User = User("system:admin", groups=("system:masters", "system:authenticated"))) -> None:
        self._user = user

    def authenticate(self, headers: Mapping[str, str]) -> User:
        """Return the one user, whatever the headers."""
        return self._user

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        """Allow it."""
        return ALLOWED


def user_info(user: User) -> dict[str, Any]:
    """Return authentication.k8s.io/v1 UserInfo."""
    info: dict[str, Any] = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def forbidden(user: User, info: RequestInfo, reason: str) -> ApiError:
    """Return upstream's refusal: who may not do what, where, and why (when `reason` is not empty)."""
    because = f": {reason}" if reason else ""
    if not info.is_resource:
        message = f'forbidden: User "{user.name}" cannot {info.verb} path "{info.path}"{because}'
        return ApiError(403, "Forbidden", message, details={})
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    scope = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    why = f'User "{user.name}" cannot {info.verb} resource "{resource}" in API group "{info.group}" {scope}{because}'
    return Forbidden(info.group, info.resource, info.name, why)
