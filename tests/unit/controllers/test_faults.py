"""Whatever the network loses, doubles or delays, and whenever the controllers are restarted, all converges and no count is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from korch.api.conditions import is_condition_true
from korch.api.errors import NotFound
from korch.api.gvk import CONTROLLER_REVISIONS, DAEMON_SETS, DEPLOYMENTS, JOBS, NAMESPACES, PODS, REPLICA_SETS, STATEFUL_SETS
from korch.client.protocol import DeleteOptions
from korch.testing.cluster import CONTROLLERS, SimCluster, SimConfig
from korch.testing.objects import deployment, service

SEEDS = range(3)


def workload(kind: str, api_version: str, name: str, spec: dict[str, Any], **template: Any) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "registry.example/app:1"}], **template}
    body = {"template": {"metadata": {"labels": labels}, "spec": pod}, **spec}
    if kind != "Job":
        body["selector"] = {"matchLabels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": body}


def job(name: str, **spec: Any) -> dict[str, Any]:
    return workload("Job", "batch/v1", name, spec, restartPolicy="Never")


async def finished(cluster: SimCluster, name: str) -> bool:
    return is_condition_true(await cluster.get(JOBS, name), "Complete")


@pytest.mark.parametrize("seed", SEEDS)
def test_workloads_converge(seed: int) -> None:
    async def story(cluster: SimCluster) -> None:
        cluster.nodes(3)
        await cluster.apply(
            deployment("web", replicas=6, toleration_s=5),
            service("web"),
            workload("StatefulSet", "apps/v1", "db", {"replicas": 3, "serviceName": "db"}),
            workload("DaemonSet", "apps/v1", "agent", {}),
            job("work", completions=8, parallelism=3),
            job("indexed", completions=6, parallelism=2, completionMode="Indexed"),
        )
        await cluster.run_for("20s")
        cluster.restart(CONTROLLERS)
        await cluster.run_for("40s")
        await cluster.apply(deployment("web", replicas=8, image="registry.example/app:2", toleration_s=5))
        await cluster.run_for("20s")
        cluster.restart(CONTROLLERS)
        await cluster.run_for("2m")
        cluster.heal_all()
        await cluster.settle(within="10m")
        assert (cluster.running("web"), cluster.running("db"), cluster.running("agent")) == (8, 3, 3)
        assert {one["spec"]["containers"][0]["image"] for one in cluster.pods("web")} == {"registry.example/app:2"}
        assert await finished(cluster, "work") and await finished(cluster, "indexed")
        work, indexed = (await cluster.get(JOBS, "work"))["status"], (await cluster.get(JOBS, "indexed"))["status"]
        ended = [one for one in cluster.pods("work") if one["status"]["phase"] == "Succeeded"]
        assert work["succeeded"] == len(ended) and work.get("uncountedTerminatedPods", {}) == {}
        assert (indexed["succeeded"], indexed["completedIndexes"]) == (6, "0-5")
        assert len(await cluster.list(REPLICA_SETS)) == 2
        assert len(await cluster.list(CONTROLLER_REVISIONS)) == 2
        for kind, name in ((DEPLOYMENTS, "web"), (STATEFUL_SETS, "db")):
            status = (await cluster.get(kind, name))["status"]
            assert status["replicas"] == status["readyReplicas"] == status["updatedReplicas"] == status["availableReplicas"]

    simulate(seed, story)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_namespace_goes_with_everything_in_it(seed: int) -> None:
    async def story(cluster: SimCluster) -> None:
        cluster.nodes(2)
        await cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        body = job("work", completions=5, parallelism=5)
        body["metadata"]["namespace"] = "shop"
        await cluster.apply(deployment("web", replicas=4, namespace="shop"), service("web", namespace="shop"), body)
        await cluster.run_for("20s")
        await cluster.delete(NAMESPACES, "shop")
        await cluster.run_for("1m")
        cluster.heal_all()
        await cluster.settle(within="10m")
        with pytest.raises(NotFound):
            await cluster.get(NAMESPACES, "shop")
        assert cluster.pods() == []

    simulate(seed, story)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_deletion_reaches_dependents_or_spares_them(seed: int, policy: Any) -> None:
    async def story(cluster: SimCluster) -> None:
        cluster.nodes(2)
        await cluster.apply(
            deployment("web", replicas=4), job("work", parallelism=2, completions=2), workload("DaemonSet", "apps/v1", "agent", {})
        )
        await cluster.run_for("30s")
        options = DeleteOptions(propagation_policy=policy)
        for kind, name in ((DEPLOYMENTS, "web"), (JOBS, "work"), (DAEMON_SETS, "agent")):
            await cluster.delete(kind, name, options=options)
        await cluster.run_for("10s")
        cluster.restart(CONTROLLERS)
        await cluster.run_for("1m")
        cluster.heal_all()
        await cluster.settle(within="10m")
        left = {one["metadata"]["labels"]["app"] for one in await cluster.list(PODS)}
        assert left == ({"web", "work", "agent"} if policy == "Orphan" else set())
        assert len(await cluster.list(REPLICA_SETS)) == (1 if policy == "Orphan" else 0)
        assert not any("finalizers" in one["metadata"] for one in cluster.pods())

    simulate(seed, story)


def simulate(seed: int, story: Any) -> None:
    cluster = SimCluster(seed, SimConfig(faults=None))
    try:
        cluster.run(story)
    except BaseException as error:
        error.add_note(cluster.report())
        raise
