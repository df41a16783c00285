"""Calling a webhook: one HTTPS POST to a URL, or to a Service of the cluster, reached at one of its ready endpoints.

A Service's certificate is for `NAME.NAMESPACE.svc`, which is what TLS asks for although the connection goes to a pod. Mirrors
apiserver's util/webhook/client.go and serviceresolver.go with endpoint routing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from korch.api.meta import at
from korch.runtime.rng import Rng

Object = dict[str, Any]
ANSWER_BYTES_MAX = 3 * 1024 * 1024

# Returns the objects of a kind in a namespace that carry the labels: (plural, group, namespace, labels).
Finder = Callable[[str, str, str, Mapping[str, str]], Sequence[Object]]


class WebhookFailed(Exception):
    """The webhook could not be reached, or answered with something that is no answer. The message is upstream's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect: `host` and `port`, the name that TLS asks for, and the URL as messages show it."""

    host: str
    port: int
    server_name: str
    url: str
    path: str


class Transport(Protocol):
    """Sends one request; the seam for tests."""

    async def post(self, place: Place, body: bytes, *, ca_pem: str, timeout_s: float) -> tuple[int, bytes]:
        """Return code and body. Raises OSError, TimeoutError."""
        ...


class HttpsTransport:
    """Over the network, one connection a call."""

    async def post(self, place: Place, body: bytes, *, ca_pem: str, timeout_s: float) -> tuple[int, bytes]:
        """Return code and body. Raises OSError, TimeoutError."""
        # Needed by few servers, and slow to import.
        import aiohttp

        host = f"[{place.host}]" if ":" in place.host else place.host
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Host": place.url.split("/")[2]}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.post(
                    f"https://{host}:{place.port}{place.path}",
                    data=body,
                    headers=headers,
                    ssl=_context(ca_pem),
                    server_hostname=place.server_name,
                    allow_redirects=False,
                ) as answer,
            ):
                # `read(n)` gives what has arrived; the whole answer is wanted, up to the bound.
                whole = await answer.read()
                if len(whole) > ANSWER_BYTES_MAX:
                    raise OSError(f"the answer has {len(whole)} bytes, at most {ANSWER_BYTES_MAX} are read")
                return answer.status, whole
        except aiohttp.ClientConnectorCertificateError as error:
            raise ssl.SSLCertVerificationError(str(error)) from error
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error


@lru_cache(maxsize=256)
def _context(ca_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_pem or None)
    # Certificates that webhooks make for themselves often miss what only recent verifiers insist on.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class WebhookClient:
    """Calls webhooks by their clientConfig."""

    def __init__(self, find: Finder, rng: Rng, transport: Transport | None = None) -> None:
        self._find = find
        self._rng = rng
        self.transport: Transport = transport or HttpsTransport()

    async def call(self, config: Mapping[str, Any], body: bytes, *, timeout_s: float) -> bytes:
        """Return the answer to `body`. Raises WebhookFailed."""
        place = self.place(config, timeout_s)
        try:
            ca_pem = base64.b64decode(config.get("caBundle") or "").decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise WebhookFailed(f"unable to load root certificates: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                code, answer = await self.transport.post(place, body, ca_pem=ca_pem, timeout_s=timeout_s)
        except TimeoutError as error:
            raise WebhookFailed(f'Post "{place.url}": context deadline exceeded') from error
        except OSError as error:
            raise WebhookFailed(f'Post "{place.url}": {_words(error, place)}') from error
        if code != 200:
            raise WebhookFailed(
                f"an error on the server ({answer.decode(errors='replace')[:2048]!r}) has prevented the request from succeeding"
            )
        return answer

    def place(self, config: Mapping[str, Any], timeout_s: float) -> Place:
        """Return where the webhook is. Raises WebhookFailed when its Service has no endpoint."""
        query = f"?timeout={_seconds(timeout_s)}"
        url = config.get("url")
        if url:
            rest = url.removeprefix("https://")
            authority, _, path = rest.partition("/")
            host, _, port = authority.rpartition(":") if ":" in authority and not authority.endswith("]") else (authority, "", "443")
            where = f"/{path}{query if '?' not in path else ''}"
            return Place(host.strip("[]"), int(port), host.strip("[]"), f"https://{authority}{where}", where)
        service: Mapping[str, Any] = config.get("service") or {}
        name, namespace, port = service.get("name") or "", service.get("namespace") or "", service.get("port") or 443
        server_name = f"{name}.{namespace}.svc"
        where = (service.get("path") or "/") + query
        shown = f"https://{server_name}:{port}{where}"
        host, target = self.endpoint(namespace, name, port, shown)
        return Place(host, target, server_name, shown, where)

    def endpoint(self, namespace: str, name: str, port: int, shown: str = "") -> tuple[str, int]:
        """Return address and port of one ready endpoint of a Service. Raises WebhookFailed."""
        prefix = f'Post "{shown}": ' if shown else ""
        services = [one for one in self._find("services", "", namespace, {}) if one["metadata"]["name"] == name]
        if not services:
            raise WebhookFailed(f'{prefix}service "{name}" not found')
        spec: Object = services[0].get("spec") or {}
        if spec.get("type") == "ExternalName":
            return spec.get("externalName") or "", port
        ports: list[Object] = spec.get("ports") or []
        wanted = next((one for one in ports if one.get("port") == port), None)
        if wanted is None:
            raise WebhookFailed(f'{prefix}no service port {port} found for service "{name}"')
        found: list[tuple[str, int]] = []
        for piece in self._find("endpointslices", "discovery.k8s.io", namespace, {"kubernetes.io/service-name": name}):
            numbers = [one.get("port") for one in piece.get("ports") or () if (one.get("name") or "") == (wanted.get("name") or "")]
            if not numbers or not numbers[0]:
                continue
            for endpoint in piece.get("endpoints") or ():
                if at(endpoint, "conditions", "ready") is not False:
                    found += [(address, numbers[0]) for address in endpoint.get("addresses") or ()]
        if not found:
            raise WebhookFailed(f'{prefix}no endpoints available for service "{name}"')
        return self._rng.stream("webhook-endpoint").choice(sorted(found))


def _seconds(timeout_s: float) -> str:
    return f"{timeout_s:g}s"


def _words(error: Exception, place: Place) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {error}"
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return f"dial tcp {place.host}:{place.port}: connect: connection refused"
    return str(error) or type(error).__name__
