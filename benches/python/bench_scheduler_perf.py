"""Kubernetes' own scheduling workloads through `korch bench run`: the large ones measured at both levels, every small one run to its end.

Needs the directory of Kubernetes' scheduler_perf configuration files (test/integration/scheduler_perf of its sources), as the first
argument or in KORCH_SCHEDULER_PERF. Each measured workload has a process of its own. Upstream's thresholds were set on six cores.
Usage: bench_scheduler_perf.py DIRECTORY [--only PART] [--skip-small].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import RESULTS, write

KORCH = Path(sys.executable).parent / "korch"
MEASURED = {
    "misc": [
        "SchedulingBasic/5000Nodes_10000Pods",
        "SchedulingWithMixedChurn/5000Nodes_10000Pods",
        "SchedulingDeletedPodsWithFinalizers/5000Node_5000DeletingPods",
    ],
    "affinity": [
        "SchedulingPodAntiAffinity/5000Nodes_2000Pods",
        "SchedulingPodAffinity/5000Nodes_5000Pods",
        "SchedulingPreferredPodAffinity/5000Nodes_5000Pods",
        "SchedulingPreferredPodAntiAffinity/5000Nodes_5000Pods",
        "SchedulingNodeAffinity/5000Nodes_10000Pods",
    ],
    "topology_spreading": [
        "TopologySpreading/5000Nodes_5000Pods",
        "PreferredTopologySpreading/5000Nodes_5000Pods",
        "SchedulingWithNodeInclusionPolicy/5000Nodes",
    ],
    "volumes": ["SchedulingSecrets/5000Nodes_10000Pods", "SchedulingCSIPVs/5000Nodes_5000Pods"],
    "default_preemption": ["PreemptionBasic/1000Nodes", "Unschedulable/5kNodes/100Init/10kPods"],
}
# What to keep: metric, its label `result`, bucket and the name in the result file.
KEPT = [
    ("SchedulingThroughput", "not applicable", "Average", "pods_per_s"),
    ("SchedulingThroughput", "not applicable", "Perc50", "pods_per_s_p50"),
    ("process_cpu_per_pod", "not applicable", "Average", "cpu_ms_per_pod"),
    ("process_cpu_per_pod", "not applicable", "Settled", "cpu_ms_per_pod_with_events"),
    ("DecisionThroughput", "not applicable", "Average", "decisions_per_s"),
    ("scheduler_scheduling_algorithm_duration_seconds", "not applicable", "Perc99", "decision_ms_p99"),
    ("scheduler_pod_scheduling_duration_seconds", "not applicable", "Perc50", "pod_latency_ms_p50"),
    ("scheduler_pod_scheduling_duration_seconds", "not applicable", "Perc99", "pod_latency_ms_p99"),
    ("process_resident_memory", "not applicable", "Max", "resident_mib"),
]


def bench(file: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run the command; return its exit code, data items and what it said."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "result.json"
        command = [KORCH, "bench", "run", file, "-o", "json", "--output-file", path, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        items = json.loads(path.read_bytes())["dataItems"] if path.exists() else []
    return done.returncode, items, done.stderr.strip()


def measure(file: Path, name: str, level: str) -> dict[str, Any]:
    """Return what is kept of one workload."""
    _, items, said = bench(file, "--workload", name, "--level", level)
    if not items:
        return {"error": said.splitlines()[-1] if said else "no result"}
    values = {(one["labels"]["Metric"], one["labels"].get("result", "not applicable")): one["data"] for one in items}
    found = {label: round(values[metric, result][bucket], 3) for metric, result, bucket, label in KEPT if (metric, result) in values}
    verdicts = [line for line in said.splitlines() if "threshold" in line]
    if verdicts and level == "cluster":
        found["threshold"] = float(verdicts[0].rpartition("threshold ")[2].partition(":")[0])
        found["passed"] = verdicts[0].endswith("passed")
    return found


def small(directory: Path) -> dict[str, Any]:
    """Run every workload that upstream's integration tests run, DRA excepted; return which test cases ended and which did not."""
    ended, failed = set(), {}
    for file in sorted(directory.rglob("performance-config.yaml")):
        if "dra" in file.relative_to(directory).parts:
            continue
        shown = subprocess.run([KORCH, "bench", "run", file, "--list", "--labels", "integration-test"], capture_output=True, text=True)
        cases = {line.split("/")[0] for line in shown.stdout.splitlines()[1:]}
        _, items, said = bench(file, "--labels", "integration-test", "--timeout", "60")
        here = {one["labels"]["Name"].split("/")[0] for one in items}
        ended |= here
        for case in cases - here:
            failed[case] = next((line.partition(": ")[2] for line in said.splitlines() if line.startswith(f"{case}/")), said[-200:])
    return {"test_cases_run_to_the_end": len(ended), "test_cases_not_run": failed}


def main() -> None:
    """Measure, and write benches/results/scheduler_perf.json after each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default=os.environ.get("KORCH_SCHEDULER_PERF"))
    parser.add_argument("--only", default="", help="Only workloads with this in their names; the others keep their last figures.")
    parser.add_argument("--skip-small", action="store_true")
    args = parser.parse_args()
    if not args.directory:
        parser.error("name the directory of Kubernetes' scheduler_perf files")
    directory = Path(args.directory)
    before = RESULTS / "scheduler_perf.json"
    figures: dict[str, Any] = json.loads(before.read_text())["results"] if before.exists() else {}
    if not args.skip_small:
        figures["small_workloads"] = small(directory)
        write("scheduler_perf", figures)
    for topic, names in MEASURED.items():
        for name in names:
            if args.only in name:
                file = directory / topic / "performance-config.yaml"
                figures[name] = {level: measure(file, name, level) for level in ("cluster", "engine")}
                write("scheduler_perf", figures)


if __name__ == "__main__":
    main()
