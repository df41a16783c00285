"""Startup, liveness and readiness probes: one task for each probe of each running container.

A task asks every `periodSeconds` and turns runs of successes and failures into the answer that `plan` and `status` read. Liveness
and readiness wait until the startup probe has succeeded. Readiness starts as no (except after a restart of the agent, when it
starts as what was last reported, so that a restart takes no pod out of service), liveness as yes. Mirrors kubelet's prober.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from korch.client.events import EventRecorder
from korch.runtime import tasks
from korch.runtime.context import Runtime as Seams
from korch.runtime.log import get_logger
from korch_agent.cri.protocol import ContainerStatus, Runtime
from korch_agent.pods import handlers
from korch_agent.pods.handlers import HandlerError, Outcome
from korch_agent.pods.observed import Pod, Probed, pod_key

Sort = Literal["startup", "liveness", "readiness"]
SORTS: tuple[Sort, ...] = ("startup", "liveness", "readiness")
NOUN = {"startup": "Startup", "liveness": "Liveness", "readiness": "Readiness"}
TRIES = 3

log = get_logger("probes")


class _Container:
    """The probes of one running container."""

    def __init__(self, *, started: bool, ready: bool) -> None:
        self.started = asyncio.Event()
        if started:
            self.started.set()
        self.ready = ready
        self.live = True
        self.kill_message = ""
        self.grace_s: int | None = None
        self.tasks: list[asyncio.Task[None]] = []


class Probes:
    """All probes of one node. `changed(uid)` is called when an answer changed."""

    def __init__(self, runtime: Runtime, seams: Seams, events: EventRecorder, *, changed: Callable[[str], None]) -> None:
        self._runtime = runtime
        self._seams = seams
        self._events = events
        self._changed = changed
        self._pods: dict[str, dict[str, _Container]] = {}
        self._random = seams.rng.stream("probes")

    def reconcile(
        self, pod: Pod, running: Mapping[str, tuple[dict[str, Any], ContainerStatus]], pod_ip: str, *, began_at: float
    ) -> dict[str, Probed]:
        """Have exactly the probes of the `running` containers (id -> spec and status) run; return their answers by container id.

        `began_at` is when this agent started, in seconds since the epoch: containers older than that keep what was reported.
        """
        uid = pod["metadata"]["uid"]
        probed = self._pods.setdefault(uid, {})
        for container_id in [one for one in probed if one not in running]:
            _end(probed.pop(container_id))
        for container_id, (spec, status) in running.items():
            if container_id not in probed:
                probed[container_id] = self._begin(pod, spec, status, pod_ip, began_at)
        if not probed:
            del self._pods[uid]
        return {
            container_id: Probed(one.started.is_set(), one.ready, one.live, one.kill_message, one.grace_s)
            for container_id, one in probed.items()
        }

    def forget(self, uid: str) -> None:
        """End all probes of a pod."""
        for one in self._pods.pop(uid, {}).values():
            _end(one)

    def _begin(self, pod: Pod, spec: dict[str, Any], status: ContainerStatus, pod_ip: str, began_at: float) -> _Container:
        old = _reported(pod, spec["name"], status.id)
        is_older = status.started_at / 1e9 < began_at
        has_startup, has_readiness = bool(spec.get("startupProbe")), bool(spec.get("readinessProbe"))
        container = _Container(
            started=not has_startup or (is_older and bool(old.get("started"))),
            ready=not has_readiness or (is_older and bool(old.get("ready"))),
        )
        for sort in SORTS:
            probe = spec.get(f"{sort}Probe")
            if probe:
                one = _Probe(self, pod, spec, status, pod_ip, sort, probe, container, is_older)
                container.tasks.append(tasks.spawn(one.run(), name=f"probe/{sort}/{pod_key(pod)}/{spec['name']}"))
        return container


class _Probe:
    """One probe of one container."""

    def __init__(
        self,
        owner: Probes,
        pod: Pod,
        spec: dict[str, Any],
        status: ContainerStatus,
        pod_ip: str,
        sort: Sort,
        probe: Mapping[str, Any],
        container: _Container,
        is_older: bool,
    ) -> None:
        self._owner = owner
        self._pod = pod
        self._spec = spec
        self._status = status
        self._pod_ip = pod_ip
        self._sort: Sort = sort
        self._probe = probe
        self._container = container
        self._is_older = is_older
        self._period_s = float(probe.get("periodSeconds") or 10)
        self._timeout_s = float(probe.get("timeoutSeconds") or 1)
        self._needed = {True: int(probe.get("successThreshold") or 1), False: int(probe.get("failureThreshold") or 3)}

    async def run(self) -> None:
        """Ask until cancelled; a startup probe ends with its first success."""
        if self._sort != "startup":
            await self._container.started.wait()
        elif self._container.started.is_set():
            return
        seams = self._owner._seams
        if self._is_older:
            await asyncio.sleep(self._owner._random.random() * self._period_s)
        due = self._status.started_at / 1e9 + float(self._probe.get("initialDelaySeconds") or 0)
        await asyncio.sleep(max(0.0, due - seams.clock.now()))
        last: bool | None = None
        run = 0
        while True:
            outcome = await self._ask()
            if outcome is not None:
                run = run + 1 if outcome.ok == last else 1
                last = outcome.ok
                if not outcome.ok:
                    self._report(outcome)
                if run >= self._needed[outcome.ok] and self._settle(outcome):
                    return
            await asyncio.sleep(self._period_s)

    async def _ask(self) -> Outcome | None:
        for attempt in range(TRIES):
            try:
                return await self._ask_once()
            except HandlerError as error:
                if attempt == TRIES - 1:
                    message = f"{NOUN[self._sort]} probe errored: {error}"
                    self._event(message)
                    log.debug("probe errored", pod=pod_key(self._pod), container=self._spec["name"], error=str(error))
        return Outcome(False) if self._sort != "startup" else None

    async def _ask_once(self) -> Outcome:
        probe, runtime = self._probe, self._owner._runtime
        if probe.get("exec"):
            return await handlers.run_exec(runtime, self._status.id, probe["exec"].get("command") or [], self._timeout_s)
        if probe.get("httpGet"):
            return await handlers.run_http(probe["httpGet"], self._pod, self._spec, self._pod_ip, self._timeout_s)
        if probe.get("tcpSocket"):
            return await handlers.run_tcp(probe["tcpSocket"], self._spec, self._pod_ip, self._timeout_s)
        if probe.get("grpc"):
            return await handlers.run_grpc(probe["grpc"], self._pod_ip, self._timeout_s)
        raise HandlerError(f"missing probe handler for {self._spec['name']}")

    def _settle(self, outcome: Outcome) -> bool:
        """Make a settled answer known; return whether the probe has done its work."""
        container, changed, done = self._container, False, False
        if self._sort == "readiness":
            changed = container.ready != outcome.ok
            container.ready = outcome.ok
        elif self._sort == "startup" and outcome.ok:
            changed = done = True
            container.started.set()
        elif not outcome.ok:
            changed = done = True
            container.live = False
            container.kill_message = f"Container {self._spec['name']} failed {self._sort} probe, will be restarted"
            container.grace_s = self._probe.get("terminationGracePeriodSeconds")
        if changed:
            self._owner._changed(self._pod["metadata"]["uid"])
        return done

    def _report(self, outcome: Outcome) -> None:
        self._event(f"{NOUN[self._sort]} probe failed: {outcome.output}")

    def _event(self, message: str) -> None:
        path = f"spec.containers{{{self._spec['name']}}}"
        self._owner._events.event(self._pod, "Warning", "Unhealthy", message, field_path=path)


def _reported(pod: Pod, name: str, container_id: str) -> Mapping[str, Any]:
    """Return what the pod's status says of a running container, or nothing when it speaks of another instance."""
    status = pod.get("status") or {}
    for one in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        if one["name"] == name and one.get("containerID", "").endswith(container_id):
            return one
    return {}


def _end(container: _Container) -> None:
    for task in container.tasks:
        task.cancel()
