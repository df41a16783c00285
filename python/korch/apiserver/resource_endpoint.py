"""Every resource path, HTTP and WebSocket, behind one route: from a parsed request to the dispatch, and back as an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from korch.api.errors import ApiError, BadRequest, MethodNotAllowed
from korch.apiserver import forms
from korch.apiserver.body import media_type, patch_kind, to_json, to_yaml
from korch.apiserver.conversion import converted
from korch.apiserver.dispatch import Dispatch
from korch.apiserver.encoding import dump
from korch.apiserver.exchange import Exchange, until
from korch.apiserver.identity import Authorizer, User, forbidden
from korch.apiserver.negotiation import LIST_FORMS, OBJECT_FORMS, Form, negotiate
from korch.apiserver.options import ReadOptions, WriteOptions, read_options, removal_options, write_options
from korch.apiserver.pipeline import Outcome, Target
from korch.apiserver.request_info import RequestInfo, is_true
from korch.apiserver.upgrades import UpgradeConnector
from korch.apiserver.watching import WatchStream
from korch.resources.resource import Resource
from korch.runtime.context import Runtime
from korch.runtime.handover import Head

# What a connection's parameters are: lists of texts, numbers, facts, or one text.
_CONNECTIONS = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions", "proxy": "ProxyOptions"}
_FACTS, _TEXTS = ("stdin", "stdout", "stderr", "tty"), ("container", "path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a write is done, as its line and headers say it: the same for every object of a collection. `media` is the body's."""

    verb: str
    form: Form
    media: str
    query: Mapping[str, str]
    patch_type: str = ""
    options: WriteOptions = field(default_factory=WriteOptions)


# Answers a subresource over HTTP, and over a WebSocket, in place of the pipeline (log, exec, proxy ...).
Connector = Callable[[Request, RequestInfo], Awaitable[Response]]
SocketConnector = Callable[[WebSocket, RequestInfo], Awaitable[None]]


class ResourceEndpoint:
    """Answers requests on resource paths. `connectors` and `socket_connectors` are by (plural, subresource)."""

    def __init__(self, dispatch: Dispatch, runtime: Runtime, closing: asyncio.Event, authorizer: Authorizer) -> None:
        self._dispatch = dispatch
        self._authorizer = authorizer
        self._runtime = runtime
        self._closing = closing
        self.connectors: dict[tuple[str, str], Connector] = {}
        self.socket_connectors: dict[tuple[str, str], SocketConnector] = {}
        self.upgrade_connectors: dict[tuple[str, str], UpgradeConnector] = {}

    async def answer(self, exchange: Exchange, receive: Any, send: Any) -> None:
        """Answer one HTTP request. Raises ApiError for the caller to send."""
        info = exchange.info
        connector = self.connectors.get((info.resource, info.subresource))
        if connector is not None:
            await self._connect(info, exchange.user, _pairs(exchange.scope))
            response = await connector(Request(exchange.scope, receive), info)
            await response(exchange.scope, receive, send)
            return
        target = self._target(info, exchange.user)
        if (info.resource, info.subresource) in self.socket_connectors:
            raise BadRequest("Upgrade request required")
        self._dispatch.pipeline.require_verb(target, info.verb)
        if target.resource.warning:
            exchange.warnings.append(target.resource.warning)
        match info.verb:
            case "get":
                await self._get(exchange, target)
            case "list":
                await self._list(exchange, target)
            case "watch":
                await self._watch(exchange, target)
            case "create" | "update" | "patch" | "delete":
                await self._write(exchange, target)
            case "deletecollection":
                body = await self._json_body(exchange)
                removal = removal_options(exchange.query, body)
                options = read_options(exchange.query, is_watch=False)
                await self._send(exchange, await self._dispatch.delete_collection(target, options, removal), Form())
            case _:
                raise MethodNotAllowed()

    async def answer_socket(self, socket: WebSocket, info: RequestInfo, user: User, query: Mapping[str, str]) -> None:
        """Carry one WebSocket: a connector's, or a watch whose lines become messages. Raises ApiError before it is accepted."""
        target = self._target(info, user)
        connector = self.socket_connectors.get((info.resource, info.subresource))
        if connector is not None:
            await self._connect(info, user, _pairs(socket.scope))
            await connector(socket, info)
            return
        if info.verb != "watch":
            raise BadRequest("Upgrade request required")
        self._dispatch.pipeline.require_verb(target, "watch")
        target, options = self._watched(target, query)
        await self._dispatch.see(options)
        stream = WatchStream(self._dispatch.pipeline.records.storage, target, options, rng=self._runtime.rng)
        await socket.accept()

        async def pump() -> None:
            async for chunk in stream.lines():
                for line in chunk.splitlines():
                    await socket.send_text(line.decode())

        async def gone() -> None:
            try:
                while True:
                    await socket.receive_text()
            except (WebSocketDisconnect, RuntimeError):
                return

        if await until(pump(), gone(), self._closing.wait()) != 1:
            await socket.close()

    async def answer_upgrade(self, exchange: Exchange, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection that wants SPDY. Raises ApiError before anything is answered."""
        info = exchange.info
        self._target(info, exchange.user)
        connector = self.upgrade_connectors.get((info.resource, info.subresource))
        if connector is None:
            raise BadRequest("Upgrade request required")
        await self._connect(info, exchange.user, _pairs(exchange.scope))
        await connector(head, info, reader, writer)

    def _target(self, info: RequestInfo, user: User) -> Target:
        namespace = "" if info.resource == "namespaces" and not info.group else info.namespace
        return self._dispatch.target(
            user,
            group=info.group,
            version=info.version,
            plural=info.resource,
            namespace=namespace,
            name=info.name,
            subresource=info.subresource,
        )

    async def _connect(self, info: RequestInfo, user: User, query: Sequence[tuple[str, str]]) -> None:
        """Ask admission whether a connection may be made. Reading logs is no connection. Raises ApiError."""
        target = self._target(info, user)
        if info.subresource in _CONNECTIONS:
            await self._dispatch.pipeline.admit_connection(target, connection_options(target.resource.kind, info, query))

    async def _get(self, exchange: Exchange, target: Target) -> None:
        form = negotiate(exchange.headers.get("accept", ""), forms=OBJECT_FORMS)
        await self._dispatch.see()
        await self._send(exchange, Outcome(await converted(lambda: self._dispatch.get(target))), form, target)

    async def _list(self, exchange: Exchange, target: Target) -> None:
        form = negotiate(exchange.headers.get("accept", ""), forms=LIST_FORMS)
        include = forms.include_object(exchange.query.get("includeObject", ""))
        options = read_options(exchange.query, is_watch=False)
        await self._dispatch.see(options)
        found = await converted(lambda: self._dispatch.list(target, options))
        body = forms.page(target, found, form, now=self._runtime.clock.now(), include=include)
        await self._send(exchange, Outcome(body), Form(media=form.media))

    async def _watch(self, exchange: Exchange, target: Target) -> None:
        target, options = self._watched(target, exchange.query)
        form = negotiate(exchange.headers.get("accept", ""), forms=OBJECT_FORMS, allow_yaml=False)
        include = forms.include_object(exchange.query.get("includeObject", ""))
        await self._dispatch.see(options)
        transform = forms.watch_transform(target.resource, form, now=self._runtime.clock.now, include=include)
        stream = WatchStream(self._dispatch.pipeline.records.storage, target, options, rng=self._runtime.rng, transform=transform)
        await exchange.stream(stream.lines(), content_type="application/json", closing=self._closing)

    def _watched(self, target: Target, query: Mapping[str, str]) -> tuple[Target, ReadOptions]:
        """Return what a watch is about; the deprecated path /watch/.../NAME watches one object."""
        given = dict(query)
        if target.name:
            given["fieldSelector"] = f"metadata.name={target.name}"
        return target, read_options(given, is_watch=True)

    async def _write(self, exchange: Exchange, target: Target) -> None:
        verb = exchange.info.verb
        if bool(target.name) == (verb == "create") and not target.subresource:
            raise MethodNotAllowed()
        plan = self.plan(verb, target.resource, exchange.headers, exchange.query)
        outcome = await self.perform(plan, target, await exchange.body(), lambda: self.check_creation(exchange.user, exchange.info))
        is_status = verb == "delete" and outcome.body.startswith(b'{"kind":"Status"')
        await self._send(exchange, outcome, Form(media=plan.form.media) if is_status else plan.form, target)
        exchange.was_written = True

    def plain_resource(self, info: RequestInfo) -> Resource | None:
        """Return the kind of a request that is about whole stored objects, of which nothing is to be told beside the answer."""
        resource = self._dispatch.pipeline.catalogue.get(info.group, info.version, info.resource)
        if resource is None or info.subresource or resource.is_virtual or resource.warning:
            return None
        return resource if resource.is_current is None or resource.is_current() else None

    def plan(self, verb: str, resource: Resource, headers: Mapping[str, str], query: Mapping[str, str]) -> Plan:
        """Return how a create, update, patch or delete is done. Raises ApiError for what cannot be."""
        form = negotiate(headers.get("accept", ""), forms=() if resource.is_virtual and verb != "delete" else OBJECT_FORMS)
        media = media_type(headers)
        if verb == "delete":
            return Plan(verb=verb, form=form, media=media, query=query)
        is_custom = not resource.schema.startswith("io.k8s.")
        patch_type = patch_kind(media, is_custom=is_custom) if verb == "patch" else ""
        options = write_options(query, verb, is_apply=patch_type == "apply", user_agent=headers.get("user-agent", ""))
        return Plan(verb=verb, form=form, media=media, query=query, patch_type=patch_type, options=options)

    async def perform(self, plan: Plan, target: Target, body: bytes, may_create: Callable[[], None]) -> Outcome:
        """Write. `may_create` is called when a change turns out to create, and raises what the client gets when it may not."""
        if plan.verb == "patch":
            if plan.patch_type != "apply":
                return await self._dispatch.patch(target, body, plan.patch_type, plan.options)
            return await self._dispatch.patch(target, body, plan.patch_type, replace(plan.options, may_create=may_create))
        body = to_json(body, plan.media) if body else b""
        match plan.verb:
            case "create":
                return await self._dispatch.create(target, body, plan.options)
            case "update":
                return await self._dispatch.update(target, body, replace(plan.options, may_create=may_create))
            case _:
                return await self._dispatch.delete(target, removal_options(plan.query, body))

    def check_creation(self, user: User, info: RequestInfo) -> None:
        """Raise Forbidden when `user` may change the object of `info` but not create one."""
        info = replace(info, verb="create")
        verdict = self._authorizer.authorize(user, info)
        if not verdict.is_allowed:
            raise forbidden(user, info, verdict.reason)

    async def _json_body(self, exchange: Exchange) -> bytes:
        body = await exchange.body()
        return to_json(body, media_type(exchange.headers)) if body else b""

    async def _send(self, exchange: Exchange, outcome: Outcome, form: Form, target: Target | None = None) -> None:
        body = outcome.body
        if form.kind and target is not None:
            include = forms.include_object(exchange.query.get("includeObject", ""))
            body = forms.one_object(target.resource, body, form, now=self._runtime.clock.now(), include=include)
        content_type = "application/json"
        if form.media == "yaml":
            body, content_type = to_yaml(body), "application/yaml"
        await exchange.respond(body, code=outcome.code, content_type=content_type, warnings=outcome.warnings)


def connection_options(kind: str, info: RequestInfo, query: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the object that admission sees of a connection: its parameters, as the kind that upstream gives them."""
    named = _CONNECTIONS[info.subresource]
    options: dict[str, Any] = {"kind": f"{kind}{named}" if named == "ProxyOptions" else named, "apiVersion": "v1"}
    given = dict(reversed(query))
    options |= {key: is_true(given[key]) for key in _FACTS if key in given and info.subresource in ("exec", "attach")}
    options |= {key: given[key] for key in _TEXTS if given.get(key)}
    if commands := [value for key, value in query if key == "command"]:
        options["command"] = commands
    if ports := [int(one) for key, value in query if key == "ports" for one in value.split(",") if one.isdigit()]:
        options["ports"] = ports
    if info.subresource == "proxy":
        options["path"] = info.tail or "/"
    return options


def _pairs(scope: Mapping[str, Any]) -> list[tuple[str, str]]:
    return parse_qsl((scope.get("query_string") or b"").decode("latin-1"), keep_blank_values=True)


async def refuse_socket(socket: WebSocket, error: ApiError) -> None:
    """Deny a WebSocket with the Status, or close it with the message when it was accepted already."""
    if socket.application_state is not WebSocketState.CONNECTING:
        await socket.close(code=1011, reason=quote(error.message)[:120])
        return
    if "websocket.http.response" in (socket.scope.get("extensions") or {}):
        await socket.send_denial_response(Response(dump(error.status()), error.code, media_type="application/json"))
        return
    await socket.close(code=1008, reason=quote(error.message)[:120])
