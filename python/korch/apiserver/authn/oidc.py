"""Users of an OpenID Connect provider: an ID token that the provider has signed says who somebody is.

The provider's keys are found by its discovery document and fetched when a token first needs them, and again when one is signed with a
key that is not known yet, which is how a provider rotates. Claims become a user by names and prefixes, or by CEL. Mirrors apiserver's
plugin/pkg/authenticator/token/oidc.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jwt
import orjson

from korch._core import native
from korch.apiserver.authn.bearer import Identified, TokenRejected, for_own_audiences
from korch.apiserver.identity import User
from korch.runtime.clock import Clock, rfc3339
from korch.runtime.log import get_logger

Claims = Mapping[str, Any]
SIGNING_ALGORITHMS = ("ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512")
_DISCOVERY = "/.well-known/openid-configuration"
_TIMEOUT_S = 30.0
# A provider is not asked for its keys more often, whatever tokens come.
_REFRESH_S_MIN = 1.0
_DOCUMENT_BYTES_MAX = 1 << 20

log = get_logger("oidc")

# Fetches a document: (URL) -> body. Raises OSError, TimeoutError.
Fetch = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A CEL expression over `claims` (of validation and mappings) or `user`; `message` is what its failure says."""

    source: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Where something of a user comes from: a claim and a prefix, or an expression over `claims`."""

    claim: str = ""
    prefix: str = ""
    expression: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider and how its claims become users. `discovery_url` "": below the issuer."""

    issuer: str
    audiences: Sequence[str]
    discovery_url: str = ""
    username: Mapped = field(default_factory=lambda: Mapped(claim="sub"))
    groups: Mapped | None = None
    uid: Mapped | None = None
    extra: Sequence[tuple[str, str]] = ()
    required_claims: Mapping[str, str] | None = None
    claim_rules: Sequence[Expression] = ()
    user_rules: Sequence[Expression] = ()
    algorithms: Sequence[str] = ("RS256",)


class OidcTokens:
    """The ID tokens of one provider. `audiences` are the server's own, for which such tokens are good."""

    def __init__(self, provider: Provider, fetch: Fetch, clock: Clock, *, audiences: Sequence[str]) -> None:
        self._provider = provider
        self._fetch = fetch
        self._clock = clock
        self._audiences = audiences
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_at = float("-inf")
        self._problem = f'oidc: authenticator for issuer "{provider.issuer}" is not initialized'

    def identify(self, token: str, audiences: Sequence[str]) -> Identified | None:
        """Return the user that a token of this provider speaks for; None for other tokens. Raises TokenRejected."""
        header = _header_of(token, self._provider.issuer)
        if header is None:
            return None
        claims = self._verified(token, header)
        user = self._user(claims)
        for rule in self._provider.user_rules:
            _check(rule, ("user",), [("user", _shown(user))], "user validation")
        return for_own_audiences(user, audiences, self._audiences)

    async def resolve(self, token: str) -> None:
        """Fetch the provider's keys when the token is signed with one that is not known."""
        header = _header_of(token, self._provider.issuer)
        if header is None or self._key_for(header) is not None:
            return
        now = self._clock.monotonic()
        if now - self._asked_at < _REFRESH_S_MIN:
            return
        self._asked_at = now
        try:
            self._keys = await self._fetch_keys()
            self._problem = ""
        except (OSError, ValueError, jwt.PyJWTError) as error:
            # Keys that are known stay good.
            log.warning("keys of an identity provider could not be fetched", issuer=self._provider.issuer, error=str(error))
            self._problem = f'oidc: authenticator for issuer "{self._provider.issuer}" is not initialized: {error}'

    async def _fetch_keys(self) -> dict[str, jwt.PyJWK]:
        issuer = self._provider.issuer
        document: Any = orjson.loads(await self._fetch(self._provider.discovery_url or issuer.rstrip("/") + _DISCOVERY))
        told = document.get("issuer") if isinstance(document, dict) else None
        if told != issuer:
            raise ValueError(f'oidc: issuer did not match the issuer returned by provider, expected "{issuer}" got "{told}"')
        listed: Any = orjson.loads(await self._fetch(str(document.get("jwks_uri"))))
        keys = listed.get("keys") if isinstance(listed, dict) else None
        if not isinstance(keys, list):
            raise ValueError("oidc: the provider's key set has no keys")
        usable = [one for one in keys if isinstance(one, dict) and one.get("use", "sig") == "sig" and one.get("kty") in ("RSA", "EC")]
        return {str(one.get("kid") or ""): jwt.PyJWK.from_dict(one, algorithm=one.get("alg") or _algorithm(one)) for one in usable}

    def _key_for(self, header: Mapping[str, Any]) -> jwt.PyJWK | None:
        key_id = str(header.get("kid") or "")
        if not key_id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _verified(self, token: str, header: Mapping[str, Any]) -> Claims:
        provider, algorithm = self._provider, header.get("alg")
        if not self._keys:
            raise TokenRejected(self._problem)
        if algorithm not in provider.algorithms:
            listed = " ".join(f'"{one}"' for one in provider.algorithms)
            raise TokenRejected(
                f'oidc: verify token: oidc: malformed jwt: unexpected signature algorithm "{algorithm}"; expected [{listed}]'
            )
        key = self._key_for(header)
        if key is None:
            raise TokenRejected("oidc: verify token: failed to verify signature: failed to verify id token signature")
        checks = {f"verify_{one}": False for one in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
        try:
            claims: dict[str, Any] = jwt.decode(token, key.key, algorithms=[str(algorithm)], options=checks)  # type: ignore[arg-type]
        except jwt.PyJWTError as error:
            raise TokenRejected("oidc: verify token: failed to verify signature: failed to verify id token signature") from error
        self._check_times(claims)
        given = claims.get("aud")
        audiences = [given] if isinstance(given, str) else list(given or ())
        if not set(audiences) & set(provider.audiences):
            wanted, got = (" ".join(f'"{one}"' for one in listed) for listed in (provider.audiences, audiences))
            wanted = wanted if len(provider.audiences) == 1 else f"in [{wanted}]"
            raise TokenRejected(f"oidc: verify token: oidc: expected audience {wanted} got [{got}]")
        return claims

    def _check_times(self, claims: Claims) -> None:
        now = self._clock.now()
        expires_at, not_before = claims.get("exp"), claims.get("nbf")
        if not isinstance(expires_at, (int, float)) or expires_at <= now:
            shown = rfc3339(expires_at) if isinstance(expires_at, (int, float)) else "none"
            raise TokenRejected(f"oidc: verify token: oidc: token is expired (Token Expiry: {shown})")
        # Clocks differ: five minutes, as upstream allows.
        if isinstance(not_before, (int, float)) and now + 300 < not_before:
            raise TokenRejected("oidc: verify token: oidc: current time before the nbf (not before) time")

    def _user(self, claims: Claims) -> User:
        provider = self._provider
        for claim, value in (provider.required_claims or {}).items():
            if claim not in claims:
                raise TokenRejected(f"oidc: required claim {claim} not present in ID token")
            if claims[claim] != value:
                raise TokenRejected(f"oidc: required claim {claim} value does not match. Got = {claims[claim]}, want = {value}")
        shown = native.CelValue(orjson.dumps(claims)) if _has_expressions(provider) else None
        for rule in provider.claim_rules:
            _check(rule, ("claims",), [("claims", shown)], "claim validation")
        name = self._mapped(provider.username, claims, shown, "username")
        if not isinstance(name, str) or not name:
            raise TokenRejected("oidc: parse username claims: claim value is empty or no string")
        if provider.username.claim == "email" and claims.get("email_verified", True) is not True:
            raise TokenRejected("oidc: email not verified")
        groups = self._groups(claims, shown)
        uid = self._mapped(provider.uid, claims, shown, "uid") if provider.uid is not None else ""
        extra: dict[str, Sequence[str]] = {}
        if claims.get("jti"):
            extra["authentication.kubernetes.io/credential-id"] = (f"JTI={claims['jti']}",)
        for key, expression in provider.extra:
            values = _listed(self._mapped(Mapped(expression=expression), claims, shown, f"extra {key}"), f"extra {key}")
            if values:
                extra[key] = values
        return User(provider.username.prefix + name, str(uid), (*groups, "system:authenticated"), extra)

    def _groups(self, claims: Claims, shown: native.CelValue | None) -> Sequence[str]:
        mapped = self._provider.groups
        if mapped is None or (mapped.claim and mapped.claim not in claims):
            return ()
        return [f"{mapped.prefix}{one}" for one in _listed(self._mapped(mapped, claims, shown, "groups"), "groups")]

    def _mapped(self, mapped: Mapped, claims: Claims, shown: native.CelValue | None, what: str) -> Any:
        if not mapped.expression:
            if mapped.claim not in claims:
                raise TokenRejected(f'oidc: parse {what} claims "{mapped.claim}": claim not present')
            return claims[mapped.claim]
        return _evaluated(mapped.expression, ("claims",), [("claims", shown)], f"{what} claim mapping")


def _header_of(token: str, issuer: str) -> Mapping[str, Any] | None:
    """Return the header of a token that says it is of this issuer, None for any other."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return jwt.get_unverified_header(token) if claims.get("iss") == issuer else None
    except jwt.PyJWTError:
        return None


def _algorithm(key: Mapping[str, Any]) -> str:
    """Return an algorithm of a key that names none."""
    return {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}.get(str(key.get("crv")), "RS256")


def _listed(value: Any, what: str) -> Sequence[str]:
    if value in (None, ""):
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    raise TokenRejected(f"oidc: parse {what} claims: a string or a list of strings was expected")


def _has_expressions(provider: Provider) -> bool:
    mapped = (provider.username, provider.groups, provider.uid)
    return bool(provider.claim_rules or provider.extra) or any(one is not None and one.expression for one in mapped)


@lru_cache(maxsize=1024)
def _compiled(source: str, names: tuple[str, ...]) -> native.CelExpression:
    return native.CelExpression(source, names, "")


def _evaluated(source: str, names: tuple[str, ...], variables: Sequence[tuple[str, Any]], what: str) -> Any:
    try:
        return orjson.loads(_compiled(source, names).evaluate(variables))
    except ValueError as error:
        raise TokenRejected(f"oidc: error evaluating {what} expression: {error}") from error


def _check(rule: Expression, names: tuple[str, ...], variables: Sequence[tuple[str, Any]], what: str) -> None:
    if _evaluated(rule.source, names, variables, what) is not True:
        raise TokenRejected(f"oidc: error evaluating {what} expression: {rule.message or 'validation expression failed'}: {rule.source}")


def _shown(user: User) -> native.CelValue:
    extra = {key: list(values) for key, values in user.extra.items()}
    groups = [one for one in user.groups if one != "system:authenticated"]
    return native.CelValue(orjson.dumps({"username": user.name, "uid": user.uid, "groups": groups, "extra": extra}))


def https_fetch(ca_pem: str = "") -> Fetch:
    """Return what fetches over HTTPS, trusting the authorities in `ca_pem`, or the system's. Raises ssl.SSLError for bad PEM."""
    context = ssl.create_default_context(cadata=ca_pem or None)

    async def fetch(url: str) -> bytes:
        # Needed by few servers, and slow to import.
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.get(url, ssl=context, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise OSError(f"{url} answered {answer.status}")
                body = await answer.read()
                if len(body) > _DOCUMENT_BYTES_MAX:
                    raise OSError(f"{url} answered {len(body)} bytes")
                return body
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error

    return fetch
