"""Everyone who has proven who they are may do everything; the anonymous may look at health, version and public keys only.

Roles come with RBAC; until then this is the whole rule, and it lets no unauthenticated write through.
"""

from __future__ import annotations

from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo

_PUBLIC_PATHS = frozenset(
    {"/healthz", "/livez", "/readyz", "/version", "/version/", "/.well-known/openid-configuration", "/openid/v1/jwks", "/korch/v1/ca"}
)
_JOIN_PATH = "/korch/v1/join"


class AuthenticatedOnly:
    """An Authorizer that asks only whether the user is authenticated."""

    def authorize(self, user: User, request_info: RequestInfo) -> str:
        """Return "" when allowed, else the reason."""
        if "system:bootstrappers" in user.groups:
            return "" if request_info.path == _JOIN_PATH else "a join token may be used for joining only"
        if "system:authenticated" in user.groups:
            return ""
        if not request_info.is_resource and request_info.verb == "get" and request_info.path in _PUBLIC_PATHS:
            return ""
        return "anonymous requests are refused"
