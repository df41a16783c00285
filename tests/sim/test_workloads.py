"""Workloads on a healthy and on a shaky cluster: what was asked for comes to be, and then there is rest."""

from __future__ import annotations

import pytest

from korch.api.gvk import DEPLOYMENTS, ENDPOINT_SLICES, PODS, REPLICA_SETS
from korch.api.meta import at
from korch.api.pods import is_ready
from korch.testing.cluster import SimCluster
from korch.testing.network import Faults
from korch.testing.objects import deployment, service


async def test_a_deployment_runs_spread_over_the_nodes(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=9, cpu="100m"))
    await cluster.run_until(lambda: cluster.running("web") == 9, within="30s")
    await cluster.settle()
    counts = [sum(at(pod, "spec", "nodeName") == node for pod in cluster.pods("web")) for node in ("n1", "n2", "n3")]
    assert counts == [3, 3, 3]


async def test_scaling_up_and_down_ends_at_the_number_asked_for(cluster: SimCluster) -> None:
    cluster.nodes(2)
    await cluster.apply(deployment("web", replicas=3))
    for replicas in (10, 2, 0, 5):
        await cluster.scale(DEPLOYMENTS, "web", replicas)
        await cluster.settle()
        assert len(cluster.pods("web")) == cluster.running("web") == replicas


async def test_a_rollout_replaces_every_pod_and_never_falls_below_the_budget(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=8))
    await cluster.settle()
    await cluster.apply(deployment("web", replicas=8, image="registry.example/app:2"))
    least = 8

    def is_rolled_out() -> bool:
        nonlocal least
        least = min(least, sum(is_ready(pod) for pod in cluster.pods("web")))
        images = [pod["spec"]["containers"][0]["image"] for pod in cluster.pods("web")]
        return len(images) == 8 and set(images) == {"registry.example/app:2"} and cluster.running("web") == 8

    await cluster.run_until(is_rolled_out, within="3m", every_s=0.05)
    assert least >= 6
    await cluster.settle()


async def test_pods_that_fit_nowhere_wait_and_run_when_there_is_room(cluster: SimCluster) -> None:
    cluster.nodes(1)
    await cluster.apply(deployment("web", replicas=3, cpu="5"))
    await cluster.run_for("2m")
    assert cluster.running("web") == 1
    cluster.nodes(2)
    await cluster.run_until(lambda: cluster.running("web") == 3, within="1m")


async def test_a_service_leads_to_the_ready_pods_and_to_no_others(cluster: SimCluster) -> None:
    cluster.nodes(2)
    await cluster.apply(deployment("web", replicas=4), service("web"))
    await cluster.settle()
    await cluster.scale(DEPLOYMENTS, "web", 2)
    await cluster.settle()
    slices = await cluster.list(ENDPOINT_SLICES, namespace="default", label_selector="kubernetes.io/service-name=web")
    addresses = sorted(one["addresses"][0] for part in slices for one in part["endpoints"] if one["conditions"]["ready"])
    assert addresses == sorted(pod["status"]["podIP"] for pod in cluster.pods("web"))
    assert len(addresses) == 2


async def test_a_deleted_deployment_takes_its_dependents_with_it(cluster: SimCluster) -> None:
    cluster.nodes(2)
    await cluster.apply(deployment("web", replicas=4))
    await cluster.settle()
    await cluster.delete(DEPLOYMENTS, "web")
    await cluster.settle()
    assert cluster.pods("web") == []
    assert await cluster.list(REPLICA_SETS, namespace="default") == []


@pytest.mark.sim(faults=None, clock_skew_s=0.5, seeds=10)
async def test_a_lossy_network_delays_but_changes_nothing(cluster: SimCluster) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=10), deployment("api", replicas=5))
    await cluster.run_for("2m")
    await cluster.scale(DEPLOYMENTS, "web", 4)
    await cluster.delete(DEPLOYMENTS, "api")
    await cluster.run_for("2m")
    cluster.heal_all()
    await cluster.settle(within="5m")
    assert cluster.running("web") == 4
    assert [pod["metadata"]["labels"]["app"] for pod in cluster.pods()] == ["web"] * 4


@pytest.mark.sim(faults=Faults(lose_response=0.05))
@pytest.mark.parametrize("host", ["controllers", "scheduler", "n1"])
async def test_a_component_that_crashes_again_and_again_does_no_harm(cluster: SimCluster, host: str) -> None:
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=10))
    for _ in range(6):
        await cluster.run_for("700ms")
        cluster.restart(host)
    cluster.heal_all()
    await cluster.settle(within="8m")
    assert cluster.running("web") == 10
    assert len(await cluster.list(PODS, namespace="default")) == 10
