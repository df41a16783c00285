"""The HTTP face: who asks and may they, then one route for every resource path, and FastAPI for the small documents.

`Front` is the outermost ASGI application: it parses the request, authenticates, authorizes, counts, and turns whatever goes
wrong into a Status. Behind it stand plain routes for what every start and every client needs at once (resources, health,
discovery), and FastAPI for the rest (version, metrics, OpenAPI), which is loaded when somebody asks for one of those: loading it
takes as long as all else that a server needs to start. A bug is logged with its traceback and answered with a Status of 500 that
says nothing of it.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from korch.api.errors import ApiError, MethodNotAllowed, NoSuchPath, Timeout
from korch.apiserver.discovery import Discovery
from korch.apiserver.document import Answer
from korch.apiserver.encoding import dump
from korch.apiserver.exchange import GZIP_BYTES_MIN, Disconnected, Exchange, headers_of, query_of
from korch.apiserver.flowcontrol.flow_control import Refused
from korch.apiserver.grants import ASK_HEADER, GRANT_HEADER, grant
from korch.apiserver.guards import Guards, is_long_running, late
from korch.apiserver.health import Health
from korch.apiserver.identity import User
from korch.apiserver.lanes import Lanes
from korch.apiserver.metrics import CONTENT_TYPE, Metrics
from korch.apiserver.openapi import OpenAPI
from korch.apiserver.refusals import bug, busy, refusal
from korch.apiserver.request_info import RequestInfo, is_true, parse
from korch.apiserver.resource_endpoint import ResourceEndpoint, refuse_socket
from korch.apiserver.upgrades import answer_upgrade, scope_of
from korch.resources.resource import Catalogue
from korch.runtime import tasks
from korch.runtime.context import Runtime
from korch.runtime.handover import Head
from korch.runtime.log import get_logger

if TYPE_CHECKING:
    from fastapi import FastAPI

log = get_logger("apiserver")

VERSION = {
    "major": "1",
    "minor": "37",
    "emulationMajor": "1",
    "emulationMinor": "37",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "36",
    "gitVersion": "v1.37.2",
    "gitCommit": "korch",
    "gitTreeState": "clean",
    "buildDate": "2026-11-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "korch",
    "platform": "linux/amd64",
}
EXCHANGE_KEY = _EXCHANGE = "korch.exchange"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Front:
    """ASGI: identity, permission, fairness, deadlines, metrics and errors around `inner`."""

    def __init__(
        self,
        inner: Any,
        *,
        runtime: Runtime,
        guards: Guards,
        metrics: Metrics,
        catalogue: Catalogue,
        endpoint: ResourceEndpoint,
        lanes: Lanes,
    ) -> None:
        self._inner = inner
        self._lanes = lanes
        self._endpoint = endpoint
        self._catalogue = catalogue
        self._runtime = runtime
        self._guards = guards
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if (found := self._lanes.find(scope)) is not None:
            await self._lanes.serve(*found, scope, receive, send)
            return
        headers, query = headers_of(scope), query_of(scope)
        info = parse(scope.get("method", "GET"), scope["path"], query)
        if not info.is_resource and scope["path"].startswith(("/api/", "/apis/")):
            # Clients ask for discovery documents with and without a slash at the end.
            scope = {**scope, "path": scope["path"].rstrip("/")}
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send, headers, query, info)
        else:
            await self._request(scope, receive, send, headers, query, info)

    async def _request(self, scope: Any, receive: Any, send: Any, headers: Any, query: Any, info: RequestInfo) -> None:
        started = self._runtime.clock.monotonic()
        code = 0
        is_late = is_granted = False

        async def counted(message: Any) -> None:
            if not is_late:
                await answer(message)

        async def answer(message: Any) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"audit-id", audit_id.encode()), *exchange.marks]
                if exchange.record is not None and is_long_running(info):
                    exchange.record.started(code)
            await send(message)

        async def give_up() -> None:
            nonlocal is_late
            if code == 0:
                # The work goes on to its own end, but nobody hears of it any more.
                is_late = True
                await exchange.sent_by(answer).refuse(Timeout(f"Timeout: {late(info)}"))

        audit_id = headers.get("audit-id") or self._runtime.rng.uid()
        exchange = Exchange(
            scope,
            receive,
            counted,
            headers=headers,
            query=query,
            info=info,
            user=User(""),
            offload=self._runtime.offload,
            audit_id=audit_id,
        )
        self._metrics.begin(info)
        deadline, epoch = None, self._lanes.epoch()
        try:
            budget_s = self._guards.budget_s(info, query)
            if budget_s:
                deadline = self._lanes.deadlines.set(budget_s, lambda: tasks.spawn(give_up(), name="late answer"))
            await self._guards.admit(exchange, scope)
            if ASK_HEADER in headers and (told := self._grant(headers, info, exchange.user)):
                # The front door does the rest, and counts it.
                is_granted = True
                await exchange.respond(b"", code=204, headers={GRANT_HEADER: told})
                return
            scope[_EXCHANGE] = exchange
            await self._inner(scope, receive, counted)
            if exchange.was_written:
                self._lanes.learn(exchange, epoch)
        except Refused as error:
            exchange.marks = error.marks
            await busy(exchange, error)
        except ApiError as error:
            if code == 0:
                await exchange.refuse(error)
        except Disconnected:
            code = code or 499
        except Exception as error:
            await self._fail(exchange, error, is_answered=code != 0)
        finally:
            if deadline is not None:
                deadline.met()
            self._end(exchange, code, started, is_granted=is_granted)

    async def _fail(self, exchange: Exchange, error: Exception, *, is_answered: bool) -> None:
        log.error("request failed", path=exchange.info.path, verb=exchange.info.verb, exc_info=error)
        if exchange.record is not None:
            exchange.record.panicked()
        if not is_answered:
            await exchange.refuse(bug(error))

    def _end(self, exchange: Exchange, code: int, started: float, *, is_granted: bool) -> None:
        if exchange.seat is not None:
            exchange.seat.release()
        if is_granted:
            self._metrics.withdraw(exchange.info)
            return
        if exchange.record is not None:
            exchange.record.complete(code)
        seconds = self._runtime.clock.monotonic() - started
        self._metrics.end(exchange.info, code=code or 500, seconds=seconds, is_dry_run="dryRun" in exchange.query)

    async def _socket(self, scope: Any, receive: Any, send: Any, headers: Any, query: Any, info: RequestInfo) -> None:
        audit_id = headers.get("audit-id") or self._runtime.rng.uid()
        offload = self._runtime.offload
        exchange = Exchange(
            scope, receive, send, headers=headers, query=query, info=info, user=User(""), offload=offload, audit_id=audit_id
        )
        code = 0

        async def noted(message: Any) -> None:
            nonlocal code
            if message["type"] == "websocket.accept" or message["type"].endswith("response.start"):
                code = message.get("status", 101)
                if exchange.record is not None:
                    exchange.record.started(code)
            await send(message)

        socket = WebSocket(scope, receive, noted)
        try:
            user = await self._guards.admit(exchange, scope)
            scope[_EXCHANGE] = (user, query, info)
            await self._inner(scope, receive, noted)
        except ApiError as error:
            await refuse_socket(socket, error)
        finally:
            if exchange.seat is not None:
                exchange.seat.release()
            if exchange.record is not None:
                exchange.record.complete(code)

    async def upgrade(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a request that wants SPDY; see `upgrades`. Returns when the connection is to be closed."""
        scope = scope_of(head)
        headers, query = headers_of(scope), query_of(scope)
        info = parse(head.method, scope["path"], query)
        audit_id = headers.get("audit-id") or self._runtime.rng.uid()
        exchange = Exchange(
            scope, None, None, headers=headers, query=query, info=info, user=User(""), offload=self._runtime.offload, audit_id=audit_id
        )
        self._metrics.begin(info)
        try:
            await answer_upgrade(
                exchange,
                lambda: self._guards.admit(exchange, scope),
                lambda: self._endpoint.answer_upgrade(exchange, head, reader, writer),
                writer,
            )
        finally:
            self._metrics.end(info, code=101, seconds=0.0, is_dry_run=False)

    def _grant(self, headers: dict[str, str], info: RequestInfo, user: User) -> str:
        auditor = self._guards.auditor
        if auditor is not None and auditor.may_tell(user, info):
            # What is told of must pass here every time.
            return ""
        found = grant(headers, info, user, authorizer=self._guards.authorizer, catalogue=self._catalogue)
        return found.decode() if found is not None else ""


class _Resources:
    """The route of every resource path: an ASGI application, so that nothing of a framework stands in its way."""

    def __init__(self, endpoint: ResourceEndpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            user, query, info = scope[_EXCHANGE]
            socket = WebSocket(scope, receive, send)
            try:
                await self._endpoint.answer_socket(socket, info, user, query)
            except ApiError as error:
                await refuse_socket(socket, error)
            return
        exchange: Exchange = scope[_EXCHANGE]
        if not exchange.info.is_resource:
            await exchange.refuse(NoSuchPath())
            return
        try:
            await self._endpoint.answer(exchange, receive, send)
        except Disconnected:
            return
        except Exception as error:
            # Answered here, because the framework would send a page of its own.
            await exchange.refuse(refusal(error, exchange.info.verb, exchange.info.path))


class Documents:
    """What is served beside resources: health, metrics, version, discovery, OpenAPI."""

    def __init__(
        self, *, discovery: Discovery, openapi: OpenAPI, health: Health, metrics: Metrics, runtime: Runtime, server_address: str
    ) -> None:
        self._discovery = discovery
        self._openapi = openapi
        self._health = health
        self._metrics = metrics
        self._runtime = runtime
        self._server_address = server_address
        self._openapi_lock = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """Return the routes of health and discovery."""
        checks = [path + rest for path in ("/healthz", "/livez", "/readyz") for rest in ("", "/{check:path}")]
        documents = ("/api", "/api/", "/apis", "/apis/", "/api/{version}", "/apis/{group}", "/apis/{group}/{version}")
        return [*(Route(path, self.health) for path in checks), *(Route(path, self.discovery) for path in documents)]

    def add_to(self, app: FastAPI) -> None:
        """Register all other documents."""
        for path in ("/version", "/version/"):
            app.add_api_route(path, self.version)
        app.add_api_route("/metrics", self.metrics)
        app.add_api_route("/", self.paths)
        app.add_api_route("/openapi/{document:path}", self.openapi)

    async def version(self) -> Response:
        """Answer /version."""
        return Response(dump(VERSION), media_type="application/json")

    async def metrics(self) -> Response:
        """Answer /metrics."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def paths(self) -> Response:
        """Answer / with what else there is."""
        listed = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
        return Response(dump({"paths": listed}), media_type="application/json")

    async def health(self, request: Request) -> Response:
        """Answer /healthz, /livez, /readyz and the single checks below them."""
        query = request.query_params
        told = self._health.answer(request.url.path, is_verbose=is_true(query.get("verbose")), excluded=query.getlist("exclude"))
        if told is None:
            raise NoSuchPath()
        return Response(told[1], told[0], media_type="text/plain; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})

    async def openapi(self, request: Request) -> Response:
        """Answer below /openapi. A document takes up to 100 ms of CPU when it is first asked for, so it is made beside the loop."""
        path, query = request.url.path, request.url.query
        accept, known = request.headers.get("accept", ""), request.headers.get("if-none-match", "")
        async with self._openapi_lock:
            found = await self._runtime.offload.run(lambda: self._openapi.answer(path, query=query, accept=accept, if_none_match=known))
        return await self._prepared(request, found)

    async def discovery(self, request: Request) -> Response:
        """Answer /api, /apis and the lists below them."""
        accept, known = request.headers.get("accept", ""), request.headers.get("if-none-match", "")
        path = request.url.path
        found = self._discovery.answer(path, accept=accept, if_none_match=known, server_address=self._server_address)
        return await self._prepared(request, found)

    async def _prepared(self, request: Request, found: Answer | None) -> Response:
        if found is None:
            raise NoSuchPath()
        headers, body = dict(found.headers), found.body
        if len(body) >= GZIP_BYTES_MIN and "gzip" in request.headers.get("accept-encoding", ""):
            body = await self._runtime.offload.run(gzip.compress, body, 1)
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept, Accept-Encoding"}
        return Response(body, found.status, headers)


class _OnDemand:
    """An ASGI application that is made, beside the loop, when it is first asked for something."""

    def __init__(self, make: Callable[[], Any], runtime: Runtime) -> None:
        self._make = make
        self._runtime = runtime
        self._lock = asyncio.Lock()
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            async with self._lock:
                if self._app is None:
                    self._app = await self._runtime.offload.run(self._make)
        await self._app(scope, receive, send)


class _Shortcut:
    """Requests for resources go straight to them, past the framework's middleware and its search for a route."""

    def __init__(self, resources: _Resources, framework: Starlette) -> None:
        self._resources = resources
        self._framework = framework

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        is_plain = scope["type"] == "http" and scope["method"] in _METHODS and scope[_EXCHANGE].info.is_resource
        await (self._resources if is_plain else self._framework)(scope, receive, send)


def build_app(documents: Documents, endpoint: ResourceEndpoint, routes: Sequence[BaseRoute], runtime: Runtime) -> Callable[..., Any]:
    """Return the application that stands behind `Front`. Resource paths come before all others, `routes` next."""
    resources = _Resources(endpoint)
    listed = list(routes)
    for path in ("/api/{version}/{rest:path}", "/apis/{group}/{version}/{rest:path}"):
        listed += [Route(path, resources, methods=_METHODS), WebSocketRoute(path, resources)]
    handlers: Any = {ApiError: _refuse, HTTPException: _refuse}

    def make_rest() -> FastAPI:
        from fastapi import FastAPI

        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, exception_handlers=handlers)
        documents.add_to(app)
        return app

    rest = Mount("", _OnDemand(make_rest, runtime))
    app = Starlette(routes=[*listed, *documents.routes(), rest], exception_handlers=handlers)
    app.router.redirect_slashes = False
    return _Shortcut(resources, app)


async def _refuse(_request: Request, error: Exception) -> Response:
    shown = error if isinstance(error, ApiError) else _as_status(error)
    return Response(dump(shown.status()), shown.code, shown.headers, "application/json")


def _as_status(error: Exception) -> ApiError:
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed()
    return NoSuchPath()
