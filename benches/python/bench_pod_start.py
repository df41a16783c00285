"""Pod start latency on one real node: from the create call to Running as a watch shows it, and from delete to gone; 30 pods, one by one."""

from __future__ import annotations

import asyncio
import time

import orjson
from cluster import running
from record import summary, write

from korch.api.gvk import PODS
from korch.client.kubeconfig import client_from_kubeconfig
from korch.client.protocol import DeleteOptions, ListOptions

COUNT = 30
WARM_UP = 2


def pod(name: str) -> dict:
    """Return a pod of one sleeping container."""
    container = {
        "name": "main",
        "image": "docker.io/library/busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "100000"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


async def measure(kubeconfig: str) -> dict:
    """Return the latencies of COUNT pods, in milliseconds."""
    starts, ends = [], []
    async with client_from_kubeconfig(kubeconfig) as client:
        for index in range(COUNT + WARM_UP):
            name = f"start-{index}"
            options = ListOptions(namespace="default", field_selector=f"metadata.name={name}")
            watch = client.watch(PODS, options, send_initial_events=True)
            began = time.monotonic()
            await client.create(PODS, pod(name), namespace="default")
            async for event in watch:
                if event.type != "BOOKMARK" and (orjson.loads(event.object).get("status") or {}).get("phase") == "Running":
                    break
            running_ms = (time.monotonic() - began) * 1000
            began = time.monotonic()
            await client.delete(PODS, name, namespace="default", options=DeleteOptions(grace_period_s=1))
            async for event in watch:
                if event.type == "DELETED":
                    break
            if index >= WARM_UP:
                starts.append(running_ms)
                ends.append((time.monotonic() - began) * 1000)
    return {"create_to_running_ms": summary(starts), "delete_to_gone_ms": summary(ends)}


def main() -> None:
    with running("--nodes", "1") as cluster:
        write("pod_start", asyncio.run(measure(str(cluster.kubeconfig))))


if __name__ == "__main__":
    main()
