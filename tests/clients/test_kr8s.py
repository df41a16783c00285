"""kr8s, which finds out kinds at run time and waits for conditions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import kr8s
import pytest
from kr8s.asyncio.objects import ConfigMap, Deployment, Node, Pod

# It says so of every server that is newer than itself.
pytestmark = pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported")


async def test_a_deployment_is_rolled_out_and_scaled(kubeconfig: Path, namespace: str) -> None:
    api = await kr8s.asyncio.api(kubeconfig=str(kubeconfig), namespace=namespace)
    assert (await api.version())["major"] == "1"
    assert (await api.whoami()) == "kubernetes-admin"
    container = {"name": "web", "image": "registry.example.com/web:1"}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    web = await Deployment({"metadata": {"name": "web", "namespace": namespace}, "spec": spec}, api=api)
    await web.create()
    await web.wait("condition=Available", timeout=60)
    await web.scale(3)
    assert web.replicas == 3
    while len(pods := [pod async for pod in api.get("pods", namespace=namespace, label_selector={"app": "web"})]) < 3:
        await asyncio.sleep(0.05)
    assert len(pods) == 3 and all(isinstance(pod, Pod) for pod in pods)
    for pod in pods:
        await pod.wait("condition=Ready", timeout=60)
    await web.patch({"metadata": {"annotations": {"note": "é"}}})
    await web.label(tier="front")
    await web.refresh()
    assert (web.annotations["note"], web.labels["tier"]) == ("é", "front")
    await web.delete(propagation_policy="Foreground")
    await web.wait("delete", timeout=60)
    assert not await web.exists()


async def test_objects_are_watched_and_owned(kubeconfig: Path, namespace: str) -> None:
    api = await kr8s.asyncio.api(kubeconfig=str(kubeconfig), namespace=namespace)
    owner, child = [await ConfigMap({"metadata": {"name": name, "namespace": namespace}}, api=api) for name in ("owner", "child")]
    await owner.create()
    await child.create()
    await child.set_owner(owner)
    await owner.delete()
    async for kind, seen in api.async_watch("configmaps", namespace=namespace, since=child.metadata.resourceVersion):
        if kind == "DELETED" and seen.name == "child":
            break
    assert not await child.exists()


async def test_nodes_are_cordoned_and_unknown_kinds_refused(kubeconfig: Path) -> None:
    api = await kr8s.asyncio.api(kubeconfig=str(kubeconfig))
    node = await Node.get("sim-3", api=api)
    await node.cordon()
    await node.refresh()
    assert node.unschedulable
    await node.uncordon()
    await node.refresh()
    assert not node.unschedulable
    with pytest.raises(ValueError, match="nonsense"):
        await api.lookup_kind("nonsense")
    with pytest.raises(kr8s.NotFoundError):
        await Pod.get("nobody", namespace="default", api=api, timeout=0)
