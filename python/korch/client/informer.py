"""A local, indexed, decoded copy of a collection, with handlers for its changes: what controllers read instead of the API.

The bytes come from a Reflector, which several informers may share: each holds its own projection of the same objects. Caches of
all informers of a reflector change before any handler runs. Handlers are plain functions and must not block; what they
are given is read-only. Mirrors client-go's SharedIndexInformer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import msgspec

from korch.api.gvk import ResourceRef
from korch.client.projections import Meta, decode_meta, object_key
from korch.client.protocol import Client, ListOptions
from korch.client.reflector import Delta, Reflector
from korch.runtime import tasks
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

log = get_logger("informer")
T = TypeVar("T")


class Informer(Generic[T]):
    """Objects of one collection as `T`, which `decode` makes of an object's bytes (metadata by default).

    Made alone it has a reflector of its own and `run` drives it; made by `Informers` it shares one.
    """

    def __init__(
        self,
        client: Client,
        resource: ResourceRef,
        *,
        runtime: Runtime,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        decode: Callable[[bytes], T] = decode_meta,
        reflector: Reflector | None = None,
    ) -> None:
        self.resource = resource
        if reflector is None:
            options = ListOptions(namespace=namespace, label_selector=label_selector, field_selector=field_selector)
            reflector = Reflector(client, resource, options, runtime)
        self.reflector = reflector
        self._decode = decode
        self._values: dict[str, T] = {}
        self._indexers: dict[str, Callable[[T], Iterable[str]]] = {}
        self._indexes: dict[str, dict[str, dict[str, T]]] = {}
        self._on_add: list[Callable[[T], None]] = []
        self._on_update: list[Callable[[T, T], None]] = []
        self._on_delete: list[Callable[[T], None]] = []
        self._changes: list[tuple[T | None, T | None]] = []
        self.reflector.attach(self)

    async def run(self) -> None:
        """Follow the collection until cancelled. Only for an informer with a reflector of its own."""
        await self.reflector.run()

    def on(
        self,
        *,
        add: Callable[[T], None] | None = None,
        update: Callable[[T, T], None] | None = None,
        delete: Callable[[T], None] | None = None,
    ) -> None:
        """Register handlers; `add` is called at once for every object already here. `update` gets (old, new)."""
        if add is not None:
            self._on_add.append(add)
            for value in list(self._values.values()):
                add(value)
        if update is not None:
            self._on_update.append(update)
        if delete is not None:
            self._on_delete.append(delete)

    @property
    def has_synced(self) -> bool:
        """Return whether the first complete picture has arrived."""
        return self.reflector.synced.is_set()

    async def wait_synced(self) -> None:
        """Await the first complete picture."""
        await self.reflector.synced.wait()

    @property
    def resource_version(self) -> int:
        """Return the newest revision that this cache is known to show."""
        return self.reflector.resource_version

    async def wait_for_version(self, resource_version: int) -> None:
        """Await the moment when this cache shows `resource_version` or newer."""
        reached = asyncio.Event()
        self.reflector.when_reached(resource_version, reached.set)
        await reached.wait()

    def get(self, namespace: str, name: str) -> T | None:
        """Return the object, or None when the cache has none of that name."""
        return self._values.get(object_key(namespace, name))

    def get_by_key(self, key: str) -> T | None:
        """Return the object with the key `namespace/name` (or `name`), or None."""
        return self._values.get(key)

    def raw(self, key: str) -> bytes | None:
        """Return the object's JSON, or None."""
        stored = self.reflector.objects.get(key)
        return stored.raw if stored is not None else None

    def list(self, namespace: str = "") -> list[T]:
        """Return all objects, or those of one namespace, in order of their arrival."""
        if not namespace:
            return list(self._values.values())
        prefix = namespace + "/"
        return [value for key, value in self._values.items() if key.startswith(prefix)]

    def __len__(self) -> int:
        return len(self._values)

    def add_index(self, name: str, values_of: Callable[[T], Iterable[str]]) -> None:
        """Keep an index: `values_of(object)` returns the values under which `by_index` finds it. Adding the same name again replaces it."""
        self._indexers[name] = values_of
        index = self._indexes[name] = {}
        for key, value in self._values.items():
            for term in values_of(value):
                index.setdefault(term, {})[key] = value

    def by_index(self, name: str, value: str) -> Sequence[T]:
        """Return the objects whose index `name` holds `value`. Raises KeyError for an index that was not added."""
        found = self._indexes[name].get(value)
        return list(found.values()) if found else []

    def absorb(self, deltas: Sequence[Delta]) -> None:
        """Take changes into the cache and the indexes; handlers run at `notify`."""
        for delta in deltas:
            new: T | None = None
            if delta.new is not None:
                try:
                    new = self._decode(delta.new.raw)
                except (msgspec.MsgspecError, ValueError, KeyError, TypeError):
                    log.exception("object cannot be decoded", resource=self.resource.plural, object=delta.key)
                    continue
            old = self._values.pop(delta.key, None) if new is None else self._values.get(delta.key)
            if new is None and old is None:
                continue
            if new is not None:
                self._values[delta.key] = new
            self._reindex(delta.key, old, new)
            self._changes.append((old, new))

    def notify(self) -> None:
        """Run the handlers for the changes absorbed since the last call; one that raises is logged, the others still run."""
        changes, self._changes = self._changes, []
        for old, new in changes:
            if old is None and new is not None:
                _call(self._on_add, new)
            elif old is not None and new is not None:
                _call(self._on_update, old, new)
            elif old is not None:
                _call(self._on_delete, old)

    def _reindex(self, key: str, old: T | None, new: T | None) -> None:
        for name, values_of in self._indexers.items():
            index = self._indexes[name]
            if old is not None:
                for term in values_of(old):
                    bucket = index.get(term)
                    if bucket is not None:
                        bucket.pop(key, None)
                        if not bucket:
                            del index[term]
            if new is not None:
                for term in values_of(new):
                    index.setdefault(term, {})[key] = new


class Informers:
    """Shares reflectors, and informers that decode alike, between everybody who reads the same collection.

    They run while somebody is inside `running()`: the first to enter starts them, the last to leave stops them.
    """

    def __init__(self, client: Client, runtime: Runtime) -> None:
        self._client = client
        self._runtime = runtime
        self._reflectors: dict[tuple[ResourceRef, ListOptions], Reflector] = {}
        self._informers: dict[tuple[ResourceRef, ListOptions, Callable[[bytes], Any]], Informer[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._users = 0

    def informer(
        self,
        resource: ResourceRef,
        *,
        decode: Callable[[bytes], T] = decode_meta,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> Informer[T]:
        """Return the informer of this collection and projection; asked for after the start, it is filled and running at once."""
        options = ListOptions(namespace=namespace, label_selector=label_selector, field_selector=field_selector)
        known = self._informers.get((resource, options, decode))
        if known is None:
            reflector = self._reflectors.get((resource, options))
            if reflector is None:
                reflector = self._reflectors[resource, options] = Reflector(self._client, resource, options, self._runtime)
                if self._users:
                    self._start(reflector)
            known = Informer(self._client, resource, runtime=self._runtime, decode=decode, reflector=reflector)
            self._informers[resource, options, decode] = known
        return known

    @property
    def has_synced(self) -> bool:
        """Return whether every informer has its first complete picture."""
        return all(one.synced.is_set() for one in self._reflectors.values())

    async def wait_synced(self) -> None:
        """Await the first complete picture of every informer."""
        for one in list(self._reflectors.values()):
            await one.synced.wait()

    def reflectors(self) -> list[Reflector]:
        """Return what is being followed, for status pages and metrics."""
        return list(self._reflectors.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the informers running inside the block."""
        self._users += 1
        if self._users == 1:
            for reflector in self._reflectors.values():
                self._start(reflector)
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                ending, self._tasks = self._tasks, []
                for task in ending:
                    task.cancel()
                await asyncio.gather(*ending, return_exceptions=True)

    async def run(self) -> None:
        """Keep the informers running until cancelled."""
        async with self.running():
            await asyncio.get_running_loop().create_future()

    def _start(self, reflector: Reflector) -> None:
        self._tasks.append(tasks.spawn(reflector.run(), name=f"informer/{reflector.resource.plural}"))


def _call(handlers: Sequence[Callable[..., None]], *values: object) -> None:
    for handler in handlers:
        try:
            handler(*values)
        except Exception:
            log.exception("event handler failed", handler=getattr(handler, "__qualname__", repr(handler)))


__all__ = ["Informer", "Informers", "Meta"]
