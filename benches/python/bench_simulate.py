"""How long simulations take: a published trace's size, a day of a large cluster, and a question of capacity.

- `openb`: 1,523 nodes of mixed shapes and 8,152 tasks with arrivals and durations, the size of Alibaba's openb trace.
- `day`: 12,500 nodes and 1,000,000 tasks within a day, in jobs whose tasks come together (a median of one, a heavy tail), 300 shapes.
- `fewest`: how many nodes of one shape are needed, where the answer is about 5,000.

Inputs are made from a seed, written as files and read again; reading them is part of the time. Each case also says that two runs gave the
same bytes. Wall and CPU time are measured in a process of its own. Usage: bench_simulate.py [CASE...].
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import write

SEED = 20
DAY_S = 86_400


def openb(directory: Path) -> dict[str, Any]:
    """Write the nodes and the tasks of the case; return how to run it."""
    draws = random.Random(SEED)
    shapes = [("32", "128Gi", 0), ("64", "256Gi", 2), ("96", "384Gi", 8), ("128", "768Gi", 8), ("48", "192Gi", 4)]
    lines = ["name,cpu,memory,gpu,pods"]
    for number in range(1523):
        cpu, memory, gpus = draws.choices(shapes, (20, 25, 25, 15, 15))[0]
        lines.append(f"node-{number},{cpu},{memory},{gpus or ''},250")
    (directory / "nodes.csv").write_text("\n".join(lines) + "\n")
    rows = ["arrival_s,duration_s,cpu,memory,gpu,priority"]
    arrival = 0.0
    for _ in range(8152):
        arrival += draws.expovariate(1 / 15)
        gpus = draws.choices((0, 1, 2, 4, 8), (30, 50, 8, 6, 6))[0]
        cpu = draws.choice((1, 2, 4, 6, 8)) * max(1, gpus)
        memory, priority = cpu * draws.choice((2, 4, 8)), draws.choice((0, 100))
        rows.append(f"{arrival:.0f},{draws.lognormvariate(10.5, 1.6):.0f},{cpu},{memory}Gi,{gpus or ''},{priority}")
    (directory / "tasks.csv").write_text("\n".join(rows) + "\n")
    return {"nodes": str(directory / "nodes.csv"), "trace": str(directory / "tasks.csv"), "ask": "simulate"}


def day(directory: Path) -> dict[str, Any]:
    """Write the tasks of the case; return how to run it."""
    draws = random.Random(SEED)
    shapes = [(draws.choice((250, 500, 1000, 2000, 4000, 8000)), draws.randrange(1, 64) * 256) for _ in range(300)]
    rows = ["arrival_s,duration_s,cpu,memory,count"]
    left = 1_000_000
    while left:
        cpu, memory = shapes[min(len(shapes) - 1, int(draws.paretovariate(0.7)) - 1)]
        count = min(left, max(1, int(draws.paretovariate(1.05))), 2000)
        left -= count
        rows.append(f"{draws.random() * DAY_S:.3f},{min(DAY_S, draws.lognormvariate(7.0, 1.2)):.1f},{cpu}m,{memory}Mi,{count}")
    (directory / "tasks.csv").write_text("\n".join(rows) + "\n")
    return {"nodes": "12500 x 16cpu,64Gi,pods=250", "trace": str(directory / "tasks.csv"), "ask": "simulate"}


def fewest(directory: Path) -> dict[str, Any]:
    """Write the pods of the case; return how to run it."""
    draws = random.Random(SEED)
    rows = ["arrival_s,cpu,memory,count"]
    for _ in range(400):
        rows.append(f"0,{draws.choice((500, 1000, 2000, 4000))}m,{draws.choice((1, 2, 4, 8))}Gi,{draws.randrange(10, 190)}")
    (directory / "tasks.csv").write_text("\n".join(rows) + "\n")
    return {"nodes": "1 x 16cpu,64Gi", "trace": str(directory / "tasks.csv"), "ask": "16cpu,64Gi"}


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {"openb": openb, "day": day, "fewest": fewest}


def run(given: dict[str, Any]) -> dict[str, Any]:
    """Run one case in this process; return what it took and what came out."""
    from korch.lab import Cluster, fewest_nodes, read_nodes, read_shape, read_trace, simulate
    from korch.lab.export import summary, tasks_csv

    began = time.perf_counter()
    cluster = Cluster(read_nodes([given["nodes"]]))
    workload = read_trace(given["trace"])
    read = time.perf_counter()
    found: dict[str, Any] = {"nodes": len(cluster.nodes), "tasks": len(workload), "templates": len(workload.templates)}
    if given["ask"] == "simulate":
        result = simulate(cluster, workload)
        ended = time.perf_counter()
        figures = result.summary()
        found |= {name: figures[name] for name in ("started", "pending s, mean", "pending s, max", "preemptions")}
        found["cpu requested, mean share"] = round(float(figures["cpu requested, mean share"] or 0), 4)
        found["digest"] = hashlib.sha256(tasks_csv([result]) + summary([result])).hexdigest()
    else:
        answer = fewest_nodes(cluster, workload, read_shape(given["ask"]))
        ended = time.perf_counter()
        found |= {"answer": answer.count, "trials": answer.tried, "digest": str(answer)}
    used = resource.getrusage(resource.RUSAGE_SELF)
    found |= {"read_s": round(read - began, 2), "run_s": round(ended - read, 2), "wall_s": round(ended - began, 2)}
    return found | {"cpu_s": round(used.ru_utime + used.ru_stime, 2), "max_rss_mib": used.ru_maxrss // 1024}


def measure(case: str) -> dict[str, Any]:
    """Run a case twice, each in a process of its own; return the faster one, and whether both gave the same."""
    with tempfile.TemporaryDirectory() as directory:
        given = json.dumps(CASES[case](Path(directory)))
        outputs = [subprocess.run([sys.executable, __file__, "--one", given], check=True, capture_output=True).stdout for _ in range(2)]
    found: list[dict[str, Any]] = [json.loads(one) for one in outputs]
    best = min(found, key=lambda one: one["wall_s"])
    best["same_bytes_twice"] = found[0].pop("digest") == found[1].pop("digest")
    return best


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run(json.loads(sys.argv[2]))))
    else:
        cases = sys.argv[1:] or list(CASES)
        write("simulate", {case: measure(case) for case in cases})
