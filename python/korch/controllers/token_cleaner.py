"""Deletes bootstrap tokens whose time is over.

Watches the secrets of kube-system that are bootstrap tokens; writes their deletion. Invariant: a token without an end, or with one that
is no time, is left alone. Mirrors upstream pkg/controller/bootstrap/tokencleaner.go.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from korch.api.errors import NotFound
from korch.api.gvk import SECRETS
from korch.api.meta import name_of, namespace_of, uid_of
from korch.client.controller import Controller, Requeue, Watch
from korch.client.protocol import DeleteOptions
from korch.controllers.workload.controller import decode_object
from korch.runtime.clock import parse_rfc3339

Object = dict[str, Any]
_TYPE = "bootstrap.kubernetes.io/token"


class TokenCleaner(Controller):
    """Reconciles one bootstrap token a key."""

    name = "token-cleaner"
    workers = 1
    watches = (Watch(SECRETS, decode=decode_object, namespace="kube-system", field_selector=f"type={_TYPE}"),)

    async def reconcile(self, key: str) -> Requeue | None:
        secret = self.informer(SECRETS).get_by_key(key)
        end = _end(secret) if secret is not None else None
        if secret is None or end is None:
            return None
        left_s = end - self.runtime.clock.now()
        if left_s > 0:
            return Requeue(after_s=left_s)
        try:
            await self.client.delete(SECRETS, name_of(secret), namespace=namespace_of(secret), options=DeleteOptions(uid=uid_of(secret)))
        except NotFound:
            return None
        return None


def _end(secret: Object) -> float | None:
    """Return when a token ends, in seconds since the epoch; None for never."""
    try:
        return parse_rfc3339(base64.b64decode((secret.get("data") or {}).get("expiration") or "").decode())
    except (binascii.Error, ValueError):
        return None
