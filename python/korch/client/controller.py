"""The shape of every controller: declared watches feed a queue of keys, `reconcile(key)` moves one object towards what it should be.

    class ReplicaSetController(Controller):
        name = "replicaset-controller"
        watches = (
            Watch(REPLICA_SETS, decode=decoder(ReplicaSetView)),
            Watch(PODS, keys=owner_of("ReplicaSet"), decode=decoder(PodView), indexes={"owner": owner_uids}),
        )

        async def reconcile(self, key: str) -> Requeue | None: ...

The base owns informers, queue, workers, retries with backoff, the event recorder, and read-your-writes: after `wrote(key, ...)`
the key is not reconciled until the informers show that write, so that no controller keeps books about its own actions.
Reconcile never sleeps: it returns `Requeue`. It never remembers that it did something because a call returned; a lost answer
would make that a lie. Mirrors controller-runtime's Controller and Kubernetes' ConsistencyStore.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from korch.api.errors import ApiError, Conflict, NotFound
from korch.api.gvk import ResourceRef
from korch.api.meta import controller_of, key_of, namespace_of
from korch.client.events import EventRecorder
from korch.client.informer import Informer, Informers
from korch.client.projections import Meta, decode_meta, object_key
from korch.client.protocol import Client
from korch.client.workqueue import ShutDown, WorkQueue
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

# A write that the informers do not show for this long is given up on, as upstream's expectations are (ExpectationsTimeout).
WRITE_SEEN_TIMEOUT_S = 300.0

KeysOf = Callable[[Any], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Requeue:
    """What reconcile wants next for its key: another turn in `after_s` seconds, or after the key's next backoff when that is 0."""

    after_s: float = 0.0


def same(obj: Meta | dict[str, Any]) -> Iterable[str]:
    """Map an object (a projection or a dict) to its own key."""
    return (obj.key if isinstance(obj, Meta) else key_of(obj),)


def owner_of(kind: str, group: str = "") -> KeysOf:
    """Map an object to the key of its controlling owner, if that is of `kind` (and of `group`, when given)."""

    def keys(obj: Meta | dict[str, Any]) -> Iterable[str]:
        owner_kind, api_version, name, _ = _controller(obj)
        if owner_kind != kind or (group and api_version.rpartition("/")[0] != group):
            return ()
        return (object_key(obj.namespace if isinstance(obj, Meta) else namespace_of(obj), name),)

    return keys


def controller_uids(obj: Meta | dict[str, Any]) -> Iterable[str]:
    """Index objects by the uid of their controlling owner; objects without one are under the empty string."""
    return (_controller(obj)[3],)


def namespaces(obj: Meta | dict[str, Any]) -> Iterable[str]:
    """Index objects by namespace."""
    return (obj.namespace if isinstance(obj, Meta) else namespace_of(obj),)


def _controller(obj: Meta | dict[str, Any]) -> tuple[str, str, str, str]:
    """Return (kind, apiVersion, name, uid) of the controlling owner, all empty without one."""
    if isinstance(obj, Meta):
        owner = obj.controller
        return (owner.kind, owner.apiVersion, owner.name, owner.uid) if owner is not None else ("", "", "", "")
    reference = controller_of(obj) or {}
    return reference.get("kind", ""), reference.get("apiVersion", ""), reference.get("name", ""), reference.get("uid", "")


@dataclass(frozen=True, slots=True)
class Watch:
    """What a controller follows. `keys` maps an object (its old and its new state) to the keys to reconcile; None: cache only.

    `keys` may also be the name of a method of the controller, for mappings that need its caches.
    """

    resource: ResourceRef
    keys: KeysOf | str | None = same
    decode: Callable[[bytes], Any] = decode_meta
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    indexes: Mapping[str, Callable[[Any], Iterable[str]]] = field(default_factory=dict)


class _WrittenMeta(msgspec.Struct, frozen=True):
    resourceVersion: str = ""


class _Written(msgspec.Struct, frozen=True):
    metadata: _WrittenMeta = _WrittenMeta()


_decode_written = msgspec.json.Decoder(_Written).decode


class Controller(ABC):
    """Base of all controllers. Subclasses set `name` and `watches`, and define `reconcile`."""

    name: ClassVar[str] = ""
    workers: ClassVar[int] = 4
    watches: ClassVar[Sequence[Watch]] = ()

    def __init__(self, client: Client, informers: Informers, runtime: Runtime) -> None:
        self.client = client
        self.informers = informers
        self.runtime = runtime
        self.log = get_logger(self.name)
        self.queue = WorkQueue(self.name)
        self.recorder = EventRecorder(client, self.name, runtime)
        self._informers: list[Informer[Any]] = []
        self._unseen: dict[str, dict[int, tuple[int, float]]] = {}
        self._is_started = False
        self._first_of: dict[ResourceRef, Informer[Any]] = {}
        for watch in self.watches:
            self._informers.append(self._informer_of(watch))
            self._first_of.setdefault(watch.resource, self._informers[-1])
        for watch, informer in zip(self.watches, self._informers, strict=True):
            self._follow(watch, informer)

    @abstractmethod
    async def reconcile(self, key: str) -> Requeue | None:
        """Compare what is with what should be for the object `key` and write the difference. Errors raised are retried with backoff."""

    async def on_start(self) -> None:  # noqa: B027 - a hook that most controllers leave empty
        """Run once when the informers have synced and before the first reconcile; override to enqueue keys or start timers."""

    async def background(self) -> None:  # noqa: B027 - a hook that most controllers leave empty
        """Run beside the workers until cancelled; override for periodic sweeps. Returning is allowed."""

    def informer(self, resource: ResourceRef) -> Informer[Any]:
        """Return the informer of the first declared watch of `resource`. Raises LookupError when none was declared."""
        informer = self._first_of.get(resource)
        if informer is None:
            raise LookupError(f"controller {self.name} does not watch {resource.plural}")
        return informer

    @property
    def is_synced(self) -> bool:
        """Return whether the controller works: its informers have synced and its workers run."""
        return self._is_started

    def enqueue(self, key: str, after_s: float = 0.0) -> None:
        """Ask for a reconcile of `key`, now or in `after_s` seconds."""
        self.queue.add_after(key, after_s)

    def wrote(self, key: str, resource: ResourceRef, written: bytes | str | int) -> None:
        """Delay the next reconcile of `key` until the informers of `resource` show this write.

        `written` is the object that the call returned, or its resourceVersion.
        """
        if isinstance(written, bytes):
            written = _decode_written(written).metadata.resourceVersion
        version = int(written or 0)
        deadline = asyncio.get_running_loop().time() + WRITE_SEEN_TIMEOUT_S
        for number, watch in enumerate(self.watches):
            if watch.resource == resource and self._informers[number].resource_version < version:
                unseen = self._unseen.setdefault(key, {})
                if number not in unseen or unseen[number][0] < version:
                    unseen[number] = (version, deadline)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with self.informers.running(), asyncio.TaskGroup() as group:
            group.create_task(self.recorder.run(), name=f"{self.name}/events")
            for informer in self._informers:
                await informer.wait_synced()
            await self.on_start()
            group.create_task(self.background(), name=f"{self.name}/background")
            for number in range(self.workers):
                group.create_task(self._work(), name=f"{self.name}/worker-{number}")
            self._is_started = True
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._is_started = False

    def _informer_of(self, watch: Watch) -> Informer[Any]:
        informer = self.informers.informer(
            watch.resource,
            decode=watch.decode,
            namespace=watch.namespace,
            label_selector=watch.label_selector,
            field_selector=watch.field_selector,
        )
        for name, values_of in watch.indexes.items():
            informer.add_index(name, values_of)
        return informer

    def _follow(self, watch: Watch, informer: Informer[Any]) -> None:
        keys_of: KeysOf | None = getattr(self, watch.keys) if isinstance(watch.keys, str) else watch.keys
        if keys_of is not None:
            informer.on(
                add=lambda obj: self._add(keys_of(obj)),
                update=lambda old, new: self._add((*keys_of(old), *keys_of(new))),
                delete=lambda obj: self._add(keys_of(obj)),
            )

    def _add(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.queue.add(key)

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            try:
                if self._waits_for_own_write(key):
                    continue
                requeue = await self.reconcile(key)
            except Exception as error:
                self._failed(key, error)
            else:
                if requeue is not None and requeue.after_s <= 0:
                    self.queue.requeue_with_backoff(key)
                else:
                    self.queue.forget(key)
                    if requeue is not None:
                        self.queue.add_after(key, requeue.after_s)
            finally:
                self.queue.done(key)

    def _waits_for_own_write(self, key: str) -> bool:
        unseen = self._unseen.get(key)
        if not unseen:
            return False
        now = asyncio.get_running_loop().time()
        for number, (version, deadline) in list(unseen.items()):
            informer = self._informers[number]
            if informer.resource_version >= version:
                del unseen[number]
            elif now >= deadline:
                del unseen[number]
                self.log.warning("own write was never seen", object=key, resource=informer.resource.plural, resource_version=version)
        if not unseen:
            del self._unseen[key]
            return False
        number, (version, deadline) = next(iter(unseen.items()))
        self._informers[number].reflector.when_reached(version, lambda: self._write_seen(key, number))
        self.queue.add_after(key, deadline - now)
        return True

    def _write_seen(self, key: str, number: int) -> None:
        unseen = self._unseen.get(key)
        if unseen is not None:
            unseen.pop(number, None)
        self.queue.add(key)

    def _failed(self, key: str, error: Exception) -> None:
        delay_s = self.queue.requeue_with_backoff(key)
        if isinstance(error, (Conflict, NotFound)):
            # The cache was behind; its next event, or the retry, will see what is now.
            self.log.debug("reconcile lost a race", object=key, error=str(error), retry_s=delay_s)
        elif isinstance(error, (ApiError, ConnectionError, TimeoutError)):
            self.log.warning("reconcile failed", object=key, error=str(error), retry_s=delay_s)
        else:
            self.log.error("reconcile crashed", object=key, retry_s=delay_s, exc_info=error)
