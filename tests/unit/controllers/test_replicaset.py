"""A ReplicaSet keeps its number of pods."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.conftest import World, replica_set, template

from korch.api.errors import Forbidden
from korch.api.gvk import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, ResourceRef
from korch.controllers.replicaset import Failure, ReplicaSetController, plan_status
from korch.controllers.replicationcontroller import ReplicationControllerController
from korch.controllers.workload.ranking import pods_to_delete
from korch.controllers.workload.slow_start import slow_start
from korch.runtime.clock import rfc3339

NOW = 1_800_000_000.0
READY = {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(NOW - 100)}


def pod(name: str, node: str = "n1", phase: str = "Running", ready: bool = True, age_s: float = 100, **more: Any) -> dict[str, Any]:
    conditions = [{**READY, "lastTransitionTime": rfc3339(NOW - more.pop("ready_s", 100))}] if ready else []
    annotations = {"controller.kubernetes.io/pod-deletion-cost": str(cost)} if (cost := more.pop("cost", None)) is not None else {}
    restarts = more.pop("restarts", 0)
    return {
        "metadata": {"name": name, "uid": name, "creationTimestamp": rfc3339(NOW - age_s), "annotations": annotations},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": [{"restartCount": restarts}]},
    }


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param(pod("b", node="", phase="Pending", ready=False), pod("a"), id="unassigned"),
        pytest.param(pod("b", phase="Pending", ready=False), pod("a", phase="Unknown", ready=False), id="pending"),
        pytest.param(pod("b", phase="Unknown", ready=False), pod("a", ready=False), id="unknown"),
        pytest.param(pod("b", ready=False), pod("a"), id="not ready"),
        pytest.param(pod("b", cost=-1), pod("a"), id="cheaper to delete"),
        pytest.param(pod("b", cost=1), pod("a", cost=2), id="cheaper of two costs"),
        pytest.param(pod("b", ready_s=10), pod("a", ready_s=1000), id="ready for a shorter time"),
        pytest.param(pod("b", restarts=3), pod("a", restarts=1), id="more restarts"),
        pytest.param(pod("b", age_s=10), pod("a", age_s=1000), id="newer"),
        pytest.param(pod("b", cost=1, restarts=9), pod("a", cost=2), id="cost before restarts"),
        pytest.param(pod("a", age_s=65), pod("b", age_s=120), id="ages of one magnitude are decided by uid"),
    ],
)
def test_scale_down_deletes_the_pod_that_is_missed_least(first: dict[str, Any], then: dict[str, Any]) -> None:
    assert pods_to_delete([then, first], [then, first], 1, NOW) == [first]


def test_scale_down_deletes_from_the_node_with_most_siblings() -> None:
    crowd = [pod("a", "n1"), pod("b", "n2")]
    assert pods_to_delete(crowd, [*crowd, pod("other", "n2")], 1, NOW) == [crowd[1]]


async def test_slow_start_doubles_its_batches_and_stops_after_the_first_with_an_error() -> None:
    calls: list[int] = []

    async def call(index: int) -> None:
        calls.append(index)
        if index == 5:
            raise Forbidden("", "pods", "", "quota")

    outcome = await slow_start(100, call)
    assert calls == [0, 1, 2, 3, 4, 5, 6]
    assert (outcome.succeeded, len(outcome.errors)) == (6, 1)


def test_the_condition_of_a_failure_does_not_change_with_every_retry() -> None:
    owner = replica_set("web", 3) | {"kind": "ReplicaSet"}
    owner["status"] = first = plan_status(owner, [], 0, Failure("FailedCreate", 'pods "web-a" is forbidden'), NOW)
    assert plan_status(owner, [], 0, Failure("FailedCreate", 'pods "web-b" is forbidden'), NOW + 5) == first


def test_status_counts_ready_available_and_fully_labelled_pods() -> None:
    owner = replica_set("web", 3, minReadySeconds=50) | {"kind": "ReplicaSet"}
    owner["metadata"]["generation"] = 4
    labelled = pod("a") | {"metadata": {"name": "a", "labels": {"app": "web", "more": "x"}}}
    status = plan_status(owner, [labelled, pod("b", ready_s=10), pod("c", ready=False)], 2, None, NOW)
    assert status == {
        "replicas": 3,
        "fullyLabeledReplicas": 1,
        "readyReplicas": 2,
        "availableReplicas": 1,
        "terminatingReplicas": 2,
        "observedGeneration": 4,
    }


async def test_pods_are_created_reported_and_deleted_when_it_shrinks(world: World) -> None:
    async with world.running(ReplicaSetController(world.client, world.informers, world.runtime)):
        owner = await world.make(REPLICA_SETS, replica_set("web", 3))
        pods = await world.count(PODS, 3)
        assert {one["metadata"]["ownerReferences"][0]["uid"] for one in pods} == {owner["metadata"]["uid"]}
        assert all(one["metadata"]["name"].startswith("web-") and one["metadata"]["labels"] == {"app": "web"} for one in pods)
        await world.run_pod(pods[1]["metadata"]["name"])

        async def one_ready() -> bool:
            status = (await world.get(REPLICA_SETS, "web")).get("status", {})
            return status.get("readyReplicas") == status.get("availableReplicas") == 1 and status["replicas"] == 3

        await world.until(one_ready)
        await world.change(REPLICA_SETS, "web", {"spec": {"replicas": 1}})
        left = await world.count(PODS, 1)
        assert left[0]["metadata"]["name"] == pods[1]["metadata"]["name"]
        assert len(await world.messages("SuccessfulCreate")) == 3


@pytest.mark.parametrize(
    ("kind", "controller", "selector"),
    [
        (REPLICA_SETS, ReplicaSetController, {"matchLabels": {"app": "web"}}),
        (REPLICATION_CONTROLLERS, ReplicationControllerController, {"app": "web"}),
    ],
)
async def test_matching_orphans_are_adopted_and_pods_that_stop_matching_released(
    world: World, kind: ResourceRef, controller: type[ReplicaSetController], selector: Any
) -> None:
    await world.make(PODS, {"metadata": {"name": "orphan", "labels": {"app": "web"}}, "spec": {}})
    async with world.running(controller(world.client, world.informers, world.runtime)):
        await world.make(
            kind, {"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": selector, "template": template({"app": "web"})}}
        )

        async def owners() -> list[Any]:
            return (await world.get(PODS, "orphan"))["metadata"].get("ownerReferences", [])

        (reference,) = await world.until(owners)
        assert (reference["kind"], reference["controller"], reference["blockOwnerDeletion"]) == (kind.kind, True, True)
        assert len(await world.all(PODS)) == 1
        await world.change(PODS, "orphan", {"metadata": {"labels": {"app": "other"}}})

        async def is_released() -> bool:
            return not await owners()

        await world.until(is_released)
        await world.count(PODS, 1, "app=web")


async def test_a_refused_create_is_told_in_a_condition_and_an_event(world: World) -> None:
    def fault(verb: str, resource: ResourceRef) -> None:
        if (verb, resource) == ("create", PODS):
            raise Forbidden("", "pods", "web-x", "exceeded quota: q")

    world.client.fault = fault
    async with world.running(ReplicaSetController(world.client, world.informers, world.runtime)):
        await world.make(REPLICA_SETS, replica_set("web", 3))

        async def condition() -> Any:
            return (await world.get(REPLICA_SETS, "web")).get("status", {}).get("conditions")

        (failed,) = await world.until(condition)
        assert (failed["type"], failed["status"], failed["reason"]) == ("ReplicaFailure", "True", "FailedCreate")
        assert failed["message"] == 'pods "web-x" is forbidden: exceeded quota: q'

        async def told() -> bool:
            return 'Error creating: pods "web-x" is forbidden: exceeded quota: q' in await world.messages("FailedCreate")

        await world.until(told)
        world.client.fault = None
        await world.count(PODS, 3)

        async def is_well() -> bool:
            return "conditions" not in (await world.get(REPLICA_SETS, "web"))["status"]

        await world.until(is_well)


async def test_a_replica_set_that_is_being_deleted_makes_no_pods(world: World) -> None:
    body = replica_set("web", 2)
    body["metadata"]["finalizers"] = ["foregroundDeletion"]
    await world.make(REPLICA_SETS, body)
    await world.delete(REPLICA_SETS, "web")
    async with world.running(ReplicaSetController(world.client, world.informers, world.runtime)):

        async def is_reported() -> bool:
            return "status" in await world.get(REPLICA_SETS, "web")

        await world.until(is_reported)
        assert await world.all(PODS) == []
