"""The engine at 100,000 nodes: pods of 200 shapes, a fifth with spreading or anti-affinity, some decisions recomputed by brute force.

Pods come in bursts of one shape, as controllers make them. The audited ones are decided alone, and a model in plain Python that remembers
only sums looks at every node for each: filters, scores, and the tie broken as kube-scheduler on one thread does. Auditing is not timed.
Usage: bench_scheduler_scale.py [--nodes N] [--pods N] [--audits N].
"""

from __future__ import annotations

import argparse
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

from bench_scheduler import HOSTNAME, REQUIRED, ZONE, node, pod
from record import resident_mib, write

from korch._core import native

SHAPES = 200
BURST = 100
ZONES = 3
CPU, MEMORY, PODS, SKEW = 4000, 32 << 30, 110, 5
KINDS = ("spread", "apart")


@dataclass
class Shape:
    """What pods of one shape ask for, and where those that were placed are, as far as its own rule cares."""

    number: int
    cpu: int
    memory: int
    kind: str
    zones: list[int] = field(default_factory=lambda: [0] * ZONES)
    nodes: set[int] = field(default_factory=set)

    def spec(self) -> dict[str, Any]:
        """Return the arguments of `pod`."""
        color = f"c{self.number}"
        selector = {"matchLabels": {"color": color}}
        found: dict[str, Any] = {"cpu": f"{self.cpu}m", "memory": f"{self.memory >> 20}Mi", "color": color}
        if self.kind == "spread":
            rule = {"maxSkew": SKEW, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}
            found["topologySpreadConstraints"] = [rule]
        elif self.kind == "apart":
            found["affinity"] = {"podAntiAffinity": {REQUIRED: [{"topologyKey": HOSTNAME, "labelSelector": selector}]}}
        return found


class Model:
    """What is used on each node."""

    def __init__(self, nodes: int) -> None:
        self.cpu, self.memory, self.pods = [0] * nodes, [0] * nodes, [0] * nodes

    def place(self, shape: Shape, at: int) -> None:
        self.cpu[at] += shape.cpu
        self.memory[at] += shape.memory
        self.pods[at] += 1
        shape.zones[at % ZONES] += 1
        if shape.kind == "apart":
            shape.nodes.add(at)

    def choose(self, shape: Shape) -> int:
        """Return the node that the pod must go to, -1 for none."""
        least = min(shape.zones)
        best, winner, position = -1, (("", -1)), -1
        for at in range(len(self.cpu)):
            cpu, memory = self.cpu[at] + shape.cpu, self.memory[at] + shape.memory
            if cpu > CPU or memory > MEMORY or self.pods[at] >= PODS:
                continue
            if shape.kind == "spread" and shape.zones[at % ZONES] + 1 - least > SKEW:
                continue
            if shape.kind == "apart" and at in shape.nodes:
                continue
            position += 1
            free = ((CPU - cpu) * 100 // CPU + (MEMORY - memory) * 100 // MEMORY) // 2
            total = free + 50 + int((50 + even(cpu, memory) - even(self.cpu[at], self.memory[at])) / 2)
            if total >= best:
                # Sorted as text, the paths from the root of a binary heap are in pre-order.
                path = bin(position + 1)[3:]
                if total > best or path < winner[0]:
                    best, winner = total, (path, at)
        return winner[1]


def even(cpu: int, memory: int) -> int:
    """Return how evenly a node's resources are used, as NodeResourcesBalancedAllocation has it."""
    return int((1 - abs((cpu / CPU - memory / MEMORY) / 2)) * 100)


def shapes(rng: random.Random) -> list[Shape]:
    """Return all shapes; every tenth spreads over zones and every tenth keeps its pods on different nodes."""
    kinds = {0: KINDS[0], 1: KINDS[1]}
    return [Shape(at, rng.randrange(10, 300), rng.randrange(32, 2048) << 20, kinds.get(at % 10, "")) for at in range(SHAPES)]


def main() -> None:
    """Place everything and write benches/results/scheduler_scale.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--pods", type=int, default=1_000_000)
    parser.add_argument("--audits", type=int, default=500)
    args = parser.parse_args()
    rng = random.Random(1)
    engine, model, kinds = native.Scheduler(), Model(args.nodes), shapes(rng)
    engine.upsert([node(number) for number in range(args.nodes)], [])
    audited = set(rng.sample(range(args.pods // BURST), min(args.audits, args.pods // BURST)))
    cpu_s = wall_s = 0.0
    placed = differing = 0
    for burst in range(args.pods // BURST):
        shape = rng.choice(kinds)
        bodies = [pod(f"p{burst}-{at}", **shape.spec()) for at in range(BURST)]
        batches = [bodies[:1], bodies[1:]] if burst in audited else [bodies]
        for batch in batches:
            expected = model.choose(shape) if len(batch) == 1 else None
            cpu, wall = time.process_time(), time.perf_counter()
            decisions = engine.schedule(batch, now_ms=0, seed=0)
            cpu_s += time.process_time() - cpu
            wall_s += time.perf_counter() - wall
            chosen = [int(one.node.removeprefix("node-")) if one.node else -1 for one in decisions]
            differing += expected is not None and chosen != [expected]
            for at in chosen:
                if at >= 0:
                    placed += 1
                    model.place(shape, at)
    figures = {"nodes": args.nodes, "pods": args.pods, "placed": placed, "shapes": SHAPES, "burst": BURST}
    figures |= {"cpu_s": round(cpu_s, 1), "wall_s": round(wall_s, 1), "cpu_us_per_decision": round(cpu_s / args.pods * 1e6, 1)}
    figures |= {"resident_mib": resident_mib(os.getpid()), "audited": len(audited), "audited_differing": differing}
    write("scheduler_scale", figures)


if __name__ == "__main__":
    main()
