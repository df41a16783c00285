"""Kubernetes' own conformance tests against a cluster of two real nodes: which pass, and how long they take.

    IMAGES=DIR python benches/python/conformance.py --e2e-test FILE --names FILE [--nodes N] [--sim-nodes N] [--result NAME]

`--e2e-test` is the test binary of Kubernetes v1.37, which `go test -c k8s.io/kubernetes/test/e2e` makes; `--names` lists tests, one a
line; IMAGES holds archives of the images that they use. Every test runs in a process of its own, a few at once, those marked
[Serial] alone at the end; what each one printed is kept in `--logs`. Needs root, as far as nodes are real.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cluster import BIN, running
from record import summary, write

_COUNTS = re.compile(r"(\d+) Passed \| (\d+) Failed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one test ended: `problem` is "" for a pass."""

    name: str
    problem: str
    seconds: float


def main() -> None:
    options = _arguments()
    names = [line.strip() for line in options.names.read_text().splitlines() if line.strip()]
    logs = options.logs or Path(tempfile.mkdtemp(prefix="korch-conformance-"))
    logs.mkdir(parents=True, exist_ok=True)
    with running("--nodes", str(options.nodes), "--sim-nodes", str(options.sim_nodes)) as cluster:

        def run(name: str) -> Outcome:
            outcome = _run(name, options.e2e_test, cluster.kubeconfig, logs, options.timeout)
            print(f"{outcome.problem or 'passed':12} {outcome.seconds:6.1f} s  {name}", flush=True)
            return outcome

        with ThreadPoolExecutor(options.parallel) as pool:
            outcomes = list(pool.map(run, [name for name in names if "[Serial]" not in name]))
        outcomes += [run(name) for name in names if "[Serial]" in name]
    failed = {one.name: one.problem for one in outcomes if one.problem}
    passed = sorted(one.name for one in outcomes if not one.problem)
    results = {"tests": len(outcomes), "passed": len(passed), "failed": failed, "seconds": summary([one.seconds for one in outcomes])}
    write(options.result, {**results, "names": passed})


def _run(name: str, e2e_test: Path, kubeconfig: Path, logs: Path, timeout_s: int) -> Outcome:
    """Run one test and wait for its end, at most `timeout_s`."""
    file = logs / (re.sub(r"[^A-Za-z0-9]+", "-", name)[:120] + ".log")
    focus = "".join("." if one == " " else re.escape(one) for one in name)
    command = [e2e_test.resolve(), "--provider=skeleton", f"--kubeconfig={kubeconfig}", f"--ginkgo.focus={focus}$", "--ginkgo.no-color"]
    began = time.monotonic()
    with file.open("wb") as output:
        # The tests call kubectl by its name.
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=logs, start_new_session=True)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return Outcome(name, "too slow", round(time.monotonic() - began, 1))
    counts = _COUNTS.search(file.read_text(errors="replace"))
    problem = "" if process.returncode == 0 and counts and counts[1] == "1" else "failed" if counts and counts[2] != "0" else "did not run"
    return Outcome(name, problem, round(time.monotonic() - began, 1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e-test", type=Path, required=True)
    parser.add_argument("--names", type=Path, required=True)
    parser.add_argument("--logs", type=Path, help="where the tests' output goes (default: a new directory)")
    parser.add_argument("--nodes", type=int, default=2, help="real nodes")
    parser.add_argument("--sim-nodes", type=int, default=0, help="simulated nodes, enough for tests that run no container")
    parser.add_argument("--parallel", type=int, default=4, help="tests at once")
    parser.add_argument("--timeout", type=int, default=420, help="seconds that one test may take")
    parser.add_argument("--result", default="conformance", help="name of the result file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
