"""ClusterTrustBundle: certificates of authorities that pods may trust."""

from __future__ import annotations

from korch.api.errors import Cause, forbidden_field, invalid
from korch.api.meta import at
from korch.api.names import is_dns_subdomain
from korch.resources.certificates.certificatesigningrequest import check_signer_name
from korch.resources.columns import AGE, NAME, text
from korch.resources.resource import Object, Resource, Strategy


def check_name(name: str) -> list[str]:
    """Return why `name` is not `[SIGNER-DOMAIN:SIGNER-PATH:]NAME`."""
    return [why for part in name.split(":") for why in is_dns_subdomain(part)]


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ClusterTrustBundle. Mirrors ValidateClusterTrustBundle."""
    causes: list[Cause] = []
    signer, name = at(obj, "spec", "signerName") or "", at(obj, "metadata", "name") or ""
    if signer:
        causes += [invalid("spec.signerName", signer, why) for why in check_signer_name(signer)]
        prefix = signer.replace("/", ":") + ":"
        if not name.startswith(prefix):
            causes.append(invalid("metadata.name", name, f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"))
    elif ":" in name:
        causes.append(invalid("metadata.name", name, 'ClusterTrustBundle without signer name must not have ":" in its name'))
    return causes + _bundle_causes(at(obj, "spec", "trustBundle") or "")


def _bundle_causes(bundle: str) -> list[Cause]:
    from cryptography import x509

    path, shown = "spec.trustBundle", "<value omitted>"
    try:
        certificates = x509.load_pem_x509_certificates(bundle.encode())
    except ValueError:
        return [invalid(path, shown, "at least one trust anchor must be provided")]
    causes: list[Cause] = []
    seen: set[bytes] = set()
    for position, certificate in enumerate(certificates):
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            causes.append(invalid(path, shown, f"entry {position} does not have the CA bit set"))
            continue
        if not constraints.ca:
            causes.append(invalid(path, shown, f"entry {position} does not have the CA bit set"))
        if certificate.signature in seen:
            causes.append(invalid(path, shown, f"duplicate trust anchor (indices {position})"))
        seen.add(certificate.signature)
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the signer."""
    if (at(new, "spec", "signerName") or "") != (at(old, "spec", "signerName") or ""):
        return [forbidden_field("spec.signerName", "field is immutable")]
    return []


RESOURCE = Resource(
    group="certificates.k8s.io",
    version="v1",
    kind="ClusterTrustBundle",
    plural="clustertrustbundles",
    singular="clustertrustbundle",
    schema="io.k8s.api.certificates.v1.ClusterTrustBundle",
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update, validate_name=check_name),
    selectable_fields={"spec.signerName": lambda obj: at(obj, "spec", "signerName") or ""},
    columns=(NAME, text("SignerName", "spec", "signerName", description="Whose certificates it holds.", missing="<none>"), AGE),
)
