"""How long a request may take: the server's own limit, the client's shorter one, and what is meant to go on for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from api_exchange import ADDRESS, Api, config_map, serve
from webhook_world import FakeWebhooks, allow, configure, webhook

from korch.api.go_duration import parse_duration
from korch.apiserver.guards import Guards
from korch.apiserver.identity import AllowEverybody
from korch.apiserver.request_info import parse
from korch.apiserver.server import ServerConfig

Object = dict[str, Any]


class SlowWebhooks(FakeWebhooks):
    """Answers after some virtual seconds."""

    seconds = 5.0

    async def post(self, place: Any, body: bytes, *, ca_pem: str, timeout_s: float) -> tuple[int, bytes]:
        await asyncio.sleep(self.seconds)
        return await super().post(place, body, ca_pem=ca_pem, timeout_s=timeout_s)


def test_a_write_that_takes_longer_than_the_client_waits_is_answered_504() -> None:
    async def story(api: Api) -> None:
        path = await api.namespace()
        SlowWebhooks(api, slow=allow)
        await configure(api, "Validating", webhook("slow"))
        answer = await api.post(f"{path}/configmaps", config_map("a"), timeout="2s")
        why = "Timeout: request did not complete within requested timeout - context deadline exceeded"
        assert answer.says == (504, "Timeout", why)
        assert (await api.post(f"{path}/configmaps", config_map("b"), timeout="20s")).code == 201
        # What had begun was not broken off half way: it is there, whole, a moment later.
        assert (await api.get(f"{path}/configmaps/a")).code == 200

    serve(story)


def test_the_servers_own_limit_holds_without_any_and_above_a_longer_one() -> None:
    async def story(api: Api) -> None:
        path = await api.namespace()
        SlowWebhooks(api, slow=allow)
        await configure(api, "Validating", webhook("slow"))
        assert (await api.post(f"{path}/configmaps", config_map("a"))).code == 504
        assert (await api.post(f"{path}/configmaps", config_map("b"), timeout="1h")).code == 504

    serve(story, config=ServerConfig(advertise_host=ADDRESS, request_timeout_s=3.0))


def test_a_body_that_never_comes_ends_in_504() -> None:
    async def story(api: Api) -> None:
        await api.namespace()
        sent: list[Object] = []
        gone = asyncio.Event()

        async def receive() -> Object:
            if sent:
                return {"type": "http.disconnect"}
            done = asyncio.get_running_loop().create_task(gone.wait())
            await done
            return {"type": "http.disconnect"}

        async def send(message: Object) -> None:
            sent.append(message)
            gone.set()

        scope = {
            "type": "http", "method": "POST", "path": "/api/v1/namespaces/d/configmaps", "raw_path": b"/", "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"100")], "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        began = asyncio.get_running_loop().time()
        await api.app(scope, receive, send)
        assert sent[0]["status"] == 504
        assert asyncio.get_running_loop().time() - began == 60

    serve(story)


def test_a_watch_has_no_deadline_but_its_own() -> None:
    async def story(api: Api) -> None:
        stream = await api.watch("/api/v1/configmaps", timeoutSeconds="500", timeout="1s")
        await asyncio.sleep(400)
        assert stream.is_quiet and not stream.task.done()
        await asyncio.sleep(101)
        assert (await stream.next())[0] == "END"

    serve(story)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("abc", 'time: invalid duration "abc"'),
        ("5 parsecs", 'time: unknown unit " parsecs" in duration "5 parsecs"'),
    ],
)
def test_a_timeout_that_is_no_duration_is_refused_in_gos_words(text: str, why: str) -> None:
    async def story(api: Api) -> None:
        answer = await api.get("/api/v1/namespaces", timeout=text)
        assert answer.says == (400, "BadRequest", f"invalid timeout specified in the request URL - {why}")

    serve(story)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1h2m3.5s", 3723.5), ("300ms", 0.3), ("-1.5s", -1.5), ("0", 0), (".5s", 0.5), ("1us", 1e-6), ("+2m", 120)]
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("method", "path", "query", "budget_s"),
    [
        ("GET", "/api/v1/pods", {}, 60),
        ("GET", "/api/v1/pods", {"timeout": "0s"}, 60),
        ("GET", "/api/v1/pods", {"timeout": "10s"}, 10),
        ("GET", "/api/v1/namespaces/d/pods/p/log", {}, 0),
        ("GET", "/api/v1/namespaces/d/services/s/proxy/x", {}, 0),
        ("POST", "/api/v1/namespaces/d/pods/p/exec", {"timeout": "1s"}, 0),
        ("GET", "/api/v1/pods", {"watch": "true"}, 0),
    ],
)
def test_what_is_meant_to_stay_open_has_no_deadline(method: str, path: str, query: dict[str, str], budget_s: float) -> None:
    guards = Guards(authenticator=AllowEverybody(), authorizer=AllowEverybody())
    assert guards.budget_s(parse(method, path, query), query) == budget_s
