"""Approves what nodes ask for themselves, and signs what has been approved for the signers of Kubernetes' own names.

Watches and writes CertificateSigningRequests. A request is signed once, and only when somebody has approved it and nobody has denied
it; what a signer may not issue gets the condition Failed. A node's client certificate is approved here when the asker is that node.
Mirrors upstream pkg/controller/certificates/{approver,signer}.
"""

from __future__ import annotations

import base64
from typing import Any

from korch.api.gvk import CERTIFICATE_SIGNING_REQUESTS
from korch.api.meta import at, is_deleting, name_of
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.controllers.config import ControllerConfig
from korch.controllers.workload.controller import decode_object, same_key
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime

Object = dict[str, Any]

_CLIENT = "kubernetes.io/kube-apiserver-client"
_NODE_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
_NODE_SERVING = "kubernetes.io/kubelet-serving"
_COMMON = frozenset({"digital signature", "key encipherment"})
# signer -> (usages that it allows, the one that it demands)
_SIGNERS = {
    _CLIENT: (_COMMON | {"client auth"}, "client auth"),
    _NODE_CLIENT: (_COMMON | {"client auth"}, "client auth"),
    _NODE_SERVING: (_COMMON | {"server auth"}, "server auth"),
}


class CertificateController(Controller):
    """Reconciles one CertificateSigningRequest a key."""

    name = "certificate-controller"
    workers = 1
    watches = (Watch(CERTIFICATE_SIGNING_REQUESTS, keys=same_key, decode=decode_object),)

    def __init__(self, client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig) -> None:
        super().__init__(client, informers, runtime)
        self._sign = config.sign_certificate

    async def reconcile(self, key: str) -> Requeue | None:
        request = self.informer(CERTIFICATE_SIGNING_REQUESTS).get_by_key(key)
        if request is None or is_deleting(request) or at(request, "status", "certificate"):
            return None
        signer = at(request, "spec", "signerName")
        if signer not in _SIGNERS:
            return None
        decided = {one.get("type") for one in at(request, "status", "conditions") or ()}
        if not decided & {"Approved", "Denied"}:
            if signer == _NODE_CLIENT and _is_own(request):
                message = "Auto approving self kubelet client certificate after SubjectAccessReview."
                await self._decide(key, request, "approval", "Approved", "AutoApproved", message)
            return None
        if "Denied" in decided or "Failed" in decided or self._sign is None:
            return None
        await self._issue(key, request, signer)
        return None

    async def _issue(self, key: str, request: Object, signer: str) -> None:
        assert self._sign is not None
        spec = request["spec"]
        problem = _problem(request, signer)
        if not problem:
            try:
                pem = base64.b64decode(spec["request"])
                certificate = self._sign(pem, spec.get("usages") or (), spec.get("expirationSeconds"))
            except ValueError as error:
                problem = str(error)
            else:
                body = {**request, "status": {**(request.get("status") or {}), "certificate": base64.b64encode(certificate).decode()}}
                written = await self.client.update(CERTIFICATE_SIGNING_REQUESTS, body, name=name_of(request), subresource="status")
                self.wrote(key, CERTIFICATE_SIGNING_REQUESTS, written)
                return
        await self._decide(key, request, "status", "Failed", "SignerValidationFailure", problem)

    async def _decide(self, key: str, request: Object, part: str, kind: str, reason: str, message: str) -> None:
        now = rfc3339(self.runtime.clock.now())
        condition = {"type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now}
        conditions = [*(at(request, "status", "conditions") or ()), condition]
        body = {**request, "status": {**(request.get("status") or {}), "conditions": conditions}}
        written = await self.client.update(CERTIFICATE_SIGNING_REQUESTS, body, name=name_of(request), subresource=part)
        self.wrote(key, CERTIFICATE_SIGNING_REQUESTS, written)


def _problem(request: Object, signer: str) -> str:
    """Return why the signer may not sign this, "" when it may."""
    usages = set(at(request, "spec", "usages") or ())
    allowed, demanded = _SIGNERS[signer]
    if not usages <= allowed or demanded not in usages:
        return f"invalid usages for {signer}: {', '.join(sorted(usages))}"
    if signer != _CLIENT:
        common_name, organizations = _subject(request)
        if organizations != ["system:nodes"] or not common_name.startswith("system:node:"):
            return "subject must be CN=system:node:NAME and O=system:nodes"
    return ""


def _subject(request: Object) -> tuple[str, list[str]]:
    from cryptography.x509.oid import NameOID

    from korch.api.certificates import parse_request

    subject = parse_request(at(request, "spec", "request") or "").subject
    names = [str(one.value) for one in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return names[0] if names else "", [str(one.value) for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def _is_own(request: Object) -> bool:
    """Whether a node asks for its own client certificate."""
    try:
        common_name, organizations = _subject(request)
    except ValueError:
        return False
    asks_as_node = at(request, "spec", "username") == common_name and "system:nodes" in (at(request, "spec", "groups") or ())
    return asks_as_node and organizations == ["system:nodes"] and common_name.startswith("system:node:")
