"""One pod, one worker: observe, plan, report, perform, and wait for the next thing to happen.

A worker holds no truth of its own: each round asks the runtime what is there. What it keeps in memory are only waiting times
and what it has under way (containers being stopped), which a restarted agent may lose. Stopping runs beside the rounds, so that a
shorter grace period, or a deletion, is acted upon while a container still takes its time.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec

from korch.api.errors import ApiError, Conflict, NotFound
from korch.api.gvk import CONFIG_MAPS, PODS, SECRETS, ResourceRef
from korch.client.events import EventRecorder
from korch.client.protocol import Client, DeleteOptions
from korch.runtime import tasks
from korch.runtime.clock import parse_rfc3339
from korch.runtime.context import Runtime as Seams
from korch.runtime.log import get_logger
from korch_agent.cgroups import Cgroups
from korch_agent.cri.protocol import Container, ContainerStatus, CriError, CriNotFound, Runtime, Sandbox
from korch_agent.objects import Objects
from korch_agent.pods import files, lifecycle
from korch_agent.pods import plan as planning
from korch_agent.pods.config import SAFE_SYSCTLS, NodeConfig, container_config, sandbox_config
from korch_agent.pods.environment import Sources, environment, references
from korch_agent.pods.images import ImageProblem, Images, auths_for
from korch_agent.pods.observed import (
    CONTAINER_NAME,
    Crash,
    Observed,
    Pod,
    Waiting,
    all_containers,
    ephemeral_containers,
    full_name,
    init_containers,
    is_deleting,
    next_crash,
    pod_key,
    remembered_crash,
    resources_key,
)
from korch_agent.pods.probes import Probes
from korch_agent.pods.resources import cgroup_path, container_resources, pod_limits
from korch_agent.pods.security import ConfigError
from korch_agent.pods.status import NodeFacts, StatusWriter, build_status
from korch_agent.volumes.payload import VolumeError
from korch_agent.volumes.volumes import Mounted, Volumes, objects_of

# Seconds until the next try, doubled each time up to the cap.
RETRY_S_INITIAL = 1.0
RETRY_S_MAX = 16.0
CONFIG_RETRY_S = 10.0
# What a container gets to end by itself when nothing is left of its grace period, because its preStop hook took it or none was
# given; a period that was asked for is kept to the second. Upstream grants as much after a hook.
GRACE_S_EXTENSION = 2
REST_S = 60.0

log = get_logger("pods")


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers of a node share."""

    client: Client
    runtime: Runtime
    seams: Seams
    events: EventRecorder
    statuses: StatusWriter
    volumes: Volumes
    objects: Objects
    probes: Probes
    images: Images
    cgroups: Cgroups
    node: NodeConfig
    services: Callable[[], tuple[dict[str, Any], ...]]
    allocatable: Callable[[], Mapping[str, str]]
    # At most so many sandboxes and containers are started at once: more only makes all of them late.
    start_gate: asyncio.Semaphore
    began_at: float


class Worker:
    """Brings one pod, known by its uid, to where its object wants it, until it is gone."""

    def __init__(self, parts: Parts, pod: Pod) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self._parts = parts
        self._wake = asyncio.Event()
        self._wake.set()
        self._ending = asyncio.Event()
        self._is_deleted = False
        self._is_finished = False
        self._mounted: dict[str, Mounted] | None = None
        self._volumes_stale = False
        self._volumes_retry: tuple[float, float] = (0.0, RETRY_S_INITIAL)
        self._sandbox_retry: tuple[float, float] = (0.0, RETRY_S_INITIAL)
        self._crashes: dict[str, Crash] | None = None
        self._waiting: dict[str, Waiting] = {}
        self._killing: dict[str, tuple[float, asyncio.Task[None]]] = {}
        self._statuses: dict[tuple[str, str], ContainerStatus] = {}
        self._ips: dict[str, tuple[str, ...]] = {}
        self._resized: dict[str, str] = {}
        self._told: set[tuple[str, str, int]] = set()
        started = (pod.get("status") or {}).get("startTime")
        self._started_at = parse_rfc3339(started) if started else parts.seams.clock.now()
        self._rejected = _rejection(pod)

    # -- what happens from outside --------------------------------------------------------------------------------

    def update(self, pod: Pod) -> None:
        """Take a newer object of the same pod."""
        if _shown(pod) != _shown(self.pod):
            self._volumes_stale = True
        self.pod = pod
        if is_deleting(pod):
            self._ending.set()
        self._wake.set()

    def delete(self) -> None:
        """The object is gone from the API server: end everything."""
        self._is_deleted = True
        self._ending.set()
        self._wake.set()

    def wake(self) -> None:
        """Look again: a container, a probe or the time has moved."""
        self._wake.set()

    def refresh(self) -> None:
        """An object that the pod uses has changed: show it in the volumes, and try again what waits for it."""
        self._volumes_stale = True
        self._volumes_retry = (0.0, RETRY_S_INITIAL)
        for name, waiting in list(self._waiting.items()):
            if waiting.reason == "CreateContainerConfigError":
                self._waiting[name] = Waiting(waiting.reason, waiting.message, 0.0)
        self._wake.set()

    # -- the rounds -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until the pod is gone, or cancelled."""
        if is_deleting(self.pod):
            self._ending.set()
        self._follow_objects()
        while True:
            self._wake.clear()
            try:
                planned, is_gone = await self._round()
            except (CriError, ConnectionError, TimeoutError, OSError) as error:
                log.warning("pod not synced; trying again", pod=pod_key(self.pod), error=str(error))
                await self._rest(RETRY_S_INITIAL)
                continue
            if is_gone:
                return
            if not planned.actions:
                await self._rest(self._until(planned))

    async def _round(self) -> tuple[planning.Plan, bool]:
        """Observe, plan, report and perform once; return the plan, and whether the pod is gone."""
        parts = self._parts
        if not self._ending.is_set() and self._volumes_stale and self._mounted is not None:
            await self._refresh_volumes()
        seen = await self._observe()
        now = parts.seams.clock.now()
        planned = planning.plan(self.pod, seen, now)
        self._report(seen, planned, now)
        for action in planned.actions:
            if isinstance(action, planning.Finish):
                if await self._finish(seen, delete=action.delete):
                    return planned, True
            else:
                await self._perform(action, seen)
            if self._ending.is_set() and not planned.is_ending:
                break  # It was deleted meanwhile: the rest of the plan is out of date.
        return planned, False

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _until(self, planned: planning.Plan) -> float:
        """Return how many seconds there is nothing to do unless something happens."""
        now = self._parts.seams.clock.now()
        moments = [now + REST_S]
        if planned.wake_at is not None:
            moments.append(planned.wake_at)
        renewal = self._parts.volumes.next_renewal(self.uid)
        if renewal is not None and self._mounted is not None:
            moments.append(renewal)
            if renewal <= now + REST_S:
                self._volumes_stale = True
        return max(0.01, min(moments) - now)

    async def _observe(self) -> Observed:
        parts = self._parts
        sandboxes = sorted(await parts.runtime.list_sandboxes(uid=self.uid), key=lambda one: one.created_at, reverse=True)
        if sandboxes and sandboxes[0].is_ready:
            sandboxes[0] = await self._with_ips(sandboxes[0])
        listed = sorted(await parts.runtime.list_containers(uid=self.uid), key=lambda one: one.created_at, reverse=True)
        containers: dict[str, list[ContainerStatus]] = {}
        for one in listed:
            status = await self._status_of(one)
            if status is not None:
                containers.setdefault(one.labels.get(CONTAINER_NAME) or one.name, []).append(status)
        present = {one.id for one in listed}
        self._statuses = {key: value for key, value in self._statuses.items() if key[0] in present}
        if self._crashes is None:
            found = {name: remembered_crash(instances[0]) for name, instances in containers.items()}
            self._crashes = {name: crash for name, crash in found.items() if crash is not None}
        now = parts.seams.clock.now()
        return Observed(
            sandboxes=tuple(sandboxes),
            containers={name: tuple(instances) for name, instances in containers.items()},
            killing={container_id: max(0.0, until - now) for container_id, (until, _) in self._killing.items()},
            crashes=dict(self._crashes),
            waiting=dict(self._waiting),
            probed=self._probe(sandboxes, containers),
            resized=dict(self._resized),
            volumes_ready=self._mounted is not None,
            volumes_retry_at=self._volumes_retry[0],
            sandbox_retry_at=self._sandbox_retry[0],
            is_deleted=self._is_deleted,
            is_finished=self._is_finished,
            started_at=self._started_at,
            rejected=self._rejected,
        )

    async def _with_ips(self, sandbox: Sandbox) -> Sandbox:
        ips = self._ips.get(sandbox.id)
        if ips is None:
            try:
                ips = (await self._parts.runtime.sandbox_status(sandbox.id)).ips
            except CriNotFound:
                ips = ()
            self._ips = {sandbox.id: ips}
        return msgspec.structs.replace(sandbox, ips=ips)

    async def _status_of(self, container: Container) -> ContainerStatus | None:
        key = (container.id, container.state)
        known = self._statuses.get(key)
        if known is None:
            try:
                status = await self._parts.runtime.container_status(container.id)
            except CriNotFound:
                return None  # It was removed between the list and this call.
            known = msgspec.structs.replace(status, sandbox_id=container.sandbox_id, image_ref=status.image_ref or container.image_ref)
            if status.state == container.state and container.state in ("running", "exited"):
                self._statuses[key] = known
        return known

    def _probe(self, sandboxes: list[Sandbox], containers: Mapping[str, list[ContainerStatus]]) -> dict[str, Any]:
        if self._is_deleted or not sandboxes or not sandboxes[0].is_ready:
            self._parts.probes.forget(self.uid)
            return {}
        specs = {spec["name"]: spec for spec in all_containers(self.pod)}
        running = {
            status.id: (specs[name], status)
            for name, instances in containers.items()
            for status in instances[:1]
            if status.state == "running" and name in specs and status.id not in self._killing
        }
        ip = self._pod_ips(sandboxes[0])[0:1]
        return self._parts.probes.reconcile(self.pod, running, ip[0] if ip else "127.0.0.1", began_at=self._parts.began_at)

    def _pod_ips(self, sandbox: Sandbox | None) -> tuple[str, ...]:
        if self.pod["spec"].get("hostNetwork"):
            return self._parts.node.host_ips
        return sandbox.ips if sandbox is not None else ()

    def _report(self, seen: Observed, planned: planning.Plan, now: float) -> None:
        parts = self._parts
        for name in planned.backing_off:
            newest = seen.newest(name)
            if newest is not None and (name, "BackOff", newest.attempt) not in self._told:
                self._told.add((name, "BackOff", newest.attempt))
                message = f"Back-off restarting failed container {name} in pod {full_name(self.pod)}"
                self._event("Warning", "BackOff", message, name)
        if self._is_deleted:
            return
        pod = self.pod | {"status": parts.statuses.known(self.pod)}
        specs = {spec["name"]: spec for spec in all_containers(pod)}
        pod_dir = parts.node.pods_dir / self.uid
        status = build_status(
            pod,
            seen,
            planned,
            now,
            node=NodeFacts(host_ips=parts.node.host_ips),
            messages=lambda name, ended: files.termination_message(pod_dir, specs.get(name), ended),
        )
        parts.statuses.set(pod, status)

    # -- actions --------------------------------------------------------------------------------------------------

    async def _perform(self, action: planning.Action, seen: Observed) -> None:
        runtime = self._parts.runtime
        match action:
            case planning.MountVolumes():
                await self._mount_volumes(seen)
            case planning.RunSandbox(attempt):
                await self._run_sandbox(attempt)
            case planning.StopSandbox(sandbox_id):
                await runtime.stop_sandbox(sandbox_id)
            case planning.RemoveSandbox(sandbox_id):
                await runtime.remove_sandbox(sandbox_id)
            case planning.RemoveContainer(container_id):
                await runtime.remove_container(container_id)
            case planning.StartContainer():
                await self._start_container(action, seen)
            case planning.ResizeContainer(container_id, name):
                await self._resize_container(container_id, name)
            case planning.KillContainer():
                self._kill_container(action, seen)
            case _:
                raise AssertionError(f"unknown action {action!r}")

    def _sources(self, seen: Observed) -> Sources:
        parts = self._parts
        return Sources(
            node_name=parts.node.node_name,
            host_ips=parts.node.host_ips,
            pod_ips=self._pod_ips(seen.sandbox),
            allocatable=parts.allocatable(),
            services=parts.services(),
        )

    def _follow_objects(self) -> None:
        wanted: set[tuple[ResourceRef, str]] = objects_of(self.pod)
        for container in all_containers(self.pod):
            config_maps, secrets = references(container)
            wanted |= {(CONFIG_MAPS, name) for name in config_maps if name} | {(SECRETS, name) for name in secrets if name}
        self._parts.objects.follow(self.uid, self.pod["metadata"]["namespace"], wanted)

    async def _mount_volumes(self, seen: Observed) -> None:
        parts = self._parts
        try:
            limits = pod_limits(self.pod)
            await parts.seams.offload.run(self._make_cgroup, limits)
            self._mounted = await parts.volumes.mount(self.pod, self._sources(seen))
            self._volumes_stale = False
        except (VolumeError, ApiError, ConnectionError, TimeoutError) as error:
            self._volumes_retry = self._retry_later(self._volumes_retry)
            self._event("Warning", "FailedMount", str(error))

    def _make_cgroup(self, limits: Any) -> None:
        path = cgroup_path(self.pod)
        self._parts.cgroups.create(path)
        self._parts.cgroups.set_limits(path, cpu_shares=limits.cpu_shares, cpu_quota=limits.cpu_quota, memory_limit=limits.memory_limit)

    async def _refresh_volumes(self) -> None:
        """Show changed objects; trouble keeps the old files and is tried again."""
        self._volumes_stale = False
        sandbox = (await self._parts.runtime.list_sandboxes(uid=self.uid))[:1]
        ips = (await self._with_ips(sandbox[0])).ips if sandbox and sandbox[0].is_ready else ()
        sources = Sources(
            node_name=self._parts.node.node_name,
            host_ips=self._parts.node.host_ips,
            pod_ips=ips,
            allocatable=self._parts.allocatable(),
        )
        try:
            self._mounted = await self._parts.volumes.mount(self.pod, sources)
        except (VolumeError, ApiError, TimeoutError) as error:
            log.info("volumes not refreshed", pod=pod_key(self.pod), error=str(error))

    async def _run_sandbox(self, attempt: int) -> None:
        parts = self._parts
        config = sandbox_config(self.pod, parts.node, attempt=attempt)
        try:
            async with parts.start_gate:
                await parts.runtime.run_sandbox(config)
        except CriError as error:
            self._sandbox_retry = self._retry_later(self._sandbox_retry)
            self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error.message}")
            return
        self._sandbox_retry = (0.0, RETRY_S_INITIAL)
        if attempt > 0:
            self._event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")

    async def _start_container(self, action: planning.StartContainer, seen: Observed) -> None:
        now = self._parts.seams.clock.now()
        spec = next(one for one in all_containers(self.pod) if one["name"] == action.name)
        newest = seen.newest(action.name)
        try:
            container_id = await self._create_and_start(action, spec, seen)
        except ImageProblem as problem:
            self._wait(action.name, problem.reason, str(problem), problem.retry_at)
            return
        except (ConfigError, ApiError) as error:
            reason = error.reason if isinstance(error, ConfigError) else "CreateContainerConfigError"
            self._event("Warning", "Failed", f"Error: {error}", action.name)
            self._wait(action.name, reason, str(error), now + CONFIG_RETRY_S)
            return
        except CriError as error:
            self._event("Warning", "Failed", f"Error: {error.message}", action.name)
            self._wait(action.name, "CreateContainerError", error.message, now + RETRY_S_INITIAL * 5)
            return
        if newest is not None and newest.state == "exited" and self._crashes is not None:
            self._crashes[action.name] = next_crash(self._crashes.get(action.name), now=now, finished_at=newest.finished_at / 1e9)
        if container_id is None:
            return
        self._waiting.pop(action.name, None)
        await self._post_start(container_id, spec, seen)

    async def _create_and_start(self, action: planning.StartContainer, spec: dict[str, Any], seen: Observed) -> str | None:
        """Return the id of the started container, or None when the pod was deleted before it came to that."""
        parts = self._parts
        assert seen.sandbox is not None
        meta = self.pod["metadata"]
        secrets = [
            await parts.objects.get(SECRETS, meta["namespace"], one["name"])
            for one in self.pod["spec"].get("imagePullSecrets") or []
            if one.get("name")
        ]
        auths = auths_for(spec.get("image", ""), secrets) if secrets else []
        image = await self._unless_ending(parts.images.ensure(self.pod, spec, auths, field_path=self._field_path(action.name)))
        if image is None:
            return None
        sources = await self._environment_sources(spec, seen)
        await parts.seams.offload.run(self._write_hosts, self._pod_ips(seen.sandbox))
        target = spec.get("targetContainerName") if action.kind == "ephemeral" else ""
        target_status = seen.current(target) if target else None
        config = container_config(
            self.pod,
            spec,
            parts.node,
            image=image,
            environment=environment(self.pod, spec, sources),
            volumes=self._mounted or {},
            restarts=action.restarts,
            target_id=target_status.id if target_status is not None else "",
        )
        sandbox = sandbox_config(self.pod, parts.node, attempt=seen.sandbox.attempt)
        async with parts.start_gate:
            container_id = await parts.runtime.create_container(seen.sandbox.id, config, sandbox)
            self._event("Normal", "Created", "Container created", action.name)
            await parts.runtime.start_container(container_id)
        self._event("Normal", "Started", "Container started", action.name)
        return container_id

    async def _environment_sources(self, spec: dict[str, Any], seen: Observed) -> Sources:
        namespace = self.pod["metadata"]["namespace"]
        config_maps, secrets = references(spec)
        objects = self._parts.objects
        return msgspec.structs.replace(
            self._sources(seen),
            config_maps={name: await objects.get(CONFIG_MAPS, namespace, name) for name in config_maps},
            secrets={name: await objects.get(SECRETS, namespace, name) for name in secrets},
        )

    def _write_hosts(self, ips: tuple[str, ...]) -> None:
        file = self._parts.node.pods_dir / self.uid / "etc-hosts"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = files.hosts_file(self.pod, ips, cluster_domain=self._parts.node.cluster_domain)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            file.chmod(0o644)

    async def _post_start(self, container_id: str, spec: dict[str, Any], seen: Observed) -> None:
        hook = (spec.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        ips = self._pod_ips(seen.sandbox)
        problem = await self._unless_ending(
            lifecycle.run_hook(self._parts.runtime, hook, self.pod, spec, container_id, ips[0] if ips else "127.0.0.1")
        )
        if problem:
            self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {problem}", spec["name"])
            kill = planning.KillContainer(container_id, spec["name"], planning.grace_s(self.pod), "FailedPostStartHook")
            self._kill_container(kill, seen)

    async def _resize_container(self, container_id: str, name: str) -> None:
        """Give a container its new limits. A group cannot exceed its parent: the pod's group grows before and shrinks after it."""
        parts = self._parts
        spec = next(one for one in all_containers(self.pod) if one["name"] == name)
        wanted = container_resources(self.pod, spec, memory_capacity=parts.node.memory_capacity)
        limits = pod_limits(self.pod)
        try:
            try:
                await parts.runtime.update_resources(container_id, wanted)
            except CriError:
                await parts.seams.offload.run(self._make_cgroup, limits)
                await parts.runtime.update_resources(container_id, wanted)
            await parts.seams.offload.run(self._make_cgroup, limits)
        except (CriError, OSError) as error:
            self._event("Warning", "ResizeError", f"Error: {error}", name)
            await asyncio.sleep(RETRY_S_INITIAL)
            return
        self._resized[container_id] = resources_key(spec)
        self._event("Normal", "ResizeCompleted", f"Pod resize completed: {resources_key(spec)}", name)

    def _kill_container(self, action: planning.KillContainer, seen: Observed) -> None:
        until = self._parts.seams.clock.now() + action.grace_s
        under_way = self._killing.get(action.id)
        if under_way is not None:
            under_way[1].cancel()
        else:
            self._event("Normal", "Killing", action.message or f"Stopping container {action.name}", action.name)
        ips = self._pod_ips(seen.sandbox)
        task = tasks.spawn(
            self._stop(action, ips[0] if ips else "127.0.0.1", with_hook=under_way is None),
            name=f"kill/{pod_key(self.pod)}/{action.name}",
        )
        self._killing[action.id] = (until, task)

    async def _stop(self, action: planning.KillContainer, pod_ip: str, *, with_hook: bool) -> None:
        """Run the preStop hook within the grace period, then stop the container."""
        parts = self._parts
        monotonic = parts.seams.clock.monotonic
        began = monotonic()
        left = action.grace_s
        try:
            spec = next((one for one in all_containers(self.pod) if one["name"] == action.name), {})
            hook = (spec.get("lifecycle") or {}).get("preStop")
            if hook and with_hook and action.grace_s > 0:
                try:
                    async with asyncio.timeout(action.grace_s):
                        problem = await lifecycle.run_hook(parts.runtime, hook, self.pod, spec, action.id, pod_ip)
                except TimeoutError:
                    problem = "context deadline exceeded"
                if problem:
                    self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}", action.name)
                left = max(GRACE_S_EXTENSION, round(action.grace_s - (monotonic() - began)))
            await parts.runtime.stop_container(action.id, left or GRACE_S_EXTENSION)
        except (CriError, ConnectionError) as error:
            log.warning("container not stopped; trying again", pod=pod_key(self.pod), container=action.name, error=str(error))
            await asyncio.sleep(RETRY_S_INITIAL)
        finally:
            mine = self._killing.get(action.id)
            if mine is not None and mine[1] is asyncio.current_task():
                del self._killing[action.id]
            self._wake.set()

    async def _finish(self, seen: Observed, *, delete: bool) -> bool:
        """Take everything away; return whether the pod is gone and this worker has nothing left to do."""
        parts = self._parts
        parts.probes.forget(self.uid)
        parts.objects.forget(self.uid)
        if not delete:
            await parts.volumes.unmount_volumes(self.uid)
            await parts.seams.offload.run(parts.cgroups.remove, cgroup_path(self.pod))
            self._is_finished = True
            return False
        await parts.volumes.unmount(self.uid)
        if not self._is_deleted:
            await parts.statuses.settled(self.uid)
            await self._delete_object()
        for sandbox in seen.sandboxes:
            await parts.runtime.remove_sandbox(sandbox.id)
        await parts.seams.offload.run(parts.cgroups.remove, cgroup_path(self.pod))
        await parts.seams.offload.run(_remove_tree, files.log_directory(parts.node.logs_dir, self.pod))
        parts.statuses.forget(self.uid)
        log.info("pod removed", pod=pod_key(self.pod), uid=self.uid)
        return True

    async def _delete_object(self) -> None:
        meta = self.pod["metadata"]
        options = DeleteOptions(grace_period_s=0, uid=self.uid)
        while not self._is_deleted:
            try:
                await self._parts.client.delete(PODS, meta["name"], namespace=meta["namespace"], options=options)
                return
            except (NotFound, Conflict):
                return  # It is gone already, or another pod has its name now.
            except (ApiError, ConnectionError, TimeoutError) as error:
                log.warning("pod object not deleted; trying again", pod=pod_key(self.pod), error=str(error))
                await asyncio.sleep(RETRY_S_INITIAL)

    # -- small things ---------------------------------------------------------------------------------------------

    async def _unless_ending(self, work: Coroutine[Any, Any, Any] | Awaitable[Any]) -> Any:
        """Await `work`, but drop it and return None as soon as the pod is to end."""
        task = asyncio.ensure_future(work)  # noqa: TID251 - awaited right here
        ending = asyncio.ensure_future(self._ending.wait())  # noqa: TID251 - awaited right here
        try:
            await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            return None
        finally:
            ending.cancel()
            task.cancel()

    def _wait(self, name: str, reason: str, message: str, retry_at: float) -> None:
        self._waiting[name] = Waiting(reason, message, retry_at)

    def _retry_later(self, retry: tuple[float, float]) -> tuple[float, float]:
        return (self._parts.seams.clock.now() + retry[1], min(RETRY_S_MAX, retry[1] * 2))

    def _field_path(self, name: str) -> str:
        sort = "containers"
        if any(one["name"] == name for one in init_containers(self.pod)):
            sort = "initContainers"
        elif any(one["name"] == name for one in ephemeral_containers(self.pod)):
            sort = "ephemeralContainers"
        return f"spec.{sort}{{{name}}}"

    def _event(self, sort: str, reason: str, message: str, container: str = "") -> None:
        path = self._field_path(container) if container else ""
        self._parts.events.event(self.pod, sort, reason, message, field_path=path)


def _shown(pod: Pod) -> tuple[Any, Any]:
    """Return what of the object itself volumes may show."""
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")


def _rejection(pod: Pod) -> tuple[str, str]:
    """Return why this node must not run the pod, as reason and message, or two empty texts."""
    if (pod.get("status") or {}).get("phase") not in (None, "Pending"):
        return ("", "")
    sysctls = [one["name"] for one in (pod["spec"].get("securityContext") or {}).get("sysctls") or []]
    unsafe = [name for name in sysctls if name not in SAFE_SYSCTLS]
    if unsafe:
        return ("SysctlForbidden", f'forbidden sysctl: "{unsafe[0]}" not allowlisted')
    return ("", "")


def _remove_tree(directory: Any) -> None:
    shutil.rmtree(directory, ignore_errors=True)
