"""The agent's own HTTPS server (port 10250): logs, exec, attach, port-forward, for the API server and nobody else.

Every connection must show a client certificate of the cluster's CA whose group is system:masters, which is what the API server
carries; requests are found in the runtime by pod name, so the server needs no state of its own.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from korch.runtime.clock import Clock, parse_rfc3339
from korch.runtime.handover import Handover, Head
from korch.runtime.log import get_logger
from korch_agent import streaming, upgrades
from korch_agent.cri.protocol import Container, CriError, CriNotFound, Runtime
from korch_agent.log_files import LogOptions, read_log

PORT = 10250
_TRUSTED_GROUP = "system:masters"

log = get_logger("agent-server")


class _NoSuchContainer(web.HTTPNotFound):
    def __init__(self, text: str) -> None:
        super().__init__(text=text)


class AgentServer:
    """Serves one node. `pods` returns what runs here, as Pod objects, for /pods and for nothing else."""

    def __init__(self, runtime: Runtime, clock: Clock, *, pods: Callable[[], list[Mapping[str, Any]]]) -> None:
        self._runtime = runtime
        self._clock = clock
        self._pods = pods
        self.app = web.Application(middlewares=[_only_the_api_server, _say_what_went_wrong])
        self.app.router.add_get("/healthz", self._healthz)
        self.app.router.add_get("/pods", self._list_pods)
        self.app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self.app.router.add_get("/exec/{namespace}/{pod}/{container}", self._exec)
        self.app.router.add_get("/attach/{namespace}/{pod}/{container}", self._attach)
        self.app.router.add_get("/portForward/{namespace}/{pod}", self._port_forward)

    async def run(self, host: str, port: int, *, certificate: Path, key: Path, authority: Path) -> None:
        """Listen until cancelled. Raises OSError when the address is taken."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority))
        context.load_cert_chain(certificate, key)
        context.verify_mode = ssl.CERT_REQUIRED
        runner = web.AppRunner(self.app, access_log=None)
        await runner.setup()
        try:
            async with await self.listen(runner, host, port, context):
                log.info("agent server listens", host=host, port=port)
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def listen(self, runner: web.AppRunner, host: str, port: int, context: ssl.SSLContext) -> asyncio.Server:
        """Return a socket that serves `runner`, and SPDY beside it. Raises OSError when the address is taken."""
        http = runner.server
        assert http is not None, "the runner has been set up"
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Handover(http, upgrades.PROTOCOL, self._upgrade), host, port, ssl=context)

    async def _healthz(self, _request: web.Request) -> web.Response:
        await self._runtime.version()
        return web.Response(text="ok")

    async def _list_pods(self, _request: web.Request) -> web.Response:
        document = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods())}
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        options = _log_options(request.query, self._clock.now())
        previous = request.query.get("previous") in ("true", "1")
        container = await self._container(request, previous=previous)
        status = await self._runtime.container_status(container.id)

        async def is_running() -> bool:
            try:
                return (await self._runtime.container_status(container.id)).state in ("created", "running")
            except CriNotFound:
                return False

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for text in read_log(Path(status.log_path), options, is_running):
            await response.write(text)
        await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        container = await self._container(request)
        url = await self._exec_url(container, request.query, request.query.getall("command", []))
        return await streaming.serve_command(request, url, _wanted(request.query))

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        container = await self._container(request)
        url = await self._attach_url(container, request.query)
        return await streaming.serve_command(request, url, _wanted(request.query))

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        ports = [int(one) for one in request.query.getall("port", []) if one.isdigit()]
        url = await self._port_forward_url(request.match_info["namespace"], request.match_info["pod"], ports)
        return await streaming.serve_port_forward(request, url)

    async def _upgrade(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificate = writer.get_extra_info("peercert") or {}
        await upgrades.serve(head, reader, writer, may=lambda: _is_trusted(certificate), find_url=self._upgrade_url)

    async def _upgrade_url(self, parts: list[str], query: Mapping[str, str], command: list[str]) -> str:
        match parts:
            case ["exec", namespace, pod, name]:
                return await self._exec_url(await self._named(namespace, pod, name), query, command)
            case ["attach", namespace, pod, name]:
                return await self._attach_url(await self._named(namespace, pod, name), query)
            case ["portForward", namespace, pod]:
                return await self._port_forward_url(namespace, pod, [])
            case _:
                raise web.HTTPNotFound(text="404 page not found")

    async def _exec_url(self, container: Container, query: Mapping[str, str], command: list[str]) -> str:
        if not command:
            raise web.HTTPBadRequest(text="you must specify at least 1 command")
        wanted = _wanted(query)
        return await self._runtime.exec_url(
            container.id, command, tty=wanted.tty, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr and not wanted.tty
        )

    async def _attach_url(self, container: Container, query: Mapping[str, str]) -> str:
        wanted = _wanted(query)
        return await self._runtime.attach_url(
            container.id, tty=wanted.tty, stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr and not wanted.tty
        )

    async def _port_forward_url(self, namespace: str, pod: str, ports: list[int]) -> str:
        sandboxes = [one for one in await self._runtime.list_sandboxes() if (one.namespace, one.name) == (namespace, pod) and one.is_ready]
        if not sandboxes:
            raise _NoSuchContainer(f'pod "{pod}" not found')
        newest = max(sandboxes, key=lambda one: one.created_at)
        return await self._runtime.port_forward_url(newest.id, ports)

    async def _container(self, request: web.Request, *, previous: bool = False) -> Container:
        return await self._named(*(request.match_info[key] for key in ("namespace", "pod", "container")), previous=previous)

    async def _named(self, namespace: str, pod: str, name: str, *, previous: bool = False) -> Container:
        found = [
            one
            for one in await self._runtime.list_containers()
            if one.name == name
            and one.labels.get("io.kubernetes.pod.namespace") == namespace
            and one.labels.get("io.kubernetes.pod.name") == pod
        ]
        found.sort(key=lambda one: one.created_at, reverse=True)
        if not found:
            raise _NoSuchContainer(f'container "{name}" in pod "{pod}" is not available')
        if not previous:
            return found[0]
        if len(found) < 2:
            raise web.HTTPBadRequest(text=f'previous terminated container "{name}" in pod "{pod}" not found')
        return found[1]


def _is_trusted(certificate: Mapping[str, Any]) -> bool:
    groups = [value for part in certificate.get("subject", ()) for key, value in part if key == "organizationName"]
    return _TRUSTED_GROUP in groups


@web.middleware
async def _only_the_api_server(request: web.Request, handler) -> web.StreamResponse:
    if not _is_trusted(request.get_extra_info("peercert") or {}):
        raise web.HTTPForbidden(text="Forbidden")
    return await handler(request)


@web.middleware
async def _say_what_went_wrong(request: web.Request, handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except CriNotFound as error:
        raise web.HTTPNotFound(text=error.message) from error
    except CriError as error:
        raise web.HTTPInternalServerError(text=error.message) from error
    except ConnectionError as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from error


def _wanted(query: Mapping[str, str]) -> streaming.Streams:
    return _streams(query, "stdin", "stdout", "stderr")


def _streams(query: Mapping[str, str], *names: str) -> streaming.Streams:
    def asked(*keys: str) -> bool:
        return any(query.get(key) in ("1", "true") for key in keys)

    stdin, stdout, stderr = names
    return streaming.Streams(asked(stdin, "input"), asked(stdout, "output"), asked(stderr, "error"), asked("tty"))


def _log_options(query: Mapping[str, str], now: float) -> LogOptions:
    try:
        tail, limit = query.get("tailLines"), query.get("limitBytes")
        since = parse_rfc3339(query["sinceTime"]) if query.get("sinceTime") else 0.0
        if query.get("sinceSeconds"):
            since = now - int(query["sinceSeconds"])
        return LogOptions(
            follow=query.get("follow") in ("true", "1"),
            tail_lines=int(tail) if tail else None,
            since=since,
            timestamps=query.get("timestamps") in ("true", "1"),
            limit_bytes=int(limit) if limit else None,
            stream={"Stdout": "stdout", "Stderr": "stderr"}.get(query.get("stream", ""), ""),
        )
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from error
