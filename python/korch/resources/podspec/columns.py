"""The columns of `kubectl get pods`: one word that sums up phase, reasons and container states, and the restarts behind it.

The word is the first of: Terminating, an init container's trouble (`Init:...`), the last container's waiting or exit reason, the
pod's own reason, its phase. Mirrors printPod of kubernetes' pkg/printers/internalversion.
"""

from __future__ import annotations

from dataclasses import dataclass

from korch.api.conditions import condition_status
from korch.api.duration import since
from korch.api.meta import at, is_deleting
from korch.resources.columns import AGE, NAME, NONE, cell
from korch.resources.resource import Column, Object


@dataclass(slots=True)
class _Restarts:
    count: int = 0
    last_at: str = ""

    def add(self, container_status: Object) -> None:
        self.count += container_status.get("restartCount") or 0
        finished_at = at(container_status, "lastState", "terminated", "finishedAt") or ""
        # RFC 3339 in UTC and whole seconds sorts as text.
        self.last_at = max(self.last_at, finished_at)


@dataclass(slots=True)
class _Summary:
    ready: int
    total: int
    word: str
    restarts: _Restarts


def _is_sidecar(container: Object | None) -> bool:
    return container is not None and container.get("restartPolicy") == "Always"


def _exit_word(terminated: Object) -> str:
    if terminated.get("reason"):
        return terminated["reason"]
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _summarize(pod: Object) -> _Summary:
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    init_containers = {one.get("name"): one for one in spec.get("initContainers") or ()}
    sidecars = sum(_is_sidecar(one) for one in init_containers.values())
    word = status.get("reason") or status.get("phase") or ""
    if any(one.get("type") == "PodScheduled" and one.get("reason") == "SchedulingGated" for one in status.get("conditions") or ()):
        word = "SchedulingGated"
    summary = _Summary(0, len(spec.get("containers") or ()) + sidecars, word, _Restarts())
    sidecar_restarts = _Restarts()
    is_initializing = _add_init_containers(summary, status, init_containers, sidecar_restarts)
    if not is_initializing or condition_status(pod, "Initialized") == "True":
        summary.restarts = sidecar_restarts
        _add_containers(summary, pod, status)
    if is_deleting(pod) and status.get("reason") == "NodeLost":
        summary.word = "Unknown"
    elif is_deleting(pod) and status.get("phase") not in ("Succeeded", "Failed"):
        summary.word = "Terminating"
    return summary


def _add_init_containers(summary: _Summary, status: Object, init_containers: dict[str, Object], sidecar_restarts: _Restarts) -> bool:
    """Account for the init containers up to the first that has not done its part; return whether there is such a one."""
    for position, one in enumerate(status.get("initContainerStatuses") or ()):
        is_sidecar = _is_sidecar(init_containers.get(one.get("name", "")))
        summary.restarts.add(one)
        if is_sidecar:
            sidecar_restarts.add(one)
        terminated, waiting = at(one, "state", "terminated"), at(one, "state", "waiting")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if is_sidecar and one.get("started"):
            summary.ready += bool(one.get("ready"))
            continue
        if terminated is not None:
            summary.word = "Init:" + _exit_word(terminated)
        elif waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            summary.word = "Init:" + waiting["reason"]
        else:
            summary.word = f"Init:{position}/{len(init_containers)}"
        return True
    return False


def _add_containers(summary: _Summary, pod: Object, status: Object) -> None:
    has_running = False
    for one in reversed(status.get("containerStatuses") or ()):
        summary.restarts.add(one)
        terminated, waiting = at(one, "state", "terminated"), at(one, "state", "waiting")
        if waiting is not None and waiting.get("reason"):
            summary.word = waiting["reason"]
        elif terminated is not None:
            summary.word = _exit_word(terminated)
        elif one.get("ready") and at(one, "state", "running") is not None:
            has_running = True
            summary.ready += 1
    if summary.word == "Completed" and has_running:
        summary.word = "Running" if condition_status(pod, "Ready") == "True" else "NotReady"


def _ready(pod: Object) -> str:
    summary = _summarize(pod)
    return f"{summary.ready}/{summary.total}"


def _restarts(pod: Object, now: float) -> str:
    restarts = _summarize(pod).restarts
    return f"{restarts.count} ({since(restarts.last_at, now)} ago)" if restarts.count and restarts.last_at else str(restarts.count)


def _ip(pod: Object) -> str:
    addresses = at(pod, "status", "podIPs") or ()
    return (addresses[0].get("ip") if addresses else at(pod, "status", "podIP")) or NONE


def _readiness_gates(pod: Object) -> str:
    gates = at(pod, "spec", "readinessGates") or ()
    if not gates:
        return NONE
    return f"{sum(condition_status(pod, gate.get('conditionType', '')) == 'True' for gate in gates)}/{len(gates)}"


def row_conditions(pod: Object) -> list[Object]:
    """Return the table row's conditions, by which clients may hide pods that have run to their end."""
    phase = at(pod, "status", "phase")
    if phase == "Succeeded":
        return [{"type": "Completed", "status": "True", "reason": "Succeeded", "message": "The pod has completed successfully."}]
    if phase == "Failed":
        return [{"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod failed."}]
    return []


POD_COLUMNS: tuple[Column, ...] = (
    NAME,
    cell("Ready", _ready, description="Containers that are ready, of all that run for the pod's life."),
    cell("Status", lambda pod: _summarize(pod).word, description="The state of the pod and its containers in one word."),
    Column("Restarts", _restarts, description="How often containers were restarted, and when last."),
    AGE,
    cell("IP", _ip, description="Address of the pod.", priority=1),
    cell("Node", lambda pod: at(pod, "spec", "nodeName") or NONE, description="Node that the pod is bound to.", priority=1),
    cell(
        "Nominated Node",
        lambda pod: at(pod, "status", "nominatedNodeName") or NONE,
        description="Node where room is being made for the pod.",
        priority=1,
    ),
    cell("Readiness Gates", _readiness_gates, description="Readiness gates that are true, of all.", priority=1),
)
