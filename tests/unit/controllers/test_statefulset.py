"""A StatefulSet's pods have names, an order and a revision."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.controllers.cluster import Cluster, cluster_story

from korch.api.gvk import PODS, STATEFUL_SETS
from korch.controllers.statefulset import new_pod, plan, plan_status
from korch.runtime.clock import rfc3339

NOW = 1_800_000_000.0


def owner(
    replicas: int = 3, policy: str = "OrderedReady", strategy: str = "RollingUpdate", start: int = 0, **rolling: Any
) -> dict[str, Any]:
    return {
        "metadata": {"name": "db", "namespace": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "podManagementPolicy": policy,
            "updateStrategy": {"type": strategy, "rollingUpdate": rolling},
            "ordinals": {"start": start},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c"}]}},
        },
    }


def pod(number: int, state: str = "ready", revision: str = "new") -> dict[str, Any]:
    meta = {"name": f"db-{number}", "uid": str(number), "labels": {"controller-revision-hash": revision}}
    if state == "ending":
        meta["deletionTimestamp"] = "x"
    phase = {"pending": "Pending", "failed": "Failed"}.get(state, "Running")
    ready = {"type": "Ready", "status": str(state in ("ready", "ending")), "lastTransitionTime": rfc3339(NOW - 60)}
    return {"metadata": meta, "status": {"phase": phase, "conditions": [ready]}}


@pytest.mark.parametrize(
    ("subject", "pods", "create", "delete", "recreate"),
    [
        pytest.param(owner(), [], [0], [], [], id="the first one first"),
        pytest.param(owner(), [pod(0, "pending")], [], [], [], id="waits for the first"),
        pytest.param(owner(), [pod(0), pod(2)], [1], [], [], id="fills a gap"),
        pytest.param(owner(policy="Parallel"), [pod(1, "pending")], [0, 2], [], [], id="all at once"),
        pytest.param(owner(), [pod(0), pod(1, "failed")], [], [], [1], id="a failed one is made anew"),
        pytest.param(owner(1), [pod(0), pod(1), pod(2)], [], [2], [], id="the last goes first"),
        pytest.param(owner(1), [pod(0), pod(1), pod(2, "ending")], [], [], [], id="one goes at a time"),
        pytest.param(owner(1), [pod(0, "pending"), pod(1), pod(2)], [], [], [], id="none goes while one that stays is unwell"),
        pytest.param(owner(1), [pod(0), pod(1, "pending"), pod(2)], [], [2], [], id="a well one goes before an unwell one below"),
        pytest.param(
            owner(1), [pod(0), pod(1, "pending"), pod(2, "pending")], [], [], [], id="an unwell one waits for an unwell one below"
        ),
        pytest.param(owner(1), [pod(0), pod(1, "pending")], [], [1], [], id="the lowest unwell one goes"),
        pytest.param(owner(1, "Parallel"), [pod(0), pod(1, "pending"), pod(2)], [], [2, 1], [], id="all go at once"),
        pytest.param(
            owner(), [pod(0, revision="old"), pod(1, revision="old"), pod(2, revision="old")], [], [2], [], id="updates from the end"
        ),
        pytest.param(owner(), [pod(0, revision="old"), pod(1, "pending"), pod(2)], [], [], [], id="updates wait for health"),
        pytest.param(owner(partition=2), [pod(0, revision="old"), pod(1, revision="old"), pod(2)], [], [], [], id="stops at the partition"),
        pytest.param(owner(strategy="OnDelete"), [pod(n, revision="old") for n in range(3)], [], [], [], id="only on delete"),
        pytest.param(owner(maxUnavailable=2), [pod(n, revision="old") for n in range(3)], [], [2, 1], [], id="two at a time"),
        pytest.param(owner(2, start=5), [pod(5)], [6], [], [], id="ordinals may start anywhere"),
    ],
)
def test_the_next_step(subject: dict[str, Any], pods: list[Any], create: list[int], delete: list[int], recreate: list[int]) -> None:
    step = plan(subject, pods, "new", NOW)
    assert step.create == create
    assert [int(one["metadata"]["uid"]) for one in step.delete] == delete
    assert [int(one["metadata"]["uid"]) for one in step.recreate] == recreate


def test_a_pod_is_known_by_its_ordinal() -> None:
    revision = {"metadata": {"name": "db-abc"}, "data": {"spec": {"template": owner()["spec"]["template"] | {"$patch": "replace"}}}}
    made = new_pod(owner(), 1, revision, {"kind": "StatefulSet"})
    assert made["metadata"]["labels"] == {
        "app": "db",
        "statefulset.kubernetes.io/pod-name": "db-1",
        "apps.kubernetes.io/pod-index": "1",
        "controller-revision-hash": "db-abc",
    }
    assert (made["metadata"]["name"], made["spec"]["hostname"], made["spec"]["subdomain"]) == ("db-1", "db-1", "db")
    assert "generateName" not in made["metadata"]


def test_the_newest_revision_becomes_current_when_all_have_it() -> None:
    amid = plan_status(owner(2), [pod(0, revision="old"), pod(1)], "old", "new", NOW)
    assert (amid["currentRevision"], amid["currentReplicas"], amid["updatedReplicas"]) == ("old", 1, 1)
    done = plan_status(owner(2), [pod(0), pod(1)], "old", "new", NOW)
    assert (done["currentRevision"], done["currentReplicas"], done["updatedReplicas"]) == ("new", 2, 2)


def stateful_set(image: str = "db:1", replicas: int = 3, **spec: Any) -> dict[str, Any]:
    labels = {"app": "db"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 1}}
    body = {"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "db"}, "spec": body | spec}


def test_pods_come_in_order_keep_their_names_and_are_updated_from_the_end() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(STATEFUL_SETS, stateful_set())

        async def ready() -> list[str]:
            return sorted(one["metadata"]["name"] for one in await cluster.ready_pods("app=db"))

        async def all_three() -> bool:
            return await ready() == ["db-0", "db-1", "db-2"]

        await cluster.until(all_three)
        created = {one["metadata"]["name"]: one for one in await cluster.all(PODS, "app=db")}
        began = [int(created[f"db-{number}"]["metadata"]["resourceVersion"]) for number in range(3)]
        assert began == sorted(began)
        uid = created["db-1"]["metadata"]["uid"]
        await cluster.delete(PODS, "db-1")
        await asyncio.sleep(5)
        await cluster.until(all_three)
        assert (await cluster.get(PODS, "db-1"))["metadata"]["uid"] != uid
        change = {"spec": {"template": stateful_set("db:2")["spec"]["template"], "updateStrategy": {"rollingUpdate": {"partition": 2}}}}
        await cluster.change(STATEFUL_SETS, "db", change)

        async def images() -> list[str]:
            found = sorted(await cluster.ready_pods("app=db"), key=lambda one: one["metadata"]["name"])
            return [one["spec"]["containers"][0]["image"] for one in found]

        async def canary() -> bool:
            return await images() == ["db:1", "db:1", "db:2"]

        await cluster.until(canary)
        await cluster.delete(PODS, "db-0")
        await asyncio.sleep(10)
        await cluster.until(canary)
        await cluster.change(STATEFUL_SETS, "db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})

        async def done() -> bool:
            status = (await cluster.get(STATEFUL_SETS, "db"))["status"]
            return await images() == ["db:2"] * 3 and status["currentRevision"] == status["updateRevision"]

        await cluster.until(done)
        await cluster.change(STATEFUL_SETS, "db", {"spec": {"replicas": 1}})

        async def only_first() -> bool:
            return await ready() == ["db-0"] and len(await cluster.all(PODS, "app=db")) == 1

        await cluster.until(only_first)
        version = (await cluster.get(STATEFUL_SETS, "db"))["metadata"]["resourceVersion"]
        await asyncio.sleep(60)
        assert (await cluster.get(STATEFUL_SETS, "db"))["metadata"]["resourceVersion"] == version

    cluster_story(story)


def test_volume_claim_templates_are_refused_with_an_event() -> None:
    async def story(cluster: Cluster) -> None:
        claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
        await cluster.make(STATEFUL_SETS, stateful_set(volumeClaimTemplates=[claim]))

        async def told() -> bool:
            expected = "StatefulSet db has volumeClaimTemplates, but PersistentVolumeClaims are not served by this cluster"
            return expected in await cluster.messages("FailedCreate")

        await cluster.until(told)
        assert await cluster.all(PODS, "app=db") == []

    cluster_story(story)
