"""The wire between a simulated host and the API server: late, lossy, sometimes cut, and the same for the same seed.

`SimNetwork.client(inner, host)` gives a host its view of a Client. What can go wrong is what goes wrong in real clusters: a request
is lost before it is executed; it is executed and its *answer* is lost; it is executed twice by somebody who retried; a host is
partitioned from the server; a watch is cut, or stands still until the dead connection is noticed. Events of one watch stay
in order, as TCP keeps them. Every call is traced; the running hash of the trace is what two equal simulations have in common.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

import msgspec

from korch.api.errors import ApiError
from korch.api.gvk import ResourceRef
from korch.client.protocol import Body, Client, DeleteOptions, ListOptions, ObjectList, PatchType, WatchEvent
from korch.runtime import tasks
from korch.runtime.rng import Rng

T = TypeVar("T")

# How long a client waits for an answer that does not come, in seconds.
REQUEST_TIMEOUT_S = 10.0
# When TCP notices that the other side of a silent watch is gone, in seconds.
WATCH_DEAD_S_MIN, WATCH_DEAD_S_MAX = 15.0, 30.0
TRACE_TAIL = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What the network does. Probabilities are per call; delays are one way, in seconds; 0 switches a fault off."""

    delay_s_mean: float = 0.002
    slow: float = 0.0
    slow_s: float = 0.5
    lose_request: float = 0.0
    lose_response: float = 0.0
    duplicate: float = 0.0
    cut_watch_s_mean: float = 0.0

    @staticmethod
    def swarm(random: Random) -> Faults:
        """Return the faults of one run. Each kind exists in about half of the runs, so that rare combinations come up."""

        def maybe(value: float) -> float:
            return value * random.random() if random.random() < 0.5 else 0.0

        return Faults(
            delay_s_mean=random.choice((0.001, 0.005, 0.02)),
            slow=maybe(0.05),
            lose_request=maybe(0.04),
            lose_response=maybe(0.04),
            duplicate=maybe(0.02),
            cut_watch_s_mean=random.choice((0.0, 0.0, 30.0, 300.0)),
        )


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the trace: who asked what, when (virtual seconds), and how it ended."""

    at: float
    host: str
    verb: str
    target: str
    outcome: str

    def line(self) -> str:
        return f"{self.at:12.6f} {self.host:<14} {self.verb:<8} {self.target} -> {self.outcome}"


class Trace:
    """The calls of a simulation: the last ones to read, all of them as a hash and as counts by verb and resource."""

    def __init__(self, tail: int = TRACE_TAIL) -> None:
        self.last: deque[Call] = deque(maxlen=tail)
        self.counts: dict[tuple[str, str], int] = {}
        self.calls = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, call: Call, resource: str) -> None:
        self.calls += 1
        self.last.append(call)
        self.counts[call.verb, resource] = self.counts.get((call.verb, resource), 0) + 1
        self._hash.update(call.line().encode())

    def digest(self) -> str:
        """Return the hash over all calls so far."""
        return self._hash.hexdigest()


class SimNetwork:
    """All wires of one simulation. `calm()` stops random faults (not partitions): the liveness phase of a test."""

    def __init__(self, rng: Rng, faults: Faults = Faults()) -> None:
        self.faults = faults
        self.trace = Trace()
        self._rng = rng
        self._severed: dict[str, asyncio.Event] = {}
        self._watches: dict[int, _Watch] = {}
        self._watch_count = 0

    def client(self, inner: Client, host: str) -> SimClient:
        """Return `inner` as `host` sees it."""
        return SimClient(self, inner, host, self._rng.stream(f"network/{host}"))

    def partition(self, host: str) -> None:
        """Cut `host` off: requests time out, watches stand still and are noticed dead later."""
        if host not in self._severed:
            self._severed[host] = asyncio.Event()
            for watch in list(self._watches.values()):
                if watch.host == host:
                    watch.wake()

    def heal(self, host: str) -> None:
        """Connect `host` again; unknown or connected hosts are no error."""
        healed = self._severed.pop(host, None)
        if healed is not None:
            healed.set()

    def heal_all(self) -> None:
        for host in list(self._severed):
            self.heal(host)

    def calm(self) -> None:
        """Stop random faults; delays stay."""
        self.faults = Faults(delay_s_mean=self.faults.delay_s_mean)

    def cut_watches(self, host: str = "") -> None:
        """Break the open watches of `host` (of all hosts by default) at once."""
        for watch in list(self._watches.values()):
            if host in ("", watch.host):
                watch.fail(ConnectionError("the watch was cut"))

    def is_partitioned(self, host: str) -> bool:
        return host in self._severed

    def healed(self, host: str) -> asyncio.Event | None:
        """Return the event that is set when the host's partition ends, None when there is none."""
        return self._severed.get(host)

    def open(self, watch: _Watch) -> int:
        self._watch_count += 1
        self._watches[self._watch_count] = watch
        return self._watch_count

    def closed(self, number: int) -> None:
        self._watches.pop(number, None)


class SimClient:
    """A Client over the simulated wire."""

    def __init__(self, network: SimNetwork, inner: Client, host: str, random: Random) -> None:
        self.host = host
        self._network = network
        self._inner = inner
        self._random = random

    async def get(self, resource: ResourceRef, name: str, *, namespace: str = "", subresource: str = "") -> bytes:
        call = lambda: self._inner.get(resource, name, namespace=namespace, subresource=subresource)  # noqa: E731
        return await self._send("get", resource, _target(namespace, name, subresource), call, is_read=True)

    async def list(self, resource: ResourceRef, options: ListOptions = ListOptions()) -> ObjectList:
        return await self._send("list", resource, _target(options.namespace), lambda: self._inner.list(resource, options), is_read=True)

    async def create(self, resource: ResourceRef, body: Body, *, namespace: str = "", name: str = "", subresource: str = "") -> bytes:
        call = lambda: self._inner.create(resource, body, namespace=namespace, name=name, subresource=subresource)  # noqa: E731
        return await self._send("create", resource, _target(namespace, name, subresource), call)

    async def update(self, resource: ResourceRef, body: Body, *, name: str, namespace: str = "", subresource: str = "") -> bytes:
        call = lambda: self._inner.update(resource, body, name=name, namespace=namespace, subresource=subresource)  # noqa: E731
        return await self._send("update", resource, _target(namespace, name, subresource), call)

    async def patch(
        self,
        resource: ResourceRef,
        name: str,
        patch: dict[str, Any] | Sequence[Any] | bytes,
        *,
        namespace: str = "",
        subresource: str = "",
        patch_type: PatchType = "merge",
        field_manager: str = "",
        force: bool = False,
    ) -> bytes:
        def call() -> Awaitable[bytes]:
            return self._inner.patch(
                resource,
                name,
                patch,
                namespace=namespace,
                subresource=subresource,
                patch_type=patch_type,
                field_manager=field_manager,
                force=force,
            )

        return await self._send("patch", resource, _target(namespace, name, subresource), call)

    async def delete(self, resource: ResourceRef, name: str, *, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> bytes:
        call = lambda: self._inner.delete(resource, name, namespace=namespace, options=options)  # noqa: E731
        return await self._send("delete", resource, _target(namespace, name), call)

    async def delete_collection(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), delete: DeleteOptions = DeleteOptions()
    ) -> None:
        call = lambda: self._inner.delete_collection(resource, options, delete)  # noqa: E731
        await self._send("deletecollection", resource, _target(options.namespace), call)

    async def raw(self, method: str, path: str, *, body: bytes = b"", content_type: str = "application/json") -> bytes:
        call = lambda: self._inner.raw(method, path, body=body, content_type=content_type)  # noqa: E731
        return await self._send(method.lower(), None, path, call, is_read=method == "GET")

    async def watch(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), *, send_initial_events: bool = False, timeout_s: float = 0
    ) -> AsyncIterator[WatchEvent]:
        await self._cross(lost=self._network.faults.lose_request)
        self._note("watch", resource, f"{_target(options.namespace)}@{options.resource_version or 'now'}", "open")
        inner = self._inner.watch(resource, options, send_initial_events=send_initial_events, timeout_s=timeout_s)
        watch = _Watch(self._network, self.host, inner, self._random)
        async with aclosing(watch.events()) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    async def _send(
        self, verb: str, resource: ResourceRef | None, target: str, call: Callable[[], Awaitable[T]], *, is_read: bool = False
    ) -> T:
        faults = self._network.faults
        try:
            await self._cross(lost=faults.lose_request)
        except (ConnectionError, TimeoutError):
            self._note(verb, resource, target, "request lost")
            raise
        try:
            answer = await call()
        except ApiError as error:
            self._note(verb, resource, target, f"{error.code} {error.reason}")
            await self._cross(lost=faults.lose_response)
            raise
        self._note(verb, resource, target, _version(answer))
        if not is_read and faults.duplicate and self._random.random() < faults.duplicate:
            try:
                self._note(verb, resource, target, f"again: {_version(await call())}")
            except ApiError as error:
                self._note(verb, resource, target, f"again: {error.code} {error.reason}")
        try:
            await self._cross(lost=faults.lose_response)
        except (ConnectionError, TimeoutError):
            self._note(verb, resource, target, "answer lost")
            raise
        return answer

    async def _cross(self, *, lost: float) -> None:
        """Await one way across the wire. Raises ConnectionError or TimeoutError when the message does not arrive."""
        faults = self._network.faults
        random = self._random
        delay_s = random.expovariate(1 / faults.delay_s_mean)
        if faults.slow and random.random() < faults.slow:
            delay_s += faults.slow_s * random.random()
        is_lost = bool(lost) and random.random() < lost
        await asyncio.sleep(delay_s)
        if self._network.is_partitioned(self.host):
            await asyncio.sleep(REQUEST_TIMEOUT_S)
            raise TimeoutError(f"{self.host} is cut off from the API server")
        if is_lost:
            if random.random() < 0.5:
                raise ConnectionError("connection reset by peer")
            await asyncio.sleep(REQUEST_TIMEOUT_S)
            raise TimeoutError("no answer in time")

    def _note(self, verb: str, resource: ResourceRef | None, target: str, outcome: str) -> None:
        plural = resource.plural if resource is not None else ""
        at = asyncio.get_running_loop().time()
        self._network.trace.add(Call(at, self.host, verb, f"{plural} {target}" if plural else target, outcome), plural)


class _Watch:
    """One open watch: a pump takes events from the server's side, the reader gets them late and in order."""

    def __init__(self, network: SimNetwork, host: str, inner: AsyncIterator[WatchEvent], random: Random) -> None:
        self.host = host
        self._network = network
        self._inner = inner
        self._random = random
        self._arrived: deque[tuple[float, WatchEvent]] = deque()
        self._end: BaseException | None = None
        self._is_over = False
        self._news: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Let the reader look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Break the connection: the reader gets `error` and nothing that was still on the way."""
        self._arrived.clear()
        self._end = error
        self._is_over = True
        self.wake()

    async def events(self) -> AsyncIterator[WatchEvent]:
        loop = asyncio.get_running_loop()
        number = self._network.open(self)
        pump = tasks.spawn(self._pump(), name=f"watch/{self.host}")
        cut_s = self._network.faults.cut_watch_s_mean
        cut = loop.call_later(self._random.expovariate(1 / cut_s), self._cut) if cut_s else None
        try:
            while True:
                healed = self._network.healed(self.host)
                if healed is not None:
                    await self._stand_still(healed)
                elif self._arrived:
                    due, event = self._arrived[0]
                    if due > loop.time():
                        await asyncio.sleep(due - loop.time())
                        continue
                    self._arrived.popleft()
                    yield event
                elif self._is_over:
                    if self._end is not None:
                        raise self._end
                    return
                else:
                    self._news = loop.create_future()
                    await self._news
        finally:
            if cut is not None:
                cut.cancel()
            self._network.closed(number)
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    def _cut(self) -> None:
        # A run that has calmed down meanwhile keeps its watches.
        if self._network.faults.cut_watch_s_mean:
            self.fail(ConnectionError("the watch was cut"))

    async def _stand_still(self, healed: asyncio.Event) -> None:
        patience_s = WATCH_DEAD_S_MIN + (WATCH_DEAD_S_MAX - WATCH_DEAD_S_MIN) * self._random.random()
        try:
            async with asyncio.timeout(patience_s):
                await healed.wait()
        except TimeoutError:
            raise ConnectionError("the watch's connection is dead") from None

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        last = 0.0
        try:
            async with aclosing(self._inner) as events:  # type: ignore[type-var]  # every implementation is an async generator
                async for event in events:
                    if self._is_over:
                        # The connection broke: an event after those that were lost with it would look like there were none.
                        return
                    delay_s = self._random.expovariate(1 / self._network.faults.delay_s_mean)
                    last = max(last, loop.time() + delay_s)
                    self._arrived.append((last, event))
                    self.wake()
        except (ApiError, ConnectionError, TimeoutError) as error:
            self._end = self._end or error
        self._is_over = True
        self.wake()


def _target(namespace: str, name: str = "", subresource: str = "") -> str:
    path = f"{namespace}/{name}" if namespace else name
    return f"{path}/{subresource}" if subresource else path


class _VersionMeta(msgspec.Struct, frozen=True):
    name: str = ""
    resourceVersion: str = ""


class _VersionHead(msgspec.Struct, frozen=True):
    metadata: _VersionMeta = _VersionMeta()


_decode_version = msgspec.json.Decoder(_VersionHead).decode


def _version(answer: object) -> str:
    """Return what the trace shows of an answer: name and resourceVersion, or how many objects."""
    if isinstance(answer, ObjectList):
        return f"{len(answer.items)} items @{answer.resource_version}"
    if isinstance(answer, bytes):
        try:
            meta = _decode_version(answer).metadata
        except msgspec.MsgspecError:
            return f"{len(answer)} bytes"
        return f"{meta.name}@{meta.resourceVersion}" if meta.resourceVersion else "ok"
    return "ok"
