"""The Client protocol over HTTP, for every process that is not the API server itself.

One connection pool per client; a watch holds a connection of its own. Failure answers become typed ApiErrors, everything below
HTTP becomes ConnectionError or TimeoutError. Only what surely was not executed is sent again: a GET whose connection was reset,
and once any request that the server turned away with 429 and Retry-After.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import orjson
from yarl import URL

from korch.api.errors import ApiError
from korch.api.gvk import ResourceRef
from korch.client.protocol import Body, DeleteOptions, ListOptions, ObjectList, PatchType, WatchEvent

GET_TRIES = 3
TOKEN_REREAD_S = 60.0
RETRY_AFTER_S_MAX = 30.0
CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
# A peer that vanished without a word is noticed after about 30 s, as with the HTTP/2 pings of client-go.
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 15, 5, 3
PATCH_TYPES: dict[str, str] = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How a client proves who it is and whom it trusts. Files are read at the first request, the token file again each minute."""

    ca_file: str = ""
    ca_data: str = ""
    client_cert_file: str = ""
    client_key_file: str = ""
    client_cert_data: bytes = b""
    client_key_data: bytes = b""
    token: str = ""
    token_file: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS 1.2+ context. Raises OSError or ssl.SSLError for unreadable or wrong files."""
        context = ssl.create_default_context(cafile=self.ca_file or None, cadata=self.ca_data or None)
        if self.insecure_skip_tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert_file:
            context.load_cert_chain(self.client_cert_file, self.client_key_file or None)
        elif self.client_cert_data:
            # The ssl module takes a certificate from a file only; this one is private (0600) and gone when the block ends.
            with tempfile.NamedTemporaryFile(prefix="korch-client-", suffix=".pem") as bundle:
                bundle.write(self.client_cert_data.rstrip() + b"\n" + self.client_key_data)
                bundle.flush()
                context.load_cert_chain(bundle.name)
        return context


class _ListMeta(msgspec.Struct, frozen=True):
    resourceVersion: str = ""
    continue_: str | None = msgspec.field(default=None, name="continue")
    remainingItemCount: int | None = None


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


_decode_list = msgspec.json.Decoder(_List).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class HttpClient:
    """A cluster at `url` (https://host:port). Close it with `close()` or `async with`. Safe for use by many tasks of one event loop."""

    def __init__(
        self,
        url: str,
        *,
        credentials: Credentials = Credentials(),
        ssl_context: ssl.SSLContext | None = None,
        user_agent: str = "korch",
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self.url = url.rstrip("/")
        self.credentials = credentials
        self._ssl_context = ssl_context
        self._user_agent = user_agent
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        self._session: aiohttp.ClientSession | None = None
        self._token = credentials.token
        self._token_read_at = float("-inf")

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; watches end with ConnectionError."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, resource: ResourceRef, name: str, *, namespace: str = "", subresource: str = "") -> bytes:
        return await self._request("GET", resource.path(namespace, name, subresource))

    async def list(self, resource: ResourceRef, options: ListOptions = ListOptions()) -> ObjectList:
        body = await self._request("GET", resource.path(options.namespace), query=_list_query(options))
        page = _decode_list(body)
        items = [_with_type(bytes(raw), resource) for raw in page.items or ()]
        return ObjectList(items, page.metadata.resourceVersion, page.metadata.continue_ or "", page.metadata.remainingItemCount)

    async def create(self, resource: ResourceRef, body: Body, *, namespace: str = "", name: str = "", subresource: str = "") -> bytes:
        namespace = namespace or _namespace_of(resource, body)
        return await self._request("POST", resource.path(namespace, name, subresource), body=_encode(body))

    async def update(self, resource: ResourceRef, body: Body, *, name: str, namespace: str = "", subresource: str = "") -> bytes:
        namespace = namespace or _namespace_of(resource, body)
        return await self._request("PUT", resource.path(namespace, name, subresource), body=_encode(body))

    async def patch(
        self,
        resource: ResourceRef,
        name: str,
        patch: dict[str, Any] | Sequence[Any] | bytes,
        *,
        namespace: str = "",
        subresource: str = "",
        patch_type: PatchType = "merge",
        field_manager: str = "",
        force: bool = False,
    ) -> bytes:
        query: dict[str, str] = {}
        if field_manager:
            query["fieldManager"] = field_manager
        if force:
            query["force"] = "true"
        path = resource.path(namespace, name, subresource)
        return await self._request("PATCH", path, query=query, body=_encode(patch), content_type=PATCH_TYPES[patch_type])

    async def delete(self, resource: ResourceRef, name: str, *, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> bytes:
        return await self._request("DELETE", resource.path(namespace, name), body=_delete_body(options))

    async def delete_collection(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), delete: DeleteOptions = DeleteOptions()
    ) -> None:
        await self._request("DELETE", resource.path(options.namespace), query=_list_query(options), body=_delete_body(delete))

    async def watch(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), *, send_initial_events: bool = False, timeout_s: float = 0
    ) -> AsyncIterator[WatchEvent]:
        query = _list_query(options) | {"watch": "true", "allowWatchBookmarks": "true"}
        if send_initial_events:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        if timeout_s:
            query["timeoutSeconds"] = str(int(timeout_s))
        # The server ends the watch; the margin is for one that does not. Silence is legal, so there is no read timeout.
        timeout = aiohttp.ClientTimeout(total=timeout_s + 30 if timeout_s else None, sock_connect=CONNECT_TIMEOUT_S)
        async for line in self.stream_lines(resource.path(options.namespace), query=query, timeout=timeout):
            event = _decode_event(line)
            if event.type == "ERROR":
                raise ApiError.from_status(orjson.loads(bytes(event.object)))
            yield WatchEvent(event.type, _with_type(bytes(event.object), resource))  # type: ignore[arg-type]

    async def raw(self, method: str, path: str, *, body: bytes = b"", content_type: str = "application/json") -> bytes:
        return await self._request(method, path, body=body or None, content_type=content_type)

    async def stream_lines(
        self, path: str, *, query: dict[str, str] | None = None, timeout: aiohttp.ClientTimeout | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the lines of a GET's answer as they arrive, without their newlines and of any length; empty lines are left out.

        Raises ApiError, ConnectionError, TimeoutError like all requests.
        """
        try:
            async with self._open().get(
                self._target(path, query),
                headers=self._headers(),
                timeout=timeout or aiohttp.ClientTimeout(),
                server_hostname=self.credentials.tls_server_name or None,
            ) as response:
                if response.status >= 400:
                    raise _error(response, await response.read())
                pieces: list[bytes] = []
                async for chunk in response.content.iter_any():
                    head, *rest = chunk.split(b"\n")
                    pieces.append(head)
                    for piece in rest:
                        line = b"".join(pieces)
                        pieces = [piece]
                        if line:
                            yield line
                if tail := b"".join(pieces):
                    # A line cut off in the middle means a broken connection, whatever the transfer encoding says.
                    raise ConnectionError(f"the stream ended inside a line of {len(tail)} bytes")
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from error

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """Yield the body of a GET's answer piece by piece. Raises ApiError, ConnectionError (also when it ends before its length)."""
        try:
            async with self._open().get(
                self._target(path, None),
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(),
                server_hostname=self.credentials.tls_server_name or None,
            ) as response:
                if response.status >= 400:
                    raise _error(response, await response.read())
                async for chunk in response.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        was_turned_away = False
        tries = 0
        while True:
            tries += 1
            try:
                status_error, answer = await self._exchange(method, self._target(path, query), body, content_type)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError, aiohttp.ClientOSError) as error:
                if method == "GET" and tries < GET_TRIES and _is_reset(error):
                    continue
                raise _fault(error) from error
            except (aiohttp.ClientError, OSError) as error:
                raise _fault(error) from error
            if status_error is None:
                return answer
            retry_after = status_error.headers.get("Retry-After", "")
            if status_error.code == 429 and retry_after.isdigit() and not was_turned_away:
                was_turned_away = True
                await asyncio.sleep(min(float(retry_after), RETRY_AFTER_S_MAX))
                continue
            raise status_error

    async def _exchange(self, method: str, url: URL, body: bytes | None, content_type: str) -> tuple[ApiError | None, bytes]:
        headers = self._headers()
        if body is not None:
            headers["Content-Type"] = content_type
        async with self._open().request(
            method,
            url,
            data=body,
            headers=headers,
            timeout=self._timeout,
            allow_redirects=False,
            server_hostname=self.credentials.tls_server_name or None,
        ) as response:
            answer = await response.read()
            return (_error(response, answer) if response.status >= 300 else None), answer

    def _target(self, path: str, query: dict[str, str] | None) -> URL:
        return URL(self.url + path + ("?" + urlencode(query) if query else ""), encoded=True)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self.credentials.token_file:
            now = asyncio.get_running_loop().time()
            if now - self._token_read_at >= TOKEN_REREAD_S:
                self._token = Path(self.credentials.token_file).read_text().strip()
                self._token_read_at = now
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            tls: ssl.SSLContext | bool = True
            if self.url.startswith("https:"):
                tls = self._ssl_context or self.credentials.ssl_context()
            connector = aiohttp.TCPConnector(limit=0, ssl=tls, keepalive_timeout=90, socket_factory=_make_socket)
            self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": self._user_agent})
            # aiohttp would send PUT and DELETE again after a reset; whether they were executed is for the caller to find out.
            self._session._retry_connection = False
        return self._session


def _make_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    if family in (socket.AF_INET, socket.AF_INET6):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * (KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_PROBES)
            )
    return made


def _encode(body: dict[str, Any] | Sequence[Any] | bytes) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)


def _namespace_of(resource: ResourceRef, body: Body) -> str:
    if not resource.namespaced or isinstance(body, bytes):
        return ""
    return (body.get("metadata") or {}).get("namespace") or ""


def _list_query(options: ListOptions) -> dict[str, str]:
    named = {
        "labelSelector": options.label_selector,
        "fieldSelector": options.field_selector,
        "resourceVersion": options.resource_version,
        "resourceVersionMatch": options.resource_version_match,
        "limit": str(options.limit or ""),
        "continue": options.continue_token,
    }
    return {name: value for name, value in named.items() if value}


def _delete_body(options: DeleteOptions) -> bytes:
    body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if options.grace_period_s is not None:
        body["gracePeriodSeconds"] = options.grace_period_s
    if options.propagation_policy is not None:
        body["propagationPolicy"] = options.propagation_policy
    preconditions = {"uid": options.uid, "resourceVersion": options.resource_version}
    if any(preconditions.values()):
        body["preconditions"] = {name: value for name, value in preconditions.items() if value}
    return orjson.dumps(body)


def _with_type(raw: bytes, resource: ResourceRef) -> bytes:
    """Return the object with apiVersion and kind, which Kubernetes leaves out of the items of typed lists."""
    if raw.startswith((b'{"apiVersion":', b'{"kind":')):
        return raw
    head = orjson.loads(raw)
    if "kind" in head and "apiVersion" in head:
        return raw
    return orjson.dumps({"apiVersion": resource.api_version, "kind": resource.kind} | head)


def _error(response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = None
    if isinstance(status, dict) and status.get("kind") == "Status":
        error = ApiError.from_status({"code": response.status} | status)
    else:
        text = body[:2000].decode(errors="replace").strip()
        error = ApiError.from_status(
            {"code": response.status, "reason": _REASONS.get(response.status, ""), "message": text or response.reason}
        )
    if "Retry-After" in response.headers:
        error.headers["Retry-After"] = response.headers["Retry-After"]
    return error


# What a code means when a proxy, or anything else that speaks no Kubernetes, answers.
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Gone",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def _is_reset(error: BaseException) -> bool:
    return not isinstance(error, aiohttp.ClientConnectorError)


def _fault(error: BaseException) -> Exception:
    if isinstance(error, TimeoutError):
        return TimeoutError(str(error) or "the request timed out")
    return ConnectionError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
