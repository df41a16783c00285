"""Requests that no client should send: every one of them is answered with a Status in Kubernetes' words, and leaves nothing behind.

Mutations start from requests that are right, so that they come far before something is found wrong: a value of another type deep inside,
a key twice, a body cut short, a header or parameter that means nothing. An answer of 500 is a bug, with the exception that upstream
makes: a configuration to apply that does not fit its kind.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from api_exchange import Answer, Api, serve
from mutations import ACCEPTS, PATHS, Mutations, fits

# For each of three seeds; KORCH_FUZZ_REQUESTS=3400 makes ten thousand of them.
REQUESTS = int(os.environ.get("KORCH_FUZZ_REQUESTS", "700"))


async def send(api: Api, mutations: Mutations) -> tuple[Any, Answer]:
    """Make a wrong request; return what it was, and its answer."""
    if mutations.happens(0.2):
        existing = mutations.one_of(sorted(PATHS))
        await api.post(existing, PATHS[existing])
    method, path, kind, given = mutations.target()
    query, headers = mutations.query(), mutations.headers()
    is_sent = method in ("POST", "PUT", "PATCH") or (method == "DELETE" and mutations.happens(0.3))
    body = given if is_sent and mutations.happens(0.97) else None
    accept = mutations.one_of(ACCEPTS) if mutations.happens(0.2) else ""
    if kind == "application/apply-patch+yaml" and mutations.happens(0.9):
        query["fieldManager"] = "m"
    answer = await api.call(method, path, body, content_type=kind, accept=accept, headers=headers, **query)
    return (method, path, kind, query, headers, accept, body), answer


@pytest.mark.parametrize("seed", range(3))
def test_no_request_makes_the_server_stumble(seed: int) -> None:
    async def story(api: Api) -> None:
        await api.namespace()
        mutations = Mutations(seed)
        codes: set[int] = set()
        for _ in range(REQUESTS):
            request, answer = await send(api, mutations)
            assert request[0] == "HEAD" or fits(request[1], answer), (request, answer.body)
            codes.add(answer.code)
        assert {200, 201, 400, 404, 405, 406, 409, 415, 422} <= codes, codes
        assert (await api.get("/readyz")).body == b"ok"

    serve(story)
