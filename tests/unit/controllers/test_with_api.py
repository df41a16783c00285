"""The controllers against the real API pipeline, scheduler and hollow nodes, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.controllers.cluster import Cluster, cluster_story

from korch.api.errors import NotFound
from korch.api.gvk import (
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICE_ACCOUNTS,
    SERVICES,
)


def template(labels: dict[str, str], image: str = "web:1") -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 1}}


def deployment(name: str, replicas: int, image: str = "web:1", **spec: Any) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template(labels, image), **spec},
    }


async def rolled_out(cluster: Cluster, name: str) -> dict[str, Any]:
    """What `kubectl rollout status` waits for."""

    async def holds() -> Any:
        found = await cluster.get(DEPLOYMENTS, name)
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        counts = [status.get(one, 0) for one in ("updatedReplicas", "replicas", "availableReplicas")]
        return found if status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3 else None

    return await cluster.until(holds)


def test_a_namespace_is_furnished_and_emptied_when_it_goes() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(NAMESPACES, {"metadata": {"name": "shop"}})

        async def is_furnished() -> bool:
            accounts = {one["metadata"]["name"] for one in await cluster.all(SERVICE_ACCOUNTS, namespace="shop")}
            maps = {one["metadata"]["name"] for one in await cluster.all(CONFIG_MAPS, namespace="shop")}
            return accounts == {"default"} and maps == {"kube-root-ca.crt"}

        await cluster.until(is_furnished, within_s=5)
        await cluster.make(DEPLOYMENTS, deployment("web", 2), "shop")
        await cluster.make(SERVICES, {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}, "shop")
        held = {"metadata": {"name": "held", "finalizers": ["example.com/wait"]}}
        await cluster.make(CONFIG_MAPS, held, "shop")

        async def are_ready() -> bool:
            return len(await cluster.ready_pods("app=web")) == 2

        await cluster.until(are_ready)
        await cluster.delete(NAMESPACES, "shop")
        await asyncio.sleep(20)
        ending = await cluster.get(NAMESPACES, "shop")
        assert ending["status"]["phase"] == "Terminating"
        told = {one["type"]: (one["status"], one["message"]) for one in ending["status"]["conditions"]}
        assert told["NamespaceContentRemaining"] == ("True", "Some resources are remaining: configmaps. has 1 resource instances")
        assert told["NamespaceFinalizersRemaining"] == (
            "True",
            "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances",
        )
        assert await cluster.all(PODS, namespace="shop") == []
        await cluster.change(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, "shop")

        async def is_gone() -> bool:
            return "shop" not in {one["metadata"]["name"] for one in await cluster.all(NAMESPACES)}

        await cluster.until(is_gone, within_s=20)

    cluster_story(story)


def test_a_deployment_rolls_out_serves_and_is_undone() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(SERVICES, {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
        await cluster.make(DEPLOYMENTS, deployment("web", 3))
        await rolled_out(cluster, "web")

        async def addresses() -> set[str]:
            slices = await cluster.all(ENDPOINT_SLICES, "kubernetes.io/service-name=web")
            ready = [one for found in slices for one in found["endpoints"] or [] if one["conditions"]["ready"]]
            return {one["addresses"][0] for one in ready}

        async def all_serve() -> bool:
            pods = {one["status"]["podIP"] for one in await cluster.ready_pods("app=web")}
            whole = await cluster.get(ENDPOINTS, "web")
            listed = {one["ip"] for part in whole.get("subsets") or [] for one in part.get("addresses", [])}
            return len(pods) == 3 and await addresses() == pods == listed

        await cluster.until(all_serve)
        (first,) = await cluster.all(REPLICA_SETS)
        await cluster.change(DEPLOYMENTS, "web", {"spec": {"template": template({"app": "web"}, "web:2")}})
        await rolled_out(cluster, "web")
        await cluster.until(all_serve)
        assert {pod["spec"]["containers"][0]["image"] for pod in await cluster.ready_pods("app=web")} == {"web:2"}
        await cluster.change(DEPLOYMENTS, "web", {"spec": {"template": template({"app": "web"}, "web:1")}})
        done = await rolled_out(cluster, "web")
        assert done["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
        again = await cluster.get(REPLICA_SETS, first["metadata"]["name"])
        assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
        assert again["spec"]["replicas"] == 3
        for size in (10, 2):
            await cluster.change(DEPLOYMENTS, "web", {"spec": {"replicas": size}})
            await rolled_out(cluster, "web")
        await cluster.delete(DEPLOYMENTS, "web")

        async def is_gone() -> bool:
            return not await cluster.all(PODS, "app=web") and not await cluster.all(REPLICA_SETS)

        await cluster.until(is_gone)

    cluster_story(story)


def test_a_settled_cluster_writes_nothing_but_heartbeats() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(DEPLOYMENTS, deployment("web", 3))
        await cluster.make(SERVICES, {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})
        await cluster.make(
            REPLICATION_CONTROLLERS, {"metadata": {"name": "rc"}, "spec": {"replicas": 2, "template": template({"app": "rc"})}}
        )
        await rolled_out(cluster, "web")
        await asyncio.sleep(60)
        kinds = (PODS, DEPLOYMENTS, REPLICA_SETS, SERVICES, ENDPOINTS, ENDPOINT_SLICES, REPLICATION_CONTROLLERS, NAMESPACES, CONFIG_MAPS)

        async def versions() -> dict[str, str]:
            found = [one for kind in kinds for one in await cluster.all(kind)]
            return {
                f"{one['kind']}/{one['metadata'].get('namespace', '')}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
                for one in found
            }

        before = await versions()
        await asyncio.sleep(250)
        assert await versions() == before

    cluster_story(story)


def test_the_pods_of_a_lost_node_are_replaced_elsewhere() -> None:
    async def story(cluster: Cluster) -> None:
        tolerations = [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
            for key in ("unreachable", "not-ready")
        ]
        body = deployment("web", 9)
        body["spec"]["template"]["spec"]["tolerations"] = tolerations
        await cluster.make(DEPLOYMENTS, body)
        await rolled_out(cluster, "web")
        lost = {one["metadata"]["name"] for one in await cluster.ready_pods("app=web") if one["spec"]["nodeName"] == "n1"}
        assert lost
        cluster.lose("n1")
        await asyncio.sleep(90)
        pods = await cluster.ready_pods("app=web")
        assert len(pods) == 9 and {one["spec"]["nodeName"] for one in pods} == {"n2", "n3"}
        await cluster.delete(NODES, "n1")
        await asyncio.sleep(120)
        assert not lost & {one["metadata"]["name"] for one in await cluster.all(PODS)}

    cluster_story(story)


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_deletion_policies_decide_over_dependents(policy: str) -> None:
    async def story(cluster: Cluster) -> None:
        rc = {"metadata": {"name": "rc"}, "spec": {"replicas": 4, "selector": {"app": "rc"}, "template": template({"app": "rc"})}}
        await cluster.make(REPLICATION_CONTROLLERS, rc)

        async def are_ready() -> bool:
            return len(await cluster.ready_pods("app=rc")) == 4

        await cluster.until(are_ready)
        await cluster.delete(REPLICATION_CONTROLLERS, "rc", propagation_policy=policy)
        if policy == "Foreground":
            assert "foregroundDeletion" in (await cluster.get(REPLICATION_CONTROLLERS, "rc"))["metadata"]["finalizers"]
        await asyncio.sleep(40)
        with pytest.raises(NotFound):
            await cluster.get(REPLICATION_CONTROLLERS, "rc")
        left = await cluster.all(PODS, "app=rc")
        assert len(left) == (4 if policy == "Orphan" else 0)
        assert all("ownerReferences" not in one["metadata"] for one in left)

    cluster_story(story)


def test_an_aggregated_role_gathers_what_its_selector_finds() -> None:
    async def story(cluster: Cluster) -> None:
        rule = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}
        selector = {"matchLabels": {"gather": "yes"}}
        await cluster.make(CLUSTER_ROLES, {"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [selector]}})
        await cluster.make(CLUSTER_ROLES, {"metadata": {"name": "part", "labels": {"gather": "yes"}}, "rules": [rule, rule]})

        def sums(rules: list[dict[str, Any]]) -> Any:
            async def holds() -> bool:
                return ((await cluster.get(CLUSTER_ROLES, "sum", namespace="")).get("rules") or []) == rules

            return holds

        await cluster.until(sums([rule]), within_s=5)
        await cluster.client.delete(CLUSTER_ROLES, "part")
        await cluster.until(sums([]), within_s=5)

    cluster_story(story)
