"""A DaemonSet has one pod on every node it belongs on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.controllers.cluster import Cluster, cluster_story

from korch.api.gvk import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from korch.controllers.daemonset import by_node, plan_nodes, plan_status, plan_update
from korch.controllers.nodes.eligibility import should_run, target_of, tie_to_node, with_daemon_tolerations
from korch.runtime.clock import rfc3339

NOW = 1_800_000_000.0


def node(name: str, *taints: tuple[str, str], **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": [{"key": key, "effect": effect} for key, effect in taints]}}


@pytest.mark.parametrize(
    ("spec", "where", "expected"),
    [
        ({}, node("n"), (True, True)),
        ({"nodeSelector": {"disk": "ssd"}}, node("n", disk="ssd"), (True, True)),
        ({"nodeSelector": {"disk": "ssd"}}, node("n"), (False, False)),
        ({"nodeName": "other"}, node("n"), (False, False)),
        ({}, node("n", ("team", "NoSchedule")), (False, True)),
        ({}, node("n", ("team", "NoExecute")), (False, False)),
        ({}, node("n", ("team", "PreferNoSchedule")), (True, True)),
        ({}, node("n", ("node.kubernetes.io/unschedulable", "NoSchedule"), ("node.kubernetes.io/not-ready", "NoExecute")), (True, True)),
        ({}, node("n", ("node.kubernetes.io/network-unavailable", "NoSchedule")), (False, True)),
        ({"hostNetwork": True}, node("n", ("node.kubernetes.io/network-unavailable", "NoSchedule")), (True, True)),
        ({"tolerations": [{"operator": "Exists"}]}, node("n", ("team", "NoExecute")), (True, True)),
    ],
)
def test_where_a_daemon_belongs(spec: dict[str, Any], where: dict[str, Any], expected: tuple[bool, bool]) -> None:
    assert should_run(with_daemon_tolerations(spec), where) == expected


def test_a_daemon_pod_is_tied_to_its_node_beside_what_its_user_asked_for() -> None:
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    tied = tie_to_node(
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}, "n1"
    )
    (found,) = tied["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert found == term | {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    assert target_of({"spec": tied}) == "n1"


def pod(name: str, on: str, revision: str = "old", ready: bool = True, phase: str = "Running", **meta: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": rfc3339(NOW - 60)}]
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": meta.pop("created", "1"),
            "labels": {"controller-revision-hash": revision},
            **meta,
        },
        "spec": {"nodeName": on},
        "status": {"phase": phase, "conditions": conditions},
    }


YES, STAY, NO = (True, True), (False, True), (False, False)


def names(pods: list[dict[str, Any]]) -> list[str]:
    return [one["metadata"]["name"] for one in pods]


def test_every_node_gets_exactly_one() -> None:
    pods = [
        pod("one", "n1"),
        pod("twin", "n1", created="2"),
        pod("stays", "n3"),
        pod("goes", "n4"),
        pod("dead", "n5", phase="Failed", ready=False),
        pod("ending", "n6", deletionTimestamp="x"),
    ]
    eligible = {"n1": YES, "n2": YES, "n3": STAY, "n4": NO, "n5": YES, "n6": YES}
    plan = plan_nodes({"spec": {}}, by_node(pods), eligible)
    assert (plan.create, names(plan.delete), [one["metadata"]["name"] for one, _ in plan.failed]) == (["n2"], ["twin", "goes"], ["dead"])


@pytest.mark.parametrize(
    ("rolling", "pods", "deleted", "created"),
    [
        pytest.param({"maxUnavailable": 1}, [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")], 1, 0, id="one at a time"),
        pytest.param({"maxUnavailable": 2}, [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")], 2, 0, id="two at a time"),
        pytest.param(
            {"maxUnavailable": 1}, [pod("a", "n1", "new", ready=False), pod("b", "n2"), pod("c", "n3")], 0, 0, id="waits for the new one"
        ),
        pytest.param({"maxUnavailable": 1}, [pod("a", "n1", ready=False), pod("b", "n2"), pod("c", "n3")], 1, 0, id="broken ones first"),
        pytest.param({"maxUnavailable": 1}, [pod("b", "n2"), pod("c", "n3")], 0, 0, id="a node without a pod is unavailable"),
        pytest.param({"maxSurge": 1, "maxUnavailable": 0}, [pod("a", "n1"), pod("b", "n2"), pod("c", "n3")], 0, 1, id="surges"),
        pytest.param(
            {"maxSurge": 1, "maxUnavailable": 0},
            [pod("a", "n1"), pod("a2", "n1", "new"), pod("b", "n2"), pod("c", "n3")],
            1,
            0,
            id="the old one goes when the new one serves",
        ),
    ],
)
def test_a_rolling_update_respects_its_bounds(rolling: dict[str, Any], pods: list[Any], deleted: int, created: int) -> None:
    owner = {"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}}
    plan = plan_update(owner, by_node(pods), {"n1": YES, "n2": YES, "n3": YES}, "new", NOW)
    assert (len(plan.delete), len(plan.create)) == (deleted, created)


def test_status_counts_nodes_not_pods() -> None:
    pods = [pod("a", "n1", "new"), pod("b", "n2", ready=False), pod("c", "n4")]
    eligible = {"n1": YES, "n2": YES, "n3": YES, "n4": STAY}
    assert plan_status({"metadata": {"generation": 2}, "spec": {}}, by_node(pods), eligible, "new", NOW) == {
        "currentNumberScheduled": 2,
        "numberMisscheduled": 1,
        "desiredNumberScheduled": 3,
        "numberReady": 1,
        "observedGeneration": 2,
        "updatedNumberScheduled": 1,
        "numberAvailable": 1,
        "numberUnavailable": 2,
    }


def daemon_set(image: str = "agent:1", **spec: Any) -> dict[str, Any]:
    labels = {"app": "agent"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 1, **spec},
    }
    return {"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}


async def placed(cluster: Cluster) -> list[str]:
    return sorted(one["spec"]["nodeName"] for one in await cluster.ready_pods("app=agent"))


def test_daemons_follow_nodes_and_are_replaced_when_deleted_or_changed() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(DAEMON_SETS, daemon_set())

        async def on_all_three() -> bool:
            return await placed(cluster) == ["n1", "n2", "n3"]

        await cluster.until(on_all_three)
        cluster.add_node("n4", 4)

        async def on_all_four() -> bool:
            return await placed(cluster) == ["n1", "n2", "n3", "n4"]

        await cluster.until(on_all_four)
        gone = (await cluster.ready_pods("app=agent"))[0]
        await cluster.delete(PODS, gone["metadata"]["name"])
        await asyncio.sleep(5)
        await cluster.until(on_all_four)
        await cluster.change(NODES, "n2", {"spec": {"unschedulable": True}})
        await asyncio.sleep(5)
        assert await on_all_four()
        await cluster.change(DAEMON_SETS, "agent", {"spec": {"template": daemon_set("agent:2")["spec"]["template"]}})

        async def is_updated() -> bool:
            found = await cluster.get(DAEMON_SETS, "agent")
            status = found["status"]
            if status["observedGeneration"] != found["metadata"]["generation"]:
                return False
            return status.get("updatedNumberScheduled") == status.get("numberAvailable") == 4 and await on_all_four()

        await cluster.until(is_updated)
        history = await cluster.all(CONTROLLER_REVISIONS)
        assert sorted(one["revision"] for one in history) == [1, 2]
        # `kubectl rollout undo` applies the old revision's data.
        first = min(history, key=lambda one: one["revision"])
        undone = {name: value for name, value in first["data"]["spec"]["template"].items() if name != "$patch"}
        await cluster.change(DAEMON_SETS, "agent", {"spec": {"template": undone}})
        await asyncio.sleep(1)
        await cluster.until(is_updated)
        assert {one["spec"]["containers"][0]["image"] for one in await cluster.ready_pods("app=agent")} == {"agent:1"}
        assert sorted(one["revision"] for one in await cluster.all(CONTROLLER_REVISIONS)) == [2, 3]
        version = (await cluster.get(DAEMON_SETS, "agent"))["metadata"]["resourceVersion"]
        await asyncio.sleep(120)
        assert (await cluster.get(DAEMON_SETS, "agent"))["metadata"]["resourceVersion"] == version

    cluster_story(story)


def test_a_node_selector_moves_daemons_when_labels_change() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(DAEMON_SETS, daemon_set(nodeSelector={"color": "blue"}))
        await asyncio.sleep(3)
        assert await placed(cluster) == []
        await cluster.change(NODES, "n2", {"metadata": {"labels": {"color": "blue"}}})

        async def only_there() -> bool:
            return await placed(cluster) == ["n2"]

        await cluster.until(only_there)
        await cluster.change(NODES, "n2", {"metadata": {"labels": {"color": "green"}}})

        async def nowhere() -> bool:
            return not await cluster.all(PODS, "app=agent")

        await cluster.until(nowhere)

    cluster_story(story)
