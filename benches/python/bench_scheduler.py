"""Decisions a second of the scheduling engine through its Python API: 5,000 nodes, all of them scored, one kind of pod after the other.

Pods go in as bytes in batches, as the scheduler hands them on, and are assumed on their nodes; reading their JSON is part of the time.
CPU time is measured, not wall time, so that a busy machine changes little. Usage: bench_scheduler.py [--nodes N] [--pods N].
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from record import percentile, write

from korch._core import native

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
BATCH = 128
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
Spec = dict[str, Any]


def node(number: int) -> bytes:
    """Return a node of 4 cores and 32Gi in one of three zones, as scheduler_perf's node-default has it."""
    labels = {HOSTNAME: f"node-{number}", ZONE: f"zone{number % 3}", "disk": "ssd" if number % 4 else "hdd"}
    allocatable = {"cpu": "4", "memory": "32Gi", "pods": "110"}
    return json.dumps({"metadata": {"name": f"node-{number}", "labels": labels}, "status": {"allocatable": allocatable}}).encode()


def pod(name: str, *, cpu: str = "100m", memory: str = "500Mi", node_name: str = "", color: str = "", **spec: Any) -> bytes:
    """Return a pod with one container."""
    container = {"name": "pause", "image": "registry.k8s.io/pause:3.10", "resources": {"requests": {"cpu": cpu, "memory": memory}}}
    meta = {"name": name, "namespace": "sched", "uid": name, "labels": {"color": color} if color else {}}
    full = {"containers": [container], "schedulerName": "default-scheduler", **spec}
    if node_name:
        full["nodeName"] = node_name
    return json.dumps({"metadata": meta, "spec": full}).encode()


def term(key: str) -> Spec:
    """Return an affinity term about pods of this benchmark's color."""
    return {"topologyKey": key, "labelSelector": {"matchLabels": {"color": "green"}}}


def affinity(kind: str, strength: str, key: str) -> Spec:
    """Return a pod affinity of one term."""
    one = term(key) if strength == REQUIRED else {"weight": 1, "podAffinityTerm": term(key)}
    return {"affinity": {kind: {strength: [one]}}}


def spread(key: str, action: str) -> Spec:
    """Return one spread constraint over this benchmark's color."""
    selector = {"matchLabels": {"color": "green"}}
    return {"topologySpreadConstraints": [{"maxSkew": 5, "topologyKey": key, "whenUnsatisfiable": action, "labelSelector": selector}]}


KINDS: dict[str, Spec] = {
    "anti_affinity": affinity("podAntiAffinity", REQUIRED, HOSTNAME),
    "affinity": affinity("podAffinity", REQUIRED, ZONE),
    "preferred_affinity": affinity("podAffinity", PREFERRED, HOSTNAME),
    "preferred_anti_affinity": affinity("podAntiAffinity", PREFERRED, HOSTNAME),
    "zone_spreading": spread(ZONE, "DoNotSchedule"),
    "hostname_spreading": spread(HOSTNAME, "DoNotSchedule"),
    "preferred_zone_spreading": spread(ZONE, "ScheduleAnyway"),
    "preferred_hostname_spreading": spread(HOSTNAME, "ScheduleAnyway"),
    "node_affinity": {
        "affinity": {
            "nodeAffinity": {
                REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]}
            }
        }
    },
}


def engine_with(nodes: int) -> native.Scheduler:
    """Return an engine that knows so many nodes."""
    engine = native.Scheduler()
    engine.upsert([node(number) for number in range(nodes)], [])
    return engine


def run(engine: native.Scheduler, pods: list[bytes]) -> dict[str, float]:
    """Decide all pods and return the rate. Every one of them must find a node."""
    placed = 0
    start = time.process_time()
    for at in range(0, len(pods), BATCH):
        decisions = engine.schedule(pods[at : at + BATCH], now_ms=0, seed=0)
        placed += sum(bool(one.node) for one in decisions)
    used = time.process_time() - start
    assert placed == len(pods), f"{placed} of {len(pods)} placed"
    return {"decisions": placed, "decisions_per_cpu_s": round(placed / used), "cpu_us_per_decision": round(used / placed * 1e6, 1)}


def scenarios(nodes: int, count: int) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """Yield the name and the measurement of each kind."""
    yield "same_shape", lambda: run(engine_with(nodes), [pod(f"p{at}") for at in range(count)])

    def distinct() -> dict[str, float]:
        return run(engine_with(nodes), [pod(f"p{at}", cpu=f"{50 + at}m", memory=f"{100 + at}Mi") for at in range(min(count, 3000))])

    yield "distinct_shapes", distinct
    for name, spec in KINDS.items():

        def measure(spec: Spec = spec) -> dict[str, float]:
            engine = engine_with(nodes)
            engine.upsert([], [pod(f"e{at}", node_name=f"node-{at % nodes}", color="green", **spec) for at in range(nodes // 5)])
            return run(engine, [pod(f"p{at}", color="green", **spec) for at in range(min(count, nodes // 2))])

        yield name, measure

    def default_spreading() -> dict[str, float]:
        engine = engine_with(nodes)
        service = {"kind": "Service", "metadata": {"name": "s", "namespace": "sched"}, "spec": {"selector": {"color": "green"}}}
        engine.upsert(
            [], [pod(f"e{at}", node_name=f"node-{at % nodes}", color="green") for at in range(nodes // 5)], [json.dumps(service).encode()]
        )
        return run(engine, [pod(f"p{at}", color="green") for at in range(count)])

    yield "default_spreading", default_spreading


def preemption(nodes: int) -> dict[str, float]:
    """Every node is full with four pods of low priority; each preemptor looks at all of them. Milliseconds of CPU a decision."""
    engine = engine_with(nodes)
    engine.upsert([], [pod(f"v{at}", cpu="900m", node_name=f"node-{at // 4}") for at in range(4 * nodes)])
    times: list[float] = []
    for at in range(200):
        wanted = [pod(f"p{at}", cpu="3", priority=1000)]
        start = time.process_time()
        (decision,) = engine.schedule(wanted, now_ms=0, seed=0)
        times.append((time.process_time() - start) * 1000)
        assert decision.nominated and len(decision.victims) == 3, decision.message
        engine.remove("Pod", [decision.key])
    return {"decisions": len(times), "cpu_ms_p50": round(percentile(times, 0.5), 3), "cpu_ms_mean": round(sum(times) / len(times), 3)}


def churn(nodes: int) -> dict[str, float]:
    """A node's labels or a pod changes before each tenth decision. Milliseconds of CPU a decision, reading the change included."""
    engine = engine_with(nodes)
    times: list[float] = []
    for at in range(1000):
        start = time.process_time()
        if at % 10 == 0:
            engine.upsert([], [pod(f"c{at}", node_name=f"node-{at % nodes}")])
        elif at % 10 == 5:
            engine.remove("Pod", [f"sched/c{at - 5}"])
        assert engine.schedule([pod(f"p{at}")], now_ms=0, seed=0)[0].node
        times.append((time.process_time() - start) * 1000)
    return {"decisions": len(times), "cpu_ms_p50": round(percentile(times, 0.5), 3), "cpu_ms_p99": round(percentile(times, 0.99), 3)}


def explain(nodes: int) -> dict[str, float]:
    """The whole matrix for one pod. Milliseconds of CPU."""
    engine = engine_with(nodes)
    times: list[float] = []
    for at in range(10):
        start = time.process_time()
        engine.explain(pod(f"p{at}"))
        times.append((time.process_time() - start) * 1000)
    return {"cpu_ms_p50": round(percentile(times, 0.5), 2)}


def main() -> None:
    """Measure everything and write benches/results/scheduler.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=10_000)
    args = parser.parse_args()
    figures: dict[str, Any] = {"nodes": args.nodes}
    for name, measure in scenarios(args.nodes, args.pods):
        figures[name] = measure()
        print(name, figures[name], flush=True)
    figures["preemption_1000_nodes"] = preemption(1000)
    figures["churn"] = churn(args.nodes)
    figures["explain"] = explain(args.nodes)
    for name in ("preemption_1000_nodes", "churn", "explain"):
        print(name, figures[name], flush=True)
    write("scheduler", figures)


if __name__ == "__main__":
    main()
