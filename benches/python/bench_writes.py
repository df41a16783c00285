"""Writes over TLS with permissions checked and every write durable: the server's CPU for each, in decodes of the same Pod.

A decode is the CPU of one `orjson.loads` of the 3 KB Pod that is written, measured in this run: a unit that moves with the machine.
The pods name a scheduler that does not exist, so that nobody works on them but the API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from cluster import running
from record import cpu_seconds, summary, write

from korch._core import native
from korch.api.gvk import PODS
from korch.client.http import HttpClient
from korch.client.kubeconfig import client_from_kubeconfig
from korch.client.protocol import DeleteOptions
from korch.resources.openapi import native_schema

REQUESTS = 800
CLIENTS = 16
NATIVE_ROUNDS = 2000

Object = dict[str, Any]
Step = Callable[[HttpClient, str], Awaitable[Any]]


def pod(name: str) -> Object:
    """A Pod of about 3 KB with two containers."""
    env = [{"name": f"SETTING_{number}", "value": f"value-of-setting-{number}"} for number in range(14)]
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10, "failureThreshold": 3}
    containers = [
        {
            "name": f"container-{number}",
            "image": f"registry.test/team/application-{number}:1.2.3",
            "args": ["--verbose", "--address=0.0.0.0:8080"],
            "ports": [{"name": "http", "containerPort": 8080 + number}],
            "env": env,
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
            "readinessProbe": probe,
            "livenessProbe": probe,
        }
        for number in range(2)
    ]
    labels = {f"app.kubernetes.io/label-{number}": f"value-{number}" for number in range(6)}
    metadata = {"name": name, "namespace": "default", "labels": labels, "annotations": {"note": "x" * 200}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"schedulerName": "nobody", "containers": containers}}


async def create(client: HttpClient, name: str) -> None:
    await client.create(PODS, pod(name), namespace="default")


async def merge(client: HttpClient, name: str) -> None:
    await client.patch(PODS, name, {"metadata": {"labels": {"patched": "yes"}}}, namespace="default", patch_type="merge")


async def apply(client: HttpClient, name: str) -> None:
    change = pod(name)
    change["metadata"]["annotations"]["note"] = "y" * 200
    await client.patch(PODS, name, change, namespace="default", patch_type="apply", field_manager="bench", force=True)


async def apply_again(client: HttpClient, name: str) -> None:
    await apply(client, name)


async def delete(client: HttpClient, name: str) -> None:
    await client.delete(PODS, name, namespace="default", options=DeleteOptions(grace_period_s=0))


STEPS: dict[str, Step] = {"create": create, "merge_patch": merge, "apply": apply, "apply_without_change": apply_again, "delete": delete}


async def drive(kubeconfig: str, pid: int, step: Step, decode_s: float) -> Object:
    """Run one step for every pod from CLIENTS concurrent callers."""
    latencies: list[float] = []
    async with client_from_kubeconfig(kubeconfig) as client:

        async def one(number: int) -> None:
            for index in range(REQUESTS // CLIENTS):
                began = time.monotonic()
                await step(client, f"bench-{number}-{index}")
                latencies.append((time.monotonic() - began) * 1000)

        used = cpu_seconds([pid])
        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
        used = cpu_seconds([pid]) - used
    each = used / len(latencies)
    return {"server_cpu_us": round(each * 1e6), "decodes": round(each / decode_s, 1), "latency_ms": summary(latencies, 2)}


def per_call(act: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    for _ in range(NATIVE_ROUNDS):
        act()
    return (time.process_time() - began) / NATIVE_ROUNDS


def native_costs(decode_s: float) -> Object:
    """What field management alone costs, in decodes."""
    endpoint = native.FieldManager(native_schema(), "io.k8s.api.core.v1.Pod", api_version="v1", reset=["status"])
    now, body = "2026-01-01T00:00:00Z", orjson.dumps(pod("x"))
    stored = orjson.loads(body)
    stored["metadata"]["managedFields"] = orjson.loads(endpoint.track(None, body, "creator", now))
    live = orjson.dumps(stored)
    acts: dict[str, Callable[[], object]] = {
        "track_create": lambda: endpoint.track(None, body, "creator", now),
        "track_update": lambda: endpoint.track(live, live, "other", now),
        "apply": lambda: endpoint.apply(live, body, "applier", now, True),
    }
    return {name: round(per_call(act) / decode_s, 2) for name, act in acts.items()}


def main() -> None:
    body = orjson.dumps(pod("bench-0-0"))
    decode_s = per_call(lambda: orjson.loads(body))
    results: Object = {"pod_bytes": len(body), "decode_us": round(decode_s * 1e6, 2), "native_in_decodes": native_costs(decode_s)}
    with running("--nodes", "0", "--sim-nodes", "1") as cluster:
        pid = cluster.status["server"]["pid"]
        for name, step in STEPS.items():
            results[name] = asyncio.run(drive(str(cluster.kubeconfig), pid, step, decode_s))
    write("writes", results)


if __name__ == "__main__":
    main()
