"""Durable commits, consistent reads and watches for asyncio, over the native store.

One event loop writes. `commit` applies at once, so that the next commit's preconditions see it, and then waits: for a store on disk
one flush is in flight at a time, and everything committed meanwhile shares the next one (group commit without a timer, because the
batch grows while the disk works). When a flush ends its revisions are published, watchers wake, and only then the writers are
answered: durable before visible before answered. A store in memory publishes at once and starts no thread.

A commit whose precondition fails may have lost against a write that is applied but not yet published; reading again would show the
old state. Retry loops therefore `await settled()` first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from korch._core import native
from korch.runtime import tasks
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.storage.watch import Watch

if TYPE_CHECKING:
    from korch._core._native import Op, Page, Record, Requirement

log = get_logger("storage")

COMPACTION_INTERVAL_S = 300.0
# A snapshot is written when the log holds more than this and more than twice the live objects.
LOG_BYTES_MAX = 64 << 20
# Compaction proceeds in steps, so that the event loop stays responsive.
_COMPACTION_STEP = 2_000


class Storage:
    """The store of one API server. Made by `open`; every method belongs on the event loop that first commits."""

    def __init__(self, store: native.Store, runtime: Runtime, *, is_durable: bool) -> None:
        self._native = store
        self._runtime = runtime
        self._is_durable = is_durable
        self._applied = store.revision()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._watches: dict[int, Watch] = {}
        self._is_closed = False

    @classmethod
    def open(cls, path: str | None, runtime: Runtime) -> Storage:
        """Open the directory `path` (made if missing), or a store in memory for None. Blocks while the log is read.
        Raises native.StoreCorrupt, native.StoreLocked, OSError."""
        store = native.Store(path)
        if torn := store.stats()["torn_bytes"]:
            log.warning("the log ended in an unfinished write, which was cut; nothing answered was lost", bytes=torn, path=path)
        return cls(store, runtime, is_durable=path is not None)

    @property
    def native(self) -> native.Store:
        """The store itself, for parts of the extension that read it without Python."""
        return self._native

    async def commit(self, ops: Sequence[Op]) -> tuple[int, list[bytes | None]]:
        """Apply all ops or none; return their revision and the stored values once they are durable and visible.

        Raises native.RevisionMismatch, KeyExists, KeyMissing, StorePoisoned before anything is awaited. A cancelled caller
        does not undo the write.
        """
        revision, values = self._native.commit(ops)
        self._applied = revision
        if not self._is_durable:
            self._publish(revision)
            return revision, values
        await self._published(revision)
        return revision, values

    async def settled(self) -> None:
        """Return when everything applied so far is visible. Raises native.StorePoisoned when it never will be."""
        if self._applied > self._native.revision():
            await self._published(self._applied)

    def revision(self) -> int:
        """Return the newest visible revision: the resourceVersion of a consistent list."""
        return self._native.revision()

    def compacted(self) -> int:
        """Return the oldest revision that can be read or watched from."""
        return self._native.compacted()

    def get(self, key: bytes, revision: int = 0) -> Record | None:
        """Return the object at `key`, None when there is none. Raises native.Compacted, native.FutureRevision."""
        return self._native.get(key, revision)

    def range(self, prefix: bytes, *, start: bytes = b"", limit: int = 0, revision: int = 0, selector: Sequence[Requirement] = ()) -> Page:
        """Return the objects under `prefix` that match, in key order; see `native.Store.range`."""
        return self._native.range(prefix, start=start, limit=limit, revision=revision, selector=selector)

    def by_owner(self, uid: str) -> list[bytes]:
        """Return the keys of objects that name `uid` as an owner, in order."""
        return self._native.by_owner(uid)

    def watch(self, prefix: bytes, from_revision: int, selector: Sequence[Requirement] = ()) -> Watch:
        """Watch what happens under `prefix` after `from_revision`. Raises native.Compacted, native.FutureRevision."""
        watcher_id = self._native.watch(prefix, from_revision=from_revision, selector=selector)
        watch = self._watches[watcher_id] = Watch(self._native, watcher_id, from_revision, forget=self._forget)
        return watch

    def stats(self) -> dict[str, int]:
        """Return the native store's figures: keys, events, watchers, revisions and, on disk, bytes."""
        return self._native.stats()

    async def run(self, *, interval_s: float = COMPACTION_INTERVAL_S, log_bytes_max: int = LOG_BYTES_MAX) -> None:
        """Every `interval_s` forget the history that is older than that, and write a snapshot when the log has grown.
        Returns only when cancelled. Mirrors kube-apiserver's etcd compactor."""
        mark = self.revision()
        while True:
            await asyncio.sleep(interval_s)
            await self.compact(mark)
            mark = self.revision()
            if self._is_durable and self._is_log_long(log_bytes_max):
                await self._snapshot()

    async def compact(self, revision: int) -> None:
        """Forget history below `revision`, in steps. Raises native.FutureRevision."""
        for step in range(self.compacted() + _COMPACTION_STEP, revision, _COMPACTION_STEP):
            self._native.compact(step)
            await asyncio.sleep(0)
        self._native.compact(revision)

    async def close(self) -> None:
        """End every watch, make everything durable and release the directory."""
        if self._is_closed:
            return
        self._is_closed = True
        for watch in list(self._watches.values()):
            watch.close()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self._is_durable:
            await self._runtime.offload.run(self._native.close)
        else:
            self._native.close()

    async def _snapshot(self) -> None:
        """A snapshot that cannot be written, for want of space perhaps, costs nothing but a longer log."""
        try:
            revision = await self._runtime.offload.run(self._native.snapshot)
        except (native.StoreError, OSError) as error:
            log.error("no snapshot could be written, the log keeps growing", error=str(error))
        else:
            log.info("snapshot written", revision=revision)

    def _is_log_long(self, log_bytes_max: int) -> bool:
        stats = self._native.stats()
        return stats["log_bytes"] > max(log_bytes_max, 2 * stats["snapshot_bytes"])

    def _publish(self, revision: int) -> None:
        for watcher_id in self._native.publish(revision):
            if (watch := self._watches.get(watcher_id)) is not None:
                watch.wake()

    async def _published(self, revision: int) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        if self._flushing is None:
            self._flushing = tasks.spawn(self._flush(), name="storage-flush")
        await future

    async def _flush(self) -> None:
        """Flush until nobody waits. A failed flush fails all who wait; what they wrote is applied but will never be visible."""
        try:
            while self._waiting:
                durable = await self._runtime.offload.run(self._native.flush)
                self._publish(durable)
                while self._waiting and self._waiting[0][0] <= durable:
                    _resolve(self._waiting.popleft()[1], None)
        except (native.StoreError, OSError, RuntimeError) as error:
            log.error("the log cannot be written, no more writes are taken", error=str(error))
            while self._waiting:
                _resolve(self._waiting.popleft()[1], error)
        finally:
            self._flushing = None
            # Only a cancelled flush leaves anybody waiting here.
            while self._waiting:
                self._waiting.popleft()[1].cancel()

    def _forget(self, watcher_id: int) -> None:
        self._watches.pop(watcher_id, None)


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
