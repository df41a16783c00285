"""Authorizers in a row: the first that allows decides; when none does, their reasons are told together.

Mirrors apiserver's authorization/union.
"""

from __future__ import annotations

from collections.abc import Sequence

from korch.apiserver.identity import Authorizer, User, Verdict
from korch.apiserver.request_info import RequestInfo


class Chain:
    """An authorizer made of others."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = tuple(authorizers)

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        """Return the first allowance, else a refusal with all reasons."""
        reasons: list[str] = []
        for one in self._authorizers:
            verdict = one.authorize(user, request_info)
            if verdict.is_allowed:
                return verdict
            if verdict.reason:
                reasons.append(verdict.reason)
        return Verdict(False, "\n".join(reasons))
