"""Bootstrap tokens: secrets of kube-system by which a machine that has nothing else proves itself until it has a certificate.

`abcdef.0123456789abcdef` names the secret `bootstrap-token-abcdef`, which holds the other half, an end, what the token may be used for,
and further groups. Mirrors kubernetes' plugin/pkg/auth/authenticator/token/bootstrap.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from korch.apiserver.authn.bearer import Identified, TokenRejected, for_own_audiences
from korch.apiserver.identity import User
from korch.runtime.clock import Clock, parse_rfc3339

SECRET_TYPE = "bootstrap.kubernetes.io/token"
NAMESPACE = "kube-system"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_USER_PREFIX, _DEFAULT_GROUP = "system:bootstrap:", "system:bootstrappers"

# Returns a secret of kube-system by its name, None when there is none.
Lookup = Callable[[str], Mapping[str, Any] | None]


class BootstrapTokens:
    """Knows the bootstrap tokens of one cluster, as they are in the store now."""

    def __init__(self, lookup: Lookup, clock: Clock, *, audiences: Sequence[str]) -> None:
        self._lookup = lookup
        self._clock = clock
        self._audiences = audiences

    def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        """Return `system:bootstrap:ID`; None for what is no bootstrap token or not (any more) good. Raises TokenRejected for bad groups."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        token_id, secret = parts.groups()
        found = self._lookup(f"bootstrap-token-{token_id}")
        if found is None or found.get("type") != SECRET_TYPE or found["metadata"].get("deletionTimestamp"):
            return None
        data = {key: _decoded(value) for key, value in (found.get("data") or {}).items()}
        if not hmac.compare_digest(data.get("token-secret", "").encode(), secret.encode()) or data.get("token-id") != token_id:
            return None
        if is_expired(data.get("expiration", ""), self._clock.now()) or data.get("usage-bootstrap-authentication") != "true":
            return None
        groups = (_DEFAULT_GROUP, *_extra_groups(data.get("auth-extra-groups", "")))
        return for_own_audiences(User(f"{_USER_PREFIX}{token_id}", groups=(*groups, "system:authenticated")), audiences, self._audiences)

    async def resolve(self, token: str) -> None:
        """Need nothing."""


def is_expired(expiration: str, now: float) -> bool:
    """Whether a token with this end has ended. What is no time has ended; "" never ends."""
    if not expiration:
        return False
    try:
        return parse_rfc3339(expiration) <= now
    except ValueError:
        return True


def _extra_groups(text: str) -> Sequence[str]:
    groups = sorted({one for one in text.split(",") if one})
    for one in groups:
        if _GROUP.fullmatch(one) is None:
            raise TokenRejected(f'bootstrap group "{one}" is invalid (must match \\A{_GROUP.pattern}\\z)')
    return groups


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
