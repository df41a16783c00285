"""Pods get nodes, or words why not, whatever happens to calls and to the cluster in between."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from scheduler_world import node_of, pod, scheduling, until

from korch.api.errors import NotFound
from korch.api.gvk import EVENTS, NODES, PODS, SERVICES, ResourceRef
from korch.cli.explain import explain_table
from korch.client.informer import Informers
from korch.client.protocol import DeleteOptions
from korch.runtime.context import Runtime
from korch.runtime.rng import Rng
from korch.scheduler.explain import explain_pod
from korch.scheduler.others import POD_DISRUPTION_BUDGETS
from korch.scheduler.queue import Place
from korch.scheduler.scheduler import Scheduler
from korch.scheduler.volumes import PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES
from korch.testing.bare import BareClient

TAINTED = {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}


@pytest.fixture
def client() -> BareClient:
    return BareClient(Runtime(rng=Rng(7)))


async def add_node(client: BareClient, name: str, *, cpu: str = "4", spec: dict[str, Any] | None = None) -> None:
    allocatable = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
    node = {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec or {},
        "status": {"allocatable": allocatable},
    }
    await client.create(NODES, node)


async def add_pod(client: BareClient, name: str, *, cpu: str = "1", **spec: Any) -> None:
    container = {"name": "c", "image": "app", "resources": {"requests": {"cpu": cpu}}}
    pod = {"metadata": {"name": name}, "spec": {"containers": [container], "schedulerName": "default-scheduler", **spec}}
    await client.create(PODS, pod, namespace="d")


async def condition(client: BareClient, name: str) -> dict[str, Any]:
    found = (await pod(client, name)).get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == "PodScheduled"), {})


async def events(client: BareClient, name: str) -> list[tuple[str, str, str]]:
    found = [orjson.loads(raw) for raw in (await client.list(EVENTS)).items]
    return [(one["type"], one["reason"], one["message"]) for one in found if one["involvedObject"]["name"] == name]


async def test_pods_are_bound_and_told_so(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_node(client, "n2")
    for number in range(4):
        await add_pod(client, f"p{number}", cpu="2")
    async with scheduling(client):
        await until(lambda: _all_bound(client, 4))
        await until(lambda: events(client, "p3"))
        assert sorted([await node_of(client, f"p{number}") for number in range(4)]) == ["n1", "n1", "n2", "n2"]
        where = await node_of(client, "p0")
        assert await events(client, "p0") == [("Normal", "Scheduled", f"Successfully assigned d/p0 to {where}")]


async def _all_bound(client: BareClient, count: int) -> bool:
    pods = [orjson.loads(raw) for raw in (await client.list(PODS)).items]
    return sum(bool(one["spec"].get("nodeName")) for one in pods) == count


async def test_a_pod_that_fits_nowhere_says_why_and_is_bound_when_a_node_comes(client: BareClient) -> None:
    await add_node(client, "n1", cpu="1")
    await add_node(client, "n2", spec=TAINTED)
    await add_node(client, "n3", spec=TAINTED)
    await add_pod(client, "p", cpu="2")
    words = (
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). "
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    async with scheduling(client) as scheduler:
        await until(lambda: condition(client, "p"))
        found = await condition(client, "p")
        assert (found["status"], found["reason"], found["message"]) == ("False", "Unschedulable", words)
        await until(lambda: events(client, "p"))
        assert await events(client, "p") == [("Warning", "FailedScheduling", words)]
        assert scheduler.queue.place("d/p") is Place.UNSCHEDULABLE
        await add_node(client, "n4")
        await until(lambda: node_of(client, "p"))
        assert await node_of(client, "p") == "n4"


async def test_without_nodes_the_pod_says_so(client: BareClient) -> None:
    await add_pod(client, "p")
    async with scheduling(client):
        await until(lambda: condition(client, "p"))
        assert (await condition(client, "p"))["message"] == "no nodes available to schedule pods"


async def test_room_freed_by_a_deleted_pod_is_given_to_one_that_waits(client: BareClient) -> None:
    await add_node(client, "n1", cpu="2")
    await add_pod(client, "first", cpu="2")
    async with scheduling(client):
        await until(lambda: node_of(client, "first"))
        await add_pod(client, "second", cpu="2")
        await until(lambda: condition(client, "second"))
        await client.delete(PODS, "first", namespace="d", options=DeleteOptions(grace_period_s=0))
        await until(lambda: node_of(client, "second"))


async def test_a_more_important_pod_makes_room_for_itself(client: BareClient) -> None:
    await add_node(client, "n1", cpu="2")
    await add_pod(client, "low", cpu="2", terminationGracePeriodSeconds=20)
    async with scheduling(client):
        await until(lambda: node_of(client, "low"))
        await add_pod(client, "high", cpu="2", priority=1000)
        await until(lambda: _is_terminating(client, "low"))
        victim = (await pod(client, "low"))["status"]["conditions"][-1]
        assert (victim["type"], victim["status"], victim["reason"]) == ("DisruptionTarget", "True", "PreemptionByScheduler")
        assert victim["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
        uid = (await pod(client, "high"))["metadata"]["uid"]
        await until(lambda: _has_event(client, "low", "Preempted"))
        assert ("Normal", "Preempted", f"Preempted by pod {uid} on node n1") in await events(client, "low")
        assert (await pod(client, "high"))["status"]["nominatedNodeName"] == "n1"
        # While the victim is on its way out the room is kept: a pod of less importance does not slip in.
        await client.delete(PODS, "low", namespace="d", options=DeleteOptions(grace_period_s=0))
        await add_pod(client, "quick", cpu="2", priority=10)
        await until(lambda: node_of(client, "high"))
        assert await node_of(client, "quick") == ""


async def _is_terminating(client: BareClient, name: str) -> bool:
    return "deletionTimestamp" in (await pod(client, name))["metadata"]


async def _has_event(client: BareClient, name: str, reason: str) -> bool:
    return any(one[1] == reason for one in await events(client, name))


async def test_a_disruption_budget_decides_who_has_to_go(client: BareClient) -> None:
    await add_node(client, "n1", cpu="2")
    for name, app in (("guarded", "db"), ("loose", "web")):
        container = {"name": "c", "image": "app", "resources": {"requests": {"cpu": "1"}}}
        spec = {"containers": [container], "nodeName": "n1"}
        await client.create(PODS, {"metadata": {"name": name, "labels": {"app": app}}, "spec": spec}, namespace="d")
    budget = {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "db"}}}, "status": {"disruptionsAllowed": 0}}
    await client.create(POD_DISRUPTION_BUDGETS, budget, namespace="d")
    async with scheduling(client):
        await add_pod(client, "high", cpu="1", priority=1000)
        await until(lambda: _is_terminating(client, "loose"))
        assert not await _is_terminating(client, "guarded")


async def test_profiles_say_whose_pods_are_scheduled_and_how(client: BareClient) -> None:
    await add_node(client, "n1", spec=TAINTED)
    profiles = [
        {"schedulerName": "lenient", "plugins": {"multiPoint": {"disabled": [{"name": "TaintToleration"}]}}},
        {"schedulerName": "strict"},
    ]
    config = orjson.dumps({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": profiles})
    for name in ("lenient", "strict", "default-scheduler"):
        await add_pod(client, name, schedulerName=name)
    async with scheduling(client, config):
        await until(lambda: node_of(client, "lenient"))
        await until(lambda: condition(client, "strict"))
        assert "untolerated taint" in (await condition(client, "strict"))["message"]
        assert await condition(client, "default-scheduler") == {}


async def test_pods_of_a_service_are_spread_over_zones(client: BareClient) -> None:
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        await add_node(client, name)
        await client.patch(NODES, name, {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}})
    await client.create(SERVICES, {"metadata": {"name": "s"}, "spec": {"selector": {"app": "web"}}}, namespace="d")
    async with scheduling(client):
        for number in range(4):
            container = {"name": "c", "image": "app"}
            body = {
                "metadata": {"name": f"w{number}", "labels": {"app": "web"}},
                "spec": {"containers": [container], "schedulerName": "default-scheduler"},
            }
            await client.create(PODS, body, namespace="d")
        await until(lambda: _all_bound(client, 4))
        assert sorted([(await node_of(client, f"w{number}"))[0] for number in range(4)]) == ["a", "a", "b", "b"]


async def test_a_claim_that_waits_for_its_first_consumer_is_told_the_node(client: BareClient) -> None:
    await add_node(client, "n1")
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
    async with scheduling(client):
        await add_pod(client, "p", volumes=volumes)
        await until(lambda: condition(client, "p"))
        assert (await condition(client, "p"))["message"].startswith('0/1 nodes are available: persistentvolumeclaim "c" not found.')
        waits = {"metadata": {"name": "fast"}, "provisioner": "x.io/csi", "volumeBindingMode": "WaitForFirstConsumer"}
        await client.create(STORAGE_CLASSES, waits)
        spec = {"storageClassName": "fast", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        await client.create(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "c"}, "spec": spec}, namespace="d")
        await until(lambda: node_of(client, "p"))
        claim = orjson.loads(await client.get(PERSISTENT_VOLUME_CLAIMS, "c", namespace="d"))
        assert claim["metadata"]["annotations"] == {"volume.kubernetes.io/selected-node": "n1"}


async def test_explain_needs_nothing_but_an_api_server(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_node(client, "n2", cpu="1")
    await add_pod(client, "p", cpu="2", nodeName="n1")
    matrix = await explain_pod(client, "d", "p")
    assert (matrix["node"], [row["feasible"] for row in matrix["nodes"]]) == ("n1", [True, False])
    assert matrix["nodes"][1]["filters"] == {"NodeResourcesFit": ["Insufficient cpu"]}
    lines = explain_table(matrix).splitlines()
    assert lines[0] == "d/p: n1"
    assert lines[3].startswith("n1*  ") and lines[4].endswith("NodeResourcesFit: Insufficient cpu")
    with pytest.raises(NotFound):
        await explain_pod(client, "d", "none")


async def test_a_taint_that_is_lifted_lets_a_waiting_pod_in(client: BareClient) -> None:
    await add_node(client, "n1", spec=TAINTED)
    await add_pod(client, "p")
    async with scheduling(client):
        await until(lambda: condition(client, "p"))
        await client.patch(NODES, "n1", {"spec": {"taints": None}})
        await until(lambda: node_of(client, "p"))


async def test_pods_of_other_schedulers_gated_and_deleted_pods_are_left_alone(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_pod(client, "other", schedulerName="another")
    await add_pod(client, "gated", schedulingGates=[{"name": "g"}])
    await client.create(PODS, {"metadata": {"name": "going", "finalizers": ["x/y"]}, "spec": {}}, namespace="d")
    await client.delete(PODS, "going", namespace="d", options=DeleteOptions(grace_period_s=0))
    await add_pod(client, "mine")
    async with scheduling(client) as scheduler:
        await until(lambda: node_of(client, "mine"))
        assert [await node_of(client, name) for name in ("other", "gated", "going")] == ["", "", ""]
        assert scheduler.queue.place("d/gated") is Place.GATED
        await client.patch(PODS, "gated", {"spec": {"schedulingGates": None}}, namespace="d")
        await until(lambda: node_of(client, "gated"))


async def test_a_failed_binding_is_forgotten_and_tried_again(client: BareClient) -> None:
    await add_node(client, "n1", cpu="2")
    failures = 1

    def fail_once(verb: str, resource: ResourceRef) -> None:
        nonlocal failures
        if verb == "create" and resource == PODS and failures:
            failures -= 1
            raise ConnectionResetError("the connection broke")

    async with scheduling(client) as scheduler:
        await until(lambda: _true(scheduler.is_synced))
        await add_pod(client, "p", cpu="2")
        client.fault = fail_once
        await until(lambda: node_of(client, "p"))
        assert failures == 0
        client.fault = None
        await until(lambda: _true("d/p" not in scheduler.queue))
        found = await condition(client, "p")
        assert (found["reason"], found["message"]) == ("SchedulerError", "binding rejected: the connection broke")


async def _true(value: bool) -> bool:
    return value


async def test_a_scheduler_that_is_stopped_and_started_goes_on(client: BareClient) -> None:
    await add_node(client, "n1")
    runtime = Runtime(rng=Rng(1))
    scheduler = Scheduler(client, Informers(client, runtime), runtime)
    for name in ("a", "b"):
        task = asyncio.ensure_future(scheduler.run())
        await add_pod(client, name)
        await until(lambda name=name: node_of(client, name))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not scheduler.is_synced


async def test_explain_shows_every_node_and_plugin(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_node(client, "n2", spec=TAINTED)
    await add_pod(client, "p", schedulingGates=[{"name": "g"}])
    async with scheduling(client) as scheduler:
        await until(lambda: _true(scheduler.is_synced))
        matrix = orjson.loads(scheduler.explain("d", "p") or b"{}")
    assert matrix["node"] == "n1"
    assert [row["feasible"] for row in matrix["nodes"]] == [True, False]
    assert matrix["nodes"][1]["filters"] == {"TaintToleration": ["node(s) had untolerated taint(s)"]}
