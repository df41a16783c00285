"""Users that others vouch for: an OpenID Connect provider over TLS, bootstrap tokens, and a webhook that knows tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from aiohttp import web
from api_exchange import ADDRESS, Api
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from korch.api.errors import Unauthorized
from korch.apiserver.authn.authentication_configuration import BadConfiguration, load
from korch.apiserver.authn.authenticator import ClusterAuthenticator
from korch.apiserver.authn.bearer import BearerTokens, TokenRejected
from korch.apiserver.authn.bootstrap_tokens import BootstrapTokens
from korch.apiserver.authn.oidc import Expression, Mapped, OidcTokens, Provider, https_fetch
from korch.apiserver.authn.reviews import review_token
from korch.apiserver.authn.webhook_tokens import WebhookTokens
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.identity import User
from korch.apiserver.server import ApiServer, ServerConfig
from korch.resources import catalogue
from korch.runtime.clock import RealClock, rfc3339
from korch.runtime.context import simulated
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]
NOW = 1_800_000_000.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Issuer:
    """A provider on loopback, over TLS, with keys that can be changed; `asked` are the documents that were fetched."""

    def __init__(self, port: int, authority_pem: str, clock: Clock) -> None:
        self.url = f"https://127.0.0.1:{port}/realm"
        self.authority_pem = authority_pem
        self.clock = clock
        self.asked: list[str] = []
        self.is_down = False
        self.has_keys = True
        self.told_issuer = self.url
        self.keys: dict[str, Any] = {}
        self.rotate("first")

    def rotate(self, key_id: str, *, elliptic: bool = False) -> None:
        """Replace all keys by a new one."""
        key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)
        self.keys = {key_id: key}

    def token(self, *, key: Any = None, **claims: Any) -> str:
        ((key_id, current),) = self.keys.items()
        signer = key or current
        whole = {"iss": self.url, "aud": "korch", "sub": "1234", "exp": int(self.clock.now()) + 600} | claims
        algorithm = "ES256" if isinstance(signer, ec.EllipticCurvePrivateKey) else "RS256"
        return jwt.encode(whole, signer, algorithm=algorithm, headers={"kid": key_id})

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path.rpartition("/")[2])
        if self.is_down:
            return web.Response(status=503)
        if request.path.endswith("openid-configuration"):
            return web.json_response({"issuer": self.told_issuer, "jwks_uri": f"{self.url}/keys"})
        listed = []
        for key_id, key in self.keys.items():
            algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
            public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
            listed.append(public | {"kid": key_id, "use": "sig", "alg": algorithm})
        return web.json_response({"keys": listed} if self.has_keys else ["no keys"])


@asynccontextmanager
async def issuer(tmp_path: Path) -> AsyncIterator[Issuer]:
    clock = Clock()
    authority = CertificateAuthority.open(tmp_path / "pki", RealClock())
    serving = authority.issue("provider", "provider", hosts=["127.0.0.1"], is_server=True)
    (tmp_path / "serving.pem").write_bytes(serving.certificate + serving.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "serving.pem")
    app = web.Application()
    made: list[Issuer] = []
    app.router.add_get("/{path:.*}", lambda request: made[0].answer(request))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    made.append(Issuer(port, authority.certificate_pem.decode(), clock))
    try:
        yield made[0]
    finally:
        await runner.cleanup()


def bearer(of: Issuer, **more: Any) -> BearerTokens:
    provider = Provider(**({"issuer": of.url, "audiences": ("korch",), "algorithms": ("RS256", "ES256")} | more))
    source = OidcTokens(provider, https_fetch(of.authority_pem), of.clock, audiences=["api"])
    return BearerTokens([], audiences=["api"], remote=[source])


async def identified(tokens: BearerTokens, token: str) -> User:
    await tokens.resolve(token)
    return tokens.identify(token).user


async def refusal(tokens: BearerTokens, token: str) -> str:
    with pytest.raises(TokenRejected) as caught:
        await identified(tokens, token)
    return str(caught.value)


async def test_a_token_of_the_provider_is_a_user_with_prefixes_and_groups(tmp_path: Path) -> None:
    async with issuer(tmp_path) as provider:
        tokens = bearer(provider, username=Mapped(claim="email", prefix="oidc:"), groups=Mapped(claim="groups", prefix="g:"))
        user = await identified(tokens, provider.token(email="jane@example.com", groups=["dev", "ops"], jti="id-1"))
        assert user == User(
            "oidc:jane@example.com",
            groups=("g:dev", "g:ops", "system:authenticated"),
            extra={"authentication.kubernetes.io/credential-id": ("JTI=id-1",)},
        )
        assert (await identified(tokens, provider.token(email="a@b.c", groups="one"))).groups == ("g:one", "system:authenticated")
        assert await refusal(tokens, provider.token(email="a@b.c", email_verified=False)) == (
            "[invalid bearer token, oidc: email not verified]"
        )
        assert 'parse username claims "email": claim not present' in await refusal(tokens, provider.token())
        # One discovery and one set of keys have answered all of it.
        assert provider.asked == ["openid-configuration", "keys"]


async def test_rotated_keys_are_fetched_when_a_token_needs_them_and_not_more_often(tmp_path: Path) -> None:
    async with issuer(tmp_path) as provider:
        tokens = bearer(provider)
        before = provider.token()
        assert (await identified(tokens, before)).name == "1234"
        provider.rotate("second", elliptic=True)
        provider.clock.time += 60
        assert (await identified(tokens, provider.token(sub="after"))).name == "after"
        # What the provider no longer vouches for is no longer believed.
        assert "failed to verify id token signature" in await refusal(tokens, before)
        asked = len(provider.asked)
        for _ in range(5):
            await refusal(tokens, before)
        assert len(provider.asked) == asked


async def test_a_forged_expired_or_misdirected_token_is_refused_in_words(tmp_path: Path) -> None:
    async with issuer(tmp_path) as provider:
        tokens = bearer(provider, required_claims={"tenant": "blue"})
        forged = provider.token(key=rsa.generate_private_key(65537, 2048), tenant="blue")
        expired = provider.token(exp=int(NOW) - 10, tenant="blue")
        early = provider.token(nbf=int(NOW) + 1000, tenant="blue")
        found = {
            "forged": await refusal(tokens, forged),
            "expired": await refusal(tokens, expired),
            "early": await refusal(tokens, early),
            "audience": await refusal(tokens, provider.token(aud=["other"], tenant="blue")),
            "claim": await refusal(tokens, provider.token(tenant="red")),
            "no claim": await refusal(tokens, provider.token()),
        }
        assert {key: text.removeprefix("[invalid bearer token, ").removesuffix("]") for key, text in found.items()} == {
            "forged": "oidc: verify token: failed to verify signature: failed to verify id token signature",
            "expired": f"oidc: verify token: oidc: token is expired (Token Expiry: {rfc3339(NOW - 10)})",
            "early": "oidc: verify token: oidc: current time before the nbf (not before) time",
            "audience": 'oidc: verify token: oidc: expected audience "korch" got ["other"]',
            "claim": "oidc: required claim tenant value does not match. Got = red, want = blue",
            "no claim": "oidc: required claim tenant not present in ID token",
        }
        # A token that was signed with nothing, or with the public key as a secret.
        head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"first"}').rstrip(b"=").decode()
        unsigned = f"{head}.{provider.token(tenant='blue').split('.')[1]}."
        assert 'unexpected signature algorithm "none"' in await refusal(tokens, unsigned)
        assert await refusal(tokens, "nonsense") == "invalid bearer token"


async def test_a_provider_that_is_down_or_lies_is_told_of_and_asked_again(tmp_path: Path) -> None:
    async with issuer(tmp_path) as provider:
        tokens = bearer(provider)
        provider.is_down = True
        assert f'oidc: authenticator for issuer "{provider.url}" is not initialized: ' in await refusal(tokens, provider.token())
        provider.is_down, provider.told_issuer = False, "https://elsewhere"
        provider.clock.time += 5
        assert "issuer did not match the issuer returned by provider" in await refusal(tokens, provider.token())
        provider.told_issuer, provider.has_keys = provider.url, False
        provider.clock.time += 5
        assert "the provider's key set has no keys" in await refusal(tokens, provider.token())
        provider.has_keys = True
        provider.clock.time += 5
        assert (await identified(tokens, provider.token())).name == "1234"
        distrusting = OidcTokens(Provider(issuer=provider.url, audiences=("korch",)), https_fetch(), provider.clock, audiences=["api"])
        assert "is not initialized" in await refusal(BearerTokens([], audiences=["api"], remote=[distrusting]), provider.token())


async def test_expressions_check_claims_and_make_users_of_them(tmp_path: Path) -> None:
    async with issuer(tmp_path) as provider:
        tokens = bearer(
            provider,
            username=Mapped(expression="claims.first + '.' + claims.last"),
            groups=Mapped(expression="claims.roles.map(r, 'role:' + r)"),
            uid=Mapped(expression="claims.sub"),
            extra=[("example.org/team", "claims.team")],
            claim_rules=[Expression(source="claims.first != 'eve'", message="not eve")],
            user_rules=[Expression(source="!user.username.startsWith('system:')", message="username cannot use reserved prefix")],
        )
        claims: Object = {"first": "jane", "last": "doe", "roles": ["a", "b"], "team": "blue"}
        user = await identified(tokens, provider.token(**claims))
        assert (user.name, user.uid, user.groups) == ("jane.doe", "1234", ("role:a", "role:b", "system:authenticated"))
        assert user.extra == {"example.org/team": ("blue",)}
        assert "not eve" in await refusal(tokens, provider.token(**claims | {"first": "eve"}))
        assert "username cannot use reserved prefix" in await refusal(tokens, provider.token(**claims | {"first": "system:"}))


CONFIGURATION = """
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: URL, audiences: [korch, other], audienceMatchPolicy: MatchAny}
  claimValidationRules:
  - {claim: tenant, requiredValue: blue}
  claimMappings:
    username: {claim: sub, prefix: "x:"}
    groups: {expression: "claims.roles"}
"""


async def test_a_configuration_file_says_the_same(tmp_path: Path) -> None:
    async with issuer(tmp_path) as provider:
        file = tmp_path / "authentication.yaml"
        file.write_text(CONFIGURATION.replace("URL", provider.url))
        ((read, _),) = load(file)
        source = OidcTokens(read, https_fetch(provider.authority_pem), provider.clock, audiences=["api"])
        tokens = BearerTokens([], audiences=["api"], remote=[source])
        user = await identified(tokens, provider.token(aud="other", tenant="blue", roles=["r"]))
        assert (user.name, user.groups) == ("x:1234", ("r", "system:authenticated"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("URL", "http://plain", 'jwt[0].issuer.url: Invalid value: "http://plain": URL scheme must be https'),
        (", audienceMatchPolicy: MatchAny", "", "audienceMatchPolicy must be MatchAny for multiple audiences"),
        (
            '{claim: sub, prefix: "x:"}',
            "{claim: sub}",
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim",
        ),
        ('"claims.roles"', '"claims.roles +"', "jwt[0].claimMappings.groups.expression: Invalid value"),
        ('"claims.roles"', '"user.x"', "undeclared reference to 'user'"),
        ("kind: Auth", "kind: Author", "expected AuthenticationConfiguration"),
    ],
)
def test_a_bad_configuration_is_refused_with_the_field(tmp_path: Path, old: str, new: str, says: str) -> None:
    file = tmp_path / "authentication.yaml"
    file.write_text(CONFIGURATION.replace(old, new).replace("URL", "https://issuer.example.com"))
    with pytest.raises(BadConfiguration) as caught:
        load(file)
    assert says in str(caught.value)


def encoded(**data: str) -> dict[str, str]:
    return {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in data.items()}


def bootstrap_secret(**data: str) -> Object:
    good = {"token_id": "abcdef", "token_secret": "0123456789abcdef", "usage_bootstrap_authentication": "true"}
    return {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": encoded(**good | data)}


@pytest.mark.parametrize(
    ("secret", "groups"),
    [
        (bootstrap_secret(), ("system:bootstrappers", "system:authenticated")),
        (
            bootstrap_secret(auth_extra_groups="system:bootstrappers:b,system:bootstrappers:a"),
            ("system:bootstrappers", "system:bootstrappers:a", "system:bootstrappers:b", "system:authenticated"),
        ),
        (bootstrap_secret(expiration=rfc3339(NOW + 60)), ("system:bootstrappers", "system:authenticated")),
        (bootstrap_secret(expiration=rfc3339(NOW)), "invalid bearer token"),
        (bootstrap_secret(expiration="soon"), "invalid bearer token"),
        (bootstrap_secret(token_secret="another"), "invalid bearer token"),
        (bootstrap_secret(token_id="another"), "invalid bearer token"),
        (bootstrap_secret(usage_bootstrap_authentication="false"), "invalid bearer token"),
        (bootstrap_secret() | {"type": "Opaque"}, "invalid bearer token"),
        (bootstrap_secret(auth_extra_groups="system:masters"), 'bootstrap group "system:masters" is invalid'),
        (None, "invalid bearer token"),
    ],
)
def test_a_bootstrap_token_is_as_good_as_its_secret(secret: Object | None, groups: tuple[str, ...] | str) -> None:
    source = BootstrapTokens(lambda name: secret if name == "bootstrap-token-abcdef" else None, Clock(), audiences=["api"])
    tokens = BearerTokens([source], audiences=["api"])
    if isinstance(groups, str):
        with pytest.raises(TokenRejected, match=groups):
            tokens.identify("abcdef.0123456789abcdef")
    else:
        assert tokens.identify("abcdef.0123456789abcdef").user == User("system:bootstrap:abcdef", groups=groups)


class Webhook:
    def __init__(self) -> None:
        self.reviews: list[Object] = []
        self.status: Object = {"authenticated": True, "user": {"username": "w", "uid": "u", "groups": ["g"], "extra": {"k": ["v"]}}}

    async def __call__(self, body: bytes) -> bytes:
        self.reviews.append(json.loads(body))
        if not self.status:
            raise OSError("connection refused")
        return orjson.dumps({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": self.status})


async def test_a_webhook_is_asked_once_in_a_while_and_again_after_a_failure() -> None:
    webhook, clock = Webhook(), Clock()
    tokens = BearerTokens([], audiences=["api"], remote=[WebhookTokens(webhook, clock, audiences=["api"])])
    user = await identified(tokens, "t")
    assert user == User("w", "u", ("g", "system:authenticated"), {"k": ("v",)})
    assert webhook.reviews[0]["spec"] == {"token": "t", "audiences": ["api"]}
    webhook.status = {"authenticated": False, "error": "who is that?"}
    assert (await identified(tokens, "t")).name == "w" and len(webhook.reviews) == 1
    clock.time += 121
    assert await refusal(tokens, "t") == "[invalid bearer token, who is that?]"
    webhook.status = {}
    assert "connection refused" in await refusal(tokens, "other")
    webhook.status = {"authenticated": True, "user": {"username": "back"}}
    assert (await identified(tokens, "other")).name == "back"


async def test_reviews_and_requests_see_every_kind_of_token(tmp_path: Path) -> None:
    async with issuer(tmp_path) as provider:
        tokens = bearer(provider, username=Mapped(claim="sub", prefix="oidc:"))
        good = provider.token()
        status = (await review_token({"spec": {"token": good}}, tokens))["status"]
        assert status["authenticated"] is True and status["user"]["username"] == "oidc:1234" and status["audiences"] == ["api"]
        assert (await review_token({"spec": {"token": good, "audiences": ["vault"]}}, tokens))["status"].get("authenticated") is None
        bad = (await review_token({"spec": {"token": provider.token(aud="x")}}, tokens))["status"]
        assert bad["error"].startswith("[invalid bearer token, oidc: verify token: ")
        fresh = bearer(provider)
        authenticator = ClusterAuthenticator(fresh)
        headers = {"authorization": f"Bearer {good}"}
        with pytest.raises(Unauthorized):
            authenticator.authenticate(headers)
        await fresh.resolve_headers(headers)
        assert authenticator.authenticate(headers).name == "1234"


def test_the_request_chain_asks_before_it_authenticates() -> None:
    async def main() -> None:
        runtime = simulated(1)
        storage = Storage.open(None, runtime)
        webhook = Webhook()
        tokens = BearerTokens([], audiences=["api"], remote=[WebhookTokens(webhook, runtime.clock, audiences=["api"])])
        config = ServerConfig(advertise_host=ADDRESS, authenticator=ClusterAuthenticator(tokens), bearer=tokens)
        server = ApiServer(runtime, storage, catalogue(), config)
        api = Api(server, storage)
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = await api.post(path, review, headers={"authorization": "Bearer t"})
        assert answer.json["status"]["userInfo"]["username"] == "w"
        webhook.status = {"authenticated": False}
        assert (await api.post(path, review, headers={"authorization": "Bearer other"})).says[:2] == (401, "Unauthorized")
        await storage.close()

    loop = SimLoop()
    loop.run(asyncio.wait_for(main(), 100))
