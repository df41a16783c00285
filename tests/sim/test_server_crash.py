"""The API server dies and comes back on its store: what it answered is there, and everybody finds their way back by themselves."""

from __future__ import annotations

import pytest

from korch.api.gvk import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS
from korch.testing.cluster import SimCluster
from korch.testing.objects import deployment


async def test_everything_that_was_answered_is_there_after_a_crash(cluster: SimCluster) -> None:
    for number in range(20):
        await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}, "data": {"n": str(number)}})
    cluster.crash_server()
    with pytest.raises(ConnectionError, match="refused"):
        await cluster.get(CONFIG_MAPS, "c0")
    cluster.start_server()
    assert [(await cluster.get(CONFIG_MAPS, f"c{number}"))["data"] for number in range(20)] == [{"n": str(n)} for n in range(20)]


async def test_running_pods_go_on_and_work_left_undone_is_taken_up(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=6))
    await cluster.settle()
    before = {one["metadata"]["uid"] for one in cluster.pods("web")}
    await cluster.scale(DEPLOYMENTS, "web", 9)
    cluster.crash_server()
    await cluster.run_for("30s")
    cluster.start_server()
    await cluster.settle()
    after = {one["metadata"]["uid"] for one in cluster.pods("web")}
    assert before < after
    assert len(after) == cluster.running("web") == 9


async def test_a_server_that_is_away_for_minutes_costs_no_node_its_pods(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=6, toleration_s=30))
    await cluster.settle()
    before = {one["metadata"]["uid"] for one in cluster.pods("web")}
    cluster.crash_server()
    await cluster.run_for("10m")
    cluster.start_server()
    await cluster.settle(within="5m")
    assert {one["metadata"]["uid"] for one in cluster.pods("web")} == before
    assert cluster.running("web") == 6
    assert [node["spec"].get("taints", []) for node in await cluster.list(NODES)] == [[], [], []]
    assert len(await cluster.list(PODS)) == 6
