"""A whole cluster in one event loop, on virtual time: the real API server, store, controllers and scheduler, and hollow nodes.

    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=10))
    await cluster.run_for("1m")
    cluster.lose("n1")                      # safety: anything may fail, nothing may be wrong
    await cluster.run_for("10m")
    cluster.heal_all()                      # liveness: faults stop, everything must converge
    await cluster.settle(within="2m")
    assert cluster.running("web") == 10

Every component lives on a host of its own and reaches the server over the simulated network. A host can be partitioned, or crash: its
tasks end and nothing it still says is heard; a restarted host begins with empty memory. One seed determines everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson
import yaml

from korch.api.errors import AlreadyExists, NotFound
from korch.api.gvk import ResourceRef
from korch.api.meta import at, is_deleting, labels_of, name_of, namespace_of
from korch.api.pods import is_ready, phase_of
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.informer import Informers
from korch.client.protocol import Client, DeleteOptions, ListOptions
from korch.controllers import ControllerConfig, all_controllers
from korch.resources import catalogue
from korch.runtime import tasks
from korch.runtime.clock import LoopClock
from korch.runtime.context import Runtime
from korch.runtime.offload import InlineOffload
from korch.runtime.rng import Rng
from korch.scheduler.scheduler import Scheduler
from korch.storage.store import Storage
from korch.testing.checkers import HEARTBEATS, Auditor, Violation
from korch.testing.durations import seconds
from korch.testing.hollow import HollowNode, Shape
from korch.testing.loop import SimLoop
from korch.testing.network import Faults, SimClient, SimNetwork

Object = dict[str, Any]
# Nothing but heartbeats for this long (virtual seconds) is rest: longer than any informer waits before it connects again.
QUIET_S = 65.0
START_WITHIN_S = 60.0
# A story goes on without nodes that could not join for so long.
JOIN_WITHIN_S = 5.0
FORGIVE_WITHIN_S = 0.001
CONTROLLERS, SCHEDULER = "controllers", "scheduler"


class NotSettled(AssertionError):
    """The cluster did not come to rest in time; the message names the last writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig:
    """How a simulated cluster is made. `faults=None` lets the seed choose (a swarm); `clock_skew_s` is the most by which hosts differ."""

    faults: Faults | None = field(default_factory=Faults)
    controllers: ControllerConfig = field(default_factory=ControllerConfig)
    server: ServerConfig = field(default_factory=lambda: ServerConfig(advertise_host="192.0.2.1"))
    clock_skew_s: float = 0.0


class ServerDoor:
    """The server's address: a Client as long as a server is behind it, a refused connection otherwise."""

    def __init__(self) -> None:
        self.current: Client | None = None

    def __getattr__(self, name: str) -> Any:
        if self.current is None:
            raise ConnectionRefusedError("connection refused")
        return getattr(self.current, name)


@dataclass(slots=True)
class _Host:
    """A machine: how its program is started on it, its task while it runs, and its wire."""

    name: str
    start: Callable[[SimClient], Coroutine[Any, Any, None]]
    task: asyncio.Task[None]
    client: SimClient
    incarnation: int = 0


class SimCluster:
    """One simulation. Make it, then `run(story)`; the story gets a started cluster."""

    def __init__(self, seed: int, config: SimConfig = SimConfig()) -> None:
        self.seed = seed
        self.config = config
        self.rng = Rng(seed)
        faults = config.faults if config.faults is not None else Faults.swarm(self.rng.stream("faults"))
        self.network = SimNetwork(self.rng, faults)
        self.auditor = Auditor()
        self.loop: SimLoop | None = None
        self._hosts: dict[str, _Host] = {}
        self._informers: dict[str, Informers] = {}
        self._skew = self.rng.stream("skew")
        self._node_count = 0
        self._joining: list[str] = []
        self._system: list[asyncio.Task[None]] = []
        self._last_words = ""
        self._pods: list[Object] = []
        self._pods_at = -1

    def run(self, story: Callable[[SimCluster], Awaitable[None]]) -> None:
        """Start the cluster on a new loop, await `story`, check the cluster once more, and take it down."""
        self.loop = SimLoop()
        self.loop.run(self._main(story))
        if self.loop.errors:
            raise Violation(f"errors in the event loop: {self.loop.errors[0]}")

    @property
    def client(self) -> Client:
        """Return an administrator's client: in the server's process, without faults. Raises ConnectionError while the server is down."""
        return cast(Client, self._door)

    @property
    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self.loop.time() if self.loop is not None else 0.0

    # What a story does.

    def nodes(self, count: int, *, shape: Shape = Shape(), prefix: str = "n") -> list[str]:
        """Add `count` hollow nodes and return their names: n1, n2, ... What is applied next is applied once they have joined."""
        return [self.node(f"{prefix}{self._node_count + 1}", shape=shape) for _ in range(count)]

    def node(self, name: str, *, shape: Shape = Shape()) -> str:
        """Add one hollow node; its address follows from the number at the end of its name."""
        self._node_count += 1

        async def live(client: SimClient) -> None:
            await HollowNode(client, name, self._runtime(), shape=shape).run()

        self._start_host(name, live)
        self._joining.append(name)
        return name

    def host(self, name: str, program: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
        """Add a machine that runs `program(client)`, for controllers and operators of one's own. It must run for ever; it can be lost,
        partitioned and recovered like any other. `runtime()` gives it the simulation's clock and randomness."""
        self._start_host(name, program)

    def runtime(self) -> Runtime:
        """Return a runtime for one machine: virtual time (skewed, where the simulation says so) and the seed's random streams."""
        return self._runtime()

    async def apply(self, *given: Object | str) -> None:
        """Create or replace objects, given as dicts or as YAML text of one or several documents."""
        await self._joined()
        for one in given:
            for obj in yaml.safe_load_all(one) if isinstance(one, str) else [one]:
                await self._apply(obj)

    async def get(self, resource: ResourceRef, name: str, *, namespace: str = "default") -> Object:
        """Return an object as the server has it. Raises NotFound."""
        return orjson.loads(await self.client.get(resource, name, namespace=namespace if resource.namespaced else ""))

    async def list(self, resource: ResourceRef, **options: Any) -> list[Object]:
        """Return all objects of a kind; `options` are those of ListOptions."""
        return [orjson.loads(raw) for raw in (await self.client.list(resource, ListOptions(**options))).items]

    async def delete(
        self, resource: ResourceRef, name: str, *, namespace: str = "default", options: DeleteOptions = DeleteOptions()
    ) -> None:
        """Delete an object; one that is not there is no error."""
        try:
            await self.client.delete(resource, name, namespace=namespace if resource.namespaced else "", options=options)
        except NotFound:
            return

    async def scale(self, resource: ResourceRef, name: str, replicas: int, *, namespace: str = "default") -> None:
        """Set spec.replicas."""
        await self.client.patch(resource, name, {"spec": {"replicas": replicas}}, namespace=namespace)

    def pods(self, app: str = "") -> list[Object]:
        """Return the pods labelled `app: APP` (all pods by default), as the store has them now. Do not change them."""
        revision = self._storage.revision()
        if self._pods_at != revision:
            # Conditions are asked for twice a second, and most of the time nothing has changed.
            self._pods_at = revision
            self._pods = [orjson.loads(raw) for raw in self._storage.range(b"/registry/core/pods/").values]
        return [one for one in self._pods if not app or labels_of(one).get("app") == app]

    def running(self, app: str = "") -> int:
        """Return how many pods of `app` are running, ready, not being deleted, and on a node whose machine is alive."""
        return sum(
            phase_of(one) == "Running" and is_ready(one) and not is_deleting(one) and self.is_alive(at(one, "spec", "nodeName") or "")
            for one in self.pods(app)
        )

    async def run_for(self, span: str | float) -> None:
        """Let virtual time pass. Raises what broke meanwhile: a Violation, or the crash of a component."""
        await self._guarded(asyncio.sleep(seconds(span)))

    async def run_until(self, holds: Callable[[], bool], *, within: str | float, every_s: float = 0.5) -> float:
        """Let time pass until `holds()`; return how long it took in seconds. Raises AssertionError when it takes longer than `within`."""
        began = self.time
        while not holds():
            if self.time - began > seconds(within):
                raise AssertionError(f"not within {within}: {getattr(holds, '__name__', 'condition')} at {self.time:.1f} s")
            await self.run_for(every_s)
        return self.time - began

    async def settle(self, within: str | float = "3m") -> None:
        """Await rest: nothing is written but heartbeats for a minute, and every cache equals the server.

        Raises NotSettled after `within` (of virtual time): work that never ends, or a storm of reconciles.
        """
        began = self.time
        end = began + seconds(within)
        while True:
            # What was done without a write (a machine that came back) has not had its effect before `began`.
            quiet_since = max(began, self.auditor.changed_at)
            if self.time - quiet_since >= QUIET_S:
                break
            if self.time >= end:
                writes = [one.line() for one in self.network.trace.last if one.verb not in ("get", "list", "watch")]
                raise NotSettled(f"still writing after {within}:\n" + "\n".join(writes[-15:]))
            await self.run_for(min(1.0, max(0.001, quiet_since + QUIET_S - self.time)))
        self.check_caches()

    # What a story breaks.

    def lose(self, host: str) -> None:
        """The machine `host` dies: its program ends at once and nothing more is heard of it. `recover` brings it back."""
        found = self._hosts[host]
        self.network.partition(host)
        found.task.cancel()

    crash = lose

    def recover(self, host: str) -> None:
        """Start a lost machine again: same name, same program, empty memory."""
        found = self._hosts[host]
        found.task.cancel()
        self._start_host(host, found.start, incarnation=found.incarnation + 1)
        self.network.heal(host)

    def restart(self, host: str) -> None:
        """Crash a component and start it again at once."""
        self.lose(host)
        self.recover(host)

    def crash_server(self) -> None:
        """The API server's process dies: connections break, and callers are refused until `start_server`. What it answered is stored."""
        self._door.current = None
        self._serving.cancel()
        self.network.cut_watches()

    def start_server(self) -> None:
        """Start the API server again, on the same store."""
        self._start_server()

    async def compact(self) -> int:
        """Forget the history that is older than the last call, as a server does every five minutes; return the oldest revision kept."""
        await self._storage.compact(self._compact_upto)
        self._compact_upto = self._storage.revision()
        return self._storage.compacted()

    def stored(self) -> dict[str, int]:
        """Return the figures of the store: keys, events of history that is kept, revisions and the like."""
        return self._storage.stats()

    def forgive(self) -> None:
        """Go on after the failure of a component that the story expected."""
        self._failed = asyncio.get_running_loop().create_future()

    def partition(self, host: str) -> None:
        """Cut `host` off from the API server; its program goes on."""
        self.network.partition(host)

    def heal(self, host: str) -> None:
        """End the partition of `host`."""
        if not self._is_dead(host):
            self.network.heal(host)

    def heal_all(self) -> None:
        """End all partitions and random faults. Machines that were lost stay lost."""
        self.network.calm()
        for host in self._hosts:
            self.heal(host)

    def is_alive(self, host: str) -> bool:
        """Return whether the machine `host` exists and runs; a partitioned one does."""
        return host in self._hosts and not self._is_dead(host)

    # How it is held up.

    def check_caches(self) -> None:
        """Raise Violation unless every informer of the living components shows what the server has."""
        for host, informers in self._informers.items():
            if self._is_dead(host) or self.network.is_partitioned(host):
                continue
            for reflector in informers.reflectors():
                resource = catalogue_entry(self._catalogue, reflector.resource)
                if reflector.options.label_selector or reflector.options.field_selector or resource is None:
                    continue
                if resource.kind in HEARTBEATS:
                    continue
                page = self._storage.range(resource.key_prefix(reflector.options.namespace))
                here, there = {one.raw for one in reflector.objects.values()}, set(page.values)
                if here != there:
                    differing = sorted(here ^ there)
                    raise Violation(f"at rest the cache of {reflector.resource.plural} on {host} differs from the server: {differing}")

    def report(self) -> str:
        """Return what a simulation tells, as it was when it failed: seed, time, faults, hosts, the last calls."""
        if self._last_words:
            return self._last_words
        lines = [f"seed {self.seed}, {self.time:.3f} s of virtual time, {self.network.trace.calls} calls, {self.network.faults}"]
        dead = [name for name in self._hosts if self._is_dead(name)]
        lines.append(
            f"hosts {list(self._hosts)}, dead {dead}, partitioned {[one for one in self._hosts if self.network.is_partitioned(one)]}"
        )
        return "\n".join(lines + [one.line() for one in self.network.trace.last])

    async def _main(self, story: Callable[[SimCluster], Awaitable[None]]) -> None:
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._storage = Storage.open(None, self._runtime())
        self._compact_upto = self._storage.revision()
        self._serving = asyncio.get_running_loop().create_future()
        try:
            await self._start()
            await self._tell(story(self))
            self._raise_failure()
        except BaseException:
            self._last_words = self.report()
            raise
        finally:
            await self._stop()

    async def _start(self) -> None:
        self._door = ServerDoor()
        self._start_server()
        self._system.append(self._supervise(self._audit(), "auditor"))
        self._start_host(CONTROLLERS, self._run_controllers)
        self._start_host(SCHEDULER, self._run_scheduler)
        await self.run_until(self._server.is_ready, within=START_WITHIN_S)
        await self.run_until(self._has_default_account, within=START_WITHIN_S)

    def _start_server(self) -> None:
        self._catalogue = catalogue(self.config.server.features)
        self._server = ApiServer(self._runtime(), self._storage, self._catalogue, self.config.server)
        self._door.current = self._server.client()
        self._serving = self._supervise(self._server.run(), "apiserver")

    def _has_default_account(self) -> bool:
        return bool(self._storage.range(b"/registry/core/serviceaccounts/default/default").values)

    async def _stop(self) -> None:
        running = [host.task for host in self._hosts.values()] + [self._serving, *self._system]
        for host in self._hosts:
            self.network.partition(host)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._storage.close()

    async def _run_controllers(self, client: SimClient) -> None:
        runtime = self._runtime()
        informers = self._informers[CONTROLLERS] = Informers(client, runtime)
        async with asyncio.TaskGroup() as group:
            config = replace(self.config.controllers, features=self.config.server.features)
            for controller in all_controllers(client, informers, runtime, config):
                group.create_task(controller.run(), name=controller.name)

    async def _run_scheduler(self, client: SimClient) -> None:
        runtime = self._runtime()
        informers = self._informers[SCHEDULER] = Informers(client, runtime)
        await Scheduler(client, informers, runtime, features=self.config.server.features).run()

    async def _audit(self) -> None:
        watch = self._storage.watch(b"/registry/", 0)
        while events := await watch.next_events():
            self.auditor.absorb(events, self.time)

    def _start_host(self, name: str, start: Callable[[SimClient], Coroutine[Any, Any, None]], *, incarnation: int = 0) -> None:
        client = self.network.client(self.client, name)
        task = self._supervise(start(client), f"{name}/{incarnation}")
        self._hosts[name] = _Host(name, start, task, client, incarnation)

    def _supervise(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = tasks.spawn(coroutine, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failed.done():
            return
        error = task.exception()
        self._failed.set_exception(error or Violation(f"{task.get_name()} returned, though it should run for ever"))

    async def _tell(self, story: Awaitable[None]) -> None:
        """Await the story. One that waits for something else when a component fails is ended; one that expects it may `forgive`."""
        future = asyncio.ensure_future(story)  # noqa: TID251 - awaited or cancelled right here
        try:
            while not future.done():
                failed = self._failed
                await asyncio.wait((future, failed), return_when=asyncio.FIRST_COMPLETED)
                if failed.done() and not future.done():
                    await asyncio.wait((future,), timeout=FORGIVE_WITHIN_S)
                    if self._failed is failed and not future.done():
                        failed.result()
            future.result()
        finally:
            future.cancel()

    async def _guarded(self, awaited: Awaitable[None]) -> None:
        """Await something of the story, unless a component fails first."""
        future = asyncio.ensure_future(awaited)  # noqa: TID251 - awaited or cancelled right here
        try:
            await asyncio.wait((future, self._failed), return_when=asyncio.FIRST_COMPLETED)
            self._raise_failure()
            future.result()
        finally:
            future.cancel()

    def _raise_failure(self) -> None:
        if self._failed.done():
            self._failed.result()

    def _is_dead(self, host: str) -> bool:
        task = self._hosts[host].task
        return task.done() or bool(task.cancelling())

    def _runtime(self) -> Runtime:
        skew_s = self.config.clock_skew_s * (2 * self._skew.random() - 1)
        clock = LoopClock()
        if skew_s:
            clock = LoopClock(clock.epoch + skew_s)
        return Runtime(clock=clock, rng=self.rng, offload=InlineOffload())

    async def _joined(self) -> None:
        """Await that new nodes take pods: which of them is first is a matter of milliseconds, and the first would be given everything."""
        end = self.time + JOIN_WITHIN_S
        while self._joining and self.time < end:
            if self._has_joined(self._joining[-1]):
                self._joining.pop()
            else:
                await self.run_for(0.05)
        self._joining.clear()

    def _has_joined(self, name: str) -> bool:
        if self._is_dead(name) or self.network.is_partitioned(name):
            return True
        record = self._storage.get(f"/registry/core/nodes/{name}".encode())
        return record is not None and not at(orjson.loads(record.value), "spec", "taints")

    async def _apply(self, obj: Object) -> None:
        group, _, version = obj["apiVersion"].rpartition("/")
        resource = self._catalogue.by_kind(group, version, obj["kind"])
        if resource is None:
            raise LookupError(f"no kind {obj['kind']} in {obj['apiVersion']}")
        namespace = (namespace_of(obj) or "default") if resource.namespaced else ""
        try:
            await self.client.create(resource.ref, obj, namespace=namespace)
        except AlreadyExists:
            await self.client.update(resource.ref, obj, name=name_of(obj), namespace=namespace)


def catalogue_entry(kinds: Any, ref: ResourceRef) -> Any:
    """Return the declaration of `ref`, None when its objects are stored as another kind's."""
    found = kinds.get(ref.group, ref.version, ref.plural)
    return found if found is not None and found.storage is None else None
