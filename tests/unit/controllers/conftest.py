"""A small world for controllers: a bare server, running controllers, and words to look at what they did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from korch.api.gvk import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICE_ACCOUNTS,
    SERVICES,
    ResourceRef,
)
from korch.client.controller import Controller
from korch.client.informer import Informers
from korch.client.protocol import ListOptions
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime, simulated
from korch.runtime.rng import Rng
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop

Object = dict[str, Any]


# What the bare server says it serves.
SERVED = (
    PODS,
    SERVICES,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    NODES,
    NAMESPACES,
    EVENTS,
    REPLICATION_CONTROLLERS,
    DEPLOYMENTS,
    REPLICA_SETS,
    JOBS,
    ENDPOINT_SLICES,
)
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


class Server(BareClient):
    """A bare server that answers discovery."""

    async def raw(self, method: str, path: str, *, body: bytes = b"", content_type: str = "application/json") -> bytes:
        if path == "/apis":
            versions = {one.group: one.version for one in SERVED if one.group}
            return orjson.dumps(
                {"groups": [{"name": name, "preferredVersion": _group_version(name, version)} for name, version in versions.items()]}
            )
        found = [one for one in SERVED if path == ("/apis/" if one.group else "/api/") + one.api_version]
        if not found:
            return await super().raw(method, path, body=body, content_type=content_type)
        listed = [{"name": one.plural, "kind": one.kind, "namespaced": one.namespaced, "verbs": VERBS} for one in found]
        return orjson.dumps({"resources": [*listed, {"name": "pods/status", "kind": "Pod", "namespaced": True, "verbs": ["get"]}]})


def _group_version(group: str, version: str) -> dict[str, str]:
    return {"groupVersion": f"{group}/{version}", "version": version}


class World:
    """A bare server and what a test says about it."""

    def __init__(self, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime(rng=Rng(7))
        # On virtual time looking often costs steps and waiting costs nothing.
        self._look_s, self._patience_s = (0.001, 10.0) if runtime is None else (0.25, 3600.0)
        self.client = Server(self.runtime)
        self.informers = Informers(self.client, self.runtime)

    def now(self) -> str:
        return rfc3339(self.runtime.clock.now())

    async def make(self, resource: ResourceRef, obj: Object, namespace: str = "d") -> Object:
        obj = {"apiVersion": resource.api_version, "kind": resource.kind} | obj
        return orjson.loads(await self.client.create(resource, obj, namespace=namespace if resource.namespaced else ""))

    async def get(self, resource: ResourceRef, name: str, namespace: str = "d") -> Object:
        return orjson.loads(await self.client.get(resource, name, namespace=namespace))

    async def all(self, resource: ResourceRef, selector: str = "") -> list[Object]:
        return [orjson.loads(raw) for raw in (await self.client.list(resource, ListOptions(label_selector=selector))).items]

    async def change(self, resource: ResourceRef, name: str, patch: Object, namespace: str = "d", subresource: str = "") -> Object:
        return orjson.loads(await self.client.patch(resource, name, patch, namespace=namespace, subresource=subresource))

    async def delete(self, resource: ResourceRef, name: str, namespace: str = "d") -> None:
        await self.client.delete(resource, name, namespace=namespace)

    async def node(self, name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
        made = await self.make(NODES, {"metadata": {"name": name, "labels": labels or {}}, "spec": spec})
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": self.now()}
        return await self.change(NODES, made["metadata"]["name"], {"status": {"conditions": [ready]}}, subresource="status")

    async def run_pod(
        self, name: str, node: str = "n1", ip: str = "10.0.0.1", phase: str = "Running", namespace: str = "d", **status: Any
    ) -> None:
        """Do what scheduler and agent would: bind the pod and report it running and ready."""
        pod = await self.get(PODS, name, namespace)
        if not pod["spec"].get("nodeName"):
            await self.client.create(PODS, {"target": {"name": node}}, namespace=namespace, name=name, subresource="binding")
        ready = {"type": "Ready", "status": "True" if phase == "Running" else "False", "lastTransitionTime": self.now()}
        report = {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready], **status}
        await self.change(PODS, name, {"status": report}, namespace, "status")

    async def run_all_pods(self) -> None:
        for pod in await self.all(PODS):
            if not pod.get("status", {}).get("phase") and "deletionTimestamp" not in pod["metadata"]:
                await self.run_pod(pod["metadata"]["name"])

    async def messages(self, reason: str = "") -> list[str]:
        return [one["message"] for one in await self.all(EVENTS) if not reason or one["reason"] == reason]

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Await the moment when the coroutine function `holds` returns something true, and return that."""
        async with asyncio.timeout(self._patience_s):
            while not (found := await holds()):
                await asyncio.sleep(self._look_s)
            return found

    async def count(self, resource: ResourceRef, count: int, selector: str = "") -> list[Object]:
        """Await the moment when there are exactly `count` objects."""
        found: list[Object] = []

        async def holds() -> bool:
            nonlocal found
            found = [one for one in await self.all(resource, selector) if "deletionTimestamp" not in one["metadata"]]
            return len(found) == count

        await self.until(holds)
        return found

    @asynccontextmanager
    async def running(self, *controllers: Controller) -> AsyncIterator[None]:
        """Run controllers inside the block."""
        running = [asyncio.get_running_loop().create_task(one.run()) for one in controllers]
        try:
            while not all(one.is_synced for one in controllers):
                await asyncio.sleep(0)
                for task in running:
                    if task.done():
                        task.result()
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def simulate(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run `story(world)` on virtual time."""

    async def main() -> None:
        await story(World(simulated(7)))

    SimLoop().run(main())


@pytest.fixture
def world() -> World:
    return World()


def template(labels: dict[str, str], image: str = "web:1") -> Object:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}


def replica_set(name: str, replicas: int, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    labels = labels or {"app": name}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(labels), **spec},
    }


def deployment(name: str, replicas: int, image: str = "web:1", **spec: Any) -> Object:
    labels = {"app": name}
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template(labels, image),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
    }
