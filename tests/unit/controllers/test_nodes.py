"""A node falls silent: it is marked, tainted, its pods leave it; a node that comes back is welcome again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.controllers.conftest import World, simulate

from korch.api.conditions import get_condition
from korch.api.gvk import EVENTS, LEASES, NODES, PODS
from korch.controllers.config import ControllerConfig
from korch.controllers.event_ttl import EventTtlController
from korch.controllers.node_ipam import NodeIpamController
from korch.controllers.node_lifecycle import NodeLifecycleController
from korch.controllers.nodes import health
from korch.controllers.nodes.cidrs import CidrsExhausted, first_free
from korch.controllers.nodes.tolerations import eviction_time, tolerates
from korch.controllers.pod_gc import PodGcController, stranded, surplus_terminated
from korch.controllers.taint_eviction import TaintEvictionController
from korch.runtime.clock import rfc3339, rfc3339_micro

NOW = 1_800_000_000.0
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}


def node(name: str, ready: str, *taints: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"taints": list(taints)}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


@pytest.mark.parametrize(
    ("toleration", "taint", "expected"),
    [
        ({"operator": "Exists"}, {"key": "k", "effect": "NoExecute"}, True),
        ({"key": "k", "operator": "Exists"}, {"key": "k", "value": "v", "effect": "NoSchedule"}, True),
        ({"key": "k", "value": "v"}, {"key": "k", "value": "v", "effect": "NoExecute"}, True),
        ({"key": "k", "value": "v"}, {"key": "k", "value": "w", "effect": "NoExecute"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, {"key": "k", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, {"key": "k", "effect": "NoExecute"}, False),
        ({"operator": "Equal"}, {"key": "k", "effect": "NoExecute"}, False),
    ],
)
def test_a_toleration_matches_by_key_value_and_effect(toleration: dict[str, Any], taint: dict[str, Any], expected: bool) -> None:
    assert tolerates(toleration, taint) is expected


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], 100.0),
        ([{"operator": "Exists"}], None),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": 30}], 130.0),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": 30}, {"operator": "Exists", "tolerationSeconds": 5}], 105.0),
        ([{"key": "k", "operator": "Exists", "tolerationSeconds": -3}], 100.0),
        ([{"key": "other", "operator": "Exists"}], 100.0),
    ],
)
def test_the_shortest_toleration_decides_when_a_pod_leaves(tolerations: list[dict[str, Any]], expected: float | None) -> None:
    taints = [{"key": "k", "effect": "NoExecute"}, {"key": "n", "effect": "NoSchedule"}]
    assert eviction_time(taints, tolerations, lambda _taint: 100.0) == expected


def test_taints_follow_conditions_and_leave_those_of_users_alone() -> None:
    own = {"key": "team", "value": "a", "effect": "NoSchedule"}
    lost = node("n", "Unknown", own)
    tainted = health.desired_taints(lost, NOW, may_evict=True, withdraw=False)
    assert tainted == [
        own,
        {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": rfc3339(NOW)},
    ]
    assert health.desired_taints(node("n", "Unknown", *tainted), NOW + 60, may_evict=False, withdraw=False) is None
    assert health.desired_taints(node("n", "True", *tainted), NOW, may_evict=False, withdraw=False) == [own]
    withdrawn = health.desired_taints(node("n", "Unknown", *tainted), NOW, may_evict=False, withdraw=True)
    assert withdrawn == tainted[:2]
    cordoned = node("n", "True")
    cordoned["spec"]["unschedulable"] = True
    assert health.desired_taints(cordoned, NOW, may_evict=True, withdraw=False) == [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize(
    ("up", "down", "expected"),
    [(3, 0, (0.1, False)), (2, 1, (0.1, False)), (0, 1, (0.0, True)), (0, 3, (0.0, True)), (2, 3, (0.0, False)), (40, 60, (0.01, False))],
)
def test_the_more_nodes_are_down_the_less_is_evicted(up: int, down: int, expected: tuple[float, bool]) -> None:
    nodes = [node(f"u{one}", "True") for one in range(up)] + [node(f"d{one}", "Unknown") for one in range(down)]
    state = health.disruption(nodes, rate_per_s=0.1, slow_rate_per_s=0.01, large_cluster=50, threshold=0.55)
    assert (state.evictions_per_s, state.is_total) == expected


def test_the_time_of_the_last_eviction_is_read_off_the_taints() -> None:
    tainted = node("n", "Unknown", {"key": health.UNREACHABLE, "effect": "NoExecute", "timeAdded": rfc3339(NOW - 4)})
    assert health.next_eviction_in_s([tainted, node("m", "True")], 0.1, NOW) == 6
    assert health.next_eviction_in_s([node("m", "True")], 0.1, NOW) == 0


def test_address_ranges_never_overlap() -> None:
    assert first_free("10.244.0.0/16", 24, []) == "10.244.0.0/24"
    assert first_free("10.244.0.0/16", 24, ["10.244.0.0/24", "10.244.2.0/24"]) == "10.244.1.0/24"
    assert first_free("10.244.0.0/16", 24, ["10.244.0.0/23"]) == "10.244.2.0/24"
    with pytest.raises(CidrsExhausted):
        first_free("10.244.0.0/24", 25, ["10.244.0.0/25", "10.244.0.128/25"])


def test_only_pods_that_nobody_will_end_are_stranded() -> None:
    ending = {"name": "p", "deletionTimestamp": "x"}
    out = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    nodes = {"up": node("up", "True", out), "down": node("down", "Unknown", out)}
    unbound = {"metadata": ending, "spec": {}}
    on_down = {"metadata": ending, "spec": {"nodeName": "down"}}
    others = [{"metadata": ending, "spec": {"nodeName": "up"}}, {"metadata": {"name": "p"}, "spec": {}}]
    assert stranded([unbound, on_down, *others], nodes) == [unbound, on_down]


def test_terminated_pods_beyond_the_threshold_go_oldest_first() -> None:
    pods = [{"metadata": {"name": str(one), "creationTimestamp": str(one)}, "status": {"phase": "Failed"}} for one in (3, 1, 2)]
    assert [one["metadata"]["name"] for one in surplus_terminated(pods, 1)] == ["1", "2"]
    assert surplus_terminated(pods, 0) == []


async def live_node(world: World, name: str) -> None:
    await world.node(name)
    await world.make(LEASES, {"metadata": {"name": name}, "spec": {}}, "kube-node-lease")


async def beat(world: World, name: str, seconds: float) -> None:
    """Renew the node's lease every 10 s for so long."""
    for _ in range(int(seconds // 10)):
        renewed = rfc3339_micro(world.runtime.clock.now())
        await world.change(LEASES, name, {"spec": {"renewTime": renewed}}, "kube-node-lease")
        await asyncio.sleep(10)


async def tolerant_pod(world: World, name: str, on: str, seconds: int | None) -> None:
    toleration = UNREACHABLE if seconds is None else UNREACHABLE | {"tolerationSeconds": seconds}
    await world.make(PODS, {"metadata": {"name": name}, "spec": {"tolerations": [toleration]}})
    await world.run_pod(name, on)


def taint_keys(obj: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["key"].rpartition("/")[2], one["effect"]) for one in obj["spec"].get("taints") or ()}


def test_a_silent_node_is_lost_after_the_grace_period_and_its_pods_leave_it() -> None:
    async def story(world: World) -> None:
        for name in ("n1", "n2", "n3"):
            await live_node(world, name)
        await tolerant_pod(world, "short", "n1", 30)
        await tolerant_pod(world, "stays", "n1", None)
        await tolerant_pod(world, "elsewhere", "n2", 30)
        lifecycle = NodeLifecycleController(world.client, world.informers, world.runtime)
        eviction = TaintEvictionController(world.client, world.informers, world.runtime)
        async with world.running(lifecycle, eviction), asyncio.TaskGroup() as group:
            beats = [group.create_task(beat(world, name, 3600)) for name in ("n2", "n3")]
            await beat(world, "n1", 60)
            await asyncio.sleep(39)
            assert get_condition(await world.get(NODES, "n1"), "Ready")["status"] == "True"
            await asyncio.sleep(3)
            lost = await world.get(NODES, "n1")
            ready = get_condition(lost, "Ready")
            assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")
            assert ready["message"] == "Kubelet stopped posting node status."
            assert taint_keys(lost) == {("unreachable", "NoSchedule"), ("unreachable", "NoExecute")}
            assert get_condition(await world.get(PODS, "short"), "Ready")["status"] == "False"
            assert get_condition(await world.get(PODS, "elsewhere"), "Ready")["status"] == "True"
            assert "deletionTimestamp" not in (await world.get(PODS, "short"))["metadata"]
            await asyncio.sleep(31)
            evicted = await world.get(PODS, "short")
            assert "deletionTimestamp" in evicted["metadata"]
            assert get_condition(evicted, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
            assert "deletionTimestamp" not in (await world.get(PODS, "stays"))["metadata"]
            # It comes back: the agent says Ready, and the taints go.
            await world.change(NODES, "n1", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, subresource="status")
            group_beat = group.create_task(beat(world, "n1", 3600))
            await asyncio.sleep(1)
            assert taint_keys(await world.get(NODES, "n1")) == set()
            for task in [*beats, group_beat]:
                task.cancel()

    simulate(story)


def test_when_every_node_is_silent_nothing_is_evicted() -> None:
    async def story(world: World) -> None:
        await live_node(world, "n1")
        await live_node(world, "n2")
        async with world.running(NodeLifecycleController(world.client, world.informers, world.runtime)):
            await asyncio.sleep(120)
            for name in ("n1", "n2"):
                assert taint_keys(await world.get(NODES, name)) == {("unreachable", "NoSchedule")}

    simulate(story)


def test_two_lost_nodes_are_evicted_one_after_the_other() -> None:
    async def story(world: World) -> None:
        for name in ("n1", "n2", "n3", "n4"):
            await live_node(world, name)
        async with world.running(NodeLifecycleController(world.client, world.informers, world.runtime)), asyncio.TaskGroup() as group:
            beats = [group.create_task(beat(world, name, 3600)) for name in ("n3", "n4")]
            await asyncio.sleep(52)
            first = [name for name in ("n1", "n2") if ("unreachable", "NoExecute") in taint_keys(await world.get(NODES, name))]
            assert len(first) == 1
            await asyncio.sleep(15)
            both = [name for name in ("n1", "n2") if ("unreachable", "NoExecute") in taint_keys(await world.get(NODES, name))]
            assert len(both) == 2
            for task in beats:
                task.cancel()

    simulate(story)


def test_a_lost_answer_does_not_save_a_lost_node() -> None:
    async def story(world: World) -> None:
        for name in ("n1", "n2"):
            await live_node(world, name)
        real, lost = world.client.update, []

        async def update(resource: Any, body: Any, **more: Any) -> bytes:
            answer = await real(resource, body, **more)
            if resource == NODES and not lost:
                lost.append(body)
                raise ConnectionError("the answer was lost")
            return answer

        world.client.update = update  # type: ignore[method-assign]
        async with world.running(NodeLifecycleController(world.client, world.informers, world.runtime)), asyncio.TaskGroup() as group:
            beats = group.create_task(beat(world, "n2", 3600))
            await asyncio.sleep(70)
            assert lost and ("unreachable", "NoExecute") in taint_keys(await world.get(NODES, "n1"))
            beats.cancel()

    simulate(story)


def test_a_taint_without_a_time_counts_from_when_it_is_seen_and_its_removal_cancels() -> None:
    async def story(world: World) -> None:
        await world.node("n1")
        for name, seconds in (("now", None), ("five", 5), ("sixty", 60)):
            tolerations = [] if seconds is None else [{"key": "k", "operator": "Exists", "tolerationSeconds": seconds}]
            await world.make(PODS, {"metadata": {"name": name}, "spec": {"tolerations": tolerations, "terminationGracePeriodSeconds": 0}})
            await world.run_pod(name)

        async def left() -> set[str]:
            return {one["metadata"]["name"] for one in await world.all(PODS)}

        async with world.running(TaintEvictionController(world.client, world.informers, world.runtime)):
            await world.change(NODES, "n1", {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}})
            await asyncio.sleep(1)
            assert await left() == {"five", "sixty"}
            await asyncio.sleep(5)
            assert await left() == {"sixty"}
            await world.change(NODES, "n1", {"spec": {"taints": None}})
            await asyncio.sleep(120)
            assert await left() == {"sixty"}

    simulate(story)


def test_every_node_gets_a_pod_network_of_its_own() -> None:
    async def story(world: World) -> None:
        await world.node("old", podCIDR="10.244.1.0/24", podCIDRs=["10.244.1.0/24"])
        async with world.running(NodeIpamController(world.client, world.informers, world.runtime)):
            for number in range(5):
                await world.make(NODES, {"metadata": {"name": f"n{number}"}, "spec": {}})
            await asyncio.sleep(1)
            given = sorted(one["spec"]["podCIDR"] for one in await world.all(NODES))
            assert given == [f"10.244.{number}.0/24" for number in range(6)]

    simulate(story)


def test_nodes_for_which_no_network_is_left_are_told_once_and_get_one_when_a_node_goes() -> None:
    async def story(world: World) -> None:
        config = ControllerConfig(cluster_cidr="10.244.0.0/23")
        for number in range(4):
            await world.make(NODES, {"metadata": {"name": f"n{number}"}, "spec": {}})
        async with world.running(NodeIpamController(world.client, world.informers, world.runtime, config)):
            await asyncio.sleep(100)
            without = sorted(one["metadata"]["name"] for one in await world.all(NODES) if "podCIDR" not in one["spec"])
            told = await world.all(EVENTS)
            assert len(without) == 2
            assert sorted((one["involvedObject"]["name"], one["reason"]) for one in told) == [(one, "CIDRNotAvailable") for one in without]
            assert all(one.get("count") in (None, 1) for one in told)
            gone = next(one["metadata"]["name"] for one in await world.all(NODES) if one["metadata"]["name"] not in without)
            await world.delete(NODES, gone)
            await asyncio.sleep(40)
            left = [one["spec"].get("podCIDR", "") for one in await world.all(NODES)]
            assert sorted(left) == ["", "10.244.0.0/24", "10.244.1.0/24"]

    simulate(story)


def test_pods_of_a_node_that_is_gone_are_failed_and_deleted_after_the_quarantine() -> None:
    async def story(world: World) -> None:
        await world.node("n1")
        for name in ("a", "b"):
            await world.make(PODS, {"metadata": {"name": name, "finalizers": ["example.com/look"]}, "spec": {}})
            await world.run_pod(name)
        async with world.running(PodGcController(world.client, world.informers, world.runtime)):
            await asyncio.sleep(60)
            assert all("deletionTimestamp" not in one["metadata"] for one in await world.all(PODS))
            await world.delete(NODES, "n1")
            await asyncio.sleep(90)
            for one in await world.all(PODS):
                assert one["status"]["phase"] == "Failed" and "deletionTimestamp" in one["metadata"]
                assert get_condition(one, "DisruptionTarget")["message"] == "PodGC: node no longer exists"

    simulate(story)


def test_events_end_after_an_hour_without_news() -> None:
    async def story(world: World) -> None:
        for name in ("old", "again"):
            await world.make(EVENTS, {"metadata": {"name": name}, "lastTimestamp": world.now()})
        async with world.running(EventTtlController(world.client, world.informers, world.runtime, ControllerConfig(event_ttl_s=3600))):
            await asyncio.sleep(1800)
            await world.change(EVENTS, "again", {"lastTimestamp": world.now()})
            await asyncio.sleep(1900)
            assert [one["metadata"]["name"] for one in await world.all(EVENTS)] == ["again"]
            await asyncio.sleep(1900)
            assert await world.all(EVENTS) == []

    simulate(story)
