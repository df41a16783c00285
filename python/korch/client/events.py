"""Events for users: what a component did to an object and why, as core/v1 Events. Best effort, never in the way.

`event()` only queues; `run` writes. The same event again raises `count` and lastTimestamp of the Event that is there (for ten
minutes); more than ten alike within that time, differing only in message, become one with a combined message; an object that
never stops talking is cut off by a token bucket. Mirrors client-go's tools/record EventCorrelator.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from korch.api.errors import ApiError, NotFound
from korch.api.gvk import EVENTS
from korch.client.projections import Meta
from korch.client.protocol import Client
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

log = get_logger("events")

# A burst of scheduled pods is written when it is over: some 500 bytes each until then.
QUEUE_MAX = 20_000
AGGREGATE_S = 600.0
AGGREGATE_AFTER = 10
SPAM_BURST = 25
SPAM_REFILL_S = 300.0
CACHE_MAX = 4096
COMBINED = "(combined from similar events): "
MESSAGE_CHARACTERS_MAX = 1024


@dataclass(frozen=True, slots=True)
class _Pending:
    regarding: dict[str, str]
    type: str
    reason: str
    message: str
    at: float


@dataclass(slots=True)
class _Written:
    name: str
    namespace: str
    count: int
    first: float
    last: float


@dataclass(slots=True)
class _Similar:
    messages: set[str]
    since: float


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """Writes the events of one component (`reportingComponent`); `host` is source.host, for node agents."""

    def __init__(self, client: Client, component: str, runtime: Runtime, *, host: str = "") -> None:
        self._client = client
        self._component = component
        self._runtime = runtime
        self._host = host
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue(QUEUE_MAX)
        self._written: OrderedDict[tuple[str, ...], _Written] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, ...], _Bucket] = OrderedDict()
        self._stamp_ns_last = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Return how many events are queued."""
        return self._queue.qsize()

    def event(self, regarding: Meta | dict[str, Any], event_type: str, reason: str, message: str, *, field_path: str = "") -> None:
        """Record that `reason` happened to `regarding` (an object, its projection, or an ObjectReference). Returns at once.

        `event_type` is Normal or Warning. `field_path` names a part of it, such as `spec.containers{web}`.
        """
        reference = reference_of(regarding)
        if field_path:
            reference["fieldPath"] = field_path
        try:
            self._queue.put_nowait(_Pending(reference, event_type, reason, message[:MESSAGE_CHARACTERS_MAX], self._runtime.clock.now()))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write queued events until cancelled. An event that cannot be written is dropped and counted."""
        while True:
            pending = await self._queue.get()
            # A server in this process answers without a pause: others get their turn between two events all the same.
            await asyncio.sleep(0)
            try:
                await self._write(pending)
            except (ApiError, ConnectionError, TimeoutError) as error:
                self.dropped += 1
                log.debug("event not written", reason=pending.reason, object=pending.regarding.get("name"), error=str(error))

    async def _write(self, pending: _Pending) -> None:
        regarding = pending.regarding
        if not self._may_talk(_identity(regarding), pending.at):
            self.dropped += 1
            return
        message = self._combined(pending)
        group = (*_identity(regarding), pending.type, pending.reason)
        key = (*group, "" if message.startswith(COMBINED) else message)
        known = self._written.get(key)
        if known is not None and pending.at - known.last <= AGGREGATE_S:
            known.count += 1
            known.last = pending.at
            patch = {"count": known.count, "lastTimestamp": rfc3339(known.last), "message": message}
            try:
                await self._client.patch(EVENTS, known.name, patch, namespace=known.namespace, patch_type="strategic")
                return
            except NotFound:
                # It expired on the server: begin anew.
                del self._written[key]
        namespace = regarding.get("namespace") or "default"
        written = _Written(self._name(regarding.get("name", ""), pending.at), namespace, 1, pending.at, pending.at)
        await self._client.create(EVENTS, self._body(written, pending, message), namespace=namespace)
        _remember(self._written, key, written)

    def _body(self, written: _Written, pending: _Pending, message: str) -> dict[str, Any]:
        source = {"component": self._component}
        if self._host:
            source["host"] = self._host
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": written.name, "namespace": written.namespace},
            "involvedObject": pending.regarding,
            "type": pending.type,
            "reason": pending.reason,
            "message": message,
            "source": source,
            "firstTimestamp": rfc3339(written.first),
            "lastTimestamp": rfc3339(written.last),
            "eventTime": None,
            "count": 1,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    def _name(self, object_name: str, at: float) -> str:
        stamp = max(int(at * 1e9), self._stamp_ns_last + 1)
        self._stamp_ns_last = stamp
        return f"{object_name}.{stamp:x}"

    def _combined(self, pending: _Pending) -> str:
        group = (*_identity(pending.regarding), pending.type, pending.reason)
        similar = self._similar.get(group)
        if similar is None or pending.at - similar.since > AGGREGATE_S:
            similar = _Similar(set(), pending.at)
            _remember(self._similar, group, similar)
        if len(similar.messages) < AGGREGATE_AFTER - 1:
            similar.messages.add(pending.message)
        if pending.message in similar.messages:
            return pending.message
        return COMBINED + pending.message

    def _may_talk(self, key: tuple[Any, ...], now: float) -> bool:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = _Bucket(SPAM_BURST, now)
            _remember(self._buckets, key, bucket)
        bucket.tokens = min(SPAM_BURST, bucket.tokens + (now - bucket.at) / SPAM_REFILL_S)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


def reference_of(obj: Meta | dict[str, Any]) -> dict[str, str]:
    """Return the ObjectReference of an object, a projection of it, or of a reference (which is returned as it is)."""
    if isinstance(obj, Meta):
        found = {
            "kind": obj.kind,
            "namespace": obj.namespace,
            "name": obj.name,
            "uid": obj.uid,
            "apiVersion": obj.apiVersion,
            "resourceVersion": obj.metadata.resourceVersion,
        }
    elif "metadata" in obj:
        meta = obj["metadata"]
        found = {
            "kind": obj.get("kind", ""),
            "namespace": meta.get("namespace", ""),
            "name": meta.get("name", ""),
            "uid": meta.get("uid", ""),
            "apiVersion": obj.get("apiVersion", ""),
            "resourceVersion": meta.get("resourceVersion", ""),
        }
    else:
        found = dict(obj)
    return {name: value for name, value in found.items() if value}


def _identity(regarding: dict[str, str]) -> tuple[str, ...]:
    """Return what makes two events be about the same thing: everything but the object's version."""
    return tuple(regarding.get(name, "") for name in ("apiVersion", "kind", "namespace", "name", "uid", "fieldPath"))


def _remember(cache: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > CACHE_MAX:
        cache.popitem(last=False)
