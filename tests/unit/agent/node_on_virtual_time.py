"""A whole node on virtual time: the real kubelet over a fake runtime and an API of a few dicts."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from korch.api.errors import NotFound
from korch.api.gvk import EVENTS, PODS, ResourceRef
from korch.api.patch import strategic_merge_patch
from korch.client.events import EventRecorder
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions, PatchType
from korch.resources.openapi import native_schema
from korch.runtime import tasks
from korch.runtime.context import simulated
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop
from korch_agent.cgroups import Cgroups
from korch_agent.cri.fake import FakeRuntime
from korch_agent.kubelet import Kubelet
from korch_agent.node import Node
from korch_agent.pods.config import NodeConfig

T = TypeVar("T")
IMAGE = "docker.io/library/app:1"


class NoCgroups(Cgroups):
    """Control groups that exist only by name."""

    def create(self, path: str = "") -> None:
        return

    def set_limits(self, path: str, *, cpu_shares: int | None, cpu_quota: int | None, memory_limit: int | None) -> None:
        return

    def remove(self, path: str = "") -> bool:
        return True


class PatchingClient(BareClient):
    """The API of a few dicts, with the server's own strategic merge patch."""

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
        if patch_type != "strategic":
            return await super().patch(resource, name, patch, namespace=namespace, subresource=subresource, patch_type=patch_type)
        old = await self.get(resource, name, namespace=namespace)
        merged = orjson.loads(strategic_merge_patch(old, orjson.dumps(patch), f"io.k8s.api.core.v1.{resource.kind}", native_schema()))
        merged["metadata"]["resourceVersion"] = orjson.loads(old)["metadata"]["resourceVersion"]
        return await self.update(resource, merged, name=name, namespace=namespace, subresource=subresource)

    async def delete(self, resource: ResourceRef, name: str, *, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> bytes:
        obj = orjson.loads(await self.get(resource, name, namespace=namespace))
        had = obj["metadata"].get("deletionGracePeriodSeconds")
        if had is not None and options.grace_period_s and options.grace_period_s < had:
            obj["metadata"]["deletionGracePeriodSeconds"] = options.grace_period_s
            return self._write(resource, obj, "MODIFIED")
        return await super().delete(resource, name, namespace=namespace, options=options)


class OneNode:
    """Node n1, its API, and its runtime. `start` and `stop` are those of the agent; the runtime stays."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seams = simulated(seed)
        self.client = PatchingClient(self.seams)
        self.runtime = FakeRuntime(self.seams.clock, self.seams.rng.stream("fake"))
        self.runtime.add_image(IMAGE)
        self._directory = directory
        self._living: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._living = tasks.spawn(self._live(), name="agent")

    async def stop(self) -> None:
        assert self._living is not None
        self._living.cancel()
        await asyncio.gather(self._living, return_exceptions=True)

    async def _live(self) -> None:
        informers = Informers(self.client, self.seams)
        events = EventRecorder(self.client, "kubelet", self.seams, host="n1")
        node = Node(self.client, self.runtime, self.seams, events, name="n1", ips=("192.0.2.1",), data_dir=self._directory)
        config = NodeConfig(node_name="n1", data_dir=self._directory, cgroup_root="/test", host_ips=("192.0.2.1",), memory_capacity=1 << 34)
        kubelet = Kubelet(
            client=self.client,
            informers=informers,
            runtime=self.runtime,
            seams=self.seams,
            events=events,
            node=node,
            config=config,
            cgroups=NoCgroups("/test"),
        )
        async with asyncio.TaskGroup() as group:
            for work in (informers.run(), events.run(), node.run(), kubelet.run()):
                group.create_task(work)

    # -- talking to the API ---------------------------------------------------------------------------------------

    async def create(self, name: str = "p", **spec: Any) -> dict[str, Any]:
        """Create a pod bound to this node, with one container `c` unless told otherwise."""
        body = {
            "metadata": {"name": name, "namespace": "d", "generation": 1},
            "spec": {"nodeName": "n1", "containers": [container("c")], "restartPolicy": "Always"} | spec,
            "status": {"phase": "Pending"},
        }
        return orjson.loads(await self.client.create(PODS, body, namespace="d"))

    async def pod(self, name: str = "p") -> dict[str, Any] | None:
        try:
            return orjson.loads(await self.client.get(PODS, name, namespace="d"))
        except NotFound:
            return None

    async def until(self, holds: Callable[[dict[str, Any]], Any], name: str = "p", *, within_s: float = 60) -> dict[str, Any]:
        """Await the moment when `holds(pod)`, at most `within_s` of virtual time; return the pod."""
        async with asyncio.timeout(within_s):
            while True:
                found = await self.pod(name)
                if found is not None and holds(found):
                    return found
                await asyncio.sleep(0.05)

    async def delete(self, name: str = "p", *, grace_s: int = 30) -> None:
        """Ask for a graceful deletion; asking again with less time shortens it."""
        await self.client.delete(PODS, name, namespace="d", options=DeleteOptions(grace_period_s=grace_s))

    async def gone(self, name: str = "p", *, within_s: float = 60) -> float:
        """Await the end of the Pod object; return how long it took, in virtual seconds."""
        began = self.seams.clock.monotonic()
        async with asyncio.timeout(within_s):
            while await self.pod(name) is not None:
                await asyncio.sleep(0.05)
        return self.seams.clock.monotonic() - began

    async def put(self, resource: ResourceRef, name: str, **content: Any) -> None:
        await self.client.create(resource, {"metadata": {"name": name, "namespace": "d"}} | content, namespace="d")

    async def reasons(self) -> list[str]:
        """Return the reasons of all events, oldest first."""
        await asyncio.sleep(0.5)
        found = [orjson.loads(raw) for raw in (await self.client.list(EVENTS)).items]
        return [one["reason"] for one in found if one["involvedObject"]["kind"] == "Pod"]


def container(name: str, *command: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", "imagePullPolicy": "IfNotPresent", "command": list(command or ("serve",))} | more


def condition(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next((one for one in pod["status"].get("conditions") or [] if one["type"] == name), {})


def is_ready(pod: dict[str, Any]) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def state(pod: dict[str, Any], name: str = "c", field: str = "containerStatuses") -> dict[str, Any]:
    return next((one["state"] for one in pod["status"].get(field) or [] if one["name"] == name), {})


def on_one_node(story: Callable[[OneNode], Awaitable[T]], *, seed: int = 1, starts: bool = True) -> T:
    """Run `story` beside a node on virtual time; a crashed task fails it."""
    with tempfile.TemporaryDirectory() as directory:
        node = OneNode(seed, Path(directory))

        async def main() -> T:
            if starts:
                node.start()
            result = await story(node)
            await node.stop()
            return result

        loop = SimLoop()
        result = loop.run(main())
        assert loop.errors == []
        return result


__all__ = ["DeleteOptions", "OneNode", "condition", "container", "is_ready", "on_one_node", "state"]
