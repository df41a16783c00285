"""Snapshots hold what scheduling depends on, page after page, and nothing that is secret."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from korch.api.gvk import CONFIG_MAPS, NODES, POD_DISRUPTION_BUDGETS, PODS, SECRETS, SERVICE_ACCOUNTS
from korch.apiserver.server import ApiServer, ServerConfig
from korch.lab import snapshot
from korch.lab.cluster import load
from korch.lab.drain import Outcome, drain
from korch.resources import catalogue
from korch.runtime.context import simulated
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]
SECRET = "hunter2"


def _pod(name: str, node: str) -> Object:
    container = {
        "name": "c",
        "image": "app:1",
        "command": ["run", f"--password={SECRET}"],
        "args": [SECRET],
        "env": [{"name": "PASSWORD", "value": SECRET}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
        "ports": [{"containerPort": 80, "hostPort": 8080}],
        "livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Authorization", "value": SECRET}]}},
    }
    start = {name: value for name, value in container.items() if name not in ("ports", "livenessProbe")} | {"name": "start"}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}
    metadata = {"name": name, "labels": {"app": "web"}, "annotations": {"token": SECRET}, "ownerReferences": [owner]}
    volumes = [
        {"name": "v", "csi": {"driver": "d", "volumeAttributes": {"key": SECRET}}},
        {"name": "h", "hostPath": {"path": f"/{SECRET}"}},
    ]
    spec = {"nodeName": node, "containers": [container], "initContainers": [start], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def _fill(client: Any) -> None:
    await client.create(
        SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}, namespace="default"
    )
    for name in ("n1", "n2"):
        await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": {"token": SECRET}}})
        status = {"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": "4"}}}
        await client.patch(NODES, name, status, subresource="status")
        await client.patch(NODES, name, {"spec": {"taints": None}})
    for kind, resource in (("Secret", SECRETS), ("ConfigMap", CONFIG_MAPS)):
        data = {"stringData" if kind == "Secret" else "data": {"password": SECRET}}
        await client.create(resource, {"apiVersion": "v1", "kind": kind, "metadata": {"name": "s"}, **data}, namespace="default")
    for index in range(3):
        await client.create(PODS, _pod(f"web-{index}", "n1"), namespace="default")
    selector = {"selector": {"matchLabels": {"app": "web"}}, "maxUnavailable": 1}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": selector}
    await client.create(POD_DISRUPTION_BUDGETS, budget, namespace="default")


def _taken() -> Object:
    """Return a snapshot of a real API server with two nodes and three pods."""
    loop = SimLoop()

    async def main() -> Object:
        runtime = simulated(3)
        server = ApiServer(runtime, Storage.open(None, runtime), catalogue(), ServerConfig(advertise_host="192.0.2.10"))
        running = asyncio.get_running_loop().create_task(server.run())
        try:
            while not server.is_ready():
                await asyncio.sleep(0.1)
            await _fill(server.client())
            return await snapshot.take(server.client())
        finally:
            running.cancel()

    return loop.run(main())


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Object:
    # Three pods are two pages then.
    monkeypatch.setattr(snapshot, "PAGE_SIZE", 2)
    return _taken()


def test_everything_that_decides_is_there_and_nothing_secret(taken: Object):
    kinds = {one["kind"] for one in taken["items"]}
    assert {"Node", "Pod", "PodDisruptionBudget", "Namespace", "PriorityClass"} <= kinds
    assert not {"Secret", "ConfigMap"} & kinds
    assert [one["metadata"]["name"] for one in taken["items"] if one["kind"] == "Pod"] == ["web-0", "web-1", "web-2"]
    assert SECRET.encode() not in orjson.dumps(taken)
    pod = next(one for one in taken["items"] if one["kind"] == "Pod")
    container = pod["spec"]["containers"][0]
    assert container["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}
    assert container["ports"] == [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}]
    assert {"name": "v", "csi": {"driver": "d"}} in pod["spec"]["volumes"]
    assert {"name": "h", "hostPath": {}} in pod["spec"]["volumes"]


def test_a_snapshot_can_be_simulated(taken: Object, tmp_path: Path):
    snapshot.write(taken, tmp_path / "s.json")
    found = load(tmp_path / "s.json")
    assert (len(found.nodes), len(found.pods)) == (2, 3)
    # All three want the same host port: one goes to n2, the next cannot follow it, and the budget then keeps the third.
    assert [one.outcome for one in drain(found, ["n1"]).moves] == [Outcome.MOVED, Outcome.PENDING, Outcome.BLOCKED]
