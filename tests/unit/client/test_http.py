"""The HTTP client against a real socket: errors, retries, streams, credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from korch.api.errors import ApiError, Conflict, Expired, NotFound, TooManyRequests
from korch.api.gvk import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS
from korch.client.http import Credentials, HttpClient
from korch.client.protocol import DeleteOptions, ListOptions, WatchEvent

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, **options: object) -> AsyncIterator[HttpClient]:
    """Serve every path with `handler` on a loopback port, and give a client for it."""
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with HttpClient(f"http://127.0.0.1:{port}", **options) as client:  # type: ignore[arg-type]
            yield client
    finally:
        await runner.cleanup()


def status(code: int, reason: str, message: str = "no", **more: object) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code} | more
    return web.json_response(body, status=code)


class Recorder:
    """Answers `{}` and remembers the requests."""

    def __init__(self, answer: bytes = b"{}") -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.headers: list[dict[str, str]] = []
        self._answer = answer

    async def __call__(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path, dict(request.query), await request.read()))
        self.headers.append(dict(request.headers))
        return web.Response(body=self._answer, content_type="application/json")


async def test_every_verb_goes_where_kubernetes_serves_it() -> None:
    recorder = Recorder()
    async with serving(recorder) as client:
        await client.get(PODS, "p", namespace="d")
        await client.get(DEPLOYMENTS, "web", namespace="d", subresource="scale")
        await client.list(NODES, ListOptions(label_selector="a in (b,c)", field_selector="x!=y", limit=5))
        await client.create(PODS, {"metadata": {"name": "p", "namespace": "d"}})
        await client.create(PODS, b"{}", namespace="d", name="p", subresource="binding")
        await client.update(PODS, b"{}", name="p", namespace="d", subresource="status")
        await client.patch(PODS, "p", {"a": 1}, namespace="d", patch_type="apply", field_manager="me", force=True)
        await client.delete(PODS, "p", namespace="d", options=DeleteOptions(grace_period_s=0, uid="u"))
        await client.delete_collection(PODS, ListOptions(namespace="d", label_selector="a=b"))
    assert [(method, path, query) for method, path, query, _ in recorder.requests] == [
        ("GET", "/api/v1/namespaces/d/pods/p", {}),
        ("GET", "/apis/apps/v1/namespaces/d/deployments/web/scale", {}),
        ("GET", "/api/v1/nodes", {"labelSelector": "a in (b,c)", "fieldSelector": "x!=y", "limit": "5"}),
        ("POST", "/api/v1/namespaces/d/pods", {}),
        ("POST", "/api/v1/namespaces/d/pods/p/binding", {}),
        ("PUT", "/api/v1/namespaces/d/pods/p/status", {}),
        ("PATCH", "/api/v1/namespaces/d/pods/p", {"fieldManager": "me", "force": "true"}),
        ("DELETE", "/api/v1/namespaces/d/pods/p", {}),
        ("DELETE", "/api/v1/namespaces/d/pods", {"labelSelector": "a=b"}),
    ]
    assert recorder.headers[6]["Content-Type"] == "application/apply-patch+yaml"
    assert orjson.loads(recorder.requests[7][3]) == {
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u"},
    }


async def test_a_status_becomes_its_typed_error_with_details() -> None:
    async def handler(_request: web.Request) -> web.Response:
        return status(404, "NotFound", 'pods "p" not found', details={"name": "p", "kind": "pods"})

    async with serving(handler) as client:
        with pytest.raises(NotFound) as caught:
            await client.get(PODS, "p", namespace="d")
    assert (caught.value.code, caught.value.message, caught.value.details) == (404, 'pods "p" not found', {"name": "p", "kind": "pods"})


async def test_an_answer_that_is_no_status_is_an_error_too() -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=409, text="a proxy says no")

    async with serving(handler) as client:
        with pytest.raises(Conflict, match="a proxy says no"):
            await client.raw("GET", "/x")


async def test_items_of_a_list_carry_their_type_and_a_page_its_token() -> None:
    body = {
        "kind": "PodList",
        "metadata": {"resourceVersion": "7", "continue": "next", "remainingItemCount": 3},
        "items": [{"metadata": {"name": "bare"}}, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "typed"}}],
    }
    async with serving(Recorder(orjson.dumps(body))) as client:
        page = await client.list(PODS)
    assert [orjson.loads(one)["kind"] for one in page.items] == ["Pod", "Pod"]
    assert (page.resource_version, page.continue_token, page.remaining) == ("7", "next", 3)


async def test_a_server_that_says_wait_is_asked_once_more_and_no_more() -> None:
    answers = [429, 200, 429, 429, 200]

    async def handler(_request: web.Request) -> web.Response:
        if answers.pop(0) == 429:
            response = status(429, "TooManyRequests")
            response.headers["Retry-After"] = "0"
            return response
        return web.Response(body=b"{}")

    async with serving(handler) as client:
        await client.create(PODS, b"{}", namespace="d")
        with pytest.raises(TooManyRequests):
            await client.create(PODS, b"{}", namespace="d")
    assert answers == [200]


async def _hang_up(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


@pytest.mark.parametrize(("method", "tries"), [("GET", 3), ("POST", 1), ("DELETE", 1)])
async def test_only_a_read_is_sent_again_when_the_connection_breaks(method: str, tries: int) -> None:
    seen = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        await _hang_up(request)
        return web.Response()

    async with serving(handler) as client:
        with pytest.raises(ConnectionError):
            await client.raw(method, "/x")
    assert seen == tries


async def test_nobody_at_the_address_is_a_connection_error() -> None:
    async with HttpClient("http://127.0.0.1:1") as client:
        with pytest.raises(ConnectionError, match="Connect"):
            await client.raw("GET", "/healthz")


async def test_an_answer_that_takes_too_long_is_a_timeout() -> None:
    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with serving(handler, timeout_s=0.05) as client:
        with pytest.raises(TimeoutError):
            await client.get(PODS, "p", namespace="d")


def event(name: str, padding: int = 0, kind: str = "ADDED") -> bytes:
    obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"pad": "x" * padding}}
    return orjson.dumps({"type": kind, "object": obj}) + b"\n"


def streaming(*pieces: bytes) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    return handler


async def watch_all(client: HttpClient) -> list[WatchEvent]:
    return [one async for one in client.watch(CONFIG_MAPS, ListOptions(namespace="d", resource_version="5"))]


async def test_watch_lines_are_whole_however_the_network_cuts_them() -> None:
    lines = event("a") + event("b") + event("c", kind="DELETED")
    async with serving(streaming(*(lines[at : at + 7] for at in range(0, len(lines), 7)))) as client:
        events = await watch_all(client)
    assert [(one.type, orjson.loads(one.object)["metadata"]["name"]) for one in events] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "c"),
    ]


async def test_a_watch_line_may_be_many_megabytes_long() -> None:
    async with serving(streaming(event("big", padding=8 << 20) + event("small"))) as client:
        events = await watch_all(client)
    assert [len(one.object) > 8 << 20 for one in events] == [True, False]


async def test_an_error_event_is_raised_as_its_status() -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}}
    async with serving(streaming(event("a"), orjson.dumps(gone) + b"\n")) as client:
        seen: list[WatchEvent] = []
        with pytest.raises(Expired, match="too old"):
            async for one in client.watch(CONFIG_MAPS):
                seen.append(one)
    assert len(seen) == 1


async def test_a_refused_watch_is_an_api_error() -> None:
    async def handler(_request: web.Request) -> web.Response:
        return status(403, "Forbidden")

    async with serving(handler) as client:
        with pytest.raises(ApiError) as caught:
            await watch_all(client)
    assert caught.value.code == 403


async def test_a_stream_that_ends_inside_a_line_is_a_broken_connection() -> None:
    async with serving(streaming(event("a"), event("b")[:20])) as client:
        with pytest.raises(ConnectionError, match="inside a line"):
            await watch_all(client)


async def test_a_watch_asks_for_bookmarks_and_initial_events() -> None:
    recorder = Recorder(b"")
    async with serving(recorder) as client:
        async for _ in client.watch(PODS, ListOptions(), send_initial_events=True, timeout_s=300):
            pass
    assert recorder.requests[0][2] == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "timeoutSeconds": "300",
    }


async def test_connections_are_used_again() -> None:
    peers: set[object] = set()

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=b"{}")

    async with serving(handler) as client:
        for _ in range(10):
            await client.get(PODS, "p", namespace="d")
    assert len(peers) == 1


async def test_a_token_file_is_read_and_sent(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    recorder = Recorder()
    async with serving(recorder, credentials=Credentials(token_file=str(tmp_path / "token")), user_agent="test/1") as client:
        await client.raw("GET", "/version")
    assert recorder.headers[0]["Authorization"] == "Bearer secret"
    assert recorder.headers[0]["User-Agent"] == "test/1"
