"""A whole cluster on virtual time for controllers: the real API server, scheduler and all controllers, on hollow nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from korch.api.gvk import EVENTS, PODS, ResourceRef
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions, ListOptions
from korch.controllers import ControllerConfig, all_controllers
from korch.resources import catalogue
from korch.runtime.clock import rfc3339
from korch.runtime.context import simulated
from korch.scheduler.scheduler import Scheduler
from korch.storage import Storage
from korch.testing.hollow import HollowNode, Shape, numbered
from korch.testing.loop import SimLoop

Object = dict[str, Any]


class Cluster:
    """What a story says to the cluster and sees of it. Times are virtual seconds."""

    def __init__(self, config: ControllerConfig) -> None:
        self.runtime = simulated(7)
        self.storage = Storage.open(None, self.runtime)
        self.server = ApiServer(self.runtime, self.storage, catalogue(), ServerConfig(advertise_host="192.0.2.10"))
        self.client = self.server.client()
        self.informers = Informers(self.client, self.runtime)
        self.controllers = all_controllers(self.client, self.informers, self.runtime, config)
        self.scheduler = Scheduler(self.client, self.informers, self.runtime)
        self._tasks: list[asyncio.Task[None]] = []
        self._nodes: dict[str, asyncio.Task[None]] = {}

    async def start(self, nodes: int) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(one.run()) for one in (self.server, self.scheduler, *self.controllers)]
        for number in range(1, nodes + 1):
            self.add_node(f"n{number}", number)
        await self.until(lambda: self._is_up(nodes))

    async def _is_up(self, nodes: int) -> bool:
        for task in [*self._tasks, *self._nodes.values()]:
            if task.done():
                task.result()
        is_ready = self.server.is_ready() and all(one.is_synced for one in self.controllers)
        return is_ready and len(await self.all(ResourceRef("", "v1", "nodes", "Node", namespaced=False))) == nodes

    def add_node(self, name: str, number: int, **shape: Any) -> None:
        node = HollowNode(self.client, name, self.runtime, shape=numbered(Shape(**shape), number))
        self._nodes[name] = asyncio.get_running_loop().create_task(node.run())

    def lose(self, name: str) -> None:
        """Let a node fall silent for ever."""
        self._nodes.pop(name).cancel()

    async def stop(self) -> None:
        tasks = [*self._nodes.values(), *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def now(self) -> str:
        return rfc3339(self.runtime.clock.now())

    async def make(self, resource: ResourceRef, obj: Object, namespace: str = "default") -> Object:
        obj = {"apiVersion": resource.api_version, "kind": resource.kind} | obj
        return orjson.loads(await self.client.create(resource, obj, namespace=namespace if resource.namespaced else ""))

    async def get(self, resource: ResourceRef, name: str, namespace: str = "default") -> Object:
        return orjson.loads(await self.client.get(resource, name, namespace=namespace if resource.namespaced else ""))

    async def all(self, resource: ResourceRef, selector: str = "", namespace: str = "") -> list[Object]:
        options = ListOptions(label_selector=selector, namespace=namespace)
        return [orjson.loads(raw) for raw in (await self.client.list(resource, options)).items]

    async def change(self, resource: ResourceRef, name: str, patch: Object, namespace: str = "default", subresource: str = "") -> Object:
        namespace = namespace if resource.namespaced else ""
        return orjson.loads(await self.client.patch(resource, name, patch, namespace=namespace, subresource=subresource))

    async def delete(self, resource: ResourceRef, name: str, namespace: str = "default", **options: Any) -> None:
        namespace = namespace if resource.namespaced else ""
        await self.client.delete(resource, name, namespace=namespace, options=DeleteOptions(**options))

    async def messages(self, reason: str) -> list[str]:
        return [one["message"] for one in await self.all(EVENTS) if one["reason"] == reason]

    async def ready_pods(self, selector: str = "") -> list[Object]:
        pods = await self.all(PODS, selector)
        return [
            one
            for one in pods
            if "deletionTimestamp" not in one["metadata"]
            and any(condition["type"] == "Ready" and condition["status"] == "True" for condition in one["status"].get("conditions", []))
        ]

    async def until(self, holds: Callable[[], Coroutine[Any, Any, Any]], within_s: float = 300.0) -> Any:
        """Await the moment when `holds()` returns something true, and return that."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while not (found := await holds()):
            assert loop.time() < end, f"did not come true within {within_s} s"
            await asyncio.sleep(0.2)
        return found


def cluster_story(
    story: Callable[[Cluster], Coroutine[Any, Any, None]], *, nodes: int = 3, config: ControllerConfig = ControllerConfig(root_ca_pem="PEM")
) -> None:
    """Run `story(cluster)` on virtual time with so many nodes; what any part left unhandled fails it."""

    async def main() -> None:
        cluster = Cluster(config)
        await cluster.start(nodes)
        try:
            await story(cluster)
        finally:
            await cluster.stop()

    loop = SimLoop()
    loop.run(main())
    assert loop.errors == []
