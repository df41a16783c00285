"""A scheduler on a bare API, and the words in which its tests speak to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from korch.api.gvk import EVENTS, NODES, PODS
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions
from korch.runtime.context import Runtime
from korch.runtime.rng import Rng
from korch.scheduler.plugins import Factory
from korch.scheduler.scheduler import Scheduler
from korch.testing.bare import BareClient

Object = dict[str, Any]


def bare() -> BareClient:
    return BareClient(Runtime(rng=Rng(7)))


def configuration(**fields: Any) -> bytes:
    return orjson.dumps({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", **fields})


async def add_node(client: BareClient, name: str, *, cpu: str = "4", labels: Mapping[str, str] | None = None) -> None:
    status = {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}}
    await client.create(NODES, {"metadata": meta, "spec": {}, "status": status})


async def add_pod(
    client: BareClient, name: str, *, requests: Mapping[str, str] | None = None, labels: Mapping[str, str] | None = None, **spec: Any
) -> None:
    container = {"name": "c", "image": "app", "resources": {"requests": requests or {"cpu": "1"}}}
    pod = {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": [container], "schedulerName": "default-scheduler", **spec},
    }
    await client.create(PODS, pod, namespace="d")


async def pod(client: BareClient, name: str) -> Object:
    return orjson.loads(await client.get(PODS, name, namespace="d"))


async def node_of(client: BareClient, name: str) -> str:
    return (await pod(client, name))["spec"].get("nodeName", "")


async def condition(client: BareClient, name: str) -> tuple[str, str]:
    """Return reason and message of PodScheduled."""
    found = (await pod(client, name)).get("status", {}).get("conditions", [])
    return next(((one["reason"], one["message"]) for one in found if one["type"] == "PodScheduled"), ("", ""))


async def events(client: BareClient, name: str) -> list[str]:
    found = [orjson.loads(raw) for raw in (await client.list(EVENTS)).items]
    return [one["reason"] for one in found if one["involvedObject"]["name"] == name]


async def until(is_so: Callable[[], Any]) -> Any:
    """Await what is so in the end; return it."""
    async with asyncio.timeout(20):
        while not (found := await is_so()):
            await asyncio.sleep(0.002)
    return found


async def told(client: BareClient, name: str) -> tuple[str, str]:
    """Await the reason and message of PodScheduled."""

    async def says() -> tuple[str, str] | None:
        found = await condition(client, name)
        return found if found[1] else None

    return await until(says)


async def placed(client: BareClient, name: str) -> str:
    """Await the pod's node."""
    return await until(lambda: node_of(client, name))


async def leaving(client: BareClient) -> list[str]:
    """Return the pods that are on their way out."""
    pods = [orjson.loads(raw) for raw in (await client.list(PODS)).items]
    return [one["metadata"]["name"] for one in pods if "deletionTimestamp" in one["metadata"]]


async def preempted_for(client: BareClient, name: str) -> tuple[str, list[str]]:
    """Await the node that is freed for the pod; end its victims, await that the pod gets the node, and return it and the victims."""

    async def nominated() -> str:
        return (await pod(client, name)).get("status", {}).get("nominatedNodeName", "")

    node = await until(nominated)
    victims = await until(lambda: leaving(client))
    for victim in victims:
        await client.delete(PODS, victim, namespace="d", options=DeleteOptions(grace_period_s=0))
    assert await placed(client, name) == node
    return node, victims


@asynccontextmanager
async def scheduling(
    client: BareClient, config: bytes | None = None, plugins: Mapping[str, Factory] | None = None
) -> AsyncIterator[Scheduler]:
    runtime = Runtime(rng=Rng(1))
    scheduler = Scheduler(client, Informers(client, runtime), runtime, config=config, plugins=plugins)
    task = asyncio.ensure_future(scheduler.run())
    try:
        yield scheduler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()):
            raise error
