"""The Node object of this machine: registered once, then kept true.

Every ten seconds the status is computed; it is written when it changed, and otherwise every five minutes (the lease is the heartbeat).
It is written as a strategic merge patch of what this agent knows, so that resources and conditions of others survive. Mirrors
kubelet's nodestatus setters.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import NODES
from korch.client.events import EventRecorder
from korch.client.protocol import Client
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime as Seams
from korch.runtime.log import get_logger
from korch_agent.cri.protocol import CriError, Runtime

KUBELET_VERSION = "v1.37.2+korch"
STATUS_EVERY_S = 10.0
# While the node is not ready it is looked at more often, so that it is not late in becoming so.
STARTING_EVERY_S = 0.25
REPORT_EVERY_S = 300.0
IMAGES_MAX = 50
MEMORY_RESERVE_BYTES = 100 * 1024 * 1024
STORAGE_RESERVE = 0.10
MEMORY_PRESSURE_BYTES = 100 * 1024 * 1024
DISK_PRESSURE = 0.05

log = get_logger("node")


class Node:
    """Registers and reports one node. `pleg_problem()` returns "" while the runtime answers."""

    def __init__(
        self,
        client: Client,
        runtime: Runtime,
        seams: Seams,
        events: EventRecorder,
        *,
        name: str,
        ips: tuple[str, ...],
        data_dir: Path,
        max_pods: int = 110,
        port: int = 10250,
        pod_cidr: str = "",
        labels: Mapping[str, str] | None = None,
        pleg_problem: Callable[[], str] = lambda: "",
    ) -> None:
        self._client = client
        self._runtime = runtime
        self._seams = seams
        self._events = events
        self._name = name
        self._ips = ips
        self._data_dir = data_dir
        self._max_pods = max_pods
        self._port = port
        self._pod_cidr = pod_cidr
        self._labels = dict(labels or {})
        self.pleg_problem = pleg_problem
        self._written: dict[str, Any] | None = None
        self._written_at = float("-inf")
        self._transitions: dict[str, tuple[str, str]] = {}
        self._uid = ""

    def capacity(self) -> dict[str, str]:
        """Return what the machine has."""
        disk = os.statvfs(self._data_dir)
        return {
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{memory_bytes() // 1024}Ki",
            "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
            "pods": str(self._max_pods),
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
        }

    def allocatable(self) -> dict[str, str]:
        """Return what pods may use of it."""
        disk = os.statvfs(self._data_dir)
        return self.capacity() | {
            "memory": f"{(memory_bytes() - MEMORY_RESERVE_BYTES) // 1024}Ki",
            "ephemeral-storage": str(int(disk.f_blocks * disk.f_frsize * (1 - STORAGE_RESERVE))),
        }

    async def run(self) -> None:
        """Register, then keep the status true, until cancelled."""
        await self._register()
        while True:
            status = await self._status()
            try:
                await self._write(status)
            except NotFound:
                await self._register()
                continue
            except (ApiError, ConnectionError, TimeoutError) as error:
                log.warning("node status not written; trying again", node=self._name, error=str(error))
                self._written = None
            ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status["conditions"])
            await asyncio.sleep(STATUS_EVERY_S if ready and self._written is not None else STARTING_EVERY_S)

    async def _register(self) -> None:
        architecture = _architecture()
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture,
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": architecture,
        } | self._labels
        annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
        spec: dict[str, Any] = {"podCIDR": self._pod_cidr, "podCIDRs": [self._pod_cidr]} if self._pod_cidr else {}
        while True:
            body = {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": self._name, "labels": labels, "annotations": annotations},
                "spec": spec,
                "status": await self._status(),
            }
            try:
                try:
                    raw = await self._client.create(NODES, body)
                except AlreadyExists:
                    patch = {"metadata": {"labels": labels, "annotations": annotations}}
                    raw = await self._client.patch(NODES, self._name, patch, patch_type="strategic")
                node = orjson.loads(raw)
            except (ApiError, ConnectionError, TimeoutError) as error:
                log.warning("node not registered; trying again", node=self._name, error=str(error))
                await asyncio.sleep(1.0)
                continue
            self._uid = node["metadata"]["uid"]
            for one in (node.get("status") or {}).get("conditions") or []:
                self._transitions[one["type"]] = (one["status"], one.get("lastTransitionTime") or "")
            self._written = None
            log.info("node registered", node=self._name)
            self._event("Starting", "Starting kubelet.")
            return

    async def _write(self, status: dict[str, Any]) -> None:
        compared = _without_heartbeats(status)
        now = self._seams.clock.monotonic()
        if compared == self._written and now - self._written_at < REPORT_EVERY_S:
            return
        await self._client.patch(NODES, self._name, {"status": status}, subresource="status", patch_type="strategic")
        self._written, self._written_at = compared, now

    async def _status(self) -> dict[str, Any]:
        version = ""
        try:
            found = await self._runtime.version()
            version = f"{found.runtime_name}://{found.runtime_version}"
            images = [
                {"names": [*one.digests, *one.tags][:5], "sizeBytes": one.size}
                for one in sorted(await self._runtime.list_images(), key=lambda one: -one.size)[:IMAGES_MAX]
            ]
        except (CriError, ConnectionError, TimeoutError):
            images = []
        addresses = [{"type": "InternalIP", "address": ip} for ip in self._ips]
        return {
            "capacity": self.capacity(),
            "allocatable": self.allocatable(),
            "conditions": await self._conditions(),
            "addresses": [*addresses, {"type": "Hostname", "address": self._name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "nodeInfo": _node_info(version),
            "images": images,
        }

    async def _conditions(self) -> list[dict[str, Any]]:
        problem = await self._problem()
        disk = os.statvfs(self._data_dir)
        low_memory = available_memory_bytes() < MEMORY_PRESSURE_BYTES
        low_disk = disk.f_bavail < disk.f_blocks * DISK_PRESSURE
        found = [
            _condition("MemoryPressure", low_memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory available"),
            _condition("DiskPressure", low_disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", ""),
            _condition("PIDPressure", False, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID available"),
            {
                "type": "Ready",
                "status": "False" if problem else "True",
                "reason": "KubeletNotReady" if problem else "KubeletReady",
                "message": problem or "kubelet is posting ready status",
            },
        ]
        now = rfc3339(self._seams.clock.now())
        for one in found:
            status, since = self._transitions.get(one["type"], ("", ""))
            if status != one["status"] or not since:
                since = now
                if one["type"] == "Ready" and status:
                    self._event("NodeReady" if not problem else "NodeNotReady", f"Node {self._name} status is now: {one['reason']}")
            self._transitions[one["type"]] = (one["status"], since)
            one["lastTransitionTime"], one["lastHeartbeatTime"] = since, now
        return found

    async def _problem(self) -> str:
        """Return why the node is not ready, or ""."""
        problems: list[str] = []
        try:
            for condition in await self._runtime.conditions():
                if not condition.status:
                    said = f"{condition.type}=false reason:{condition.reason} message:{condition.message}"
                    noun = "container runtime network not ready" if condition.type == "NetworkReady" else "container runtime not ready"
                    problems.append(f"{noun}: {said}")
        except (CriError, ConnectionError, TimeoutError) as error:
            problems.append(f"container runtime is down: {error}")
        if said := self.pleg_problem():
            problems.append(said)
        return "; ".join(problems)

    def _event(self, reason: str, message: str) -> None:
        # Upstream's kubelet names itself as the involved object by its name, uid included.
        self._events.event({"kind": "Node", "apiVersion": "v1", "name": self._name, "uid": self._name}, "Normal", reason, message)


def memory_bytes() -> int:
    """Return the machine's memory."""
    return _meminfo("MemTotal")


def available_memory_bytes() -> int:
    """Return the memory that could be had without swapping."""
    return _meminfo("MemAvailable")


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _condition(sort: str, bad: bool, bad_reason: str, good_reason: str, what: str) -> dict[str, Any]:
    message = (
        f"kubelet has {'insufficient' if bad else 'sufficient'} {what}" if what else f"kubelet has {'' if bad else 'no '}disk pressure"
    )
    return {"type": sort, "status": "True" if bad else "False", "reason": bad_reason if bad else good_reason, "message": message}


def _without_heartbeats(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [{key: value for key, value in one.items() if key != "lastHeartbeatTime"} for one in status["conditions"]]
    return status | {"conditions": conditions}


def _node_info(runtime_version: str) -> dict[str, str]:
    return {
        "machineID": _read("/etc/machine-id"),
        "systemUUID": _read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": _os_image(),
        "containerRuntimeVersion": runtime_version,
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": _architecture(),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(platform.machine(), platform.machine())
