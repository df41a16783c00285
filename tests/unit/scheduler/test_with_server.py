"""The scheduler against the real API server, on virtual time: conditions are patched, bindings obeyed, backoffs kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson

from korch.api.gvk import EVENTS, NODES, PODS, SERVICE_ACCOUNTS
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions
from korch.controllers.resourceclaim import RESOURCE_CLAIM_TEMPLATES, ResourceClaimController
from korch.resources import catalogue
from korch.runtime.context import simulated
from korch.scheduler.devices.plugin import DEVICE_CLASSES, RESOURCE_CLAIMS, RESOURCE_SLICES
from korch.scheduler.scheduler import Scheduler
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]


class World:
    """An API server and a scheduler; nodes are objects that nobody runs."""

    def __init__(self) -> None:
        self.runtime = simulated(11)
        self.server = ApiServer(self.runtime, Storage.open(None, self.runtime), catalogue(), ServerConfig(advertise_host="192.0.2.10"))
        self.client = self.server.client()
        self.scheduler = Scheduler(self.client, Informers(self.client, self.runtime), self.runtime)

    async def add_node(self, name: str, *, cpu: str = "4") -> None:
        await self.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        status = {"status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": cpu}}}
        await self.client.patch(NODES, name, status, subresource="status")
        # Without a node lifecycle controller nobody else takes the taint of a node that is not ready yet.
        await self.client.patch(NODES, name, {"spec": {"taints": None}})

    async def add_pod(self, name: str, *, cpu: str = "1", **spec: Any) -> None:
        container = {"name": "c", "image": "app", "resources": {"requests": {"cpu": cpu}}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}
        await self.client.create(PODS, pod, namespace="default")

    async def pod(self, name: str) -> Object:
        return orjson.loads(await self.client.get(PODS, name, namespace="default"))

    async def node_of(self, name: str) -> str:
        return (await self.pod(name))["spec"].get("nodeName", "")

    async def condition(self, name: str) -> Object:
        conditions = (await self.pod(name)).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "PodScheduled"), {})

    async def until(self, holds: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        end = asyncio.get_running_loop().time() + 600
        while not (found := await holds()):
            assert asyncio.get_running_loop().time() < end, "never came true"
            await asyncio.sleep(0.1)
        return found


def told(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """Run a story on virtual time."""

    async def main() -> None:
        world = World()
        tasks = [asyncio.get_running_loop().create_task(one.run()) for one in (world.server, world.scheduler)]
        try:
            await world.until(lambda: _is(world.server.is_ready() and world.scheduler.is_synced))
            # No service account controller runs here.
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            await world.client.create(SERVICE_ACCOUNTS, account, namespace="default")
            await story(world)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    loop = SimLoop()
    loop.run(main())
    assert loop.errors == []


async def _is(value: bool) -> bool:
    return value


def test_pods_are_spread_bound_and_marked_as_scheduled() -> None:
    async def story(world: World) -> None:
        for number in range(3):
            await world.add_node(f"n{number}")
        for number in range(6):
            await world.add_pod(f"p{number}")
        await world.until(lambda: world.node_of("p5"))
        nodes = [await world.node_of(f"p{number}") for number in range(6)]
        assert sorted(nodes) == ["n0", "n0", "n1", "n1", "n2", "n2"]
        assert (await world.condition("p0"))["status"] == "True"

    told(story)


def test_a_waiting_pod_keeps_one_condition_and_is_bound_when_room_is_made() -> None:
    async def story(world: World) -> None:
        await world.add_node("n", cpu="2")
        await world.add_pod("first", cpu="2")
        await world.until(lambda: world.node_of("first"))
        await world.add_pod("second", cpu="2")
        condition = await world.until(lambda: world.condition("second"))
        assert condition["message"] == (
            "0/1 nodes are available: 1 Insufficient cpu. "
            "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        )
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        # Flushed and tried again every five minutes, it says the same and writes nothing.
        before = (await world.pod("second"))["metadata"]["resourceVersion"]
        await asyncio.sleep(900)
        assert (await world.pod("second"))["metadata"]["resourceVersion"] == before
        assert len((await world.pod("second"))["status"]["conditions"]) == 1
        await world.client.delete(PODS, "first", namespace="default", options=DeleteOptions(grace_period_s=0))
        await world.until(lambda: world.node_of("second"))
        found = [orjson.loads(raw) for raw in (await world.client.list(EVENTS)).items]
        reasons = {(one["reason"], one["source"]["component"]) for one in found if one["involvedObject"]["name"] == "second"}
        assert reasons == {("FailedScheduling", "default-scheduler"), ("Scheduled", "default-scheduler")}

    told(story)


def test_a_gated_pod_waits_for_its_gates() -> None:
    async def story(world: World) -> None:
        await world.add_node("n")
        await world.add_pod("p", schedulingGates=[{"name": "example.com/wait"}])
        await asyncio.sleep(30)
        assert await world.node_of("p") == ""
        assert (await world.condition("p"))["reason"] == "SchedulingGated"
        await world.client.patch(PODS, "p", {"spec": {"schedulingGates": None}}, namespace="default")
        await world.until(lambda: world.node_of("p"))

    told(story)


def test_a_pod_gets_a_claim_from_a_template_and_its_device_and_gives_both_back() -> None:
    group = {"apiVersion": "resource.k8s.io/v1"}
    device_class = {"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": 'device.driver == "x.example.com"'}}]}}
    pool = {"name": "n2", "generation": 1, "resourceSliceCount": 1}
    device = {"name": "a", "attributes": {"model": {"string": "m"}}, "capacity": {"memory": {"value": "8Gi"}}}
    published = {"metadata": {"name": "s"}, "spec": {"driver": "x.example.com", "nodeName": "n2", "pool": pool, "devices": [device]}}
    exactly = {"deviceClassName": "gpu", "selectors": [{"cel": {"expression": 'device.attributes["x.example.com"].model == "m"'}}]}
    template = {"metadata": {"name": "t"}, "spec": {"spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}}}
    wants = [{"name": "gpu", "resourceClaimTemplateName": "t"}]

    async def story(world: World) -> None:
        for name in ("n1", "n2"):
            await world.add_node(name)
        await world.client.create(DEVICE_CLASSES, group | {"kind": "DeviceClass"} | device_class)
        await world.client.create(RESOURCE_SLICES, group | {"kind": "ResourceSlice"} | published)
        await world.client.create(RESOURCE_CLAIM_TEMPLATES, group | {"kind": "ResourceClaimTemplate"} | template, namespace="default")
        controller = ResourceClaimController(world.client, Informers(world.client, world.runtime), world.runtime)
        async with controller.informers.running(), asyncio.TaskGroup() as group_of_tasks:
            task = group_of_tasks.create_task(controller.run())
            await world.add_pod("p", resourceClaims=wants)
            await world.until(lambda: world.node_of("p"))
            assert await world.node_of("p") == "n2"
            await world.add_pod("q", resourceClaims=wants)
            condition = await world.until(lambda: world.condition("q"))
            await asyncio.sleep(60)
            assert (await world.condition("q"))["message"].startswith("0/2 nodes are available: 2 cannot allocate all claims."), condition
            await world.client.patch(PODS, "p", {"status": {"phase": "Succeeded"}}, namespace="default", subresource="status")
            await world.until(lambda: world.node_of("q"))
            [claim] = [orjson.loads(raw) for raw in (await world.client.list(RESOURCE_CLAIMS)).items]
            assert [one["name"] for one in claim["status"]["reservedFor"]] == ["q"]
            assert claim["status"]["allocation"]["devices"]["results"][0]["device"] == "a"
            task.cancel()

    told(story)


def test_the_same_story_is_told_twice_alike() -> None:
    def tell() -> list[str]:
        found: list[str] = []

        async def story(world: World) -> None:
            for number in range(5):
                await world.add_node(f"n{number}", cpu=str(number + 2))
            for number in range(12):
                await world.add_pod(f"p{number}", cpu=f"{300 + 100 * (number % 4)}m")
            await world.until(lambda: world.node_of("p11"))
            found.extend([await world.node_of(f"p{number}") for number in range(12)])

        told(story)
        return found

    first = tell()
    assert first == tell()
    assert all(first)
