"""The command line's words for identity providers and other authorities on tokens: kube-apiserver's own."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from korch.api.errors import Cause
from korch.api.go_duration import parse_duration
from korch.apiserver.authn.authentication_configuration import BadConfiguration, check_issuer, load
from korch.apiserver.authn.bearer import TokenSource
from korch.apiserver.authn.oidc import SIGNING_ALGORITHMS, Mapped, OidcTokens, Provider, https_fetch
from korch.apiserver.authn.webhook_tokens import KubeconfigPost, WebhookTokens
from korch.runtime.clock import Clock

_DISABLED = "-"
OPTIONS = (
    click.option("--oidc-issuer-url", default="", help="URL of an OpenID Connect provider whose ID tokens are believed; https."),
    click.option("--oidc-client-id", default="", help="The client that ID tokens must be for."),
    click.option("--oidc-username-claim", default="sub", show_default=True, help="The claim that is the user's name."),
    click.option("--oidc-username-prefix", default="", help="What user names begin with; - is nothing. Default: the issuer and #."),
    click.option("--oidc-groups-claim", default="", help="The claim that names the user's groups."),
    click.option("--oidc-groups-prefix", default="", help="What group names begin with."),
    click.option("--oidc-required-claim", multiple=True, help="KEY=VALUE that ID tokens must hold; may be given again."),
    click.option("--oidc-ca-file", default="", help="PEM file: who signed the provider's certificate. Default: the system's authorities."),
    click.option("--oidc-signing-algs", default="RS256", show_default=True, help="Algorithms of ID tokens, with commas."),
    click.option("--authentication-config", default="", help="YAML file: identity providers (AuthenticationConfiguration)."),
    click.option("--authentication-token-webhook-config-file", default="", help="kubeconfig file: a webhook that knows tokens."),
    click.option("--authentication-token-webhook-cache-ttl", default="2m0s", show_default=True, help="How long its answers are kept."),
)
NAMES = (
    "oidc_issuer_url",
    "oidc_client_id",
    "oidc_username_claim",
    "oidc_username_prefix",
    "oidc_groups_claim",
    "oidc_groups_prefix",
    "oidc_required_claim",
    "oidc_ca_file",
    "oidc_signing_algs",
    "authentication_config",
    "authentication_token_webhook_config_file",
    "authentication_token_webhook_cache_ttl",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationOptions:
    """What these options say: providers with the PEM of their authority, and the webhook."""

    providers: Sequence[tuple[Provider, str]] = ()
    webhook: KubeconfigPost | None = None
    webhook_ttl_s: float = 120.0

    def sources(self, clock: Clock, audiences: Sequence[str]) -> list[TokenSource]:
        """Return who knows such tokens. Raises click.ClickException for a bad authority."""
        found: list[TokenSource] = []
        for provider, ca_pem in self.providers:
            try:
                found.append(OidcTokens(provider, https_fetch(ca_pem), clock, audiences=audiences))
            except ssl.SSLError as error:
                raise click.ClickException(f"the certificate authority of {provider.issuer} cannot be read: {error}") from error
        if self.webhook is not None:
            found.append(WebhookTokens(self.webhook, clock, audiences=audiences, ttl_s=self.webhook_ttl_s))
        return found


def read(given: Mapping[str, Any]) -> AuthenticationOptions:
    """Return what the options in `given` say. Raises click.UsageError, click.ClickException."""
    providers: list[tuple[Provider, str]] = []
    if given["authentication_config"]:
        if given["oidc_issuer_url"] or given["oidc_client_id"]:
            raise click.UsageError("authentication-config file and oidc-* flags are mutually exclusive")
        try:
            providers = load(Path(given["authentication_config"]))
        except BadConfiguration as error:
            raise click.ClickException(str(error)) from error
    elif given["oidc_issuer_url"] or given["oidc_client_id"]:
        providers = [_provider(given)]
    webhook, file = None, given["authentication_token_webhook_config_file"]
    try:
        if file:
            webhook = KubeconfigPost(Path(file))
    except ValueError as error:
        raise click.ClickException(f"--authentication-token-webhook-config-file: {error}") from error
    try:
        ttl_s = parse_duration(given["authentication_token_webhook_cache_ttl"])
    except ValueError as error:
        raise click.UsageError(f"--authentication-token-webhook-cache-ttl: {error}") from error
    return AuthenticationOptions(providers=providers, webhook=webhook, webhook_ttl_s=ttl_s)


def _provider(given: Mapping[str, Any]) -> tuple[Provider, str]:
    issuer, client = given["oidc_issuer_url"], given["oidc_client_id"]
    if not issuer or not client:
        raise click.UsageError("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set")
    causes: list[Cause] = []
    check_issuer(issuer, "oidc-issuer-url", causes)
    if causes:
        raise click.UsageError(causes[0].line())
    algorithms = [one.strip() for one in given["oidc_signing_algs"].split(",") if one.strip()]
    for one in algorithms:
        if one not in SIGNING_ALGORITHMS:
            raise click.UsageError(f"oidc: unsupported signing alg: {one}")
    required: dict[str, str] = {}
    for pair in given["oidc_required_claim"]:
        claim, equals, value = pair.partition("=")
        if not equals or not claim:
            raise click.UsageError(f"--oidc-required-claim {pair}: KEY=VALUE is expected")
        required[claim] = value
    claim, prefix = given["oidc_username_claim"], given["oidc_username_prefix"]
    if prefix == _DISABLED:
        prefix = ""
    elif not prefix and claim != "email":
        # Names of two issuers must not meet.
        prefix = f"{issuer}#"
    groups = given["oidc_groups_claim"]
    provider = Provider(
        issuer=issuer,
        audiences=(client,),
        username=Mapped(claim=claim, prefix=prefix),
        groups=Mapped(claim=groups, prefix=given["oidc_groups_prefix"]) if groups else None,
        required_claims=required,
        algorithms=algorithms,
    )
    return provider, _pem(given["oidc_ca_file"])


def _pem(file: str) -> str:
    try:
        return Path(file).read_text() if file else ""
    except OSError as error:
        raise click.ClickException(f"--oidc-ca-file {file}: {error.strerror}") from error
