"""Requests that reach the application in memory: what is theirs alone. All that holds for both ways is in `test_front`."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from door import Door, application
from test_front import echo

HEAD = {"type": "http.response.start", "status": 200, "headers": []}

pytestmark = pytest.mark.parametrize("door", [True], ids=["memory"], indirect=True)


async def test_the_application_waits_for_a_client_that_is_behind(door: Door):
    chunk, count = b"x" * 65_536, 1_000
    sent = 0

    async def generous(_scope, _receive, send) -> None:
        nonlocal sent
        await send(HEAD)
        for _ in range(count):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": b""})

    async with application(door, generous), door.http() as client, client.stream("GET", "/", timeout=60) as response:
        still, before = 0, -1
        while still < 20:
            await asyncio.sleep(0.01)
            still, before = (still + 1, before) if sent == before else (0, sent)
        assert 0 < sent < count
        assert sum([len(part) async for part in response.aiter_bytes()]) == count * len(chunk)
    assert sent == count


async def test_an_answer_that_is_not_ended_breaks_off(door: Door):
    async def half(_scope, _receive, send) -> None:
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})

    async with application(door, half), door.http() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")


async def test_an_application_that_fails_before_its_answer_is_told_of(door: Door):
    async def failing(_scope, _receive, _send) -> None:
        raise RuntimeError("by design")

    async with application(door, failing), door.http() as client:
        response = await client.get("/")
        assert (response.status_code, response.json()["reason"]) == (503, "ServiceUnavailable")
        assert "retry-after" not in response.headers


async def test_a_head_request_has_the_length_and_no_body(door: Door):
    async with application(door, echo):
        for http2 in (False, True):
            async with door.http(http2=http2) as client:
                response = await client.head("/")
                assert (response.status_code, response.content) == (201, b"")
                assert int(response.headers["content-length"]) > 100


async def test_a_long_body_takes_the_socket(door: Door):
    async with application(door, echo), door.http() as client:
        for size, in_memory in ((3_000_000, 1), (5_000_000, 1)):
            response = await client.post("/", content=b"x" * size, timeout=60)
            assert len(response.json()["body"]) == size
            assert door.front.stats()["handed_over"] == in_memory
        assert door.front.stats()["upstream_connects"] == 1


async def test_an_inbox_that_closes_lets_what_it_took_end(door: Door):
    arrived, let_go = asyncio.Event(), asyncio.Event()

    async def holding(_scope, _receive, send) -> None:
        arrived.set()
        await let_go.wait()
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"done"})

    async with door.http() as client:
        async with application(door, holding):
            asking = asyncio.get_running_loop().create_task(client.get("/"))
            await asyncio.wait_for(arrived.wait(), 10)
            asyncio.get_running_loop().call_later(0.1, let_go.set)
        assert (await asking).text == "done"
        assert (await client.get("/")).status_code == 503
