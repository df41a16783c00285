"""CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may decide about and sign for which signer.

Approving needs the verb `approve`, signing the verb `sign`, on the signer, which is no resource but a name that roles can hold.
Mirrors plugin/pkg/admission/certificates.
"""

from __future__ import annotations

from typing import Any

from korch.api.errors import Forbidden
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.identity import Authorizer, User
from korch.apiserver.request_info import RequestInfo

_GROUP, _PLURAL = "certificates.k8s.io", "certificatesigningrequests"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
_RESERVED = "system:masters"


class CertificateApproval:
    """Guards the subresource approval."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden unless the user may approve for the signer."""
        if _is_about(request, "approval") and request.operation == "UPDATE":
            signer = at(request.old, "spec", "signerName") or ""
            if not _may(self._authorizer, request.user, "approve", signer):
                raise _refusal(request, f'user not permitted to approve requests with signerName "{signer}"')


class CertificateSigning:
    """Guards certificates and failures in the status."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden unless the user may sign for the signer, when certificate or conditions change."""
        if not _is_about(request, "status") or request.operation != "UPDATE":
            return
        old, new = request.old or {}, request.obj or {}
        if all(at(old, "status", field) == at(new, "status", field) for field in ("certificate", "conditions")):
            return
        signer = at(old, "spec", "signerName") or ""
        if not _may(self._authorizer, request.user, "sign", signer):
            raise _refusal(request, f'user not permitted to sign requests with signerName "{signer}"')


class CertificateSubjectRestriction:
    """Keeps the administrators' group out of client certificates that are asked for."""

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a request for a client certificate of the group system:masters."""
        if not _is_about(request, "") or request.operation != "CREATE" or at(request.obj, "spec", "signerName") != _CLIENT_SIGNER:
            return
        from cryptography.x509.oid import NameOID

        from korch.api.certificates import parse_request

        try:
            subject = parse_request(at(request.obj, "spec", "request") or "").subject
        except ValueError:
            return
        if any(one.value == _RESERVED for one in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)):
            raise _refusal(request, f"use of {_CLIENT_SIGNER} signer with {_RESERVED} group is not allowed")


def _is_about(request: AdmissionRequest, subresource: str) -> bool:
    return request.resource.group == _GROUP and request.resource.plural == _PLURAL and request.subresource == subresource


def _may(authorizer: Authorizer, user: User, verb: str, signer: str) -> bool:
    domain = signer.partition("/")[0]
    for name in (signer, f"{domain}/*"):
        asked = RequestInfo(verb=verb, path="", is_resource=True, group=_GROUP, version="*", resource="signers", name=name)
        if authorizer.authorize(user, asked).is_allowed:
            return True
    return False


def _refusal(request: AdmissionRequest, why: str) -> Forbidden:
    name: Any = request.name or at(request.obj, "metadata", "name") or ""
    return Forbidden(_GROUP, _PLURAL, name, why)
