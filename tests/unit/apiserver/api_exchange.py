"""An API server in memory on virtual time, and its application driven as an ASGI server would: request in, chunks out as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import orjson

from korch.apiserver.server import ApiServer, ServerConfig
from korch.resources import catalogue
from korch.runtime.context import simulated
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]
Story = Callable[["Api"], Awaitable[None]]


@dataclass
class Answer:
    """A finished HTTP answer."""

    code: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    @property
    def warnings(self) -> list[str]:
        return [value for key, value in self.headers if key == "warning"]

    @property
    def says(self) -> tuple[int, str, str]:
        """(HTTP code, reason, message) of a Status; the codes agree."""
        status = self.json
        assert status["kind"] == "Status", status
        assert status["code"] == self.code
        return self.code, status["reason"], status["message"]


@dataclass
class Stream:
    """An open watch."""

    task: asyncio.Task[None]
    chunks: asyncio.Queue[bytes | None]
    gone: asyncio.Event
    started: asyncio.Event
    code: int = 0
    waiting: list[Object] = field(default_factory=list)

    async def next(self) -> tuple[str, Object]:
        """Return (type, object) of the next event; ("END", {}) when the stream has ended."""
        while not self.waiting:
            chunk = await self.chunks.get()
            if chunk is None:
                return "END", {}
            self.waiting = [orjson.loads(line) for line in chunk.splitlines()]
        event = self.waiting.pop(0)
        return event["type"], event["object"]

    async def take(self, count: int) -> list[tuple[str, str]]:
        """Return (type, name) of the next `count` events."""
        found = [await self.next() for _ in range(count)]
        return [(kind, obj.get("metadata", {}).get("name", "")) for kind, obj in found]

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has been sent that was not taken."""
        return not self.waiting and self.chunks.empty()

    async def leave(self) -> None:
        """Disconnect, as a client that goes away."""
        self.gone.set()
        await self.task


class Api:
    """A client of one server's ASGI application."""

    def __init__(self, server: ApiServer, storage: Storage) -> None:
        self.server = server
        self.storage = storage
        self.app: Any = server.app

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "",
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Answer:
        """Make one request. `body` may be an object or bytes."""
        stream = self._open(method, path, body, content_type, accept, headers or {}, query)
        await stream.task
        raw: list[bytes] = []
        while (chunk := await stream.chunks.get()) is not None:
            raw.append(chunk)
        return Answer(stream.code, self._headers, b"".join(raw))

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any, **options: Any) -> Answer:
        return await self.call("POST", path, body, **options)

    async def put(self, path: str, body: Any, **options: Any) -> Answer:
        return await self.call("PUT", path, body, **options)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch", **options: Any) -> Answer:
        return await self.call("PATCH", path, body, content_type=f"application/{kind}+json", **options)

    async def apply(self, path: str, body: Any, *, manager: str = "me", **options: Any) -> Answer:
        """Apply a configuration, an object or YAML."""
        raw = body.encode() if isinstance(body, str) else body
        return await self.call("PATCH", path, raw, content_type="application/apply-patch+yaml", fieldManager=manager, **options)

    async def delete(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.call("DELETE", path, body, **options)

    async def made(self, path: str, body: Object) -> Object:
        """Create an object that must be accepted, and return it."""
        answer = await self.post(path, body)
        assert answer.code == 201, answer.body
        return answer.json

    async def namespace(self, name: str = "d") -> str:
        """Make a namespace with its default service account; return its path."""
        await self.made("/api/v1/namespaces", {"metadata": {"name": name}})
        await self.made(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        return f"/api/v1/namespaces/{name}"

    async def watch(self, path: str, *, accept: str = "", **query: str) -> Stream:
        """Open a watch; returns once its headers are here."""
        stream = self._open("GET", path, None, "", accept, {}, {"watch": "1"} | query)
        await stream.started.wait()
        return stream

    def _open(
        self, method: str, path: str, body: Any, content_type: str, accept: str, headers: dict[str, str], query: dict[str, str]
    ) -> Stream:
        raw = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"content-type": content_type, "accept": accept} | headers
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query).encode(),
            "root_path": "",
            "headers": [(key.encode(), value.encode()) for key, value in sent.items() if value],
            "client": ("test", 1),
            "server": ("test", 1),
        }
        stream = Stream(None, asyncio.Queue(), asyncio.Event(), asyncio.Event())  # type: ignore[arg-type]
        pending = [raw]

        async def receive() -> Object:
            if pending:
                return {"type": "http.request", "body": pending.pop(), "more_body": False}
            await stream.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Object) -> None:
            if message["type"] == "http.response.start":
                stream.code = message["status"]
                self._headers = [(key.decode(), value.decode()) for key, value in message["headers"]]
                stream.started.set()
                return
            if message.get("body"):
                stream.chunks.put_nowait(message["body"])
            if not message.get("more_body"):
                stream.chunks.put_nowait(None)

        stream.task = asyncio.get_running_loop().create_task(self.app(scope, receive, send))
        return stream


ADDRESS = "192.0.2.10"


def serve(story: Story, *, config: ServerConfig = ServerConfig(advertise_host=ADDRESS), seed: int = 1) -> None:
    """Run `story` against a new server whose own objects exist. Virtual time; the run must leave no crashed task."""

    async def main() -> None:
        runtime = simulated(seed)
        storage = Storage.open(None, runtime)
        server = ApiServer(runtime, storage, catalogue(), config)
        running = asyncio.get_running_loop().create_task(server.run())
        await asyncio.sleep(1)
        assert server.health.problems() == []
        await story(Api(server, storage))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await storage.close()

    loop = SimLoop()
    loop.run(main())
    assert loop.errors == []


def on_server(story: Story) -> Callable[[], None]:
    """Make a test of a story: `@on_server async def test_...(api)`."""

    def test() -> None:
        serve(story)

    test.__doc__ = story.__doc__
    return test


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> Object:
    containers = [{"name": "c", "image": "registry.test/c:1"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers} | spec}


def service(name: str, **spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]} | spec}


def deployment(name: str, replicas: int = 1) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "registry.test/c:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
