"""A Deployment rolls its pods from template to template."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.conftest import World, deployment, template

from korch.api.errors import Forbidden
from korch.api.gvk import DEPLOYMENTS, PODS, REPLICA_SETS, ResourceRef
from korch.client.protocol import DeleteOptions
from korch.controllers.deployment import DeploymentController, deadline_in_s, merge_conditions, plan_status
from korch.controllers.replicaset import ReplicaSetController
from korch.controllers.workload import rollout
from korch.runtime.clock import rfc3339

NOW = 1_800_000_000.0
NOW_GONE = DeleteOptions(grace_period_s=0)


def sized(
    name: str, replicas: int, available: int | None = None, desired: int | None = None, maximum: int | None = None, age: int = 0
) -> dict[str, Any]:
    available = replicas if available is None else available
    marks = {rollout.DESIRED_REPLICAS: str(desired), rollout.MAX_REPLICAS: str(maximum)} if desired is not None else {}
    meta = {"name": name, "uid": name, "creationTimestamp": rfc3339(NOW - age), "annotations": marks}
    return {"metadata": meta, "spec": {"replicas": replicas}, "status": {"replicas": replicas, "availableReplicas": available}}


def rolling(replicas: int, surge: int | str, unavailable: int | str) -> dict[str, Any]:
    update = {"maxSurge": surge, "maxUnavailable": unavailable}
    return deployment("web", replicas, strategy={"type": "RollingUpdate", "rollingUpdate": update})


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (3, "25%", "25%", (1, 0)),
        (1, "25%", "25%", (1, 0)),
        (10, 0, 0, (0, 1)),
        (2, 1, 5, (1, 2)),
        (0, "25%", "25%", (0, 0)),
    ],
)
def test_surge_is_rounded_up_and_unavailability_down(replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]) -> None:
    assert rollout.fenceposts(rolling(replicas, surge, unavailable)) == expected


def test_the_hash_ignores_its_own_label_and_changes_with_a_collision() -> None:
    plain = template({"app": "web"})
    labelled = template({"app": "web", rollout.HASH_LABEL: "x"})
    assert rollout.template_hash(plain, None) == rollout.template_hash(labelled, None)
    assert len({rollout.template_hash(plain, None), rollout.template_hash(plain, 1), rollout.template_hash(plain, 2)}) == 3


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        pytest.param((0, 0), (10, 10), {"old": 8}, id="down to what must be available"),
        pytest.param((3, 0), (10, 10), {"old": 8}, id="pods that are not available yet do not count"),
        pytest.param((5, 0), (8, 8), {}, id="nothing may go while the new ones are not available"),
        pytest.param((5, 5), (8, 8), {"old": 3}, id="as many as became available"),
        pytest.param((3, 0), (10, 7), {"old": 8}, id="unhealthy ones first, no further than the bound"),
        pytest.param((3, 0), (10, 3), {"old": 8}, id="more unhealthy than the bound"),
        pytest.param((10, 10), (0, 0), {}, id="done"),
    ],
)
def test_old_pods_go_as_far_as_max_unavailable_allows(new: tuple[int, int], old: tuple[int, int], expected: dict[str, int]) -> None:
    assert rollout.old_sizes(rolling(10, 3, 2), sized("new", *new), [sized("old", *old)]) == expected


@pytest.mark.parametrize(
    ("replicas", "sets", "expected"),
    [
        pytest.param(10, [("new", 5, 5)], {"new": 10}, id="a single one takes all"),
        pytest.param(0, [("new", 5, 5), ("old", 2, 7)], {"new": 0, "old": 0}, id="to zero"),
        pytest.param(20, [("new", 5, 10), ("old", 8, 10)], {"new": 9, "old": 14}, id="up in proportion"),
        pytest.param(5, [("new", 5, 10), ("old", 8, 10)], {"new": 3, "old": 5}, id="down in proportion"),
    ],
)
def test_resizing_amid_a_rollout_keeps_the_proportions(replicas: int, sets: list[tuple[str, int, int]], expected: dict[str, int]) -> None:
    subject = rolling(replicas, 3, 2)
    made = {name: sized(name, size, desired=desired, maximum=13, age=age) for age, (name, size, desired) in enumerate(sets)}
    assert rollout.scaled_sizes(subject, made.get("new"), [made["old"]] if "old" in made else []) == expected


def test_history_beyond_the_limit_is_cleaned_up_lowest_revision_first() -> None:
    old = [sized(f"r{number}", 0) for number in (3, 1, 2)]
    for one in old:
        one["metadata"]["annotations"] = {rollout.REVISION: one["metadata"]["name"][1:]}
    busy = sized("busy", 1)
    assert [one["metadata"]["name"] for one in rollout.to_clean_up(deployment("web", 1, revisionHistoryLimit=1), [*old, busy])] == [
        "r1",
        "r2",
    ]


def test_a_rollback_writes_the_revisions_that_a_replica_set_had() -> None:
    marks = {rollout.REVISION: "1"}
    again = rollout.replica_set_annotations(deployment("web", 1), marks, 3, is_new=False)
    assert again == {rollout.REVISION: "3", rollout.REVISION_HISTORY: "1"}
    assert rollout.replica_set_annotations(deployment("web", 1), again, 5, is_new=False)[rollout.REVISION_HISTORY] == "1,3"
    assert rollout.replica_set_annotations(deployment("web", 1), again, 2, is_new=False) == again


def test_a_condition_moves_its_times_only_when_it_says_something_new() -> None:
    had = {"type": "Progressing", "status": "True", "reason": "A", "message": "", "lastUpdateTime": "1", "lastTransitionTime": "1"}
    same = {**had, "message": "other", "lastUpdateTime": "2", "lastTransitionTime": "2"}
    assert merge_conditions([had], [same]) == [had]
    assert merge_conditions([had], [{**same, "reason": "B"}]) == [{**same, "reason": "B", "lastTransitionTime": "1"}]
    assert merge_conditions([had], [{**same, "status": "False"}]) == [{**same, "status": "False"}]


def test_a_rollout_without_progress_times_out_after_its_deadline() -> None:
    subject = deployment("web", 2, progressDeadlineSeconds=60)
    subject["status"] = {"replicas": 2, "updatedReplicas": 2}
    started = {
        "type": "Progressing",
        "status": "True",
        "reason": "ReplicaSetUpdated",
        "message": "",
        "lastUpdateTime": rfc3339(NOW - 59),
        "lastTransitionTime": rfc3339(NOW - 59),
    }
    subject["status"]["conditions"] = [started]
    new = sized("web-1", 2, available=0)
    assert deadline_in_s(subject, NOW) == 1
    waiting = plan_status(subject, new, [new], NOW, tracks_progress=True)
    assert waiting["conditions"][0] == started
    late = plan_status(subject, new, [new], NOW + 2, tracks_progress=True)
    progressing = next(one for one in late["conditions"] if one["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert progressing["message"] == 'ReplicaSet "web-1" has timed out progressing.'
    available = next(one for one in late["conditions"] if one["type"] == "Available")
    assert (available["status"], available["message"]) == ("False", "Deployment does not have minimum availability.")


def controllers(world: World) -> tuple[DeploymentController, ReplicaSetController]:
    return (
        DeploymentController(world.client, world.informers, world.runtime),
        ReplicaSetController(world.client, world.informers, world.runtime),
    )


async def complete(world: World, revision: str) -> dict[str, Any]:
    """Play the nodes' part until the rollout of `revision` is complete; return the Deployment."""

    async def holds() -> Any:
        await world.run_all_pods()
        for pod in await world.all(PODS):
            if "deletionTimestamp" in pod["metadata"]:
                await world.client.delete(PODS, pod["metadata"]["name"], namespace="d", options=NOW_GONE)
        found = await world.get(DEPLOYMENTS, "web")
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        is_done = status.get("updatedReplicas") == status.get("replicas") == status.get("availableReplicas") == wanted
        is_seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return found if is_done and is_seen and found["metadata"].get("annotations", {}).get(rollout.REVISION) == revision else None

    return await world.until(holds)


async def test_a_rollout_an_update_and_an_undo(world: World) -> None:
    async with world.running(*controllers(world)):
        await world.make(DEPLOYMENTS, deployment("web", 3))
        done = await complete(world, "1")
        progressing = {one["type"]: one for one in done["status"]["conditions"]}
        assert progressing["Available"]["status"] == "True"
        (first,) = await world.all(REPLICA_SETS)
        assert first["metadata"]["name"] == f"web-{first['metadata']['labels'][rollout.HASH_LABEL]}"
        assert first["spec"]["selector"]["matchLabels"] == first["spec"]["template"]["metadata"]["labels"] == first["metadata"]["labels"]
        assert f"Scaled up replica set {first['metadata']['name']} from 0 to 3" in await world.messages("ScalingReplicaSet")

        await world.change(DEPLOYMENTS, "web", {"spec": {"template": template({"app": "web"}, "web:2")}})
        done = await complete(world, "2")

        async def settled() -> Any:
            found = await world.get(DEPLOYMENTS, "web")
            reasons = {one["type"]: one["reason"] for one in found["status"]["conditions"]}
            return reasons == {"Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable"}

        await world.until(settled)
        sizes = {one["metadata"]["annotations"][rollout.REVISION]: one["spec"]["replicas"] for one in await world.all(REPLICA_SETS)}
        assert sizes == {"1": 0, "2": 3}

        await world.change(DEPLOYMENTS, "web", {"spec": {"template": template({"app": "web"}, "web:1")}})
        await complete(world, "3")
        again = await world.get(REPLICA_SETS, first["metadata"]["name"])
        assert (again["spec"]["replicas"], again["metadata"]["annotations"][rollout.REVISION_HISTORY]) == (3, "1")
        assert len(await world.all(REPLICA_SETS)) == 2


async def test_recreate_waits_for_the_old_pods_to_be_gone(world: World) -> None:
    async with world.running(*controllers(world)):
        await world.make(DEPLOYMENTS, deployment("web", 2, strategy={"type": "Recreate"}))
        await complete(world, "1")
        await world.change(DEPLOYMENTS, "web", {"spec": {"template": template({"app": "web"}, "web:2")}})

        async def all_terminating() -> bool:
            return all("deletionTimestamp" in pod["metadata"] for pod in await world.all(PODS))

        await world.until(all_terminating)

        async def waits() -> bool:
            status = (await world.get(DEPLOYMENTS, "web"))["status"]
            return status["replicas"] == 0 if "replicas" in status else status.get("terminatingReplicas") == 2

        await world.until(waits)
        assert len(await world.all(REPLICA_SETS)) == 1
        await complete(world, "2")
        assert len(await world.all(REPLICA_SETS)) == 2


async def test_a_paused_deployment_scales_but_does_not_roll(world: World) -> None:
    async with world.running(*controllers(world)):
        await world.make(DEPLOYMENTS, deployment("web", 2))
        await complete(world, "1")
        await world.change(DEPLOYMENTS, "web", {"spec": {"paused": True}})
        await world.change(DEPLOYMENTS, "web", {"spec": {"replicas": 4, "template": template({"app": "web"}, "web:2")}})
        await world.count(PODS, 4)
        assert len(await world.all(REPLICA_SETS)) == 1

        async def shows_pause() -> bool:
            conditions = (await world.get(DEPLOYMENTS, "web"))["status"]["conditions"]
            return any(one["reason"] == "DeploymentPaused" for one in conditions)

        await world.until(shows_pause)
        await world.change(DEPLOYMENTS, "web", {"spec": {"paused": None}})
        await complete(world, "2")


async def test_a_refused_replica_set_is_told_and_retried(world: World) -> None:
    def fault(verb: str, resource: ResourceRef) -> None:
        if (verb, resource) == ("create", REPLICA_SETS):
            raise Forbidden("apps", "replicasets", "web-x", "no more")

    world.client.fault = fault
    async with world.running(*controllers(world)):
        await world.make(DEPLOYMENTS, deployment("web", 1))

        async def is_told() -> bool:
            conditions = (await world.get(DEPLOYMENTS, "web")).get("status", {}).get("conditions", [])
            return any(one["reason"] == "ReplicaSetCreateError" and one["status"] == "False" for one in conditions)

        await world.until(is_told)
        world.client.fault = None
        await complete(world, "1")


async def test_a_foreign_replica_set_with_our_name_makes_another_hash(world: World) -> None:
    subject = deployment("web", 1)
    taken = rollout.new_replica_set(subject)
    taken["metadata"].pop("namespace")
    taken["metadata"]["labels"] = {}
    await world.make(REPLICA_SETS, {"metadata": taken["metadata"], "spec": taken["spec"] | {"selector": {"matchLabels": {"x": "y"}}}})
    async with world.running(*controllers(world)):
        await world.make(DEPLOYMENTS, subject)
        done = await complete(world, "1")
        assert done["status"]["collisionCount"] == 1


async def test_an_unheard_create_is_not_repeated(world: World) -> None:
    lost = []

    def fault(verb: str, resource: ResourceRef) -> None:
        if verb == "patch" and resource == DEPLOYMENTS and not lost:
            lost.append(verb)
            raise ConnectionError("the answer was lost")

    world.client.fault = fault
    async with world.running(*controllers(world)):
        await world.make(DEPLOYMENTS, deployment("web", 2))
        await complete(world, "1")
        assert lost and len(await world.all(REPLICA_SETS)) == 1 and len(await world.all(PODS)) == 2
