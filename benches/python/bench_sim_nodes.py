"""Simulated nodes under a whole control plane: what they cost to come, to run pods, and to stand idle.

- `ready`: `korch up --sim-nodes N` from nothing to every node Ready, as `korch up` itself says it; CPU a node is what the server used
  beyond a server with three nodes.
- `idle`: the CPU that the same cluster uses afterwards, in cores.
- `pods`: ten Deployments on a fresh cluster, from `kubectl apply` to every replica available.

Wall time in seconds, CPU and memory of the server process. Usage: bench_sim_nodes.py [--nodes N] [--pod-nodes N] [--pods N] [--idle S].
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from typing import Any

from cluster import BIN, Running, running
from record import cpu_seconds, resident_mib, write

DEPLOYMENTS = 10
FEW = 3
# The first leases and statuses are renewed within this time.
SETTLE_S = 20


def started(nodes: int) -> float:
    """Start and end a cluster of simulated nodes; return the CPU seconds of its server until it was ready."""
    with running("--nodes", "0", "--sim-nodes", str(nodes)) as cluster:
        return cpu_seconds([_server(cluster)])


def many_nodes(nodes: int, idle_s: float) -> dict[str, Any]:
    """Return what it costs that so many nodes come, and that they stand idle for a while."""
    # The first start compiles modules.
    base = min(started(FEW), started(FEW))
    began = time.monotonic()
    with running("--nodes", "0", "--sim-nodes", str(nodes)) as cluster:
        wall, used = time.monotonic() - began, cpu_seconds([_server(cluster)])
        ready = {"nodes": nodes, "wall_s": round(wall, 2), "cpu_s": round(used, 2)}
        ready |= {"cpu_ms_per_node": round((used - base) / (nodes - FEW) * 1000, 2), "resident_mib": resident_mib(_server(cluster))}
        print("ready", ready, flush=True)
        time.sleep(SETTLE_S)
        before, since = cpu_seconds([_server(cluster)]), time.monotonic()
        time.sleep(idle_s)
        cores = (cpu_seconds([_server(cluster)]) - before) / (time.monotonic() - since)
        idle = {"nodes": nodes, "seconds": idle_s, "cores": round(cores, 3), "resident_mib": resident_mib(_server(cluster))}
    print("idle", idle, flush=True)
    return {"ready": ready, "idle": idle}


def many_pods(nodes: int, pods: int) -> dict[str, Any]:
    """Return what it costs that the pods of ten Deployments come to run."""
    with running("--nodes", "0", "--sim-nodes", str(nodes)) as cluster:
        server = _server(cluster)
        time.sleep(SETTLE_S)
        manifest = "\n".join(json.dumps(_deployment(f"d{number}", pods // DEPLOYMENTS)) + "\n---" for number in range(DEPLOYMENTS))
        used, began = cpu_seconds([server]), time.monotonic()
        _kubectl(cluster, "apply", "-f", "-", stdin=manifest)
        while _available(cluster) < pods // DEPLOYMENTS * DEPLOYMENTS:
            time.sleep(0.5)
        wall, used = time.monotonic() - began, cpu_seconds([server]) - used
        found = {"nodes": nodes, "pods": pods, "wall_s": round(wall, 2), "cpu_s": round(used, 2)}
        found |= {"cpu_ms_per_pod": round(used / pods * 1000, 2), "resident_mib": resident_mib(server)}
    print("pods", found, flush=True)
    return found


def _deployment(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "c", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def _available(cluster: Running) -> int:
    found = json.loads(_kubectl(cluster, "get", "deployments", "-o", "json"))
    return sum(one.get("status", {}).get("availableReplicas", 0) for one in found["items"])


def _kubectl(cluster: Running, *arguments: str, stdin: str = "") -> str:
    command = [BIN / "kubectl", "--kubeconfig", cluster.kubeconfig, *arguments]
    return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True).stdout


def _server(cluster: Running) -> int:
    return cluster.status["server"]["pid"]


def main() -> None:
    """Measure everything and write benches/results/sim_nodes.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pod-nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--idle", type=float, default=60)
    args = parser.parse_args()
    found = many_nodes(args.nodes, args.idle)
    write("sim_nodes", found | {"pods": many_pods(args.pod_nodes, args.pods)})


if __name__ == "__main__":
    main()
