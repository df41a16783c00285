"""Service account tokens for projected volumes: asked for with TokenRequest, kept, and renewed before they end.

A token is renewed once 80 % of its life, or 24 hours, have passed. When the renewal fails the old one is used until it
ends. Mirrors kubelet's token manager.
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from korch.api.errors import ApiError
from korch.api.gvk import SERVICE_ACCOUNTS
from korch.client.protocol import Client
from korch.runtime.clock import parse_rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch_agent.pods.observed import Pod, pod_key
from korch_agent.volumes.payload import VolumeError

RENEW_AT = 0.8
RENEW_S_MAX = 24 * 3600.0
DEFAULT_LIFE_S = 3600

log = get_logger("tokens")


class _Token(msgspec.Struct, frozen=True):
    text: str
    renew_at: float
    ends_at: float


class Tokens:
    """Tokens of the pods of one node."""

    def __init__(self, client: Client, runtime: Runtime) -> None:
        self._client = client
        self._runtime = runtime
        self._tokens: dict[tuple[str, str, int, str], _Token] = {}

    async def get(self, pod: Pod, source: dict[str, Any]) -> str:
        """Return a token bound to the pod for a `serviceAccountToken` source. Raises VolumeError when none is to be had."""
        meta, account = pod["metadata"], pod["spec"].get("serviceAccountName") or "default"
        audience = source.get("audience") or ""
        life = int(source.get("expirationSeconds") or DEFAULT_LIFE_S)
        key = (meta["uid"], audience, life, account)
        now = self._runtime.clock.now()
        kept = self._tokens.get(key)
        if kept is not None and now < kept.renew_at:
            return kept.text
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": life,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        try:
            raw = await self._client.create(SERVICE_ACCOUNTS, request, namespace=meta["namespace"], name=account, subresource="token")
        except (ApiError, ConnectionError, TimeoutError) as error:
            if kept is not None and now < kept.ends_at:
                log.warning("token not renewed; the old one is used on", pod=pod_key(pod), error=str(error))
                return kept.text
            raise VolumeError(f"failed to fetch token: {error}") from error
        status = orjson.loads(raw)["status"]
        ends_at = parse_rfc3339(status["expirationTimestamp"])
        token = _Token(status["token"], now + min((ends_at - now) * RENEW_AT, RENEW_S_MAX), ends_at)
        self._tokens[key] = token
        return token.text

    def next_renewal(self, uid: str) -> float | None:
        """Return when the next token of a pod must be renewed, in seconds since the epoch, or None."""
        return min((token.renew_at for key, token in self._tokens.items() if key[0] == uid), default=None)

    def forget(self, uid: str) -> None:
        """Drop the tokens of a pod that is gone."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]
