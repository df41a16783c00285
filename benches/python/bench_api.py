"""What requests cost an API server: CPU of its processes for each, over HTTPS, authenticated, with permissions checked and writes durable.

The unit is one decode: the CPU of one `orjson.loads` of the 3 KB Pod of this benchmark, measured in the same run, which moves with the
machine. Without options it measures an API server of its own, alone as every other one is, and then what requests cost where
controllers and scheduler follow in the same process; with `--kubeconfig FILE --pid PID [--pid PID ...]` any Kubernetes API server, its
datastore's process among the pids. Requests are made as a service account that a ClusterRole allows what they do.
The pods name a scheduler that does not exist, so that nobody works on them but the API. Their containers are the same from pod to
pod, as those of one workload are.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from bench_custom_kinds import declaration
from cluster import running, serving
from load import Connection, Endpoint, WatchCrowd, decode_s, drive, per_call
from record import cpu_seconds, resident_mib, write

from korch._core import native
from korch.resources.openapi import native_schema

CONNECTIONS = 16
WRITES = 125
READS = 1000
PODS = 10_000
WATCHES = (1_000, 5_000)
EVENTS = 6
NAMESPACE = "load"
PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"

# Decodes that each should cost at most.
GOALS = {
    "get": 5,
    "create": 45,
    "merge_patch": 50,
    "apply": 80,
    "delete": 40,
    "custom_resource_create": 50,
    "list_all": 5000,
    "list_page": 300,
    "list_label": 200,
    "watch_1000": 1.5,
    "watch_5000": 1.5,
}

Object = dict[str, Any]


def pod(name: str, note: str = "x") -> Object:
    """A Pod of about 3 KB with two containers; one in a hundred has the label `sample`."""
    env = [{"name": f"SETTING_{number}", "value": f"value-of-setting-{number}"} for number in range(14)]
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10, "failureThreshold": 3}
    containers = [
        {
            "name": f"container-{number}",
            "image": f"registry.test/team/application-{number}:1.2.3",
            "args": ["--verbose", "--address=0.0.0.0:8080"],
            "ports": [{"name": f"http-{number}", "containerPort": 8080 + number}],
            "env": env,
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
            "readinessProbe": probe,
            "livenessProbe": probe,
        }
        for number in range(2)
    ]
    labels = {f"app.kubernetes.io/label-{number}": f"value-{number}" for number in range(6)}
    labels |= {"sample": "yes"} if name.endswith("00") else {}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels, "annotations": {"note": note * 200}}
    spec = {"schedulerName": "nobody", "serviceAccountName": NAMESPACE, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def account(connection: Connection) -> str:
    """Make the namespace, the service account and what allows it its work; return a token of it."""
    await connection.request("POST", "/api/v1/namespaces", orjson.dumps({"metadata": {"name": NAMESPACE}}))
    accounts = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    await connection.request("POST", accounts, orjson.dumps({"metadata": {"name": NAMESPACE}}))
    rules = [
        {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["*"]},
        {"apiGroups": ["bench.example.com"], "resources": ["*"], "verbs": ["*"]},
    ]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await connection.request("POST", f"{rbac}/clusterroles", orjson.dumps({"metadata": {"name": NAMESPACE}, "rules": rules}))
    binding = {
        "metadata": {"name": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAMESPACE},
        "subjects": [{"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE}],
    }
    await connection.request("POST", f"{rbac}/clusterrolebindings", orjson.dumps(binding))
    asked = orjson.dumps({"spec": {"expirationSeconds": 7200}})
    answer = await connection.expect(200, "POST", f"{accounts}/{NAMESPACE}/token", asked)
    return orjson.loads(answer)["status"]["token"]


class Bench:
    """The steps, on one server. `pids` are all its processes."""

    def __init__(self, endpoint: Endpoint, pids: Sequence[int], share: float = 1) -> None:
        self._endpoint, self._pids, self._share = endpoint, pids, share
        self._objects = CONNECTIONS * round(WRITES * share)
        self._body = orjson.dumps(pod("bench-00000"))
        self._units: list[float] = []
        self._measured: dict[str, Any] = {}

    async def requests(self) -> None:
        """Measure each verb on single objects."""

        def name(number: int) -> str:
            return f"{PATH}/bench-{number:05}"

        async def create(connection: Connection, number: int) -> None:
            await connection.expect(201, "POST", PATH, orjson.dumps(pod(f"bench-{number:05}")))

        async def get(connection: Connection, number: int) -> None:
            await connection.expect(200, "GET", name(number % self._objects))

        async def merge(connection: Connection, number: int) -> None:
            change = b'{"metadata":{"labels":{"patched":"yes"}}}'
            await connection.expect(200, "PATCH", name(number), change, "application/merge-patch+json")

        async def apply(connection: Connection, number: int) -> None:
            path = f"{name(number)}?fieldManager=bench&force=true"
            await connection.expect(200, "PATCH", path, orjson.dumps(pod(f"bench-{number:05}", "y")), "application/apply-patch+yaml")

        async def delete(connection: Connection, number: int) -> None:
            await connection.expect(200, "DELETE", f"{name(number)}?gracePeriodSeconds=0")

        await self._step("create", WRITES, create)
        await self._step("get", READS, get)
        for step, send in {"merge_patch": merge, "apply": apply, "apply_without_change": apply}.items():
            await self._step(step, WRITES, send)
        await self._step("delete", WRITES, delete)

    async def custom(self, admin: Connection) -> None:
        """Measure creation of objects of a declared kind."""
        declared = declaration(0)
        await admin.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", orjson.dumps(declared))
        path = f"/apis/bench.example.com/v1/namespaces/{NAMESPACE}/things0"
        while (await admin.request("GET", path))[0] != 200:
            await asyncio.sleep(0.05)
        spec = {f"field{number}": "value" * 8 for number in range(60)} | {"parts": [{"name": "a"}]}

        async def create(connection: Connection, number: int) -> None:
            body = {"apiVersion": "bench.example.com/v1", "kind": "Thing0", "metadata": {"name": f"o{number}"}, "spec": spec}
            await connection.expect(201, "POST", path, orjson.dumps(body))

        await self._step("custom_resource_create", WRITES, create)

    async def lists(self) -> None:
        """Fill the namespace with PODS pods, then list them whole, in pages and by a label, newest state."""

        async def create(connection: Connection, number: int) -> None:
            await connection.expect(201, "POST", PATH, orjson.dumps(pod(f"list-{number:05}")))

        await self._step("fill", PODS // CONNECTIONS, create)
        sizes: dict[str, int] = {}
        token = ""

        async def whole(connection: Connection, _number: int) -> None:
            sizes["list_all"] = len(await connection.expect(200, "GET", PATH))

        async def page(connection: Connection, _number: int) -> None:
            nonlocal token
            query = f"?limit=500&continue={token}" if token else "?limit=500"
            answer = await connection.expect(200, "GET", PATH + query)
            sizes["list_page"] = len(answer)
            token = orjson.loads(answer)["metadata"].get("continue", "")

        async def label(connection: Connection, _number: int) -> None:
            sizes["list_label"] = len(await connection.expect(200, "GET", f"{PATH}?labelSelector=sample%3Dyes"))

        await self._step("list_all", 8, whole, 1)
        await self._step("list_page", 60, page, 1)
        await self._step("list_label", 200, label, 1)
        for step, size in sizes.items():
            self._measured[step]["bytes"] = size

    async def watches(self, admin: Connection) -> None:
        """Open crowds of watches over HTTP/2, weigh them while they are idle, then send each some events."""
        path = f"{PATH}/watched"
        await admin.request("DELETE", f"{path}?gracePeriodSeconds=0")
        made = orjson.loads(await admin.expect(201, "POST", PATH, orjson.dumps(pod("watched"))))
        version = made["metadata"]["resourceVersion"]
        for count in WATCHES:
            crowd = WatchCrowd()
            query = f"?watch=true&fieldSelector=metadata.name%3Dwatched&resourceVersion={version}&timeoutSeconds=3000"
            before = self._resident_kib()
            await crowd.open(self._endpoint, PATH + query, count)
            await asyncio.sleep(1)
            idle = (self._resident_kib() - before) / count
            await crowd.until_lines(0)
            first, cpu = crowd.lines(), cpu_seconds(self._pids)
            for event in range(EVENTS):
                change = orjson.dumps({"metadata": {"annotations": {"event": f"{count}-{event}"}}})
                answer = orjson.loads(await admin.expect(200, "PATCH", path, change, "application/merge-patch+json"))
                version = answer["metadata"]["resourceVersion"]
                await crowd.until_lines(first + (event + 1) * count)
            used = (cpu_seconds(self._pids) - cpu) / (EVENTS * count)
            self._units.append(decode_s(self._body))
            self._measured[f"watch_{count}"] = {"server_cpu_us": round(used * 1e6, 2), "idle_kib_each": round(idle, 2)}
            crowd.close()
            await asyncio.sleep(1)

    def _resident_kib(self) -> float:
        return sum(resident_mib(pid) for pid in self._pids) * 1024

    async def _step(self, name: str, each: int, send: Callable[[Connection, int], Any], connections: int = CONNECTIONS) -> None:
        self._units.append(decode_s(self._body))
        each = each if name == "fill" else max(1, round(each * self._share))
        measured = await drive(self._endpoint, self._pids, connections, each, send)
        self._measured[name] = measured.shown(decode_s(self._body))
        print(f"{name}: {measured.cpu_s * 1e6:.0f} us", file=sys.stderr, flush=True)

    def results(self) -> Object:
        """Return all figures, in decodes of the whole run."""
        unit = statistics.median(self._units)
        for name, found in self._measured.items():
            found["decodes"] = round(found["server_cpu_us"] / unit / 1e6, 2)
            if name in GOALS:
                found["wanted"] = GOALS[name]
        return {"pod_bytes": len(self._body), "decode_us": round(unit * 1e6, 2)} | self._measured


async def measure(kubeconfig: Path, pids: Sequence[int], steps: Sequence[str], share: float) -> Object:
    """Run the chosen groups of steps against the server of a kubeconfig, each with `share` of its requests."""
    endpoint = Endpoint.of(kubeconfig)
    admin = await Connection.open(endpoint)
    bench = Bench(endpoint.as_bearer(await account(admin)), pids, share)
    before = sum(resident_mib(pid) for pid in pids)
    if "requests" in steps:
        await bench.requests()
    if "custom" in steps:
        await bench.custom(admin)
    if "lists" in steps:
        await bench.lists()
    if "watches" in steps:
        await bench.watches(admin)
    after = sum(resident_mib(pid) for pid in pids)
    await admin.close()
    return bench.results() | {"resident_mib": {"before": round(before, 1), "after": round(after, 1)}}


def native_costs(unit: float) -> Object:
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
    return {name: round(per_call(act) / unit, 2) for name, act in acts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="of the server to measure; default: a cluster of its own")
    parser.add_argument("--pid", type=int, action="append", default=[], help="a process of that server; may be given again")
    parser.add_argument("--steps", default="requests,custom,lists,watches", help="which groups to run")
    parser.add_argument("--share", type=float, default=1, help="of the requests of each step, for a quick look")
    parser.add_argument("--name", default="api", help="of the result file")
    chosen = parser.parse_args()
    steps = chosen.steps.split(",")
    if chosen.kubeconfig:
        write(chosen.name, asyncio.run(measure(chosen.kubeconfig, chosen.pid, steps, chosen.share)))
        return
    with serving() as (kubeconfig, pid):
        results = asyncio.run(measure(kubeconfig, [pid], steps, chosen.share))
    if "requests" in steps:
        with running("--nodes", "0", "--sim-nodes", "1") as cluster:
            pids = [cluster.status["server"]["pid"], cluster.status["supervisor"]["pid"]]
            results["with_controllers"] = asyncio.run(measure(cluster.kubeconfig, pids, ["requests"], chosen.share))
    results["native_in_decodes"] = native_costs(results["decode_us"] / 1e6)
    write(chosen.name, results)


if __name__ == "__main__":
    main()
