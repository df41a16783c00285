"""`/korch/v1/store/backup` and `/korch/v1/store/stats`: the store itself, for administrators (the group system:masters) only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from korch._core import native
from korch.api.errors import ApiError, Forbidden
from korch.apiserver.identity import Authenticator

_CHUNK_BYTES = 1 << 20


def store_routes(
    store: native.Store, authenticator: Authenticator, directory: Path, figures: Callable[[native.Store], dict[str, Any]]
) -> list[Route]:
    """Return the two routes, to be mounted before the resource route. A backup is written below `directory` and is gone once it is sent."""

    def check(request: Request) -> None:
        user = authenticator.authenticate({name.lower(): value for name, value in request.headers.items()})
        if "system:masters" not in user.groups:
            raise Forbidden("", "store", "", f'User "{user.name}" may not read the store')

    async def backup(request: Request) -> Response:
        try:
            check(request)
            return await run_in_threadpool(_backup, store, directory)
        except ApiError as error:
            return _refusal(error)
        except (native.StoreError, OSError) as error:
            return _refusal(ApiError(500, "InternalError", f"no backup could be written: {error}"))

    async def stats(request: Request) -> Response:
        try:
            check(request)
        except ApiError as error:
            return _refusal(error)
        found = await run_in_threadpool(figures, store)
        return Response(orjson.dumps(found), media_type="application/json")

    return [Route("/korch/v1/store/backup", backup, methods=["GET"]), Route("/korch/v1/store/stats", stats, methods=["GET"])]


def _backup(store: native.Store, directory: Path) -> Response:
    with tempfile.TemporaryDirectory(dir=directory, prefix="backup-") as scratch:
        _, name = store.backup(scratch)
        # The open file outlives its name, and its room on the disk is free again when it is closed.
        descriptor = os.open(Path(scratch) / name, os.O_RDONLY)
    length = os.fstat(descriptor).st_size
    return StreamingResponse(_chunks(descriptor), media_type="application/octet-stream", headers={"content-length": str(length)})


def _chunks(descriptor: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _refusal(error: ApiError) -> Response:
    return JSONResponse(error.status(), status_code=error.code, headers=error.headers)
