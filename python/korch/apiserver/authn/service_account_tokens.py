"""Bound service account tokens: signed JWTs that name the account, and the Pod or Secret whose end is theirs too.

A token is good while its signature and time are, its audience is one of ours, and the account (and the object it is bound
to) still exists with the same uid. Mirrors kubernetes' pkg/serviceaccount (claims, validator) and TokenRequest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from korch.apiserver.identity import User
from korch.runtime.clock import Clock

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"
USER_PREFIX = "system:serviceaccount:"
# Tokens that kubelets mount (3607 s) are given a year, as upstream does, so that clients that never re-read survive.
_EXTENDED_EXPIRATION_S = 365 * 24 * 3600
_MOUNTED_EXPIRATION_S = 3607
_CLAIMS_MAX = 10_000

# Claims of what a token may be bound to, and the resource that holds such objects.
_BOUND = (("pod", "pods"), ("secret", "secrets"), ("node", "nodes"))

# Answers the uid of an object that exists now, "" when it does not: (plural, namespace, name).
Lookup = Callable[[str, str, str], str]


@dataclass(frozen=True, slots=True)
class Bound:
    """The object a token is bound to: `kind` is Pod, Secret or Node. `node` is that of a Pod, as (name, uid), if it has one."""

    kind: str
    name: str
    uid: str
    api_version: str = "v1"
    node: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token and the time (seconds since the epoch) at which the client should think that it ends."""

    token: str
    expires_at: float


class ServiceAccountTokens:
    """Issues and checks the tokens of one cluster. `key_pem` is an ECDSA P-256 private key."""

    def __init__(self, key_pem: bytes, *, issuer: str, audiences: Sequence[str], clock: Clock, lookup: Lookup) -> None:
        key = serialization.load_pem_private_key(key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the service account signing key must be an ECDSA key")
        self._key = key
        self._public = key.public_key()
        self.issuer = issuer
        self.audiences = list(audiences)
        self._clock = clock
        self._lookup = lookup
        # Of tokens that were verified: what they say, and whom that makes.
        self._claims: dict[str, dict[str, Any]] = {}
        self._users: dict[str, User] = {}
        der = self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._key_id = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()

    def issue(
        self, namespace: str, name: str, uid: str, *, audiences: Sequence[str], expiration_s: int, bound: Bound | None, token_id: str
    ) -> Issued:
        """Return a token for the account; `token_id` becomes its `jti`."""
        now = int(self._clock.now())
        private: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        lifetime = expiration_s
        if bound is not None:
            private[bound.kind.lower()] = {"name": bound.name, "uid": bound.uid}
            if bound.node is not None:
                private["node"] = {"name": bound.node[0], "uid": bound.node[1]}
            if bound.kind == "Pod" and expiration_s == _MOUNTED_EXPIRATION_S:
                lifetime = _EXTENDED_EXPIRATION_S
                private["warnafter"] = now + expiration_s
        claims = {
            "iss": self.issuer,
            "sub": f"{USER_PREFIX}{namespace}:{name}",
            "aud": list(audiences) or self.audiences,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "jti": token_id,
            "kubernetes.io": private,
        }
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id})
        return Issued(token, now + expiration_s)

    def authenticate(self, token: str, audiences: Sequence[str] = ()) -> User | None:
        """Return the account that a good token speaks for; None for a token that is not ours or no longer good."""
        claims = self._verified(token)
        if claims is None or not set(_listed(claims.get("aud"))) & set(audiences or self.audiences):
            return None
        now = self._clock.now()
        private = claims.get("kubernetes.io") or {}
        account = private.get("serviceaccount") or {}
        namespace, name, uid = str(private.get("namespace", "")), str(account.get("name", "")), str(account.get("uid", ""))
        if not claims.get("nbf", 0) <= now + 60 or now >= claims.get("exp", 0):
            return None
        if not uid or self._lookup("serviceaccounts", namespace, name) != uid:
            return None
        for kind, plural in _BOUND:
            bound = private.get(kind)
            # The node of a pod is told, not required: the pod's own end is what ends the token.
            if bound is None or (kind == "node" and "pod" in private):
                continue
            if self._lookup(plural, "" if kind == "node" else namespace, str(bound.get("name", ""))) != bound.get("uid"):
                return None
        user = self._users.get(token)
        if user is None:
            user = self._users[token] = _user(claims)
        return user

    def _verified(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a token that this cluster has signed. Remembered, because a signature does not change; all else does."""
        known = self._claims.get(token)
        if known is not None:
            return known
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                issuer=self.issuer,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
        except jwt.PyJWTError:
            return None
        if len(self._claims) >= _CLAIMS_MAX:
            self._claims.clear()
            self._users.clear()
        self._claims[token] = claims
        return claims

    def audiences_of(self, token: str) -> list[str]:
        """Return the audiences in a token that `authenticate` accepted."""
        return _listed((self._verified(token) or {}).get("aud"))

    def key_set(self) -> dict[str, Any]:
        """Return the JWKS document that lets others check our tokens (`/openid/v1/jwks`)."""
        numbers = self._public.public_numbers()

        def encoded(value: int) -> str:
            return base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()

        key = {
            "use": "sig",
            "kty": "EC",
            "kid": self._key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": encoded(numbers.x),
            "y": encoded(numbers.y),
        }
        return {"keys": [key]}

    def discovery(self) -> dict[str, Any]:
        """Return the OpenID provider document (`/.well-known/openid-configuration`)."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }


def _user(claims: Mapping[str, Any]) -> User:
    private = claims["kubernetes.io"]
    namespace, account = str(private.get("namespace", "")), private["serviceaccount"]
    extra: dict[str, tuple[str, ...]] = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",)}
    for kind in ("pod", "node"):
        if (bound := private.get(kind)) is not None:
            extra[f"authentication.kubernetes.io/{kind}-name"] = (str(bound["name"]),)
            extra[f"authentication.kubernetes.io/{kind}-uid"] = (str(bound["uid"]),)
    return User(
        name=f"{USER_PREFIX}{namespace}:{account.get('name', '')}",
        uid=str(account.get("uid", "")),
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
        extra=extra,
    )


def _listed(audiences: Any) -> list[str]:
    return [audiences] if isinstance(audiences, str) else list(audiences or ())
