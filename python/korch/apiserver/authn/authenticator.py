"""Puts the ways of proving who one is in a row: client certificate, then bearer token, then anonymous.

The front door terminates TLS and hands over the verified client certificate in a header that no client can set.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import NameOID

from korch.api.errors import Unauthorized
from korch.apiserver.authn.bearer import BearerTokens, TokenRejected
from korch.apiserver.identity import User

CERTIFICATE_HEADER = "x-korch-client-cert"
ANONYMOUS = User(name="system:anonymous", groups=("system:unauthenticated",))
BOOTSTRAPPER = User(name="system:bootstrap:korch", groups=("system:bootstrappers", "system:authenticated"))


class ClusterAuthenticator:
    """Certificates of the cluster's CA, bearer tokens of all kinds, the join token. `join_token` "" switches joining off."""

    def __init__(self, bearer: BearerTokens, join_token: str = "") -> None:
        self._bearer = bearer
        self._join_token = join_token

    def authenticate(self, headers: Mapping[str, str]) -> User:
        """Return who sent these headers (lower-case names). Raises Unauthorized for credentials that are wrong."""
        certificate = headers.get(CERTIFICATE_HEADER)
        if certificate:
            return user_of_certificate(certificate)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not scheme:
            return ANONYMOUS
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized()
        if self._join_token and hmac.compare_digest(token.encode(), self._join_token.encode()):
            return BOOTSTRAPPER
        try:
            return self._bearer.identify(token).user
        except TokenRejected as error:
            raise Unauthorized() from error


@lru_cache(maxsize=4096)
def user_of_certificate(encoded: str) -> User:
    """Return the identity in a verified certificate (base64 DER): CN is the user, every O a group. Raises Unauthorized."""
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(encoded))
    except ValueError as error:
        raise Unauthorized() from error
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        raise Unauthorized()
    groups = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    return User(name=str(names[0].value), groups=(*groups, "system:authenticated"))
