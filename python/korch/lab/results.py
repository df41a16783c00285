"""What a simulation came to: the figures of a run, its samples over time, and what became of every task.

Tables are Arrow tables when they are asked for (`Run.tasks()`, `samples()`, `nodes()`), which needs the extra `korch-cluster[lab]`;
everything else here needs the standard library only. All of it is a function of the inputs and the seed.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from korch.lab.ledger import Ledger
from korch.lab.workload import Workload

Cell = str | int | float | None


@dataclass(slots=True)
class Samples:
    """One entry a sample, in order of time. `used` and `capacity` are by resource; CPU in thousandths of cores, memory in bytes."""

    time_s: list[float] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    # Standard deviation over the nodes of the share of CPU that is requested.
    imbalance: list[float] = field(default_factory=list)
    used: dict[str, list[int]] = field(default_factory=dict)
    capacity: dict[str, list[int]] = field(default_factory=dict)
    # Share of what is free that the workload cannot use; NaN where it was not computed.
    fragmentation: dict[str, list[float]] = field(default_factory=dict)

    def share(self, resource: str) -> list[float]:
        """Return how much of a resource was requested at each sample, 0 to 1."""
        rows = zip(self.used[resource], self.capacity[resource], strict=True)
        return [used / capacity if capacity else math.nan for used, capacity in rows]


@dataclass(slots=True, eq=False)
class Records:
    """What became of each task, by number: NaN and -1 stand for what did not happen."""

    started_s: array[float]
    ended_s: array[float]
    nodes: array[int]
    restarts: array[int]
    attempts: array[int]

    @classmethod
    def of(cls, count: int) -> Records:
        """Return records of `count` tasks to which nothing has happened yet."""
        return cls(
            array("d", [math.nan]) * count, array("d", [math.nan]) * count, array("i", [-1]) * count, array("i", [0]) * count,
            array("i", [0]) * count,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Run:
    """One workload under one policy.

    `residents` tasks were there before: the first ones of the workload. `waiting` has the scheduler's last words about each task that
    never got a node or lost it, by number. `unchecked` are resources that the policy does not look at."""

    policy: str
    seed: int
    workload: Workload
    records: Records
    ledger: Ledger
    samples: Samples
    residents: int = 0
    horizon_s: float = 0.0
    waiting: dict[int, str] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    # Resource-seconds that were requested and that were there, by resource.
    used_area: dict[str, float] = field(default_factory=dict)
    capacity_area: dict[str, float] = field(default_factory=dict)
    preemptions: int = 0
    killed_by_failures: int = 0
    lost_work_s: float = 0.0
    nodes_added: int = 0
    nodes_removed: int = 0
    node_failures: int = 0

    def waits_s(self) -> list[float]:
        """Return how long each task waited for its first node, shortest first; one that never got any until the end of the run."""
        arrivals, started = self.workload.arrivals_s, self.records.started_s
        last = self.horizon_s
        waits: list[float] = []
        for task in range(self.residents, len(self.workload)):
            start = started[task]
            if start == start:
                waits.append(start - arrivals[task])
            elif arrivals[task] <= last:
                waits.append(last - arrivals[task])
        waits.sort()
        return waits

    def utilisation(self) -> dict[str, float]:
        """Return which share of each resource was requested, on average over time."""
        return {name: self.used_area[name] / area for name, area in self.capacity_area.items() if area}

    def summary(self) -> dict[str, Cell]:
        """Return the figures by which policies are compared."""
        waits = self.waits_s()
        started = sum(
            1 for task in range(self.residents, len(self.workload)) if self.records.started_s[task] == self.records.started_s[task]
        )
        found: dict[str, Cell] = {"tasks": len(self.workload) - self.residents, "started": started, "waiting at the end": len(self.waiting)}
        found |= {f"{name} requested, mean share": share for name, share in self.utilisation().items()}
        found |= {f"{name} free but unusable, mean share": mean(values) for name, values in self.samples.fragmentation.items()}
        found["imbalance of cpu between nodes"] = mean(self.samples.imbalance)
        found["pending s, mean"] = mean(waits)
        for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)):
            found[f"pending s, {name}"] = quantile(waits, part)
        found["preemptions"] = self.preemptions
        found["killed by node failures"] = self.killed_by_failures
        found["work lost, s"] = self.lost_work_s
        found["node failures"] = self.node_failures
        found["nodes added"], found["nodes removed"] = self.nodes_added, self.nodes_removed
        found["nodes, mean"] = mean([float(one) for one in self.samples.nodes])
        found["end, s"] = self.horizon_s
        return found

    def task_rows(self) -> Iterator[tuple[Cell, ...]]:
        """Yield what became of each task, in the order of `TASK_COLUMNS`."""
        workload, records, names = self.workload, self.records, self.ledger.names
        for task, name in enumerate(workload.names):
            kind = workload.kinds[task]
            node = records.nodes[task]
            start, end = records.started_s[task], records.ended_s[task]
            duration = workload.durations_s[task]
            yield (
                self.policy, workload.namespace(kind), name, kind, workload.priority(kind), workload.arrivals_s[task],
                duration if duration != math.inf else None, start if start == start else None, end if end == end else None,
                names[node] if node >= 0 else None, records.attempts[task], records.restarts[task], self.waiting.get(task),
            )  # fmt: skip

    def sample_columns(self) -> dict[str, list[Any]]:
        """Return the samples as columns of equal length."""
        samples = self.samples
        found: dict[str, list[Any]] = {"policy": [self.policy] * len(samples.time_s)}
        found |= {"time_s": samples.time_s, "running": samples.running, "pending": samples.pending, "nodes": samples.nodes}
        found["imbalance_cpu"] = samples.imbalance
        for name in samples.used:
            found |= {f"used_{name}": samples.used[name], f"capacity_{name}": samples.capacity[name]}
            if name in samples.fragmentation:
                found[f"fragmentation_{name}"] = samples.fragmentation[name]
        return found

    def node_columns(self) -> dict[str, list[Any]]:
        """Return what is on each node at the end, as columns of equal length."""
        ledger = self.ledger
        found: dict[str, list[Any]] = {"policy": [self.policy] * len(ledger.names), "node": ledger.names, "is_up": ledger.is_up}
        for index, name in enumerate(ledger.resources):
            found |= {f"used_{name}": ledger.used[index], f"capacity_{name}": ledger.capacity[index]}
        return found

    def tasks(self) -> Any:
        """Return a pyarrow.Table of what became of each task. Raises ImportError without pyarrow."""
        from korch.lab import arrow

        return arrow.from_rows(TASK_COLUMNS, self.task_rows())

    def samples_table(self) -> Any:
        """Return a pyarrow.Table of the samples over time. Raises ImportError without pyarrow."""
        from korch.lab import arrow

        return arrow.from_columns(self.sample_columns())

    def nodes(self) -> Any:
        """Return a pyarrow.Table of what is on each node at the end. Raises ImportError without pyarrow."""
        from korch.lab import arrow

        return arrow.from_columns(self.node_columns())


TASK_COLUMNS = {
    "policy": "text", "namespace": "text", "name": "text", "template": "whole", "priority": "whole", "arrival_s": "real",
    "duration_s": "real", "start_s": "real", "end_s": "real", "node": "text", "failed_attempts": "whole", "restarts": "whole",
    "waiting_because": "text",
}  # fmt: skip


def mean(values: Sequence[float]) -> float:
    """Return the mean of the numbers among the values, NaN when there is none."""
    numbers = [one for one in values if one == one]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest of the ordered values that at least `part` of them do not exceed, NaN when there is none."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan
