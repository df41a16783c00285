"""Requests for group-versions of other servers, handed on: an ASGI layer between identity and the resources of this server.

The user was authenticated and authorized here; the other server believes the headers because of the certificate they come with.
"""

from __future__ import annotations

from typing import Any

from korch.api.errors import ServiceUnavailable
from korch.apiserver.aggregation.registry import AggregatedApis, Remote
from korch.apiserver.exchange import Exchange, until
from korch.apiserver.webhook_client import WebhookClient, WebhookFailed

_OPENAPI = "/openapi/v3/apis/"


class AggregationProxy:
    """Answers for other servers what is theirs, and leaves all else to `inner`. `key` is where the scope holds its exchange."""

    def __init__(self, inner: Any, apis: AggregatedApis, client: WebhookClient, key: str) -> None:
        self._inner = inner
        self._apis = apis
        self._client = client
        self._key = key

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        remote = self._remote(scope) if scope["type"] == "http" else None
        if remote is None:
            await self._inner(scope, receive, send)
            return
        exchange: Exchange = scope[self._key]
        if not remote.is_available:
            await exchange.refuse(ServiceUnavailable("service unavailable"))
            return
        try:
            await self._forward(remote, exchange, scope, receive, send)
        except (OSError, TimeoutError, WebhookFailed):
            await exchange.refuse(ServiceUnavailable("error trying to reach service"))

    def _remote(self, scope: Any) -> Remote | None:
        path: str = scope["path"]
        if path.startswith(_OPENAPI):
            path = "/apis/" + path.removeprefix(_OPENAPI)
        if not path.startswith("/apis/"):
            return None
        group, _, rest = path.removeprefix("/apis/").partition("/")
        return self._apis.remote(group, rest.partition("/")[0])

    async def _forward(self, remote: Remote, exchange: Exchange, scope: Any, receive: Any, send: Any) -> None:
        backend = remote.backend
        address = self._client.endpoint(backend.namespace, backend.name, backend.port)
        query = (scope.get("query_string") or b"").decode("latin-1")
        raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
        path = raw_path + (f"?{query}" if query else "")
        body = await exchange.body()
        opened = self._apis.connector.open(backend, address, scope["method"], path, exchange.headers, body, exchange.user)
        async with opened as answer:
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})

            async def pump() -> None:
                async for chunk in answer.chunks():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})

            async def gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass

            if await until(pump(), gone()) == 0:
                await send({"type": "http.response.body", "body": b""})
