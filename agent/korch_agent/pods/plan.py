"""What to do for one pod now: a pure function from the pod, what is observed, and the time, to a list of actions.

The order of a pod's life: volumes, sandbox, init containers one after the other (a sidecar counts as done once it has started),
then app containers. A pod ends when it is deleted, when its deadline passes, or when its containers are done and its policy does
not restart them: app containers are stopped together, sidecars after them in reverse order, then the sandbox, then everything is
taken away. Nothing here remembers: what is not in the observation did not happen. Mirrors kubelet's computePodActions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
import orjson

from korch_agent.cri.protocol import ContainerStatus
from korch_agent.pods.observed import (
    CONTAINER_HASH,
    Observed,
    Pod,
    all_containers,
    app_containers,
    applied_resources,
    back_off_until,
    container_hash,
    ephemeral_containers,
    grace_s,
    init_containers,
    is_deleting,
    is_sidecar,
    resources_key,
    restart_count,
)

Kind = Literal["init", "app", "ephemeral"]


class MountVolumes(msgspec.Struct, frozen=True, tag=True):
    """Set up all volumes."""


class RunSandbox(msgspec.Struct, frozen=True, tag=True):
    attempt: int


class StopSandbox(msgspec.Struct, frozen=True, tag=True):
    """Stop a sandbox whose containers have ended."""

    id: str


class RemoveSandbox(msgspec.Struct, frozen=True, tag=True):
    id: str


class RemoveContainer(msgspec.Struct, frozen=True, tag=True):
    """Remove a dead instance that nobody asks about any more."""

    id: str


class StartContainer(msgspec.Struct, frozen=True, tag=True):
    """Create and start a container; `restarts` is its restart count from then on."""

    name: str
    kind: Kind
    restarts: int
    previous: str = ""


class KillContainer(msgspec.Struct, frozen=True, tag=True):
    id: str
    name: str
    grace_s: int
    message: str = ""


class ResizeContainer(msgspec.Struct, frozen=True, tag=True):
    """Give a running container the resources that its spec names now."""

    id: str
    name: str


class Finish(msgspec.Struct, frozen=True, tag=True):
    """Take away volumes and cgroups; with `delete` the Pod object, its sandboxes and files too."""

    delete: bool


Action = (
    MountVolumes | RunSandbox | StopSandbox | RemoveSandbox | RemoveContainer | StartContainer | KillContainer | ResizeContainer | Finish
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, when to look again at the latest, and which containers wait for their back-off (name -> seconds of it)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    backing_off: Mapping[str, float] = {}
    is_ending: bool = False


def plan(pod: Pod, seen: Observed, now: float) -> Plan:
    """Return the next steps of `pod`. Steps that need the outcome of others come in a later plan."""
    if is_deleting(pod) or seen.is_deleted:
        return _plan_end(pod, seen, delete=True)
    if seen.rejected[0] or deadline_passed(pod, seen, now) or is_done(pod, seen):
        return _plan_end(pod, seen, delete=False)
    planner = _Planner(pod, seen, now)
    planner.plan_life()
    return Plan(actions=tuple(planner.actions), wake_at=min(planner.wakes, default=None), backing_off=planner.backing_off)


def deadline_passed(pod: Pod, seen: Observed, now: float) -> bool:
    """Return whether activeDeadlineSeconds have passed since the pod was started here."""
    deadline = pod["spec"].get("activeDeadlineSeconds")
    return deadline is not None and seen.started_at > 0 and now >= seen.started_at + deadline


def is_done(pod: Pod, seen: Observed) -> bool:
    """Return whether nothing of the pod will ever run again: it is terminal, or its policy restarts nothing."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    policy = pod["spec"].get("restartPolicy", "Always")
    for container in init_containers(pod):
        if is_sidecar(container):
            continue
        status = seen.newest(container["name"])
        if status is not None and status.state == "exited" and status.exit_code != 0 and not restarts(container, policy, status):
            return True
    for container in app_containers(pod):
        status = seen.newest(container["name"])
        if status is None or status.state != "exited" or restarts(container, policy, status):
            return False
    return bool(app_containers(pod))


def restarts(container: Mapping[str, Any], pod_policy: str, status: ContainerStatus) -> bool:
    """Return whether an ended container is started again, by its own rules, its own policy, or the pod's."""
    for rule in container.get("restartPolicyRules") or []:
        codes = rule.get("exitCodes")
        if codes is None:
            continue
        listed = status.exit_code in (codes.get("values") or [])
        if listed == (codes.get("operator") == "In"):
            return rule.get("action") == "Restart"
    policy = container.get("restartPolicy") or pod_policy
    return policy == "Always" or (policy == "OnFailure" and status.exit_code != 0)


class _Planner:
    """Collects the actions of one living pod."""

    def __init__(self, pod: Pod, seen: Observed, now: float) -> None:
        self.pod = pod
        self.seen = seen
        self.now = now
        self.policy = pod["spec"].get("restartPolicy", "Always")
        self.actions: list[Action] = []
        self.wakes: list[float] = []
        self.backing_off: dict[str, float] = {}

    def plan_life(self) -> None:
        seen = self.seen
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None and seen.started_at > 0:
            self.wakes.append(seen.started_at + deadline)
        if not seen.volumes_ready:
            if seen.volumes_retry_at > self.now:
                self.wakes.append(seen.volumes_retry_at)
            else:
                self.actions.append(MountVolumes())
            return
        self._tidy()
        if seen.ready_sandbox is None:
            self._plan_sandbox()
            return
        self._kill_what_must_go()
        if self._plan_init():
            for container in app_containers(self.pod):
                self._plan_container(container, "app")
        for container in ephemeral_containers(self.pod):
            if seen.newest(container["name"]) is None:
                self._start(container, "ephemeral")

    def _plan_sandbox(self) -> None:
        """Replace a sandbox that died: first whatever still runs in it ends, then a new one starts."""
        seen = self.seen
        running = seen.running()
        if running:
            for status in running:
                self._kill(status, 0, "Pod sandbox changed, it will be killed and re-created.")
            return
        if seen.sandbox_retry_at > self.now:
            self.wakes.append(seen.sandbox_retry_at)
            return
        attempt = seen.sandbox.attempt + 1 if seen.sandbox is not None else 0
        if seen.sandbox is not None:
            self.actions.append(StopSandbox(seen.sandbox.id))
        self.actions.append(RunSandbox(attempt))

    def _tidy(self) -> None:
        """Stop sandboxes that a newer one replaced and keep one dead instance of each container beside the newest."""
        for name, instances in self.seen.containers.items():
            for status in instances[2:]:
                if status.state == "exited" and name:
                    self.actions.append(RemoveContainer(status.id))
        occupied = {one.sandbox_id for instances in self.seen.containers.values() for one in instances[:2]}
        for sandbox in self.seen.sandboxes[1:]:
            if sandbox.is_ready:
                self.actions.append(StopSandbox(sandbox.id))
            elif sandbox.id not in occupied:
                self.actions.append(RemoveSandbox(sandbox.id))

    def _kill_what_must_go(self) -> None:
        """Kill containers whose probe says so, whose definition changed, or that belong to a sandbox of the past."""
        known = {container["name"]: container for container in all_containers(self.pod)}
        assert self.seen.sandbox is not None
        for status in self.seen.running():
            container = known.get(status.name)
            probed = self.seen.probed.get(status.id)
            if status.sandbox_id != self.seen.sandbox.id or container is None:
                self._kill(status, 0, "")
            elif status.annotations.get(CONTAINER_HASH, "") != container_hash(container):
                self._kill(status, None, f"Container {status.name} definition changed, will be restarted")
            elif probed is not None and not probed.live:
                self._kill(status, probed.grace_s, probed.kill_message)
            elif (applied := applied_resources(self.seen, status, container)) != resources_key(container):
                self._resize(status, container, applied)

    def _resize(self, status: ContainerStatus, container: Mapping[str, Any], applied: str) -> None:
        """Resize in place, or by a restart where the container's resizePolicy wants one."""
        before, after = orjson.loads(applied), container.get("resources") or {}

        def changed(name: str) -> bool:
            return any((before.get(sort) or {}).get(name) != (after.get(sort) or {}).get(name) for sort in ("requests", "limits"))

        policies = {one["resourceName"]: one.get("restartPolicy") for one in container.get("resizePolicy") or []}
        if any(policies.get(name) == "RestartContainer" and changed(name) for name in ("cpu", "memory")):
            self._kill(status, None, f"Container {status.name} resize requires restart")
        else:
            self.actions.append(ResizeContainer(status.id, status.name))

    def _plan_init(self) -> bool:
        """Plan init containers; return whether app containers may run."""
        past = any(self.seen.current(container["name"]) is not None for container in app_containers(self.pod))
        for container in init_containers(self.pod):
            status = self.seen.current(container["name"])
            if is_sidecar(container):
                self._plan_container(container, "init")
                probed = self.seen.probed.get(status.id) if status is not None else None
                has_started = status is not None and status.state == "running" and (probed is None or probed.started)
                if not has_started and not past:
                    return False
                continue
            if past or (status is not None and status.state == "exited" and status.exit_code == 0):
                continue
            self._plan_container(container, "init")
            return False
        return True

    def _plan_container(self, container: Mapping[str, Any], kind: Kind) -> None:
        name = container["name"]
        status = self.seen.current(name)
        if status is None:
            # An instance in a dead sandbox counts for the policy: a job that has run is not run again.
            older = self.seen.newest(name)
            if kind == "app" and older is not None and older.state == "exited" and not restarts(container, self.policy, older):
                return
            self._start(container, kind)
            return
        if status.state == "running":
            return
        if status.state == "exited":
            policy = "Always" if kind == "init" and is_sidecar(container) else self.policy
            if kind == "init" and not is_sidecar(container) and policy == "Always":
                policy = "OnFailure"
            if not restarts(container, policy, status):
                return
            until = back_off_until(self.seen.crashes.get(name), finished_at=status.finished_at / 1e9)
            if until > self.now:
                self.backing_off[name] = self.seen.crashes[name].delay_s
                self.wakes.append(until)
                return
        self._start(container, kind)

    def _start(self, container: Mapping[str, Any], kind: Kind) -> None:
        name = container["name"]
        waiting = self.seen.waiting.get(name)
        if waiting is not None and waiting.retry_at > self.now:
            self.wakes.append(waiting.retry_at)
            return
        newest = self.seen.newest(name)
        count = 0 if newest is None else restart_count(newest) + 1
        self.actions.append(StartContainer(name, kind, count, newest.id if newest is not None else ""))

    def _kill(self, status: ContainerStatus, grace: int | None, message: str) -> None:
        if status.id not in self.seen.killing:
            self.actions.append(KillContainer(status.id, status.name, grace_s(self.pod) if grace is None else grace, message))


def _plan_end(pod: Pod, seen: Observed, *, delete: bool) -> Plan:
    running = seen.running()
    if running:
        kills = [
            KillContainer(status.id, status.name, grace, f"Stopping container {status.name}")
            for status, grace in _next_to_stop(pod, seen, running)
        ]
        return Plan(actions=tuple(kills), is_ending=True)
    actions: list[Action] = [StopSandbox(sandbox.id) for sandbox in seen.sandboxes if sandbox.is_ready or delete]
    if delete or not seen.is_finished:
        actions.append(Finish(delete))
    return Plan(actions=tuple(actions), is_ending=True)


def _next_to_stop(pod: Pod, seen: Observed, running: Iterable[ContainerStatus]) -> list[tuple[ContainerStatus, int]]:
    """Return the containers to stop now: all but the sidecars first, then the last sidecar that still runs."""
    grace = grace_s(pod)
    sidecars = [container["name"] for container in init_containers(pod) if is_sidecar(container)]
    first = [status for status in running if status.name not in sidecars]
    if not first:
        ordered = sorted(running, key=lambda status: sidecars.index(status.name))
        first = ordered[-1:]
    # One that is being killed is killed again only when it is now given less time.
    return [(status, grace) for status in first if status.id not in seen.killing or seen.killing[status.id] > grace]
