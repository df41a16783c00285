"""Pods get nodes, or words why not, whatever happens to calls and to the cluster in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from korch.api.gvk import EVENTS, NODES, PODS, ResourceRef
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions
from korch.runtime.context import Runtime
from korch.runtime.rng import Rng
from korch.scheduler.queue import Place
from korch.scheduler.scheduler import Scheduler
from korch.testing.bare import BareClient

TAINTED = {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}


@pytest.fixture
def client() -> BareClient:
    return BareClient(Runtime(rng=Rng(7)))


async def add_node(client: BareClient, name: str, *, cpu: str = "4", spec: dict[str, Any] | None = None) -> None:
    allocatable = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
    node = {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec or {},
        "status": {"allocatable": allocatable},
    }
    await client.create(NODES, node)


async def add_pod(client: BareClient, name: str, *, cpu: str = "1", **spec: Any) -> None:
    container = {"name": "c", "image": "app", "resources": {"requests": {"cpu": cpu}}}
    pod = {"metadata": {"name": name}, "spec": {"containers": [container], "schedulerName": "default-scheduler", **spec}}
    await client.create(PODS, pod, namespace="d")


async def pod(client: BareClient, name: str) -> dict[str, Any]:
    return orjson.loads(await client.get(PODS, name, namespace="d"))


async def node_of(client: BareClient, name: str) -> str:
    return (await pod(client, name))["spec"].get("nodeName", "")


async def condition(client: BareClient, name: str) -> dict[str, Any]:
    found = (await pod(client, name)).get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == "PodScheduled"), {})


async def events(client: BareClient, name: str) -> list[tuple[str, str, str]]:
    found = [orjson.loads(raw) for raw in (await client.list(EVENTS)).items]
    return [(one["type"], one["reason"], one["message"]) for one in found if one["involvedObject"]["name"] == name]


async def until(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await is_so():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def scheduling(client: BareClient) -> AsyncIterator[Scheduler]:
    runtime = Runtime(rng=Rng(1))
    scheduler = Scheduler(client, Informers(client, runtime), runtime)
    task = asyncio.ensure_future(scheduler.run())
    try:
        yield scheduler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()):
            raise error


async def test_pods_are_bound_and_told_so(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_node(client, "n2")
    for number in range(4):
        await add_pod(client, f"p{number}", cpu="2")
    async with scheduling(client):
        await until(lambda: _all_bound(client, 4))
        await until(lambda: events(client, "p3"))
        assert sorted([await node_of(client, f"p{number}") for number in range(4)]) == ["n1", "n1", "n2", "n2"]
        where = await node_of(client, "p0")
        assert await events(client, "p0") == [("Normal", "Scheduled", f"Successfully assigned d/p0 to {where}")]


async def _all_bound(client: BareClient, count: int) -> bool:
    pods = [orjson.loads(raw) for raw in (await client.list(PODS)).items]
    return sum(bool(one["spec"].get("nodeName")) for one in pods) == count


async def test_a_pod_that_fits_nowhere_says_why_and_is_bound_when_a_node_comes(client: BareClient) -> None:
    await add_node(client, "n1", cpu="1")
    await add_node(client, "n2", spec=TAINTED)
    await add_node(client, "n3", spec=TAINTED)
    await add_pod(client, "p", cpu="2")
    words = (
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    async with scheduling(client) as scheduler:
        await until(lambda: condition(client, "p"))
        found = await condition(client, "p")
        assert (found["status"], found["reason"], found["message"]) == ("False", "Unschedulable", words)
        await until(lambda: events(client, "p"))
        assert await events(client, "p") == [("Warning", "FailedScheduling", words)]
        assert scheduler.queue.place("d/p") is Place.UNSCHEDULABLE
        await add_node(client, "n4")
        await until(lambda: node_of(client, "p"))
        assert await node_of(client, "p") == "n4"


async def test_without_nodes_the_pod_says_so(client: BareClient) -> None:
    await add_pod(client, "p")
    async with scheduling(client):
        await until(lambda: condition(client, "p"))
        assert (await condition(client, "p"))["message"] == "no nodes available to schedule pods"


async def test_room_freed_by_a_deleted_pod_is_given_to_one_that_waits(client: BareClient) -> None:
    await add_node(client, "n1", cpu="2")
    await add_pod(client, "first", cpu="2")
    async with scheduling(client):
        await until(lambda: node_of(client, "first"))
        await add_pod(client, "second", cpu="2")
        await until(lambda: condition(client, "second"))
        await client.delete(PODS, "first", namespace="d", options=DeleteOptions(grace_period_s=0))
        await until(lambda: node_of(client, "second"))


async def test_a_taint_that_is_lifted_lets_a_waiting_pod_in(client: BareClient) -> None:
    await add_node(client, "n1", spec=TAINTED)
    await add_pod(client, "p")
    async with scheduling(client):
        await until(lambda: condition(client, "p"))
        await client.patch(NODES, "n1", {"spec": {"taints": None}})
        await until(lambda: node_of(client, "p"))


async def test_pods_of_other_schedulers_gated_and_deleted_pods_are_left_alone(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_pod(client, "other", schedulerName="another")
    await add_pod(client, "gated", schedulingGates=[{"name": "g"}])
    await client.create(PODS, {"metadata": {"name": "going", "finalizers": ["x/y"]}, "spec": {}}, namespace="d")
    await client.delete(PODS, "going", namespace="d", options=DeleteOptions(grace_period_s=0))
    await add_pod(client, "mine")
    async with scheduling(client) as scheduler:
        await until(lambda: node_of(client, "mine"))
        assert [await node_of(client, name) for name in ("other", "gated", "going")] == ["", "", ""]
        assert scheduler.queue.place("d/gated") is Place.GATED
        await client.patch(PODS, "gated", {"spec": {"schedulingGates": None}}, namespace="d")
        await until(lambda: node_of(client, "gated"))


async def test_a_failed_binding_is_forgotten_and_tried_again(client: BareClient) -> None:
    await add_node(client, "n1", cpu="2")
    failures = 1

    def fail_once(verb: str, resource: ResourceRef) -> None:
        nonlocal failures
        if verb == "create" and resource == PODS and failures:
            failures -= 1
            raise ConnectionResetError("the connection broke")

    async with scheduling(client) as scheduler:
        await until(lambda: _true(scheduler.is_synced))
        await add_pod(client, "p", cpu="2")
        client.fault = fail_once
        await until(lambda: node_of(client, "p"))
        assert failures == 0
        client.fault = None
        await until(lambda: _true("d/p" not in scheduler.queue))
        found = await condition(client, "p")
        assert (found["reason"], found["message"]) == ("SchedulerError", "binding rejected: the connection broke")


async def _true(value: bool) -> bool:
    return value


async def test_a_scheduler_that_is_stopped_and_started_goes_on(client: BareClient) -> None:
    await add_node(client, "n1")
    runtime = Runtime(rng=Rng(1))
    scheduler = Scheduler(client, Informers(client, runtime), runtime)
    for name in ("a", "b"):
        task = asyncio.ensure_future(scheduler.run())
        await add_pod(client, name)
        await until(lambda name=name: node_of(client, name))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not scheduler.is_synced


async def test_explain_shows_every_node_and_plugin(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_node(client, "n2", spec=TAINTED)
    await add_pod(client, "p", schedulingGates=[{"name": "g"}])
    async with scheduling(client) as scheduler:
        await until(lambda: _true(scheduler.is_synced))
        matrix = orjson.loads(scheduler.explain("d", "p") or b"{}")
    assert matrix["node"] == "n1"
    assert [row["feasible"] for row in matrix["nodes"]] == [True, False]
    assert matrix["nodes"][1]["filters"] == {"TaintToleration": ["node(s) had untolerated taint(s)"]}
