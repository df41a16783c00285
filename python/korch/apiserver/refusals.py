"""What a client is told when its request went wrong: a Status, whatever was raised.

A mistake of ours is logged with its traceback and answered with a Status of 500 that says nothing of it.
"""

from __future__ import annotations

from korch._core import native
from korch.api.errors import ApiError, BadRequest, InternalError
from korch.apiserver.exchange import Exchange
from korch.apiserver.flowcontrol.flow_control import Refused
from korch.runtime.log import get_logger

log = get_logger("apiserver")


def refusal(error: Exception, verb: str, path: str) -> ApiError:
    """Return the refusal that `error` means, for a request on a resource."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RecursionError):
        # All decoders stop at some depth, long before anything is stored.
        return BadRequest("exceeded max depth")
    log.error("request failed", path=path, verb=verb, exc_info=error)
    return bug(error)


def bug(error: Exception) -> ApiError:
    """Return what a client is told of a mistake of ours, of which the log has the rest, or of a store that cannot write."""
    if isinstance(error, native.StoreFull | native.StorePoisoned):
        return InternalError(f"the store cannot write: {error}")
    return InternalError("an error on the server has prevented the request from succeeding")


async def busy(exchange: Exchange, error: Refused) -> None:
    """Refuse as upstream does, in plain text."""
    headers = {**error.headers, "x-content-type-options": "nosniff"}
    await exchange.respond(f"{error.message}\n".encode(), code=error.code, content_type="text/plain; charset=utf-8", headers=headers)
