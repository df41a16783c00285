"""WATCH: the stored past and the coming changes of a collection as one stream of lines.

Where a watch starts: at resourceVersion N, with what happened after N; at "" or "0", with the present objects as ADDED;
with sendInitialEvents also, followed by the bookmark that says that the present is complete. From then on the store's frames are
passed on as they are; only Tables, metadata-only objects and kinds stored in another's form are decoded.
A stream ends by itself after its timeout, when the store closes, and with an ERROR line when it was too slow or started below
the compaction floor. Mirrors apiserver's endpoints/handlers/watch.go and the cacher's semantics.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from korch._core import native
from korch.api.errors import ApiError, Expired
from korch.api.selectors import Requirements
from korch.apiserver.conversion import converted
from korch.apiserver.encoding import bookmark, dump, watch_line
from korch.apiserver.listing import too_large
from korch.apiserver.options import ReadOptions, revision_of
from korch.apiserver.pipeline import Target
from korch.apiserver.records import to_kinds
from korch.apiserver.selection import requirements
from korch.runtime.rng import Rng
from korch.storage import Storage, Watch

BOOKMARK_INTERVAL_S = 60.0
TIMEOUT_S_MIN = 1800
_INITIAL_CHUNK = 500
_TYPES = ("ADDED", "MODIFIED", "DELETED")

T = TypeVar("T")

# From (type, object in the kind's form) to the object that is sent, or None to send nothing.
Transform = Callable[[str, bytes], bytes | None]


class WatchStream:
    """One watch. `events` yields (type, object); `lines` yields chunks of newline-ended JSON."""

    def __init__(self, storage: Storage, target: Target, options: ReadOptions, *, rng: Rng, transform: Transform | None = None) -> None:
        """Check the options. Raises BadRequest, Invalid."""
        self._storage = storage
        self._target = target
        self._options = options
        self._transform = transform
        self._selector: Requirements = requirements(target.resource, options.label_selector, options.field_selector)
        self._start = revision_of(options.resource_version)
        self._timeout_s = options.timeout_s or TIMEOUT_S_MIN * (1 + rng.stream("watch-timeout").random())

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield chunks of lines until the watch ends. An empty first chunk means that headers can go out."""
        yield b""
        try:
            if self._transform is None and self._target.resource.storage is None:
                async for chunk in self._raw_lines():
                    yield chunk
            else:
                async for event_type, body in self.events():
                    yield watch_line(event_type, body)
        except ApiError as error:
            yield watch_line("ERROR", dump(error.status()))

    async def events(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield (type, object) until the watch ends. Raises Expired when it cannot start or go on."""
        resource = self._target.resource
        watch, initial = self._open()
        async with watch:
            for value in await converted(lambda: to_kinds(resource, initial)):
                if (body := self._transformed("ADDED", value)) is not None:
                    yield "ADDED", body
            if self._wants_initial_end:
                yield "BOOKMARK", self._bookmark(watch.revision, is_initial_end=True)
            async for batch in self._turns(watch, watch.next_events):
                if batch is None:
                    yield "BOOKMARK", self._bookmark(watch.revision)
                    continue
                stored = [value for _, _, value in batch]
                shown = await converted(lambda stored=stored: to_kinds(resource, stored))
                for (kind, _, _), value in zip(batch, shown, strict=True):
                    if (body := self._transformed(_TYPES[kind], value)) is not None:
                        yield _TYPES[kind], body

    async def _raw_lines(self) -> AsyncIterator[bytes]:
        watch, initial = self._open()
        async with watch:
            for start in range(0, len(initial), _INITIAL_CHUNK):
                yield b"".join(watch_line("ADDED", value) for value in initial[start : start + _INITIAL_CHUNK])
            if self._wants_initial_end:
                yield watch_line("BOOKMARK", self._bookmark(watch.revision, is_initial_end=True))
            async for frames in self._turns(watch, watch.next_frames):
                yield watch_line("BOOKMARK", self._bookmark(watch.revision)) if frames is None else frames

    @property
    def _wants_initial_end(self) -> bool:
        return self._options.sends_initial_events and self._options.allows_bookmarks

    def _open(self) -> tuple[Watch, Sequence[bytes]]:
        """Return the watch and the objects that come first, both of one moment. Raises Expired, Timeout."""
        prefix = self._target.resource.key_prefix(self._target.namespace)
        if self._start > self._storage.revision():
            raise too_large(self._start, self._storage.revision())
        try:
            if self._start == 0 or self._options.sends_initial_events:
                page = self._storage.range(prefix, selector=self._selector)
                return self._storage.watch(prefix, page.revision, self._selector), page.values
            return self._storage.watch(prefix, self._start, self._selector), ()
        except native.Compacted as error:
            raise Expired(f"too old resource version: {self._start} ({self._storage.compacted()})") from error

    async def _turns(self, watch: Watch, take: Callable[[], Awaitable[T]]) -> AsyncIterator[T | None]:
        """Yield what `take` gives, and None whenever a bookmark is due, until the timeout or the watch's end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        bookmark_at = loop.time() + (BOOKMARK_INTERVAL_S if self._options.allows_bookmarks else self._timeout_s)
        while loop.time() < deadline:
            try:
                async with asyncio.timeout_at(min(deadline, bookmark_at)):
                    taken = await take()
            except TimeoutError:
                if loop.time() >= deadline:
                    return
                bookmark_at = loop.time() + BOOKMARK_INTERVAL_S
                yield None
                continue
            except native.WatcherLagged as error:
                raise Expired(f"too old resource version: {watch.revision} ({self._storage.revision()})") from error
            if not taken:
                return
            yield taken

    def _transformed(self, event_type: str, body: bytes) -> bytes | None:
        return body if self._transform is None else self._transform(event_type, body)

    def _bookmark(self, revision: int, *, is_initial_end: bool = False) -> bytes:
        resource = self._target.resource
        body = bookmark(resource.kind, resource.api_version, revision, is_initial_end=is_initial_end)
        return self._transformed("BOOKMARK", body) or body
