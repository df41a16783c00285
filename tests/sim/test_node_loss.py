"""A node dies: its pods run elsewhere in the time that the grace period and the tolerations allow, and nothing happens twice."""

from __future__ import annotations

import pytest

from korch.api.conditions import condition_status, get_condition
from korch.api.gvk import ENDPOINT_SLICES, NODES
from korch.api.meta import at, is_deleting
from korch.testing.cluster import SimCluster
from korch.testing.objects import deployment, pod, service

GRACE_S = 50.0
# The monitor looks every five seconds, the lease is up to ten seconds old, pods start within two.
SLACK_S = 20.0


def pods_on(cluster: SimCluster, node: str) -> list[str]:
    return [one["metadata"]["name"] for one in cluster.pods() if at(one, "spec", "nodeName") == node and not is_deleting(one)]


@pytest.mark.sim(seeds=50)
async def test_ten_pods_run_elsewhere_after_a_node_of_three_is_lost(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=10, cpu="100m", toleration_s=5))
    await cluster.run_for("60s")
    assert cluster.running("web") == 10
    assert pods_on(cluster, "n1")
    cluster.lose("n1")
    took_s = await cluster.run_until(lambda: cluster.running("web") == 10, within=GRACE_S + 5 + SLACK_S)
    assert took_s >= GRACE_S - 10
    cluster.heal_all()
    await cluster.settle(within="3m")
    assert cluster.running("web") == 10
    assert pods_on(cluster, "n1") == []


async def test_pods_without_tolerations_of_their_own_stay_for_five_minutes(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=10))
    await cluster.run_for("60s")
    cluster.lose("n1")
    await cluster.run_for("5m")
    assert cluster.running("web") < 10
    assert pods_on(cluster, "n1")
    await cluster.run_until(lambda: cluster.running("web") == 10, within="2m")


async def test_a_lost_node_says_so_and_its_endpoints_are_withdrawn_before_its_pods_are(cluster: SimCluster) -> None:
    cluster.nodes(2)
    await cluster.apply(deployment("web", replicas=4), service("web"))
    await cluster.settle()
    left, doomed = pods_on(cluster, "n2"), pods_on(cluster, "n1")
    assert left
    assert doomed
    cluster.lose("n1")
    await cluster.run_for("70s")
    node = await cluster.get(NODES, "n1")
    assert condition_status(node, "Ready") == "Unknown"
    assert (get_condition(node, "Ready") or {})["reason"] == "NodeStatusUnknown"
    taints = {(one["key"], one["effect"]) for one in node["spec"]["taints"]}
    assert {("node.kubernetes.io/unreachable", "NoExecute"), ("node.kubernetes.io/unreachable", "NoSchedule")} <= taints
    slices = await cluster.list(ENDPOINT_SLICES, namespace="default", label_selector="kubernetes.io/service-name=web")
    ready = [one["nodeName"] for part in slices for one in part["endpoints"] if one["conditions"]["ready"]]
    assert ready == ["n2"] * len(left)
    assert pods_on(cluster, "n1") == doomed


async def test_a_node_that_comes_back_in_time_keeps_its_pods(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=9, toleration_s=60))
    await cluster.run_for("60s")
    before = sorted(one["metadata"]["uid"] for one in cluster.pods("web"))
    cluster.partition("n1")
    await cluster.run_for("80s")
    assert condition_status(await cluster.get(NODES, "n1"), "Ready") == "Unknown"
    cluster.heal("n1")
    await cluster.settle()
    assert condition_status(await cluster.get(NODES, "n1"), "Ready") == "True"
    assert (await cluster.get(NODES, "n1"))["spec"].get("taints", []) == []
    assert sorted(one["metadata"]["uid"] for one in cluster.pods("web")) == before
    assert cluster.running("web") == 9


async def test_a_node_that_comes_back_too_late_finds_its_pods_deleted(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=9, toleration_s=5))
    await cluster.run_for("60s")
    cluster.lose("n1")
    await cluster.run_for("3m")
    assert len(cluster.pods("web")) == 12
    cluster.recover("n1")
    await cluster.settle()
    assert len(cluster.pods("web")) == cluster.running("web") == 9
    await cluster.apply(pod("late"))
    await cluster.run_until(lambda: cluster.running("late") == 1, within="10s")


async def test_a_node_that_is_deleted_takes_its_pods_along(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=9))
    await cluster.run_for("60s")
    cluster.lose("n1")
    await cluster.delete(NODES, "n1")
    await cluster.run_until(lambda: cluster.running("web") == 9, within="3m")
    await cluster.settle()
    assert len(cluster.pods("web")) == 9


@pytest.mark.sim(faults=None, clock_skew_s=1.0, seeds=20)
async def test_nothing_is_wrong_when_everything_fails_and_all_is_well_when_it_stops(cluster: SimCluster) -> None:
    cluster.nodes(4)
    await cluster.apply(deployment("web", replicas=10, cpu="100m", toleration_s=10), service("web"))
    await cluster.run_for("60s")
    random = cluster.rng.stream("story")
    for _ in range(8):
        victim = random.choice(["n1", "n2", "n3", "controllers", "scheduler"])
        if random.random() < 0.2:
            cluster.crash_server()
            await cluster.run_for(20 * random.random())
            cluster.start_server()
        elif random.random() < 0.5:
            cluster.partition(victim)
        else:
            cluster.lose(victim)
        await cluster.run_for(40 * random.random())
        if not cluster.is_alive(victim):
            cluster.recover(victim)
        elif random.random() < 0.5:
            cluster.heal(victim)
    for host in ("controllers", "scheduler", "n1", "n2", "n3"):
        if not cluster.is_alive(host):
            cluster.recover(host)
    cluster.heal_all()
    await cluster.settle(within="6m")
    assert cluster.running("web") == len(cluster.pods("web")) == 10
