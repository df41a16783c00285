"""Keeps an exact copy of a collection: list once, then watch from the list's revision, for ever.

The first picture arrives as a stream of initial events ended by a bookmark (`sendInitialEvents`); a server that refuses that is
listed page by page. A watch that ends is resumed after the newest revision seen; one whose revision was compacted (410) starts
over, and what vanished meanwhile is told to the sinks as deletions. Faults are retried with backoff and jitter.
Mirrors client-go's tools/cache Reflector.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from korch.api.errors import ApiError, BadRequest, Expired, Gone, Invalid, Timeout
from korch.api.gvk import ResourceRef
from korch.client.backoff import Backoff
from korch.client.projections import decoder, object_key
from korch.client.protocol import Client, ListOptions, WatchEvent
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

log = get_logger("reflector")

INTERNAL_ERROR = 500
RETRY_S_FIRST = 0.8
RETRY_S_MAX = 30.0
# The server ends a watch after a random time in this range, so that reconnects of many clients spread out.
WATCH_TIMEOUT_S_MIN = 300.0
PAGE_SIZE = 500
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class _HeadMeta(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = ""


class _Head(msgspec.Struct, frozen=True):
    metadata: _HeadMeta = _HeadMeta()


class _BookmarkMeta(msgspec.Struct, frozen=True):
    resourceVersion: str = ""
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: _BookmarkMeta = _BookmarkMeta()


_decode_head = decoder(_Head)
_decode_bookmark = decoder(_Bookmark)


@dataclass(frozen=True, slots=True)
class Stored:
    """One object of the copy: its bytes and what identifies this state of it."""

    key: str
    uid: str
    resource_version: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Delta:
    """One change of the copy: `old` is None for an addition, `new` is None for a deletion."""

    key: str
    old: Stored | None
    new: Stored | None


class Sink(Protocol):
    """Someone who wants to know; `absorb` is called on every sink before `notify` on any, so that all caches agree in handlers."""

    def absorb(self, deltas: Sequence[Delta]) -> None: ...

    def notify(self) -> None: ...


class Reflector:
    """The copy of one (resource, options). `objects` maps keys to the newest known state, in order of arrival."""

    def __init__(self, client: Client, resource: ResourceRef, options: ListOptions, runtime: Runtime) -> None:
        self.resource = resource
        self.options = options
        self.objects: dict[str, Stored] = {}
        self.resource_version = 0
        self.synced = asyncio.Event()
        self.relists = 0
        self._client = client
        self._sinks: list[Sink] = []
        self._waiters: list[tuple[int, int, Callable[[], None]]] = []
        self._waiter_count = 0
        self._must_list = True
        self._can_stream_initial = True
        self._random = runtime.rng.stream(f"reflector/{resource.group}/{resource.plural}/{options.namespace}")
        self._backoff = Backoff(self._random, initial_s=RETRY_S_FIRST, cap_s=RETRY_S_MAX)

    def attach(self, sink: Sink) -> None:
        """Tell `sink` about everything known now (as additions) and every change from now on."""
        self._sinks.append(sink)
        if self.objects:
            sink.absorb([Delta(one.key, None, one) for one in self.objects.values()])
            sink.notify()

    def when_reached(self, resource_version: int, callback: Callable[[], None]) -> None:
        """Call `callback` once, as soon as this copy shows `resource_version` or newer; at once if it already does."""
        if self.resource_version >= resource_version:
            callback()
            return
        self._waiter_count += 1
        heapq.heappush(self._waiters, (resource_version, self._waiter_count, callback))

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        while True:
            try:
                await self._follow()
                continue
            except (Expired, Gone):
                log.debug("watch expired, listing again", resource=self.resource.plural, resource_version=self.resource_version)
                self._must_list = True
            except ApiError as error:
                if _is_future_version(error):
                    self._must_list = True
                elif self._must_list and self._can_stream_initial and _is_about_initial_events(error):
                    self._can_stream_initial = False
                    continue
                log.warning("watch refused", resource=self.resource.plural, code=error.code, reason=error.reason, error=error.message)
            except (ConnectionError, TimeoutError, OSError) as error:
                log.debug("watch failed", resource=self.resource.plural, error=str(error))
            await asyncio.sleep(self._backoff.next_s())

    async def _follow(self) -> None:
        initial: dict[str, Stored] | None = None
        if self._must_list:
            if self._can_stream_initial:
                initial = {}
            else:
                await self._list()
        options = replace(self.options, resource_version="" if initial is not None else str(self.resource_version))
        timeout_s = WATCH_TIMEOUT_S_MIN * (1 + self._random.random())
        stream = self._client.watch(self.resource, options, send_initial_events=initial is not None, timeout_s=timeout_s)
        async with aclosing(stream) as events:  # type: ignore[type-var]  # every implementation is an async generator
            async for event in events:
                if initial is None:
                    self._on_event(event)
                elif event.type == "BOOKMARK":
                    bookmark = _decode_bookmark(event.object).metadata
                    if (bookmark.annotations or {}).get(INITIAL_EVENTS_END) == "true":
                        self._replace(initial, int(bookmark.resourceVersion))
                        initial = None
                elif event.type == "DELETED":
                    initial.pop(_stored(event.object).key, None)
                else:
                    one = _stored(event.object)
                    initial[one.key] = one
                self._backoff.reset()
        if initial is not None:
            raise ConnectionError("the watch ended before its initial events did")

    async def _list(self) -> None:
        found: dict[str, Stored] = {}
        options = replace(self.options, limit=PAGE_SIZE)
        while True:
            page = await self._client.list(self.resource, options)
            for raw in page.items:
                one = _stored(raw)
                found[one.key] = one
            if not page.continue_token:
                break
            options = replace(options, continue_token=page.continue_token)
        self._replace(found, int(page.resource_version))

    def _on_event(self, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            self._reached(int(_decode_bookmark(event.object).metadata.resourceVersion))
            return
        new = _stored(event.object)
        old = self.objects.get(new.key)
        if event.type == "DELETED":
            if old is not None:
                del self.objects[new.key]
                self._tell([Delta(new.key, replace(old, resource_version=new.resource_version, raw=new.raw), None)])
        elif old is None:
            self.objects[new.key] = new
            self._tell([Delta(new.key, None, new)])
        elif new.resource_version > old.resource_version:
            self.objects[new.key] = new
            self._tell(_changes(old, new))
        self._reached(new.resource_version)

    def _replace(self, found: dict[str, Stored], resource_version: int) -> None:
        deltas: list[Delta] = []
        for key, old in self.objects.items():
            if key not in found:
                deltas.append(Delta(key, old, None))
        for key, new in found.items():
            old = self.objects.get(key)
            if old is None:
                deltas.append(Delta(key, None, new))
            elif old.uid != new.uid or old.resource_version != new.resource_version:
                deltas += _changes(old, new)
        self.objects = found
        self._must_list = False
        self.relists += 1
        # A server that was restored from an older state counts from there: whoever waits for a version of the lost history is let go.
        went_back = resource_version < self.resource_version
        self.resource_version = resource_version
        self._tell(deltas)
        self.synced.set()
        self._release(force=went_back)

    def _tell(self, deltas: list[Delta]) -> None:
        if not deltas:
            return
        for sink in self._sinks:
            sink.absorb(deltas)
        for sink in self._sinks:
            sink.notify()

    def _reached(self, resource_version: int) -> None:
        if resource_version > self.resource_version:
            self.resource_version = resource_version
            self._release(force=False)

    def _release(self, *, force: bool) -> None:
        while self._waiters and (force or self._waiters[0][0] <= self.resource_version):
            heapq.heappop(self._waiters)[2]()


def _stored(raw: bytes) -> Stored:
    meta = _decode_head(raw).metadata
    return Stored(object_key(meta.namespace, meta.name), meta.uid, int(meta.resourceVersion or 0), raw)


def _changes(old: Stored, new: Stored) -> list[Delta]:
    """Return one update, or a deletion and an addition when the name now belongs to another object."""
    if old.uid == new.uid:
        return [Delta(new.key, old, new)]
    return [Delta(new.key, old, None), Delta(new.key, None, new)]


def _is_about_initial_events(error: ApiError) -> bool:
    """Return whether a watch may have been refused because it asked for the initial state: kube-apiserver on etcd before 3.4.25 answers
    such a request with 500, and client-go too lists after any refusal."""
    return isinstance(error, (BadRequest, Invalid)) or error.code == INTERNAL_ERROR


def _is_future_version(error: ApiError) -> bool:
    causes = error.details.get("causes") or []
    return isinstance(error, Timeout) and any(cause.get("reason") == "ResourceVersionTooLarge" for cause in causes)
