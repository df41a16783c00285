"""PodCertificateRequest: a node's wish for a certificate that one of its pods will use."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, required
from korch.api.meta import at
from korch.resources.certificates.certificatesigningrequest import check_signer_name
from korch.resources.columns import NAME, cell, text
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS

_EXPIRATION_S_MIN, _EXPIRATION_S_DEFAULT, _EXPIRATION_S_MAX = 3600, 86400, 7862400
_OUTCOMES = ("Issued", "Denied", "Failed")
_REQUIRED = ("podName", "podUID", "serviceAccountName", "serviceAccountUID", "nodeName", "nodeUID", "stubPKCS10Request")


def default(obj: Object) -> None:
    """Fill in a PodCertificateRequest, in place."""
    spec = obj.setdefault("spec", {})
    if spec.get("maxExpirationSeconds") is None:
        spec["maxExpirationSeconds"] = _EXPIRATION_S_DEFAULT


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a PodCertificateRequest. Mirrors ValidatePodCertificateRequestCreate."""
    spec = obj.get("spec") or {}
    signer = spec.get("signerName") or ""
    causes = [invalid("spec.signerName", signer, why) for why in check_signer_name(signer)]
    causes += [required(f"spec.{field}") for field in _REQUIRED if not spec.get(field)]
    seconds = spec.get("maxExpirationSeconds") or 0
    if seconds < _EXPIRATION_S_MIN:
        causes.append(invalid("spec.maxExpirationSeconds", seconds, f"must be in the range [{_EXPIRATION_S_MIN}, {_EXPIRATION_S_MAX}]"))
    if seconds > _EXPIRATION_S_MAX:
        causes.append(invalid("spec.maxExpirationSeconds", seconds, f"must be in the range [{_EXPIRATION_S_MIN}, {_EXPIRATION_S_MAX}]"))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes what was asked for."""
    return [invalid("spec", new.get("spec"), "field is immutable")] if new.get("spec") != old.get("spec") else []


def validate_status_update(new: Object, old: Object) -> list[Cause]:
    """Return whether a status says more than one outcome, or changes one."""
    causes: list[Cause] = []
    outcomes = [one.get("type") for one in at(new, "status", "conditions") or () if one.get("type") in _OUTCOMES]
    if len(outcomes) > 1:
        causes.append(
            invalid("status.conditions", outcomes, 'There may be at most one condition with type "Issued", "Denied", or "Failed"')
        )
    before = [one.get("type") for one in at(old, "status", "conditions") or () if one.get("type") in _OUTCOMES]
    if before and before != outcomes:
        causes.append(invalid("status.conditions", outcomes, "field is immutable"))
    return causes


def _state(obj: Object) -> str:
    return next((one["type"] for one in at(obj, "status", "conditions") or () if one.get("type") in _OUTCOMES), "Pending")


RESOURCE = Resource(
    group="certificates.k8s.io",
    version="v1",
    kind="PodCertificateRequest",
    plural="podcertificaterequests",
    singular="podcertificaterequest",
    schema="io.k8s.api.certificates.v1.PodCertificateRequest",
    strategy=Strategy(
        default=default,
        validate=validate,
        validate_update=validate_update,
        validate_status_update=validate_status_update,
        has_status=True,
    ),
    subresources=(STATUS,),
    selectable_fields={
        "spec.signerName": lambda obj: at(obj, "spec", "signerName") or "",
        "spec.podName": lambda obj: at(obj, "spec", "podName") or "",
        "spec.nodeName": lambda obj: at(obj, "spec", "nodeName") or "",
    },
    columns=(
        NAME,
        text("PodName", "spec", "podName", description="The pod that will use it."),
        text("ServiceAccountName", "spec", "serviceAccountName", description="The pod's account."),
        text("NodeName", "spec", "nodeName", description="The node that asks."),
        text("SignerName", "spec", "signerName", description="Who shall sign it."),
        cell("State", _state, description="What became of it."),
    ),
)
