"""Controllers keep of a pod what they read, once for all of them, and write its status without what they did not keep."""

from __future__ import annotations

import asyncio

import orjson
from tests.unit.controllers.cluster import Cluster, cluster_story
from tests.unit.controllers.conftest import World, simulate

from korch.api.gvk import NODES, PODS
from korch.client.controller import Requeue
from korch.client.projections import decode_meta
from korch.controllers import all_controllers
from korch.controllers.taint_eviction import TaintEvictionController
from korch.controllers.workload.pods import decode_pod, patch_pod_status

STORED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "p",
        "namespace": "d",
        "labels": None,
        "annotations": {"a": "b"},
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
    },
    "spec": {
        "nodeName": "n",
        "containers": [{"name": "c", "command": ["sleep"], "ports": [{"containerPort": 80}]}],
        "initContainers": None,
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}, {"name": "w", "secret": {"secretName": "s"}}],
    },
    "status": {"phase": "Running", "hostIP": "1.2.3.4", "containerStatuses": [{"name": "c", "image": "i", "restartCount": 2}]},
}


def test_a_pod_is_kept_without_what_no_controller_reads() -> None:
    assert decode_pod(orjson.dumps(STORED)) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "d", "labels": None, "annotations": {"a": "b"}},
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "c", "ports": [{"containerPort": 80}]}],
            "initContainers": None,
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}, {"name": "w"}],
        },
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2}]},
    }


async def test_all_controllers_share_one_copy_of_the_pods(world: World) -> None:
    made = all_controllers(world.client, world.informers, world.runtime)
    watches = {id(watch.decode) for one in made for watch in one.watches if watch.resource == PODS}
    assert watches == {id(decode_pod), id(decode_meta)}


def test_a_status_is_patched_beside_what_the_cache_left_out() -> None:
    async def story(cluster: Cluster) -> None:
        bare = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "command": ["sleep"]}]}}
        await cluster.make(PODS, bare)

        async def runs() -> bool:
            return (await cluster.get(PODS, "p")).get("status", {}).get("phase") == "Running"

        await cluster.until(runs)
        before = await cluster.get(PODS, "p")
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "Test"}
        await patch_pod_status(cluster.client, decode_pod(orjson.dumps(before)), {"conditions": [condition]})
        after = await cluster.get(PODS, "p")
        assert after["spec"] == before["spec"]
        assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]
        added = {one["type"] for one in after["status"]["conditions"]} - {one["type"] for one in before["status"]["conditions"]}
        assert added == {"DisruptionTarget"} and len(after["status"]["conditions"]) == len(before["status"]["conditions"]) + 1

    cluster_story(story)


def test_evictions_are_considered_only_where_a_node_evicts() -> None:
    async def story(world: World) -> None:
        considered: list[str] = []

        class Counting(TaintEvictionController):
            async def reconcile(self, key: str) -> Requeue | None:
                considered.append(key)
                return await super().reconcile(key)

        for name in ("calm", "bad"):
            await world.node(name)
            await world.make(PODS, {"metadata": {"name": f"on-{name}"}, "spec": {"nodeName": name, "containers": [{"name": "c"}]}})
        controller = Counting(world.client, world.informers, world.runtime)
        async with world.running(controller):
            await asyncio.sleep(5)
            assert not considered
            taint = {"key": "k", "effect": "NoExecute"}
            await world.change(NODES, "bad", {"spec": {"taints": [taint]}})
            await asyncio.sleep(5)
            assert set(considered) == {"d/on-bad"}
            assert "deletionTimestamp" in (await world.get(PODS, "on-bad"))["metadata"]
            await world.make(PODS, {"metadata": {"name": "late"}, "spec": {"nodeName": "bad", "containers": [{"name": "c"}]}})
            await asyncio.sleep(5)
            assert set(considered) == {"d/on-bad", "d/late"}

    simulate(story)
