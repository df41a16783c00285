"""Tokens that somebody else knows: a TokenReview is posted to a webhook, and its answer remembered for a while.

The webhook is named by a kubeconfig file, whose user is how this server shows itself. An answer is kept for two minutes, a failure
to reach the webhook not at all. Mirrors apiserver's plugin/pkg/authenticator/token/webhook and token/cache.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from korch.api.errors import ApiError
from korch.apiserver.authn.bearer import Identified, TokenRejected
from korch.apiserver.identity import User
from korch.runtime.clock import Clock
from korch.runtime.log import get_logger

_CACHE_TTL_S = 120.0
_TIMEOUT_S = 30.0
_REMEMBERED_MAX = 10_000
_API_VERSION = "authentication.k8s.io/v1"

log = get_logger("webhook-tokens")


class Post(Protocol):
    """Posts a review and returns the answer; the seam for tests."""

    async def __call__(self, body: bytes) -> bytes:
        """Return the body of the answer. Raises OSError, TimeoutError."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    user: User | None
    audiences: Sequence[str]
    error: str
    until: float


class WebhookTokens:
    """Asks one webhook. `audiences` are the server's own."""

    def __init__(self, post: Post, clock: Clock, *, audiences: Sequence[str], ttl_s: float = _CACHE_TTL_S) -> None:
        self._post = post
        self._clock = clock
        self._audiences = list(audiences)
        self._ttl_s = ttl_s
        self._answers: dict[bytes, _Answer] = {}

    def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        """Return what the webhook has answered. Raises TokenRejected with its error."""
        answer = self._answers.get(_key(token))
        if answer is None:
            return None
        if answer.error:
            raise TokenRejected(answer.error)
        if answer.user is None:
            return None
        shared = [one for one in audiences if one in (answer.audiences or self._audiences)]
        return Identified(answer.user, shared) if shared else None

    async def resolve(self, token: str) -> None:
        """Ask about a token, unless an answer is still fresh."""
        key, now = _key(token), self._clock.now()
        known = self._answers.get(key)
        if known is not None and known.until > now:
            return
        if len(self._answers) >= _REMEMBERED_MAX:
            self._answers.clear()
        spec = {"token": token, "audiences": self._audiences}
        review = {"kind": "TokenReview", "apiVersion": _API_VERSION, "metadata": {}, "spec": spec}
        try:
            self._answers[key] = _read(await self._post(orjson.dumps(review)), now + self._ttl_s)
        except (OSError, ValueError) as error:
            log.warning("webhook authenticator failed", error=str(error))
            self._answers[key] = _Answer(None, (), str(error) or type(error).__name__, now)


def _read(body: bytes, until: float) -> _Answer:
    review: Any = orjson.loads(body)
    if not isinstance(review, dict) or review.get("kind") != "TokenReview" or not isinstance(review.get("status"), dict):
        raise ValueError("webhook authenticator returned no TokenReview")
    status: dict[str, Any] = review["status"]
    if not status.get("authenticated"):
        return _Answer(None, (), str(status.get("error") or ""), until)
    shown: dict[str, Any] = status.get("user") or {}
    extra = {key: tuple(values) for key, values in (shown.get("extra") or {}).items()}
    groups = tuple(shown.get("groups") or ())
    user = User(str(shown.get("username") or ""), str(shown.get("uid") or ""), (*groups, *_standing(groups)), extra)
    return _Answer(user, tuple(status.get("audiences") or ()), "", until)


def _standing(groups: Sequence[str]) -> Sequence[str]:
    return () if "system:authenticated" in groups else ("system:authenticated",)


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


class KubeconfigPost:
    """Posts to the server of a kubeconfig file's current context. Raises ValueError when the file is no good."""

    def __init__(self, file: Path) -> None:
        # Needed by few servers, and slow to import.
        from korch.client.kubeconfig import client_from_kubeconfig

        self._client = client_from_kubeconfig(file)

    async def __call__(self, body: bytes) -> bytes:
        """Return the answer. Raises OSError, TimeoutError."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._client.raw("POST", "", body=body)
        except ApiError as error:
            raise OSError(error.message) from error
