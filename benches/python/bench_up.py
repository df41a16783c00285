"""`korch up` to ready: wall time, CPU and memory of a cluster of three simulated nodes, started from nothing, five times."""

from __future__ import annotations

import time

from cluster import running
from record import cpu_seconds, resident_mib, summary, write

ROUNDS = 5


def main() -> None:
    walls, cpus, memory = [], [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        with running("--nodes", "0", "--sim-nodes", "3") as cluster:
            walls.append((time.monotonic() - began) * 1000)
            pids = [cluster.status["server"]["pid"], cluster.status["supervisor"]["pid"]]
            cpus.append(cpu_seconds(pids) * 1000)
            memory.append(sum(resident_mib(pid) for pid in pids))
    write("up", {"wall_ms": summary(walls), "cpu_ms": summary(cpus), "resident_mib": summary(memory)})


if __name__ == "__main__":
    main()
