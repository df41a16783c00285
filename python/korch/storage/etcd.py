"""The store of several API servers: a cluster of etcd, seen through a mirror in this process.

Reads, watches and indexes are those of a store of one's own, on the mirror, which follows the cluster. A write is a transaction of the
cluster, answered when the mirror shows it. What another server has answered may be missing here for a moment: whoever must not miss
it awaits `caught_up` first. One thread of the extension speaks to the cluster; its answers are picked up here, all at once,
whenever its descriptor becomes readable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from korch._core import native
from korch.api.errors import ApiError
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.storage.store import COMPACTION_INTERVAL_S, LOG_BYTES_MAX, Storage
from korch.storage.watch import Watch

if TYPE_CHECKING:
    from korch._core._native import Op, Requirement

log = get_logger("storage")

TIMEOUT_S = 10.0
_TIMED_OUT = "Timeout: request did not complete within requested timeout - "


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdOptions:
    """Where the cluster is: URLs of its members, files with certificates ("" for none), and what keys start with."""

    endpoints: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    prefix: str = "/registry"
    timeout_s: float = TIMEOUT_S


def parse_datastore(text: str, *, ca_file: str = "", cert_file: str = "", key_file: str = "", prefix: str = "/registry") -> EtcdOptions:
    """Return the options for `etcd://HOST:PORT,...`, or for URLs with commas between them as kube-apiserver's --etcd-servers takes them.

    `etcd://` means TLS as soon as a file is given. Raises ValueError.
    """
    is_tls = bool(ca_file or cert_file or key_file)
    scheme, mark, rest = text.partition("://")
    if not mark or scheme not in ("etcd", "http", "https"):
        raise ValueError(f"{text!r} is no datastore: give etcd://HOST:PORT,HOST:PORT or https://HOST:PORT,https://HOST:PORT")
    endpoints: list[str] = []
    for part in rest.split(","):
        kind, own_mark, address = part.partition("://")
        if not own_mark:
            kind, address = scheme, part
        if kind == "etcd":
            kind = "https" if is_tls else "http"
        address = address.strip().rstrip("/")
        parts = urlsplit(f"//{address}")
        try:
            is_right = bool(parts.hostname) and parts.port is not None and address == parts.netloc and kind in ("http", "https")
        except ValueError:
            is_right = False
        if not is_right:
            raise ValueError(f"{part!r} is no member of an etcd cluster: give HOST:PORT")
        endpoints.append(f"{kind}://{address}")
    if any(one.startswith("https:") for one in endpoints) and not ca_file:
        raise ValueError("TLS to etcd needs --etcd-cafile, the certificate that signed its members'")
    if bool(cert_file) != bool(key_file):
        raise ValueError("--etcd-certfile and --etcd-keyfile belong together")
    if not prefix.startswith("/") or not prefix.strip("/"):
        raise ValueError("--etcd-prefix must begin with a slash and name something, as /registry does")
    return EtcdOptions(endpoints=tuple(endpoints), ca_file=ca_file, cert_file=cert_file, key_file=key_file, prefix=prefix.rstrip("/"))


class EtcdStorage(Storage):
    """A `Storage` on a cluster of etcd. Made by `connect`; every method belongs on the event loop that first awaits one."""

    is_shared = True

    def __init__(self, datastore: native.Datastore, runtime: Runtime) -> None:
        super().__init__(datastore.store(), runtime, is_durable=False)
        self._datastore = datastore
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def connect(cls, options: EtcdOptions, runtime: Runtime) -> EtcdStorage:
        """Connect and read the cluster. Blocks, at most 30 s. Raises native.DatastoreError, ValueError, OSError (a certificate's file)."""

        def read(file: str) -> bytes | None:
            return Path(file).read_bytes() if file else None

        datastore = native.Datastore(
            list(options.endpoints),
            prefix=options.prefix,
            authority_pem=read(options.ca_file),
            certificate_pem=read(options.cert_file),
            key_pem=read(options.key_file),
            timeout_ms=int(options.timeout_s * 1000),
        )
        return cls(datastore, runtime)

    async def commit(self, ops: Sequence[Op]) -> tuple[int, list[bytes | None]]:
        """Apply all ops or none; return their revision and the stored values once a majority of the cluster has them and the mirror
        shows them.

        Raises native.RevisionMismatch, KeyExists, KeyMissing; ApiError 504 when the cluster did not answer in time and the outcome
        is not known, ApiError 500 with etcd's words when it refused. A cancelled caller does not undo the write.
        """
        return await self._answer(self._datastore.commit(ops))

    def watch(self, prefix: bytes, from_revision: int, selector: Sequence[Requirement] = ()) -> Watch:
        """Watch what happens under `prefix` after `from_revision`. Raises native.Compacted, native.FutureRevision."""
        self._listen()
        return super().watch(prefix, from_revision, selector)

    async def settled(self) -> None:
        """Return when the mirror shows everything that the cluster has told this server of, lost races among it. Raises ApiError 504."""
        await self.reached(0)

    async def caught_up(self) -> None:
        """Return when the mirror shows everything that any server of the cluster had answered when this was called. Raises ApiError."""
        await self._answer(self._datastore.catch_up())

    async def reached(self, revision: int, timeout_s: float = TIMEOUT_S) -> None:
        """Return when the mirror shows `revision`. Raises ApiError 504."""
        if revision and revision <= self.revision():
            return
        await self._answer(self._datastore.reach(revision, int(timeout_s * 1000)))

    async def confirm(self, key: bytes, revision: int) -> None:
        """Return when no server had answered a newer state of `key` than `revision`. Raises native.RevisionMismatch, KeyMissing,
        ApiError."""
        await self.caught_up()
        record = self.get(key)
        if record is None:
            raise native.KeyMissing(0)
        if record.mod_revision != revision:
            raise native.RevisionMismatch(0, record.mod_revision)

    def problem(self) -> str:
        """Return why the mirror may be behind the cluster, "" when it follows."""
        return self._datastore.problem()

    def stats(self) -> dict[str, int]:
        """Return the mirror's figures, and `datastore_` ones about the cluster."""
        return self._datastore.stats()

    async def run(self, *, interval_s: float = COMPACTION_INTERVAL_S, log_bytes_max: int = LOG_BYTES_MAX) -> None:
        """Every `interval_s` forget the history that is older than that, in the mirror and, if this server wins the interval, in the
        cluster. Returns only when cancelled. Mirrors kube-apiserver's etcd compactor."""
        del log_bytes_max
        self._listen()
        version, old = 0, 0
        mark = self.revision()
        while True:
            await asyncio.sleep(interval_s)
            await self.compact(mark)
            mark = self.revision()
            try:
                version, old = await self._answer(self._datastore.compact(version, old))
            except ApiError as error:
                log.warning("the etcd cluster was not compacted", error=error.message)

    async def close(self) -> None:
        """End every watch and leave the cluster; what awaits an answer gets an error."""
        if self._is_closed:
            return
        await super().close()
        if self._loop is not None:
            self._loop.remove_reader(self._datastore.fileno())
        await self._runtime.offload.run(self._datastore.close)
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ApiError(503, "ServiceUnavailable", "the server is shutting down"))
        self._pending.clear()

    async def _answer(self, ticket: int) -> Any:
        self._listen()
        future = self._pending[ticket] = asyncio.get_running_loop().create_future()
        try:
            return await future
        except native.DatastoreError as error:
            raise _status(error) from error

    def _listen(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._datastore.fileno(), self._pick_up)

    def _pick_up(self) -> None:
        completions, woken, notes = self._datastore.mail()
        for note in notes:
            log.warning(note)
        for watcher_id in woken:
            if (watch := self._watches.get(watcher_id)) is not None:
                watch.wake()
        for ticket, outcome in completions:
            future = self._pending.pop(ticket, None)
            if future is None or future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _status(error: native.DatastoreError) -> ApiError:
    """Return the failure as kube-apiserver would answer it: 500 with etcd's own words, 504 when nobody answered."""
    message, is_timeout = str(error.args[0]), bool(error.args[1])
    if message.startswith("etcdserver:") or not is_timeout:
        return ApiError(500, "InternalError", message)
    return ApiError(504, "Timeout", _TIMED_OUT + message, details={"retryAfterSeconds": 1}, headers={"Retry-After": "1"})
