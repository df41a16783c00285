"""CertificateSigningRequest: the wish for a certificate, what was decided about it, and the certificate."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from korch.api.certificates import parse_request
from korch.api.duration import human_duration
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_dns_subdomain
from korch.resources.columns import AGE, NAME, NONE, cell, text
from korch.resources.resource import Context, Object, Resource, Strategy, Subresource
from korch.resources.subresources import STATUS
from korch.runtime.clock import rfc3339

EXPIRATION_S_MIN = 600
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"
USAGES = frozenset(
    {
        "signing", "digital signature", "content commitment", "key encipherment", "key agreement", "data encipherment", "cert sign",
        "crl sign",
        "encipher only", "decipher only", "any", "server auth", "client auth", "code signing", "email protection", "s/mime",
        "ipsec end system", "ipsec tunnel", "ipsec user", "timestamping", "ocsp signing", "microsoft sgc", "netscape sgc",
    }
)  # fmt: skip
_DECISIONS = ("Approved", "Denied")


def prepare_create(obj: Object, context: Context) -> None:
    """Note who asks; whatever the request says of that is not believed."""
    spec = obj.setdefault("spec", {})
    for field in ("username", "uid", "groups", "extra"):
        spec.pop(field, None)
    spec["username"] = context.user
    if context.uid:
        spec["uid"] = context.uid
    if context.groups:
        spec["groups"] = list(context.groups)
    if context.extra:
        spec["extra"] = {key: list(values) for key, values in context.extra.items()}


def prepare_update(new: Object, old: Object, _context: Context) -> None:
    """Keep what was asked for."""
    new["spec"] = old.get("spec") or {}


def prepare_status_update(new: Object, old: Object, context: Context) -> None:
    """Keep the decisions, which have a subresource of their own, and stamp new conditions."""
    status = new.setdefault("status", {})
    before = at(old, "status", "conditions") or []
    decided = [one for one in before if one.get("type") in _DECISIONS]
    others = [one for one in status.get("conditions") or [] if one.get("type") not in _DECISIONS]
    _stamp(others, before, context.now)
    if decided or others:
        status["conditions"] = [*decided, *others]


def prepare_approval(new: Object, old: Object, context: Context) -> None:
    """Let conditions through and nothing else of the status."""
    conditions = at(new, "status", "conditions") or []
    before = at(old, "status", "conditions") or []
    new["spec"] = old.get("spec") or {}
    _stamp(conditions, before, context.now)
    new["status"] = {**(old.get("status") or {}), "conditions": conditions}
    if not conditions:
        del new["status"]["conditions"]


def _stamp(conditions: list[Object], before: list[Object], now: float) -> None:
    known: Mapping[str, Object] = {one.get("type") or "": one for one in before}
    for condition in conditions:
        condition["lastUpdateTime"] = condition.get("lastUpdateTime") or rfc3339(now)
        earlier = known.get(condition.get("type") or "")
        if not condition.get("lastTransitionTime"):
            is_same = earlier is not None and earlier.get("status") == condition.get("status")
            condition["lastTransitionTime"] = (earlier or {}).get("lastTransitionTime") if is_same else rfc3339(now)


def default(obj: Object) -> None:
    """Fill in the status of conditions, in place."""
    for condition in at(obj, "status", "conditions") or ():
        condition.setdefault("status", "True")


def check_signer_name(name: str) -> list[str]:
    """Return why `name` is not DOMAIN/PATH."""
    domain, slash, path = name.partition("/")
    if not slash or not path or "/" in path:
        return ["must be a fully qualified domain and path of the form 'example.com/signer-name'"]
    reasons = is_dns_subdomain(domain)
    if not reasons and "." not in domain:
        reasons = ["should be a domain with at least two segments separated by dots"]
    return [*reasons, *(why for why in is_dns_subdomain(path))]


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a CertificateSigningRequest. Mirrors ValidateCertificateSigningRequestCreate."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    try:
        parse_request(spec.get("request") or "")
    except ValueError as error:
        causes.append(invalid("spec.request", spec.get("request") or "", str(error)))
    usages = spec.get("usages") or []
    if not usages:
        causes.append(required("spec.usages"))
    for position, usage in enumerate(usages):
        path = f"spec.usages[{position}]"
        if usage not in USAGES:
            causes.append(not_supported(path, usage, sorted(USAGES)))
        if usage in usages[:position]:
            causes.append(duplicate(path, usage))
    signer = spec.get("signerName") or ""
    if not signer:
        causes.append(required("spec.signerName"))
    elif signer == LEGACY_UNKNOWN:
        causes.append(invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version"))
    else:
        causes += [invalid("spec.signerName", signer, why) for why in check_signer_name(signer)]
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < EXPIRATION_S_MIN:
        causes.append(
            invalid("spec.expirationSeconds", seconds, f"may not specify a duration less than {EXPIRATION_S_MIN} seconds (10 minutes)")
        )
    return causes


def _condition_causes(new: Object) -> list[Cause]:
    causes: list[Cause] = []
    seen: set[str] = set()
    for position, condition in enumerate(at(new, "status", "conditions") or ()):
        path, kind = f"status.conditions[{position}]", condition.get("type") or ""
        if not kind:
            causes.append(required(f"{path}.type"))
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        if kind in (*_DECISIONS, "Failed") and condition.get("status") != "True":
            causes.append(not_supported(f"{path}.status", condition.get("status") or "", ("True",)))
    if set(_DECISIONS) <= seen:
        causes.append(invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive"))
    return causes


def validate_status_update(new: Object, old: Object) -> list[Cause]:
    """Return whether a status update changes a certificate that was issued, or holds conditions that make no sense."""
    causes = _condition_causes(new)
    had, has = at(old, "status", "certificate"), at(new, "status", "certificate")
    if had and had != has:
        causes.append(forbidden_field("status.certificate", "updates may not modify a set certificate"))
    elif has and has != had:
        from cryptography import x509

        try:
            certificates = x509.load_pem_x509_certificates(base64.b64decode(has, validate=True))
        except (binascii.Error, ValueError):
            certificates = []
        if not certificates:
            causes.append(invalid("status.certificate", "<certificate data>", "must contain at least one CERTIFICATE PEM block"))
    return causes


def validate_approval(new: Object, old: Object) -> list[Cause]:
    """Return whether an approval takes a decision back."""
    causes = _condition_causes(new)
    now = {one.get("type") for one in at(new, "status", "conditions") or ()}
    causes += [
        forbidden_field("status.conditions", f'updates may not remove a condition of type "{one.get("type")}"')
        for one in at(old, "status", "conditions") or ()
        if one.get("type") in (*_DECISIONS, "Failed") and one.get("type") not in now
    ]
    return causes


def _condition(obj: Object) -> str:
    found = {one.get("type") for one in at(obj, "status", "conditions") or ()}
    words = [word for word in ("Denied", "Approved") if word in found][:1] or ["Pending"]
    if "Failed" in found:
        words.append("Failed")
    if at(obj, "status", "certificate"):
        words.append("Issued")
    return ",".join(words)


def _duration(obj: Object) -> str:
    seconds = at(obj, "spec", "expirationSeconds")
    return NONE if seconds is None else human_duration(seconds)


RESOURCE = Resource(
    group="certificates.k8s.io",
    version="v1",
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    singular="certificatesigningrequest",
    schema="io.k8s.api.certificates.v1.CertificateSigningRequest",
    short_names=("csr",),
    namespaced=False,
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        validate=validate,
        prepare_status_update=prepare_status_update,
        validate_status_update=validate_status_update,
        parts={"approval": (prepare_approval, validate_approval)},
        has_status=True,
    ),
    subresources=(Subresource(name="approval", verbs=("get", "patch", "update")), STATUS),
    selectable_fields={"spec.signerName": lambda obj: at(obj, "spec", "signerName") or ""},
    columns=(
        NAME,
        AGE,
        text("SignerName", "spec", "signerName", description="Who shall sign it.", missing=NONE),
        text("Requestor", "spec", "username", description="Who asks.", missing=NONE),
        cell("RequestedDuration", _duration, description="For how long."),
        cell("Condition", _condition, description="What became of it."),
    ),
)
