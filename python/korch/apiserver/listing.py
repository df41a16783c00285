"""LIST: one page of stored bytes at one revision, and the token by which the next page continues at the same revision.

A token names the revision and the key to go on from. When that revision has been compacted the answer is 410 Expired, with
a fresh token that goes on at the newest revision for clients that can live with an inconsistent list.
Mirrors apiserver's storage/continue.go and etcd3 store's GetList.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from korch._core import native
from korch.api.errors import ApiError, BadRequest, Expired
from korch.api.selectors import Requirements
from korch.apiserver.options import ReadOptions, revision_of
from korch.apiserver.pipeline import Target
from korch.apiserver.records import to_kinds
from korch.apiserver.selection import requirements
from korch.storage import Storage

_TOKEN_VERSION = "meta.k8s.io/v1"
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue "
    "parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided "
    "token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was "
    "returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page: objects as bytes in the kind's form. `remaining` is None when it is not told."""

    items: list[bytes]
    revision: int
    continue_token: str = ""
    remaining: int | None = None


class ExpiredToken(Expired):
    """410 whose Status carries the token for an inconsistent continuation."""

    def __init__(self, message: str, continue_token: str) -> None:
        super().__init__(message)
        self._continue_token = continue_token

    def status(self) -> dict[str, Any]:
        status = super().status()
        status["metadata"] = {"continue": self._continue_token} if self._continue_token else {}
        return status


def list_page(storage: Storage, target: Target, options: ReadOptions) -> ListPage:
    """Return a page of the target's collection. Raises BadRequest, Invalid, Expired, Timeout (a revision from the future)."""
    resource = target.resource
    selector = requirements(resource, options.label_selector, options.field_selector)
    prefix = resource.key_prefix(target.namespace)
    if options.continue_token:
        if options.resource_version not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        return _continued(storage, target, options, selector, prefix)
    revision = _revision(storage, options)
    try:
        return _page(storage, target, selector, prefix, b"", options.limit, revision)
    except native.Compacted as error:
        raise Expired(f"The resourceVersion for the provided list is too old: {options.resource_version}") from error


def too_large(wanted: int, current: int) -> ApiError:
    """Return upstream's answer to a resourceVersion that this server has not reached."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    details = {"causes": [cause], "retryAfterSeconds": 1}
    message = f"Timeout: Too large resource version: {wanted}, current: {current}"
    return ApiError(504, "Timeout", message, details=details, headers={"Retry-After": "1"})


def _revision(storage: Storage, options: ReadOptions) -> int:
    """Return the revision to read at, 0 for the newest."""
    wanted = revision_of(options.resource_version)
    if wanted > storage.revision():
        raise too_large(wanted, storage.revision())
    is_exact = options.resource_version_match == "Exact" or (options.limit > 0 and not options.resource_version_match)
    return wanted if is_exact else 0


def _page(storage: Storage, target: Target, selector: Requirements, prefix: bytes, start: bytes, limit: int, revision: int) -> ListPage:
    resource = target.resource
    page = storage.range(prefix, start=start, limit=limit, revision=revision, selector=selector)
    items = to_kinds(resource, page.values)
    if page.next is None:
        return ListPage(items, page.revision)
    token = _encode_token(page.revision, page.next[len(prefix) :])
    return ListPage(items, page.revision, token, None if selector else page.remaining)


def _continued(storage: Storage, target: Target, options: ReadOptions, selector: Requirements, prefix: bytes) -> ListPage:
    revision, suffix = _decode_token(options.continue_token)
    start = prefix + suffix
    try:
        return _page(storage, target, selector, prefix, start, options.limit, max(revision, 0))
    except native.Compacted as error:
        raise ExpiredToken(_TOO_OLD, _encode_token(-1, suffix)) from error
    except native.FutureRevision as error:
        raise too_large(revision, storage.revision()) from error


def _encode_token(revision: int, suffix: bytes) -> str:
    token = {"v": _TOKEN_VERSION, "rv": revision, "start": suffix.decode()}
    return base64.urlsafe_b64encode(orjson.dumps(token)).rstrip(b"=").decode()


def _decode_token(text: str) -> tuple[int, bytes]:
    try:
        padded = text + "=" * (-len(text) % 4)
        token: Any = orjson.loads(base64.urlsafe_b64decode(padded))
        if token["v"] != _TOKEN_VERSION or token["rv"] == 0:
            raise ValueError("continue key is not valid: server does not recognize this encoded version")
        return int(token["rv"]), str(token["start"]).encode()
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from error
