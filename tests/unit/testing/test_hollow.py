"""Hollow nodes behave like kubelets, as far as the API can see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
import pytest

from korch.api.conditions import condition_status
from korch.api.errors import NotFound
from korch.api.gvk import LEASES, NODES, PODS
from korch.client.protocol import DeleteOptions
from korch.runtime.context import simulated
from korch.testing.bare import BareClient
from korch.testing.hollow import EXIT_CODE, RUN_SECONDS, HollowNode, Shape
from korch.testing.loop import SimLoop

T = TypeVar("T")


def simulate(story: Callable[[BareClient, HollowNode], Awaitable[T]], seed: int = 1, shape: Shape = Shape()) -> T:
    """Run `story` beside one hollow node n1; it is given a pod range unless it brings its own."""
    runtime = simulated(seed)

    async def main() -> T:
        client = BareClient(runtime)
        node = HollowNode(client, "n1", runtime, shape=shape)
        living = asyncio.get_running_loop().create_task(node.run())
        await asyncio.sleep(1)
        if not shape.registers_pod_cidr:
            await client.patch(NODES, "n1", {"spec": {"podCIDR": "10.1.2.0/24"}})
        try:
            return await story(client, node)
        finally:
            living.cancel()

    loop = SimLoop()
    result = loop.run(main())
    assert loop.errors == []
    return result


def pod(name: str, *, policy: str = "Always", node: str = "n1", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "d", "annotations": annotations},
        "spec": {"nodeName": node, "restartPolicy": policy, "containers": [{"name": "c", "image": "app:1"}]},
    }


async def read(client: BareClient, name: str) -> dict[str, Any]:
    return orjson.loads(await client.get(PODS, name, namespace="d"))


def test_a_node_may_bring_its_own_pod_range() -> None:
    async def story(client: BareClient, node: HollowNode) -> None:
        registered = orjson.loads(await client.get(NODES, "n1"))
        assert registered["spec"] == {"podCIDR": "10.128.1.0/24", "podCIDRs": ["10.128.1.0/24"]}
        await client.create(PODS, pod("a"), namespace="d")
        await asyncio.sleep(3)
        assert (await read(client, "a"))["status"]["podIP"] == "10.128.1.2"

    simulate(story, shape=Shape(registers_pod_cidr=True))


def test_a_node_that_somebody_calls_lost_says_that_it_is_ready_and_then_repeats_it_every_five_minutes() -> None:
    async def story(client: BareClient, node: HollowNode) -> None:
        async def heard() -> tuple[str, str]:
            found = orjson.loads(await client.get(NODES, "n1"))
            ready = next(one for one in found["status"]["conditions"] if one["type"] == "Ready")
            return ready["status"], ready["lastHeartbeatTime"]

        await asyncio.sleep(60)
        first = await heard()
        lost = [{"type": "Ready", "status": "Unknown", "lastHeartbeatTime": first[1]}]
        await client.patch(NODES, "n1", {"status": {"conditions": lost}}, subresource="status", patch_type="strategic")
        await asyncio.sleep(15)
        second = await heard()
        assert (first[0], second[0]) == ("True", "True") and second[1] > first[1]
        await asyncio.sleep(250)
        assert await heard() == second
        await asyncio.sleep(60)
        assert (await heard())[1] > second[1]

    simulate(story)


def test_a_node_of_many_renews_its_lease_and_looks_at_its_status_seldom() -> None:
    async def story(client: BareClient, node: HollowNode) -> None:
        await asyncio.sleep(600)
        assert 18 <= node.lease.renewals <= 21
        assert sum(call == ("get", "nodes", "n1") for call in client.calls) <= 23

    simulate(story, shape=Shape(registers_pod_cidr=True, renew_s=30))


def test_a_node_registers_ready_and_renews_its_lease() -> None:
    async def story(client: BareClient, node: HollowNode) -> None:
        await asyncio.sleep(100)
        registered = orjson.loads(await client.get(NODES, "n1"))
        assert condition_status(registered, "Ready") == "True"
        assert registered["status"]["allocatable"]["cpu"] == "8"
        lease = orjson.loads(await client.get(LEASES, "n1", namespace="kube-node-lease"))
        assert lease["spec"]["holderIdentity"] == "n1"
        assert lease["metadata"]["ownerReferences"][0]["uid"] == registered["metadata"]["uid"]
        assert 9 <= node.lease.renewals <= 12

    simulate(story)


def test_an_unchanged_node_status_is_written_every_five_minutes_only() -> None:
    async def story(client: BareClient, _node: HollowNode) -> int:
        await asyncio.sleep(3000)
        return sum(call == ("patch", "nodes", "n1") for call in client.calls)

    assert 9 <= simulate(story) <= 10


def test_a_node_that_was_declared_unknown_says_that_it_is_ready_again() -> None:
    async def story(client: BareClient, _node: HollowNode) -> None:
        unknown = [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]
        await client.patch(NODES, "n1", {"status": {"conditions": unknown}}, subresource="status")
        await asyncio.sleep(11)
        assert condition_status(orjson.loads(await client.get(NODES, "n1")), "Ready") == "True"

    simulate(story)


def test_a_bound_pod_runs_and_pods_of_other_nodes_do_not() -> None:
    async def story(client: BareClient, _node: HollowNode) -> None:
        for number in range(5):
            await client.create(PODS, pod(f"p{number}"))
        await client.create(PODS, pod("elsewhere", node="n2"))
        await asyncio.sleep(5)
        pods = [await read(client, f"p{number}") for number in range(5)]
        assert [one["status"]["phase"] for one in pods] == ["Running"] * 5
        assert all(condition_status(one, "Ready") == "True" for one in pods)
        assert sorted(one["status"]["podIP"] for one in pods) == [f"10.1.2.{number}" for number in range(2, 7)]
        assert "status" not in await read(client, "elsewhere")

    simulate(story)


ENDS = [
    # restart policy, exit code, expected phase, expected restarts after 60 s
    ("Never", "0", "Succeeded", 0),
    ("Never", "3", "Failed", 0),
    ("OnFailure", "0", "Succeeded", 0),
    ("OnFailure", "3", "Running", 3),
    ("Always", "0", "Running", 3),
]


@pytest.mark.parametrize(("policy", "code", "phase", "restarts"), ENDS)
def test_a_pod_with_a_run_time_ends_as_its_restart_policy_says(policy: str, code: str, phase: str, restarts: int) -> None:
    async def story(client: BareClient, _node: HollowNode) -> tuple[str, int]:
        await client.create(PODS, pod("p", policy=policy, **{RUN_SECONDS: "5", EXIT_CODE: code}))
        await asyncio.sleep(58)
        status = (await read(client, "p"))["status"]
        return status["phase"], status["containerStatuses"][0]["restartCount"]

    assert simulate(story) == (phase, restarts)


def test_deletion_honours_the_grace_period_and_then_the_pod_is_gone() -> None:
    async def story(client: BareClient, node: HollowNode) -> float:
        await client.create(PODS, pod("p"))
        await asyncio.sleep(3)
        began = asyncio.get_running_loop().time()
        await client.delete(PODS, "p", namespace="d")
        with pytest.raises(NotFound):
            while True:
                assert (await read(client, "p"))["metadata"]["deletionTimestamp"]
                await asyncio.sleep(0.01)
        return asyncio.get_running_loop().time() - began

    took = simulate(story)
    assert 0.1 <= took <= 2.5


def test_a_pod_recreated_under_the_same_name_runs_again() -> None:
    async def story(client: BareClient, _node: HollowNode) -> None:
        await client.create(PODS, pod("p"))
        await asyncio.sleep(3)
        await client.delete(PODS, "p", namespace="d", options=DeleteOptions(grace_period_s=0))
        await client.create(PODS, pod("p"))
        await asyncio.sleep(3)
        assert (await read(client, "p"))["status"]["phase"] == "Running"

    simulate(story)


def test_a_node_that_is_given_no_range_takes_one_that_follows_from_its_name() -> None:
    runtime = simulated(1)

    async def main() -> list[str]:
        client = BareClient(runtime)
        for name in ("n7", "n300"):
            asyncio.get_running_loop().create_task(HollowNode(client, name, runtime).run())
            await client.create(PODS, pod(name, node=name))
        await asyncio.sleep(10)
        return [(await read(client, name))["status"][field] for name in ("n7", "n300") for field in ("hostIP", "podIP")]

    assert SimLoop().run(main()) == ["172.16.0.7", "10.128.7.2", "172.16.1.44", "10.129.44.2"]
