"""PodStatus: computed from the pod and what is observed, and written by nobody else.

`build_status` is pure. `StatusWriter` sends what changed as a strategic merge patch (so that conditions set by others survive)
with the pod's uid as precondition; while one patch of a pod is under way, later states of it replace each other. Mirrors kubelet's
generateAPIPodStatus and status manager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson

from korch.api.errors import ApiError, Conflict, NotFound
from korch.api.gvk import PODS
from korch.client.protocol import Client
from korch.runtime import tasks
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch_agent.cri.protocol import ContainerStatus
from korch_agent.pods import plan as planning
from korch_agent.pods.observed import (
    RESTART_COUNT,
    Observed,
    Pod,
    all_containers,
    app_containers,
    applied_resources,
    ephemeral_containers,
    full_name,
    init_containers,
    is_deleting,
    is_sidecar,
    pod_key,
    restart_count,
)
from korch_agent.pods.resources import qos_class

Status = dict[str, Any]
OWN_CONDITIONS = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
RETRY_S = 1.0

log = get_logger("status")


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a pod's status says of its node."""

    host_ips: tuple[str, ...] = ()


def build_status(
    pod: Pod, seen: Observed, planned: planning.Plan, now: float, *, node: NodeFacts, messages: Callable[[str, ContainerStatus], str]
) -> Status:
    """Return the whole PodStatus. `messages(container name, ended instance)` returns a termination message."""
    old = pod.get("status") or {}
    builder = _Builder(pod, seen, planned, messages)
    init = [builder.container(one, "init") for one in init_containers(pod)]
    apps = [builder.container(one, "app") for one in app_containers(pod)]
    ephemeral = [builder.container(one, "ephemeral") for one in ephemeral_containers(pod)]
    is_over = planned.is_ending and not seen.running()
    phase = _phase(pod, init, apps, is_over=is_over and (is_deleting(pod) or seen.is_deleted))
    reason, message = seen.rejected
    if not reason and planning.deadline_passed(pod, seen, now):
        reason, message = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
    if reason:
        phase = "Failed"
    if phase in ("Succeeded", "Failed") and seen.running():
        phase = "Running" if old.get("phase") not in ("Pending", None) else old.get("phase") or "Pending"
    if old.get("phase") in ("Succeeded", "Failed"):
        phase = old["phase"]
        reason, message = reason or old.get("reason", ""), message or old.get("message", "")
    status: Status = {
        "phase": phase,
        "conditions": _conditions(pod, seen, phase, init, apps, now),
        "startTime": old.get("startTime") or rfc3339(seen.started_at or now),
        "qosClass": qos_class(pod),
    }
    generation = pod["metadata"].get("generation")
    if generation:
        status["observedGeneration"] = generation
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    if node.host_ips:
        status["hostIP"] = node.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in node.host_ips]
    ips = _pod_ips(pod, seen, node)
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]
    for name, values in (("initContainerStatuses", init), ("containerStatuses", apps), ("ephemeralContainerStatuses", ephemeral)):
        if values:
            status[name] = values
    return status


class _Builder:
    """Makes the status of each container of one pod."""

    def __init__(self, pod: Pod, seen: Observed, planned: planning.Plan, messages: Callable[[str, ContainerStatus], str]) -> None:
        self._pod = pod
        self._seen = seen
        self._planned = planned
        self._messages = messages
        old = pod.get("status") or {}
        names = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
        self._old = {one["name"]: one for name in names for one in old.get(name) or []}

    def container(self, spec: Mapping[str, Any], kind: planning.Kind) -> Status:
        name = spec["name"]
        seen, old = self._seen, self._old.get(name, {})
        instances = seen.containers.get(name) or ()
        newest = instances[0] if instances else None
        probed = seen.probed.get(newest.id) if newest is not None else None
        status: Status = {
            "name": name,
            "image": spec.get("image", ""),
            "imageID": "",
            "restartCount": int(old.get("restartCount") or 0),
            "ready": False,
            "started": False,
            "state": {},
            "lastState": old.get("lastState") or {},
        }
        if newest is None:
            self._never_seen(spec, kind, status, old)
            return status
        status["restartCount"] = max(restart_count(newest), status["restartCount"] if RESTART_COUNT not in newest.annotations else 0)
        status["image"] = newest.image or spec.get("image", "")
        status["imageID"] = newest.image_ref
        status["containerID"] = f"containerd://{newest.id}"
        if len(instances) > 1 and instances[1].state == "exited":
            status["lastState"] = {"terminated": self._terminated(instances[1])}
        if newest.state == "running":
            status["state"] = {"running": {"startedAt": rfc3339(newest.started_at / 1e9)}}
            status["started"] = probed.started if probed is not None else True
            status["ready"] = kind != "ephemeral" and bool(status["started"]) and (probed.ready if probed is not None else True)
            if kind == "init" and not is_sidecar(spec):
                status["ready"] = False
            resources = orjson.loads(applied_resources(seen, newest, spec))
            status["resources"] = resources
            if resources.get("requests"):
                status["allocatedResources"] = resources["requests"]
        elif newest.state == "exited":
            status["state"] = {"terminated": self._terminated(newest)}
            status["ready"] = kind == "init" and not is_sidecar(spec) and newest.exit_code == 0
            self._waits_again(spec, status)
        else:
            status["state"] = {"waiting": {"reason": "ContainerCreating"}}
        if kind == "ephemeral":
            status["ready"] = False
        return status

    def _never_seen(self, spec: Mapping[str, Any], kind: planning.Kind, status: Status, old: Mapping[str, Any]) -> None:
        """Fill in a container that the runtime has no instance of."""
        waiting = self._seen.waiting.get(spec["name"])
        ended = (old.get("state") or {}).get("terminated")
        if ended:
            # It was seen to end, and its instance is gone: what was reported stays true.
            status |= {key: old[key] for key in ("state", "imageID", "containerID", "ready", "image") if key in old}
            return
        if self._planned.is_ending and (old.get("state") or {}).get("running"):
            status["state"] = {
                "terminated": {
                    "exitCode": 137,
                    "reason": "ContainerStatusUnknown",
                    "message": "The container could not be located when the pod was terminated",
                    "startedAt": None,
                    "finishedAt": None,
                }
            }
            return
        if waiting is not None:
            status["state"] = {"waiting": {"reason": waiting.reason, "message": waiting.message}}
            return
        before = kind == "app" and bool(init_containers(self._pod)) and not _initialized_by(self._pod, self._seen)
        status["state"] = {"waiting": {"reason": "PodInitializing" if before else "ContainerCreating"}}

    def _waits_again(self, spec: Mapping[str, Any], status: Status) -> None:
        """Turn an ended container that is to be started again into a waiting one."""
        name = spec["name"]
        waiting = self._seen.waiting.get(name)
        if name in self._planned.backing_off:
            delay = _duration(self._planned.backing_off[name])
            message = f"back-off {delay} restarting failed container={name} pod={full_name(self._pod)}"
            reason = {"reason": "CrashLoopBackOff", "message": message}
        elif waiting is not None:
            reason = {"reason": waiting.reason, "message": waiting.message}
        else:
            return
        status["lastState"] = status["state"]
        status["state"] = {"waiting": reason}
        status["ready"] = False

    def _terminated(self, ended: ContainerStatus) -> Status:
        state: Status = {
            "exitCode": ended.exit_code,
            "reason": ended.reason or ("Completed" if ended.exit_code == 0 else "Error"),
            "startedAt": rfc3339(ended.started_at / 1e9),
            "finishedAt": rfc3339(ended.finished_at / 1e9),
            "containerID": f"containerd://{ended.id}",
        }
        message = self._messages(ended.name, ended) or ended.message
        if message:
            state["message"] = message
        return state


def _initialized_by(pod: Pod, seen: Observed) -> bool:
    """Return whether all init containers have done their part."""
    if any(seen.newest(container["name"]) is not None for container in app_containers(pod)):
        return True
    for container in init_containers(pod):
        status = seen.newest(container["name"])
        if status is None:
            return False
        if is_sidecar(container):
            probed = seen.probed.get(status.id)
            if status.state != "running" or (probed is not None and not probed.started):
                return False
        elif status.state != "exited" or status.exit_code != 0:
            return False
    return True


def _phase(pod: Pod, init: list[Status], apps: list[Status], *, is_over: bool) -> str:
    """Return the phase. Mirrors kubelet's getPhase."""
    policy = pod["spec"].get("restartPolicy", "Always")
    specs = {container["name"]: container for container in init_containers(pod)}
    for status in init:
        if is_sidecar(specs[status["name"]]):
            continue
        ended = status["state"].get("terminated") or (status["lastState"].get("terminated") if "waiting" in status["state"] else None)
        if ended is None or (ended["exitCode"] != 0 and policy != "Never" and not is_over):
            return "Failed" if is_over else "Pending"
        if ended["exitCode"] != 0:
            return "Failed"
    waiting = running = stopped = failed = 0
    for status in apps:
        state = status["state"]
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            failed += state["terminated"]["exitCode"] != 0
        elif status["lastState"].get("terminated"):
            stopped += 1
            failed += status["lastState"]["terminated"]["exitCode"] != 0
        else:
            waiting += 1
    if is_over:
        return "Failed" if failed or waiting or not stopped else "Succeeded"
    if waiting:
        return "Pending"
    if running:
        return "Running"
    ending = not any("waiting" in status["state"] for status in apps)
    if policy == "Always" or not ending:
        return "Running"
    if not failed:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _conditions(pod: Pod, seen: Observed, phase: str, init: list[Status], apps: list[Status], now: float) -> list[Status]:
    """Return all conditions that the agent owns, keeping the transition times of those that did not change."""
    old = {one["type"]: one for one in (pod.get("status") or {}).get("conditions") or []}
    is_initialized = _initialized_by(pod, seen) if init else True
    incomplete = [one["name"] for one in init if not (one["ready"] or one["state"].get("terminated", {}).get("exitCode") == 0)]
    sidecars = {container["name"] for container in init_containers(pod) if is_sidecar(container)}
    unready = [one["name"] for one in [*(one for one in init if one["name"] in sidecars), *apps] if not one["ready"]]
    unknown = [one["name"] for one in apps if not one["state"]]
    over = phase in ("Succeeded", "Failed")
    ended = {"reason": "PodCompleted" if phase == "Succeeded" else "PodFailed"} if over else {}

    ready_to_start = seen.ready_sandbox is not None and not over
    conditions: list[Status] = [{"type": "PodReadyToStartContainers", "status": _truth(ready_to_start)}]
    if is_initialized or phase == "Succeeded":
        conditions.append({"type": "Initialized", "status": "True"} | (ended if phase == "Succeeded" else {}))
    else:
        message = f"containers with incomplete status: [{' '.join(incomplete)}]"
        conditions.append({"type": "Initialized", "status": "False", "reason": "ContainersNotInitialized", "message": message})
    not_ready: Status = {}
    if over:
        not_ready = ended
    elif unready or unknown:
        not_ready = {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready or unknown)}]"}
    gates = [one["conditionType"] for one in pod["spec"].get("readinessGates") or []]
    closed = [gate for gate in gates if old.get(gate, {}).get("status") != "True"]
    gate_reason: Status = {}
    if not not_ready and closed:
        said = "; ".join(
            f'the status of pod readiness gate "{gate}" is not "True", but {old[gate]["status"]}'
            if gate in old
            else f'corresponding condition of pod readiness gate "{gate}" does not exist.'
            for gate in closed
        )
        gate_reason = {"reason": "ReadinessGatesNotReady", "message": said}
    conditions.append({"type": "Ready", "status": _truth(not not_ready and not closed)} | (not_ready or gate_reason))
    conditions.append({"type": "ContainersReady", "status": _truth(not not_ready)} | not_ready)
    conditions.append({"type": "PodScheduled", "status": "True"})
    generation = pod["metadata"].get("generation")
    for one in conditions:
        before = old.get(one["type"])
        same = before is not None and before.get("status") == one["status"] and before.get("lastTransitionTime")
        one["lastTransitionTime"] = before["lastTransitionTime"] if same and before is not None else rfc3339(now)
        one["lastProbeTime"] = None
        if generation:
            one["observedGeneration"] = generation
    return conditions


def _pod_ips(pod: Pod, seen: Observed, node: NodeFacts) -> tuple[str, ...]:
    if pod["spec"].get("hostNetwork"):
        return node.host_ips if seen.sandboxes else ()
    if seen.sandbox is not None and seen.sandbox.ips:
        return seen.sandbox.ips
    old = (pod.get("status") or {}).get("podIPs") or []
    return tuple(one["ip"] for one in old) if seen.sandbox is not None or is_deleting(pod) else ()


def _truth(value: bool) -> str:
    return "True" if value else "False"


def _duration(seconds: float) -> str:
    """Return seconds as Go prints a duration: 10s, 2m40s, 5m0s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def patch_for(pod: Pod, old: Status, new: Status) -> dict[str, Any] | None:
    """Return the strategic merge patch that turns `old` into `new`, or None when there is nothing to say."""
    changes: dict[str, Any] = {}
    for key, value in new.items():
        if key == "conditions":
            before = {one["type"]: one for one in old.get("conditions") or []}
            changed = [_patched_condition(before.get(one["type"]), one) for one in value if _differs(before.get(one["type"]), one)]
            if changed:
                changes[key] = changed
        elif key in ("podIPs", "hostIPs"):
            if old.get(key) != value:
                changes[key] = [{"$patch": "replace"}, *value] if old.get(key) else value
        elif old.get(key) != value:
            changes[key] = value
    for key in ("message", "reason", "podIP", "podIPs"):
        if old.get(key) and key not in new:
            changes[key] = None
    if not changes:
        return None
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": changes}


def _differs(old: Status | None, new: Status) -> bool:
    names = ("status", "reason", "message", "observedGeneration")
    return old is None or any((old.get(name) or None) != (new.get(name) or None) for name in names)


def _patched_condition(old: Status | None, new: Status) -> Status:
    cleared = {name: None for name in ("reason", "message") if old and old.get(name) and name not in new}
    return new | cleared


class StatusWriter:
    """Sends pod statuses to the API server; one patch of a pod is under way at a time."""

    def __init__(self, client: Client, runtime: Runtime) -> None:
        self._client = client
        self._runtime = runtime
        self._wanted: dict[str, tuple[Pod, Status]] = {}
        # What the server is known to hold, by uid: the answer to the last patch, newer than the informer's view.
        self._known: dict[str, Status] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._idle: dict[str, asyncio.Event] = {}

    def known(self, pod: Pod) -> Status:
        """Return the newest status that the server is known to hold."""
        return self._known.get(pod["metadata"]["uid"]) or pod.get("status") or {}

    def observe(self, pod: Pod) -> None:
        """Take note of a newer object from the watch, unless a patch is under way."""
        uid = pod["metadata"]["uid"]
        if uid in self._known and uid not in self._writing:
            self._known[uid] = pod.get("status") or {}

    def set(self, pod: Pod, status: Status) -> None:
        """Have `status` written; returns at once. A newer one replaces one that waits."""
        uid = pod["metadata"]["uid"]
        self._wanted[uid] = (pod, status)
        if uid not in self._writing:
            self._writing[uid] = tasks.spawn(self._write(uid), name=f"status/{pod_key(pod)}")

    async def settled(self, uid: str) -> None:
        """Await the moment when nothing of this pod is left to be written."""
        task = self._writing.get(uid)
        if task is not None:
            await asyncio.shield(task)

    def forget(self, uid: str) -> None:
        """Drop what is known of a pod that is gone."""
        self._wanted.pop(uid, None)
        self._known.pop(uid, None)

    async def _write(self, uid: str) -> None:
        try:
            while (wanted := self._wanted.pop(uid, None)) is not None:
                pod, status = wanted
                patch = patch_for(pod, self.known(pod), status)
                if patch is not None and not await self._send(pod, patch):
                    self._wanted.setdefault(uid, wanted)
                    await asyncio.sleep(RETRY_S)
        finally:
            self._writing.pop(uid, None)

    async def _send(self, pod: Pod, patch: dict[str, Any]) -> bool:
        meta = pod["metadata"]
        try:
            raw = await self._client.patch(
                PODS, meta["name"], patch, namespace=meta["namespace"], subresource="status", patch_type="strategic"
            )
        except (NotFound, Conflict) as error:
            log.debug("pod is gone or another one; status dropped", pod=pod_key(pod), error=str(error))
            return True
        except (ApiError, ConnectionError, TimeoutError) as error:
            log.warning("pod status not written; trying again", pod=pod_key(pod), error=str(error))
            return False
        self._known[meta["uid"]] = (msgspec.json.decode(raw).get("status")) or {}
        return True


__all__ = ["NodeFacts", "StatusWriter", "all_containers", "build_status", "patch_for"]
