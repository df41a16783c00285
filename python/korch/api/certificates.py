"""The signing request within a CertificateSigningRequest."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509


def parse_request(text: str) -> x509.CertificateSigningRequest:
    """Return the signing request in `spec.request` (base64 of PEM). Raises ValueError."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_csr(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError("PEM block type must be CERTIFICATE REQUEST") from error
