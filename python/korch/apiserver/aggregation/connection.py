"""Connections to aggregated servers: TLS with the front proxy's certificate, the user in headers that only it may send.

Mirrors kube-aggregator's handler_proxy.go and apimachinery's util/proxy for plain requests.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from korch.apiserver.identity import APISERVER, User

_TIMEOUT_S = 5.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "proxy-authorization", "host"})
# Never passed on: credentials of the client, and what only the front proxy may say.
_OURS = ("authorization", "x-remote-", "x-korch-")


@dataclass(frozen=True, slots=True)
class Backend:
    """The Service behind an APIService, and whom its certificate is believed from (base64 PEM; "" for the system's roots)."""

    namespace: str
    name: str
    port: int
    ca_bundle: str
    is_insecure: bool

    @property
    def server_name(self) -> str:
        return f"{self.name}.{self.namespace}.svc"


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How this server shows itself to aggregated ones: files of its client certificate and key, and what the ConfigMap
    extension-apiserver-authentication tells them of whom to believe. Empty: no certificate, no ConfigMap."""

    certificate: str = ""
    key: str = ""
    authentication: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(certificate: str, key: str, *, proxy_ca_pem: str, client_ca_pem: str) -> FrontProxy:
        """Return the value for a certificate for `front-proxy-client`, signed by the CA of front proxies."""
        authentication = {
            "client-ca-file": client_ca_pem,
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-client-ca-file": proxy_ca_pem,
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-uid-headers": '["X-Remote-Uid"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
        return FrontProxy(certificate, key, authentication)


class Connector:
    """Opens requests to backends. `certificate` and `key` are files of the front proxy's client certificate, "" for none."""

    def __init__(self, certificate: str = "", key: str = "") -> None:
        self._certificate = certificate
        self._key = key
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    async def fetch(self, backend: Backend, address: tuple[str, int], path: str) -> tuple[int, bytes]:
        """Return code and body of a GET as this server itself. Raises OSError, TimeoutError."""
        async with self.open(backend, address, "GET", path, {}, b"", APISERVER, timeout_s=_TIMEOUT_S) as answer:
            return answer.status, await answer.read()

    def open(
        self,
        backend: Backend,
        address: tuple[str, int],
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        user: User,
        *,
        timeout_s: float | None = None,
    ) -> Exchange:
        """Return the exchange of one request in the name of `user`, to be entered."""
        sent = [(name, value) for name, value in headers.items() if name not in _HOP_BY_HOP and not name.startswith(_OURS)]
        sent.append(("X-Remote-User", user.name))
        if user.uid:
            sent.append(("X-Remote-Uid", user.uid))
        sent += [("X-Remote-Group", group) for group in user.groups]
        sent += [(f"X-Remote-Extra-{quote(key, safe='')}", value) for key, values in user.extra.items() for value in values]
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        url = f"https://{host}:{address[1]}{path}"
        return Exchange(url, method, sent, body, self._context(backend), backend.server_name, timeout_s)

    def _context(self, backend: Backend) -> ssl.SSLContext:
        key = (backend.ca_bundle, backend.is_insecure)
        context = self._contexts.get(key)
        if context is not None:
            return context
        try:
            pem = base64.b64decode(backend.ca_bundle).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise OSError(f"unable to load root certificates: {error}") from error
        context = ssl.create_default_context(cadata=pem or None)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if backend.is_insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._certificate:
            context.load_cert_chain(self._certificate, self._key)
        self._contexts[key] = context
        return context


class Exchange:
    """One request and its answer, as an async context manager. Raises OSError when the server cannot be reached."""

    def __init__(
        self,
        url: str,
        method: str,
        headers: list[tuple[str, str]],
        body: bytes,
        context: ssl.SSLContext,
        server_name: str,
        timeout_s: float | None,
    ) -> None:
        self._url = url
        self._method = method
        self._headers = headers
        self._body = body
        self._context = context
        self._server_name = server_name
        self._timeout_s = timeout_s
        self._session: Any = None
        self._answer: Any = None
        self.status = 0
        self.headers: list[tuple[str, str]] = []

    async def __aenter__(self) -> Exchange:
        # Needed by few servers, and slow to import.
        import aiohttp

        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_TIMEOUT_S), auto_decompress=False, trust_env=False
        )
        try:
            self._answer = await self._session.request(
                self._method,
                self._url,
                data=self._body or None,
                headers=self._headers,
                ssl=self._context,
                server_hostname=self._server_name,
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            await self._session.close()
            raise OSError(str(error)) from error
        except BaseException:
            await self._session.close()
            raise
        self.status = self._answer.status
        self.headers = [(name.lower(), value) for name, value in self._answer.headers.items() if name.lower() not in _HOP_BY_HOP]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._answer.close()
        await self._session.close()

    async def read(self) -> bytes:
        """Return the whole body."""
        return await self._answer.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises OSError when it breaks off."""
        import aiohttp

        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except aiohttp.ClientError as error:
            raise OSError(str(error)) from error
