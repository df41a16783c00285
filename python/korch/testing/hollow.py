"""Nodes without machines: they register, renew their lease, and run the pods bound to them by saying so.

A hollow node uses nothing but a Client, so the same code fills simulations, `korch up --sim-nodes` and the scheduling lab. A pod
becomes Running and Ready after a seeded delay, gets an address from the node's range, and honours its grace period when it is
deleted. Whether a pod ends by itself is said by annotations: `korch.dev/sim-run-seconds` (how long its containers run) and
`korch.dev/sim-exit-code`; pods of Jobs without them run for one second and succeed. Probes are not simulated. What a node knows it
reads from the objects; only the draws of delays and addresses live in memory. Mirrors kwok, and the kubelet's timing.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import orjson

from korch.api.conditions import condition_status, get_condition, set_condition
from korch.api.errors import AlreadyExists, ApiError, Conflict, NotFound
from korch.api.gvk import NODES, PODS
from korch.api.meta import annotations_of, at, controller_of, is_deleting, uid_of
from korch.api.pods import is_terminal, phase_of
from korch.client.backoff import Backoff
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.lease import NODE_RENEW_S, NodeLease, until_tick_s
from korch.client.projections import decoder, object_key
from korch.client.protocol import Client, DeleteOptions
from korch.runtime.clock import parse_rfc3339, rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

log = get_logger("hollow")
Object = dict[str, Any]

RUN_SECONDS = "korch.dev/sim-run-seconds"
EXIT_CODE = "korch.dev/sim-exit-code"
JOB_RUN_S = 1.0
STATUS_PERIOD_S = 10.0
# An unchanged status is written again after this long (nodeStatusReportFrequency).
STATUS_REPORT_S = 300.0
RESTART_BACKOFF_S_FIRST, RESTART_BACKOFF_S_MAX = 10.0, 300.0
EXIT_SIGTERM = 143
# How long a node waits for a controller to give it a pod range before it uses its own.
POD_CIDR_WAIT_S = 5.0
PRESSURES = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a hollow node looks like. Delays are (least, most) seconds; `renew_s` lie between two renewals of its lease, and at least
    as many between two looks at its status. Both fall on multiples of `tick_s`, together with those of other nodes, unless that is 0.

    `address` and `pod_cidr` follow from the number at the end of the node's name when they are empty. `pod_cidr` counts only where no
    controller gives the Node a range of its own, unless the node `registers_pod_cidr`: then nobody has to give it one.
    """

    capacity: dict[str, str] = field(default_factory=lambda: {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"})
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Object, ...] = ()
    address: str = ""
    pod_cidr: str = ""
    registers_pod_cidr: bool = False
    renew_s: float = NODE_RENEW_S
    tick_s: float = 0.0
    start_s: tuple[float, float] = (0.2, 1.5)
    stop_s: tuple[float, float] = (0.1, 2.0)


class HollowNode:
    """One node. `run` registers it and plays its kubelet until cancelled; a cancelled node is a dead one."""

    def __init__(self, client: Client, name: str, runtime: Runtime, *, shape: Shape = Shape()) -> None:
        self.name = name
        self.shape = numbered(shape, _number(name))
        self._client = client
        self._runtime = runtime
        self._random = runtime.rng.stream(f"hollow/{name}")
        # The Node as it was when its status was found right, and until when that is enough.
        self._right, self._right_until = b"", 0.0
        self.lease = NodeLease(client, name, runtime, renew_s=shape.renew_s, tick_s=shape.tick_s)
        self.pods = HollowPods(client, runtime, self)

    async def run(self) -> None:
        """Live until cancelled."""
        await self._register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.lease.run(), name=f"{self.name}/lease")
            group.create_task(self._report(), name=f"{self.name}/status")
            group.create_task(self.pods.run(), name=f"{self.name}/pods")

    async def _register(self) -> None:
        backoff = Backoff(self._random, initial_s=0.2, cap_s=7.0)
        while True:
            try:
                await self._client.create(NODES, self._node())
                return
            except AlreadyExists:
                return
            except (ApiError, ConnectionError, TimeoutError) as error:
                log.debug("node not registered", node=self.name, error=str(error))
            await asyncio.sleep(backoff.next_s())

    async def _report(self) -> None:
        while True:
            try:
                await self._report_once()
            except (ApiError, ConnectionError, TimeoutError) as error:
                log.debug("node status not reported", node=self.name, error=str(error))
            pause_s = max(STATUS_PERIOD_S, self.shape.renew_s) * (1 + 0.04 * self._random.random())
            await asyncio.sleep(until_tick_s(pause_s, self.shape.tick_s))

    async def _report_once(self) -> None:
        raw = await self._client.get(NODES, self.name)
        now = self._runtime.clock.now()
        if raw == self._right and now < self._right_until:
            return
        node = orjson.loads(raw)
        status = node.setdefault("status", {})
        heartbeat = (get_condition(node, "Ready") or {}).get("lastHeartbeatTime")
        changed = self._set_conditions(status, now)
        wanted = self._static_status()
        changed |= any(status.get(name) != value for name, value in wanted.items())
        report_at = parse_rfc3339(heartbeat) + STATUS_REPORT_S if heartbeat else now
        if not changed and now < report_at:
            self._right, self._right_until = raw, report_at
        else:
            patch = {"status": wanted | {"conditions": status["conditions"]}}
            await self._client.patch(NODES, self.name, patch, subresource="status", patch_type="strategic")

    def _node(self) -> Object:
        status = self._static_status()
        self._set_conditions(status, self._runtime.clock.now())
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "korch.dev/simulated": "true",
        }
        spec: Object = {"taints": list(self.shape.taints)} if self.shape.taints else {}
        if self.shape.registers_pod_cidr:
            spec |= {"podCIDR": self.shape.pod_cidr, "podCIDRs": [self.shape.pod_cidr]}
        metadata = {"name": self.name, "labels": labels | self.shape.labels}
        return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}

    def _static_status(self) -> Object:
        return {
            "capacity": dict(self.shape.capacity),
            "allocatable": dict(self.shape.capacity),
            "addresses": [{"type": "InternalIP", "address": self.shape.address}, {"type": "Hostname", "address": self.name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "korch-hollow://1",
                "kernelVersion": "simulated",
                "kubeProxyVersion": "",
                "kubeletVersion": "v1.37.0-korch",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "simulated",
                "systemUUID": "",
            },
        }

    def _set_conditions(self, status: Object, now: float) -> bool:
        at_now = rfc3339(now)
        changed = False
        for kind, reason, message in PRESSURES:
            changed |= set_condition(status, kind, "False", now=now, reason=reason, message=message, lastHeartbeatTime=at_now)
        message = "the node is simulated and always ready"
        return set_condition(status, "Ready", "True", now=now, reason="KubeletReady", message=message, lastHeartbeatTime=at_now) or changed


class _Metadata(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""
    podIP: str = ""


class _Neighbour(msgspec.Struct, frozen=True):
    """What a node keeps of each of its pods: its key, and the address that it takes."""

    metadata: _Metadata = _Metadata()
    status: _Status = _Status()

    @property
    def address(self) -> str:
        """Return the address that nobody else may have, empty for a pod that is over."""
        return "" if self.status.phase in ("Succeeded", "Failed") else self.status.podIP


def _key(pod: _Neighbour) -> tuple[str]:
    return (object_key(pod.metadata.namespace, pod.metadata.name),)


@dataclass(slots=True)
class _Drawn:
    """What was drawn for one pod, by uid: when it starts, stops and corrects its status (seconds since the epoch), and its address."""

    start_at: float
    address: str = ""
    stop_at: float = 0.0
    correct_at: float = 0.0


class HollowPods(Controller):
    """The pods of one hollow node; a key is a pod. Status is written from what the object says and what time it is."""

    workers = 2

    def __init__(self, client: Client, runtime: Runtime, node: HollowNode) -> None:
        self.name = "kubelet"  # type: ignore[misc]  # the component that events name
        mine = Watch(PODS, keys=_key, decode=decoder(_Neighbour), field_selector=f"spec.nodeName={node.name}")
        self.watches = (mine,)  # type: ignore[misc]
        super().__init__(client, Informers(client, runtime), runtime)
        self._node = node
        self._random = runtime.rng.stream(f"hollow/{node.name}/pods")
        self._drawn: dict[str, _Drawn] = {}
        self._uids: dict[str, str] = {}
        self._network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
        self._next_address = 1
        self._began_at = runtime.clock.now()

    async def reconcile(self, key: str) -> Requeue | None:
        raw = self.informer(PODS).raw(key)
        if raw is None:
            self._drawn.pop(self._uids.pop(key, ""), None)
            return None
        pod: Object = orjson.loads(raw)
        if self._uids.get(key, uid_of(pod)) != uid_of(pod):
            self._drawn.pop(self._uids[key], None)
        self._uids[key] = uid_of(pod)
        now = self.runtime.clock.now()
        if is_deleting(pod):
            return await self._stop(key, pod, now)
        if is_terminal(pod):
            return None
        if phase_of(pod) != "Running":
            return await self._start(key, pod, now)
        return await self._live(key, pod, now)

    async def _start(self, key: str, pod: Object, now: float) -> Requeue | None:
        drawn = self._draw(pod, now)
        if now < drawn.start_at:
            return Requeue(drawn.start_at - now)
        if self._network is None and not await self._learn_range(now):
            return Requeue(0.5)
        status = pod.get("status") or {}
        status |= {"phase": "Running", "hostIP": self._node.shape.address, "hostIPs": [{"ip": self._node.shape.address}]}
        status.setdefault("startTime", rfc3339(now))
        address = self._address(pod, drawn)
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
        done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": rfc3339(now), "finishedAt": rfc3339(now)}}
        if first := at(pod, "spec", "initContainers"):
            status["initContainerStatuses"] = [_container(one, done, 0, is_ready=True) for one in first]
        running = {"running": {"startedAt": rfc3339(now)}}
        status["containerStatuses"] = [_container(one, running, 0, is_ready=True) for one in pod["spec"]["containers"]]
        await self._write(key, pod, status, is_ready=True)
        return None

    async def _live(self, key: str, pod: Object, now: float) -> Requeue | None:
        """Let a running pod end, or restart, when its time has come; until then see that its status says how it is."""
        wanted_s = _run_s(pod)
        statuses = at(pod, "status", "containerStatuses") or ()
        state = statuses[0].get("state") or {} if statuses else {}
        drawn = self._draw(pod, now)
        if "running" in state and condition_status(pod, "Ready") != self._ready_value(pod, is_ready=True):
            # The node controller says of pods on a lost node that they are not ready; the kubelet that comes back knows better. It
            # compares at the pace of its status manager: to answer at once would be a quarrel as fast as the network.
            drawn.correct_at = drawn.correct_at or now + STATUS_PERIOD_S * self._random.random()
            if now < drawn.correct_at:
                return Requeue(drawn.correct_at - now)
            await self._write(key, pod, pod["status"], is_ready=True)
        drawn.correct_at = 0.0
        if wanted_s is None or not statuses:
            return None
        if "waiting" in state:
            finished = parse_rfc3339(at(statuses[0], "lastState", "terminated", "finishedAt") or rfc3339(now))
            backoff_s = min(RESTART_BACKOFF_S_MAX, RESTART_BACKOFF_S_FIRST * 2 ** min(statuses[0]["restartCount"] - 1, 10))
            if now < finished + backoff_s:
                return Requeue(finished + backoff_s - now)
            running = {"running": {"startedAt": rfc3339(now)}}
            status = pod["status"] | {"containerStatuses": [one | {"state": running, "ready": True} for one in statuses]}
            await self._write(key, pod, status, is_ready=True)
            return None
        started = parse_rfc3339(at(state, "running", "startedAt") or rfc3339(now))
        if now < started + wanted_s:
            return Requeue(started + wanted_s - now)
        await self._exit(key, pod, int(annotations_of(pod).get(EXIT_CODE) or 0), now)
        return None

    async def _exit(self, key: str, pod: Object, code: int, now: float) -> None:
        policy = at(pod, "spec", "restartPolicy") or "Always"
        restarts = policy == "Always" or (policy == "OnFailure" and code != 0)
        statuses: list[Object] = []
        for one in at(pod, "status", "containerStatuses") or ():
            began = at(one, "state", "running", "startedAt") or rfc3339(now)
            reason = "Completed" if code == 0 else "Error"
            ended = {"terminated": {"exitCode": code, "reason": reason, "startedAt": began, "finishedAt": rfc3339(now)}}
            if restarts:
                waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off restarting failed container {one['name']}"}}
                one |= {"restartCount": one["restartCount"] + 1, "state": waiting, "lastState": ended}
            else:
                one |= {"state": ended}
            statuses.append(one | {"ready": False, "started": False})
        status = pod["status"] | {"containerStatuses": statuses}
        if not restarts:
            status["phase"] = "Succeeded" if code == 0 else "Failed"
        await self._write(key, pod, status, is_ready=False, reason="PodCompleted" if code == 0 and not restarts else "ContainersNotReady")

    async def _stop(self, key: str, pod: Object, now: float) -> Requeue | None:
        drawn = self._draw(pod, now)
        if not drawn.stop_at:
            grace_s = float(at(pod, "metadata", "deletionGracePeriodSeconds") or 0)
            drawn.stop_at = now + min(grace_s, self._between(self._node.shape.stop_s))
        if phase_of(pod) == "Running" and now < drawn.stop_at:
            return Requeue(drawn.stop_at - now)
        if phase_of(pod) == "Running":
            await self._end(key, pod, now)
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        try:
            await self.client.delete(PODS, name, namespace=namespace, options=DeleteOptions(grace_period_s=0, uid=uid_of(pod)))
        except (NotFound, Conflict):
            # It is gone already, or the name belongs to another pod now.
            return None
        return None

    async def _end(self, key: str, pod: Object, now: float) -> None:
        """Write the last status of a pod whose containers have stopped. A server that stops in good order exits with 0."""
        code = 0 if (at(pod, "spec", "restartPolicy") or "Always") == "Always" else EXIT_SIGTERM
        ended = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "finishedAt": rfc3339(now)}}
        statuses = [one | {"state": ended, "ready": False, "started": False} for one in at(pod, "status", "containerStatuses") or ()]
        status = pod["status"] | {"containerStatuses": statuses, "phase": "Succeeded" if code == 0 else "Failed"}
        await self._write(key, pod, status, is_ready=False, reason="PodCompleted")

    async def _write(self, key: str, pod: Object, status: Object, *, is_ready: bool, reason: str = "") -> None:
        now = self.runtime.clock.now()
        value = "True" if is_ready else "False"
        status = status | {"conditions": [dict(one) for one in status.get("conditions") or ()]}
        for kind, wanted in (
            ("PodReadyToStartContainers", "True"),
            ("Initialized", "True"),
            ("Ready", self._ready_value(pod, is_ready=is_ready)),
            ("ContainersReady", value),
            ("PodScheduled", "True"),
        ):
            set_condition(status, kind, wanted, now=now, reason=reason if kind in ("Ready", "ContainersReady") else "")
        meta = pod["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        written = await self.client.patch(
            PODS, meta["name"], patch, namespace=meta["namespace"], subresource="status", patch_type="strategic"
        )
        self.wrote(key, PODS, written)

    async def _learn_range(self, now: float) -> bool:
        """Find out which addresses pods get; return whether they are known. The Node's own range comes from the node IPAM controller."""
        node = orjson.loads(await self.client.get(NODES, self._node.name))
        cidr = at(node, "spec", "podCIDR")
        if not cidr and now - self._began_at < POD_CIDR_WAIT_S:
            return False
        self._network = ipaddress.ip_network(cidr or self._node.shape.pod_cidr)
        return True

    def _ready_value(self, pod: Object, *, is_ready: bool) -> str:
        """Return the status of the Ready condition: the containers are ready, and so are all readiness gates."""
        gates = [gate["conditionType"] for gate in at(pod, "spec", "readinessGates") or ()]
        return "True" if is_ready and all(condition_status(pod, gate) == "True" for gate in gates) else "False"

    def _draw(self, pod: Object, now: float) -> _Drawn:
        known = self._drawn.get(uid_of(pod))
        if known is None:
            known = self._drawn[uid_of(pod)] = _Drawn(now + self._between(self._node.shape.start_s), at(pod, "status", "podIP") or "")
        return known

    def _between(self, bounds: tuple[float, float]) -> float:
        return self._random.uniform(*bounds)

    def _address(self, pod: Object, drawn: _Drawn) -> str:
        """Return the pod's address; free ones are handed out in turn, as host-local does, so that one is not used again at once."""
        if at(pod, "spec", "hostNetwork"):
            return self._node.shape.address
        if drawn.address:
            return drawn.address
        taken = {one.address for one in self._drawn.values()}
        taken |= {one.address for one in self.informer(PODS).list()}
        assert self._network is not None
        size = self._network.num_addresses
        for _ in range(size - 3):
            self._next_address = self._next_address % (size - 2) + 1
            candidate = str(self._network[self._next_address])
            # The first address is the bridge's.
            if self._next_address != 1 and candidate not in taken:
                drawn.address = candidate
                return candidate
        raise ConnectionError(f"no address is free in {self._network}")


async def run_hollow_nodes(client: Client, runtime: Runtime, count: int, *, prefix: str = "sim-", shape: Shape = Shape()) -> None:
    """Run `count` hollow nodes named `prefix` and a number from 1, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for number in range(1, count + 1):
            node = HollowNode(client, f"{prefix}{number}", runtime, shape=shape)
            group.create_task(node.run(), name=f"hollow/{node.name}")


def numbered(shape: Shape, number: int) -> Shape:
    """Return `shape` with the address (172.16.0.0/12) and the pod range (10.128.0.0/9 in /24s) of a node, where it has none of its own."""
    number %= 32768
    return replace(
        shape,
        address=shape.address or f"172.{16 + number // 4096}.{number // 256 % 16}.{number % 256}",
        pod_cidr=shape.pod_cidr or f"10.{128 + number // 256}.{number % 256}.0/24",
    )


def _number(name: str) -> int:
    """Return the number at the end of a node's name; names without one get a number that follows from their letters."""
    digits = name[len(name.rstrip("0123456789")) :]
    return int(digits) if digits else int.from_bytes(hashlib.blake2b(name.encode(), digest_size=2).digest(), "big")


def _container(container: Object, state: Object, restarts: int, *, is_ready: bool) -> Object:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": container.get("image", ""),
        "containerID": f"hollow://{container['name']}",
        "ready": is_ready,
        "started": is_ready,
        "restartCount": restarts,
        "state": state,
        "lastState": {},
    }


def _run_s(pod: Object) -> float | None:
    """Return how long the pod's containers run, None for ever."""
    text = annotations_of(pod).get(RUN_SECONDS)
    if text:
        return float(text)
    owner = controller_of(pod)
    return JOB_RUN_S if owner is not None and owner.get("kind") == "Job" else None
