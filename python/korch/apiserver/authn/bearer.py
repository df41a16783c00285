"""Bearer tokens: everybody who knows some kind of token is asked in turn, until one says whose it is.

Answers come from memory, as all of authentication does. A kind of token that needs others (a provider's keys, a webhook) gets what it
needs in `resolve`, which the request chain awaits before it asks; without such a kind nothing is awaited. Mirrors apiserver's
pkg/authentication/token/union.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from korch.apiserver.authn.service_account_tokens import ServiceAccountTokens
from korch.apiserver.identity import User

INVALID = "invalid bearer token"


class TokenRejected(Exception):
    """The token is of this kind, and no good; the message says why."""


@dataclass(frozen=True, slots=True)
class Identified:
    """Whose a token is, and for which of the wanted audiences it is good."""

    user: User
    audiences: Sequence[str]


class TokenSource(Protocol):
    """One kind of token."""

    def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        """Return whose the token is; None when it is not of this kind. Raises TokenRejected. `audiences` are those that are wanted."""
        ...

    async def resolve(self, token: str) -> None:
        """Get what `identify` will need. Raises nothing: what cannot be got, `identify` tells."""
        ...


class ServiceAccountSource:
    """Tokens that this cluster has signed."""

    def __init__(self, tokens: ServiceAccountTokens) -> None:
        self._tokens = tokens

    def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        """Return the account; None for what is not signed here or no longer good."""
        user = self._tokens.authenticate(token, audiences)
        if user is None:
            return None
        return Identified(user, [one for one in self._tokens.audiences_of(token) if one in audiences])

    async def resolve(self, token: str) -> None:
        """Need nothing."""


class BearerTokens:
    """All kinds of tokens of one server, in the order in which they are asked. `audiences` are the server's own."""

    def __init__(self, sources: Sequence[TokenSource], *, audiences: Sequence[str], remote: Sequence[TokenSource] = ()) -> None:
        """`remote` come after `sources`; only they are resolved."""
        self._sources = (*sources, *remote)
        self._remote = tuple(remote)
        self.audiences = list(audiences)

    def identify(self, token: str, audiences: Sequence[str] = ()) -> Identified:
        """Return whose a token is. Raises TokenRejected with everything that was said of it."""
        problems = [INVALID]
        for source in self._sources:
            try:
                found = source.identify(token, audiences or self.audiences)
            except TokenRejected as error:
                problems.append(str(error))
                continue
            if found is not None:
                return found
        raise TokenRejected(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")

    async def resolve(self, token: str) -> None:
        """Let everybody get what he needs to know of this token."""
        for source in self._remote:
            await source.resolve(token)

    async def resolve_headers(self, headers: Mapping[str, str]) -> None:
        """The same for the token in a request's headers, if there is one."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            await self.resolve(token.strip())

    @property
    def is_remote(self) -> bool:
        """Whether there is anything to resolve."""
        return bool(self._remote)


def for_own_audiences(user: User, wanted: Sequence[str], own: Sequence[str]) -> Identified | None:
    """Return the identity of a token that names no audience of ours: it is good for the server's own, and for no other."""
    shared = [one for one in wanted if one in own]
    return Identified(user, shared) if shared else None
