"""Pod groups against the real API server, on virtual time: a gang is bound as a whole or not at all, and others make room for it."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest

from korch.api.features import read_features
from korch.api.gvk import EVENTS, NODES, POD_GROUPS, PODS, SERVICE_ACCOUNTS, ResourceRef
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions
from korch.controllers.podgroup_protection import PodGroupProtectionController
from korch.resources import catalogue
from korch.runtime.context import simulated
from korch.scheduler.scheduler import Scheduler
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]
_PRIORITIES = ResourceRef("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
FEATURES = read_features(["GenericWorkload=true"], ["api/beta=true"])


class World:
    """An API server, a scheduler that knows groups, and nodes that nobody runs."""

    def __init__(self, seed: int) -> None:
        self.runtime = simulated(seed)
        self.storage = Storage.open(None, self.runtime)
        config = ServerConfig(advertise_host="192.0.2.10", features=FEATURES)
        self.server = ApiServer(self.runtime, self.storage, catalogue(FEATURES), config)
        self.client = self.server.client()
        informers = Informers(self.client, self.runtime)
        self.scheduler = Scheduler(self.client, informers, self.runtime, features=FEATURES)
        self.protection = PodGroupProtectionController(self.client, informers, self.runtime)

    async def add_node(self, name: str, *, cpu: str = "4") -> None:
        await self.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        status = {"status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": cpu}}}
        await self.client.patch(NODES, name, status, subresource="status")
        await self.client.patch(NODES, name, {"spec": {"taints": None}})

    async def add_group(self, name: str, *, min_count: int = 0, **spec: Any) -> None:
        policy: Object = {"gang": {"minCount": min_count}} if min_count else {"basic": {}}
        group = {"apiVersion": "scheduling.k8s.io/v1beta1", "kind": "PodGroup", "metadata": {"name": name}}
        await self.client.create(POD_GROUPS, {**group, "spec": {"schedulingPolicy": policy, **spec}}, namespace="default")

    async def add_pod(self, name: str, group: str = "", *, cpu: str = "1", **spec: Any) -> None:
        container = {"name": "c", "image": "app", "resources": {"requests": {"cpu": cpu}}}
        if group:
            spec["schedulingGroup"] = {"podGroupName": group}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **spec}}
        await self.client.create(PODS, pod, namespace="default")

    async def add_pods(self, group: str, count: int, **spec: Any) -> None:
        for number in range(count):
            await self.add_pod(f"{group}-{number}", group, **spec)

    async def pods(self) -> list[Object]:
        return [orjson.loads(raw) for raw in (await self.client.list(PODS)).items]

    async def bound(self, group: str) -> int:
        return sum(bool(one["spec"].get("nodeName")) for one in await self.pods() if one["metadata"]["name"].startswith(f"{group}-"))

    async def message(self, name: str) -> str:
        pod = orjson.loads(await self.client.get(PODS, name, namespace="default"))
        found = (one for one in pod.get("status", {}).get("conditions", []) if one["type"] == "PodScheduled" and one["status"] == "False")
        return next(found, {}).get("message", "")

    async def group(self, name: str) -> Object:
        return orjson.loads(await self.client.get(POD_GROUPS, name, namespace="default"))

    async def condition(self, name: str) -> Object:
        conditions = (await self.group(name)).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "PodGroupInitiallyScheduled"), {})

    async def delete(self, name: str) -> None:
        await self.client.delete(PODS, name, namespace="default", options=DeleteOptions(grace_period_s=0))

    async def until(self, holds: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        end = asyncio.get_running_loop().time() + 600
        while not (found := await holds()):
            assert asyncio.get_running_loop().time() < end, "never came true"
            await asyncio.sleep(0.1)
        return found


def told(story: Callable[[World], Coroutine[Any, Any, None]], seed: int = 3) -> None:
    """Run a story on virtual time."""

    async def main() -> None:
        world = World(seed)
        running = (world.server, world.scheduler, world.protection)
        tasks = [asyncio.get_running_loop().create_task(one.run()) for one in running]
        try:

            async def is_up() -> bool:
                return world.server.is_ready() and world.scheduler.is_synced

            await world.until(is_up)
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


def test_a_gang_waits_for_its_group_and_all_of_its_pods_and_is_then_bound() -> None:
    async def story(world: World) -> None:
        for number in range(3):
            await world.add_node(f"n{number}")
        await world.add_pods("g", 2)
        await asyncio.sleep(30)
        assert await world.bound("g") == 0
        await world.add_group("g", min_count=3)
        await asyncio.sleep(30)
        assert (await world.bound("g"), await world.condition("g")) == (0, {})
        await world.add_pod("g-2", "g")
        await world.until(lambda: _is(world.bound("g"), 3))
        condition = await world.until(lambda: world.condition("g"))
        assert (condition["status"], condition["reason"]) == ("True", "Scheduled")

    told(story)


def test_a_gang_with_too_little_room_says_so_and_takes_none() -> None:
    async def story(world: World) -> None:
        await world.add_node("n", cpu="2")
        await world.add_group("g", min_count=3)
        await world.add_pods("g", 3)
        condition = await world.until(lambda: world.condition("g"))
        preemption = "pod group preemption: No preemption victims found for incoming preemptor"
        told_group = f"minCount (3) cannot be satisfied: 2 scheduled, 0 remaining, {preemption}"
        assert (condition["status"], condition["reason"], condition["message"]) == ("False", "Unschedulable", told_group)
        assert await world.message("g-0") == told_group
        assert await world.message("g-2") == "0/1 nodes are available: 1 Insufficient cpu."
        # What it did not get is there for others.
        await world.add_pod("single", cpu="2")
        await world.until(lambda: _has_node(world, "single"))
        assert await world.bound("g") == 0
        await world.add_node("m", cpu="3")
        await world.until(lambda: _is(world.bound("g"), 3))

    told(story)


def test_without_a_gang_the_pods_of_a_group_go_as_far_as_there_is_room() -> None:
    async def story(world: World) -> None:
        await world.add_node("n", cpu="2")
        await world.add_group("g")
        await world.add_pods("g", 3)
        await world.until(lambda: _is(world.bound("g"), 2))
        message = await world.until(lambda: world.message("g-2"))
        assert message.startswith("0/1 nodes are available: 1 Insufficient cpu.")
        assert (await world.condition("g"))["status"] == "True"

    told(story)


def test_a_gang_makes_others_leave_where_its_pods_go_and_nowhere_else() -> None:
    async def story(world: World) -> None:
        await world.client.create(_PRIORITIES, _priority("high", 1000))
        for number in range(3):
            await world.add_node(f"n{number}")
        for number in range(3):
            await world.add_pod(f"low-{number}", cpu="3")
        await world.until(lambda: _is(world.bound("low"), 3))
        await world.add_group("g", min_count=2, priorityClassName="high")
        await world.add_pods("g", 2, cpu="3", priorityClassName="high")

        async def leaving() -> list[str]:
            return [one["metadata"]["name"] for one in await world.pods() if "deletionTimestamp" in one["metadata"]]

        victims = await world.until(leaving)
        said = (await world.until(lambda: world.condition("g")))["message"]
        room = "pod group preemption: found a placement for podgroup, preempting 2 victims"
        assert said == f"minCount (2) cannot be satisfied: 0 scheduled, 1 remaining, {room}"
        await asyncio.sleep(20)
        assert len(victims) == len(await leaving()) == 2
        # Until they are gone nobody else has to leave.
        assert "ongoing preemption on nominated nodes" in (await world.condition("g"))["message"]
        assert await world.message("g-0") == "0/3 nodes are available: 3 Insufficient cpu."
        found = [orjson.loads(raw) for raw in (await world.client.list(EVENTS)).items]
        uid = (await world.group("g"))["metadata"]["uid"]
        assert {one["message"] for one in found if one["reason"] == "Preempted"} == {f"Preempted by podgroup {uid} on node cluster"}
        for name in victims:
            await world.delete(name)
        await world.until(lambda: _is(world.bound("g"), 2))
        assert await world.bound("low") == 1

    told(story)


def test_pods_that_disagree_with_their_group_are_an_error_of_the_whole() -> None:
    async def story(world: World) -> None:
        await world.add_node("n")
        await world.client.create(_PRIORITIES, _priority("high", 1000))
        await world.add_group("g", min_count=2)
        await world.add_pods("g", 2, priorityClassName="high")
        condition = await world.until(lambda: world.condition("g"))
        words = "all pods in a single pod group should have the same priority as the pod group's priority, got 1000 and 0"
        assert (condition["reason"], condition["message"]) == ("SchedulerError", words)
        assert await world.until(lambda: world.message("g-1")) == words

    told(story)


def test_a_group_stays_until_its_last_pod_is_gone() -> None:
    async def story(world: World) -> None:
        await world.add_node("n")
        await world.add_group("g", min_count=1)
        await world.add_pod("g-0", "g")
        await world.until(lambda: _is(world.bound("g"), 1))
        await world.client.delete(POD_GROUPS, "g", namespace="default")
        await asyncio.sleep(30)
        assert "deletionTimestamp" in (await world.group("g"))["metadata"]
        await world.delete("g-0")

        async def is_gone() -> bool:
            return not (await world.client.list(POD_GROUPS)).items

        await world.until(is_gone)

    told(story)


@pytest.mark.parametrize("seed", range(6))
def test_under_churn_no_gang_is_ever_half_bound(seed: int) -> None:
    """Gangs, single pods and nodes come and go at random; each revision of the store is looked at."""

    async def story(world: World) -> None:
        draws = random.Random(seed)
        watch = world.storage.watch(b"/registry/core/pods/", 0)
        needs: dict[str, int] = {}
        nodes = [f"n{number}" for number in range(4)]
        for name in nodes:
            await world.add_node(name)
        names = (f"g{number}" for number in itertools.count())
        for _ in range(60):
            await _change(world, draws, needs, names)
            await asyncio.sleep(draws.choice((0, 0.05, 1.5)))
        # In the end everybody who can be placed is.
        await world.add_node("large", cpu="400")
        present = {one["metadata"]["name"].rpartition("-")[0] for one in await world.pods()} & needs.keys()
        for group in present:
            await world.until(lambda group=group: _all_bound(world, group))
        ever: dict[str, set[str]] = defaultdict(set)
        waits: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for _, revision, raw in await watch.next_events():
            pod = orjson.loads(raw)
            group = pod.get("spec", {}).get("schedulingGroup", {}).get("podGroupName", "")
            if group and pod["spec"].get("nodeName"):
                waits[revision].append((group, pod["metadata"]["name"]))
        assert sum(map(len, waits.values())) > 20
        for revision in sorted(waits):
            for group, name in waits[revision]:
                ever[group].add(name)
            for group in {one for one, _ in waits[revision]}:
                assert len(ever[group]) >= needs[group], (revision, group, ever[group])

    told(story, seed + 1)


async def _change(world: World, draws: random.Random, needs: dict[str, int], names: Any) -> None:
    pods = [one["metadata"]["name"] for one in await world.pods()]
    kind = draws.random()
    if kind < 0.45:
        group, size = next(names), draws.randint(1, 6)
        needs[group] = draws.randint(1, size)
        await world.add_group(group, min_count=needs[group])
        await world.add_pods(group, size, cpu=draws.choice(("1", "500m", "2")))
    elif kind < 0.6:
        await world.add_pod(f"single-{next(names)}", cpu=draws.choice(("1", "3")))
    elif kind < 0.9 and pods:
        # A whole gang ends, or a single pod does.
        chosen = draws.choice(pods).rpartition("-")[0]
        for name in pods:
            if name.startswith(f"{chosen}-"):
                await world.delete(name)
    else:
        name = f"extra-{next(names)}"
        await world.add_node(name, cpu="2")
        await asyncio.sleep(0.5)
        await world.client.delete(NODES, name)


async def _all_bound(world: World, group: str) -> bool:
    pods = [one for one in await world.pods() if one["metadata"]["name"].startswith(f"{group}-")]
    return all(one["spec"].get("nodeName") for one in pods)


async def _is(number: Coroutine[Any, Any, int], wanted: int) -> bool:
    return await number == wanted


async def _has_node(world: World, name: str) -> bool:
    return bool(orjson.loads(await world.client.get(PODS, name, namespace="default"))["spec"].get("nodeName"))


def _priority(name: str, value: int) -> Object:
    return {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value}
