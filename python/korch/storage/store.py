"""Durable commits, consistent reads and watches for asyncio, over the native store.

`commit` applies at once, so that the next commit's preconditions see it, and then waits. For a store on disk the native committer's
thread flushes, and everything committed meanwhile shares the next flush (group commit without a timer, because the batch grows while
the disk works). When a flush ends its revisions are published; the thread then writes to one descriptor, and the event loop learns
in one call which watchers have news and up to where writers may be answered: durable before visible before answered. Fronts in Rust
use the same thread, so whoever writes wakes everybody's watchers. A store in memory publishes at once, without thread or descriptor.

A commit whose precondition fails may have lost against a write that is applied but not yet published; reading again would show the
old state. Retry loops therefore `await settled()` first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from korch._core import native
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.storage.watch import Watch

if TYPE_CHECKING:
    from korch._core._native import Op, Page, Record, Requirement

log = get_logger("storage")

COMPACTION_INTERVAL_S = 300.0
# A longer log is replaced by a snapshot; see `native.Store.snapshot_after`.
LOG_BYTES_MAX = 256 << 20
# In memory, compaction proceeds in steps on the event loop, so that it stays responsive.
_COMPACTION_STEP = 2_000
# A revision that is not reached.
_NEVER = (1 << 63) - 1
# How often leases are looked at in a store in memory that other fronts use as well.
_LEASE_INTERVAL_S = 1.0


class Storage:
    """The store of one API server. Made by `open`; every method belongs on the event loop that first commits."""

    # Whether other servers write too, so that what they have answered may not be visible here yet.
    is_shared = False

    def __init__(self, store: native.Store, runtime: Runtime, *, is_durable: bool) -> None:
        self._native = store
        self._runtime = runtime
        self._is_durable = is_durable
        self._applied = store.revision()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._attached: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._asking: asyncio.Handle | None = None
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

        Raises native.RevisionMismatch, KeyExists, KeyMissing, StoreFull, StorePoisoned before anything is awaited, and after it
        StorePoisoned when the disk fails, StoreFull when a file system that copies on writing is full. A cancelled caller does not
        undo the write.
        """
        revision, values = self._native.commit(ops)
        self._applied = revision
        if not self._is_durable:
            self._publish(revision)
            return revision, values
        await self._published(revision)
        return revision, values

    async def settled(self) -> None:
        """Return when everything applied so far is visible. Raises native.StorePoisoned, StoreFull when it never will be."""
        if self._applied > self._native.revision():
            await self._published(self._applied)

    async def caught_up(self) -> None:
        """Return when everything that any server has answered is visible. With one server it always is."""

    async def reached(self, revision: int, timeout_s: float = 0.0) -> None:
        """Return when `revision` is visible, or cannot become so. With one server it is, or lies in the future."""

    async def confirm(self, key: bytes, revision: int) -> None:
        """Return when `key`, seen at `revision`, is still the newest. Raises native.RevisionMismatch, KeyMissing."""

    def problem(self) -> str:
        """Return why reads or writes fail, "" when they do not."""
        return self._native.problem()

    def fault(self) -> str:
        """Return what only a restart mends, "" when there is nothing of the kind: a full disk is not."""
        try:
            self._native.kept(_NEVER)
        except native.StorePoisoned as error:
            return str(error)
        return ""

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
        if self._is_durable:
            self.attach()
        watcher_id = self._native.watch(prefix, from_revision=from_revision, selector=selector)
        watch = self._watches[watcher_id] = Watch(self._native, watcher_id, from_revision, forget=self._forget)
        return watch

    def stats(self) -> dict[str, int]:
        """Return the native store's figures: keys, events, watchers, revisions and, on disk, bytes."""
        return self._native.stats()

    def attach(self) -> None:
        """Hear of what is published by the committer's thread or by other fronts. On disk it is done when it is needed; a store in
        memory needs it only when a front in Rust writes to it as well."""
        loop = asyncio.get_running_loop()
        if self._attached is None or self._attached[0] is not loop:
            self._attached, self._asking = (loop, self._native.wakeup_fd()), None
            loop.add_reader(self._attached[1], self._hear)

    async def run(self, *, interval_s: float = COMPACTION_INTERVAL_S, log_bytes_max: int = LOG_BYTES_MAX) -> None:
        """Every `interval_s` forget the history that is older than that; have the log replaced by a snapshot when it grew beyond
        `log_bytes_max`; in memory, let leases end. Returns only when cancelled. Mirrors kube-apiserver's etcd compactor."""
        self._native.snapshot_after(log_bytes_max)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._compact_every(interval_s))
            if not self._is_durable and self._attached is not None:
                group.create_task(self._expire_every(_LEASE_INTERVAL_S))

    async def _compact_every(self, interval_s: float) -> None:
        mark, failures = self.revision(), 0
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.compact(mark)
            except native.StoreFull as error:
                log.error("history cannot be forgotten, because the disk is full", error=str(error))
            mark = self.revision()
            if (found := self._native.stats()["snapshot_failures"]) > failures:
                log.error("no snapshot could be written, the log keeps growing", failures=found)
                failures = found

    async def _expire_every(self, interval_s: float) -> None:
        """By the event loop's clock, which for real ones is the clock that fronts in Rust use."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval_s)
            if self._native.expire(int(loop.time() * 1000)):
                self._publish(self._native.flush())

    async def compact(self, revision: int) -> None:
        """Forget history below `revision`, in steps. Raises native.FutureRevision, StoreFull."""
        if self._is_durable:
            await self._runtime.offload.run(self._native.compact, revision)
            return
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
        if self._is_durable:
            await self._runtime.offload.run(self._native.close)
        else:
            self._native.close()
        if self._attached is not None:
            self._hear()
            loop, descriptor = self._attached
            if not loop.is_closed():
                loop.remove_reader(descriptor)
        while self._waiting:
            self._waiting.popleft()[1].cancel()

    def _publish(self, revision: int) -> None:
        self._wake(self._native.publish(revision))

    def _wake(self, watchers: Sequence[int]) -> None:
        for watcher_id in watchers:
            if (watch := self._watches.get(watcher_id)) is not None:
                watch.wake()

    async def _published(self, revision: int) -> None:
        """Wait until `revision` is visible."""
        self.attach()
        self._native.kept(revision)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self._asking is None:
            # Whatever else is ready to run may commit too, and is in the same batch then.
            self._asking = loop.call_soon(self._ask)
        self._waiting.append((revision, future))
        await future

    def _ask(self) -> None:
        """Have the committer's thread work for all who wait."""
        self._asking = None
        if self._waiting:
            self._native.request(self._waiting[-1][0])

    def _hear(self) -> None:
        """Take what the committer's thread has to tell. A failure fails those whose write will never be visible."""
        revision, watchers, failure = self._native.told()
        self._wake(watchers)
        if failure is not None:
            self._fail(failure)
        while self._waiting and self._waiting[0][0] <= revision:
            _resolve(self._waiting.popleft()[1], None)

    def _fail(self, failure: Exception) -> None:
        log.error("the log cannot be written", error=str(failure))
        waiting, self._waiting = self._waiting, deque()
        for revision, future in waiting:
            try:
                self._native.kept(revision)
            except native.StoreError as error:
                _resolve(future, error)
            else:
                self._waiting.append((revision, future))

    def _forget(self, watcher_id: int) -> None:
        self._watches.pop(watcher_id, None)


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
