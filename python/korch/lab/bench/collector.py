"""What is measured between two moments of a workload: throughput over time, latencies, CPU, memory.

Throughput is sampled once a second from the pods seen bound, as upstream does: sampling begins with the first second in which a pod was
bound, that second is dropped, and seconds without a pod get the rate of the interval that ended them. A run too short for a
sample counts as one, from its begin to its last bound pod. Mirrors scheduler_perf's throughputCollector and its siblings.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from korch.lab.bench.ledger import PodRecord
from korch.lab.bench.stage import Stage

INTERVAL_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BUCKETS = {"Perc50": 50, "Perc90": 90, "Perc95": 95, "Perc99": 99}


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of a run. `at_s` counts from the begin of collecting; CPU is that of the process, since the sample before."""

    at_s: float
    bound: int
    pods_per_s: float
    cpu_s: float
    resident_mib: float
    active: int
    backoff: int
    unschedulable: int
    gated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one collecting brought, in base units: seconds, pods a second, MiB. `settled_cpu_s` includes what was put off: events."""

    name: str
    bound: int
    duration_s: float
    cpu_s: float
    settled_cpu_s: float
    throughputs: Sequence[float]
    samples: Sequence[Sample]
    pod_latencies_s: Sequence[float]
    attempts_s: Mapping[str, Sequence[float]]
    algorithm_s: Sequence[float]
    resident_mib: Sequence[float]


def buckets(values: Sequence[float]) -> dict[str, float]:
    """Return average and percentiles by the nearest rank; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    found = {"Average": math.fsum(ordered) / len(ordered)}
    return found | {name: ordered[math.ceil(len(ordered) * share / 100) - 1] for name, share in _BUCKETS.items()}


def resident_mib() -> float:
    """Return the memory that the process holds now. Blocks."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


@dataclass(slots=True)
class Throughput:
    """Rates of intervals, as upstream's collector takes them. `began_at` is when counting began."""

    began_at: float
    rates: list[float] = field(default_factory=list)
    _sampled_at: float = 0.0
    _counted: int = 0
    _skipped: int = 0

    def sample(self, now: float, bound: int) -> None:
        """Take in how many pods were bound until `now`."""
        if not bound:
            return
        if not self._sampled_at:
            # Making pods and sampling begin independently of each other, which makes the first interval an outlier.
            self._sampled_at, self._counted = now, bound
        elif bound == self._counted:
            self._skipped += 1
        else:
            rate = (bound - self._counted) / (now - self._sampled_at)
            self.rates += [rate] * (self._skipped + 1)
            self._sampled_at, self._counted, self._skipped = now, bound, 0

    def finished(self, bound_at: Sequence[float]) -> list[float]:
        """Return all rates; of a run too short for one, that of the whole run up to its last pod."""
        if self.rates or not bound_at:
            return self.rates
        return [len(bound_at) / max(max(bound_at) - self.began_at, 1e-9)]


@dataclass(slots=True)
class Collector:
    """Counts pods of some namespaces from `start` to `stop`."""

    stage: Stage
    name: str
    namespaces: Collection[str]
    labels: Mapping[str, str]
    _bound: list[PodRecord] = field(default_factory=list)
    _samples: list[Sample] = field(default_factory=list)
    _throughput: Throughput = field(default_factory=lambda: Throughput(0.0))
    _memory: list[float] = field(default_factory=list)
    _began_at: float = 0.0
    _cpu_at_begin: float = 0.0
    _ends: list[Callable[[], object]] = field(default_factory=list)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin."""
        self.stage.attempts.clear()
        # What the set-up left behind is not collected on the time of what is measured.
        gc.collect()
        self._memory.append(resident_mib())
        self._began_at, self._cpu_at_begin = time.monotonic(), time.process_time()
        self._throughput = Throughput(self._began_at)
        sampling = tasks.create_task(self._sample(), name=f"collector/{self.name}")
        self._ends = [self.stage.ledger.watch(self._see), sampling.cancel]

    async def stop(self) -> Measurement:
        """End, wait until what was put off is done, and return what was measured."""
        ended_at, cpu = time.monotonic(), time.process_time() - self._cpu_at_begin
        for end in self._ends:
            end()
        self._memory.append(resident_mib())
        await self.stage.rest()
        log = self.stage.attempts
        return Measurement(
            name=self.name,
            bound=len(self._bound),
            duration_s=ended_at - self._began_at,
            cpu_s=cpu,
            settled_cpu_s=time.process_time() - self._cpu_at_begin,
            throughputs=self._throughput.finished([one.bound_at for one in self._bound]),
            samples=self._samples,
            pod_latencies_s=[one.bound_at - one.made_at for one in self._bound],
            attempts_s={result: list(values) for result, values in log.attempts.items()},
            algorithm_s=list(log.algorithm),
            resident_mib=self._memory,
        )

    def _see(self, record: PodRecord) -> None:
        if record.is_selected(self.namespaces, self.labels):
            self._bound.append(record)

    async def _sample(self) -> None:
        sampled_at, cpu_at, counted = self._began_at, self._cpu_at_begin, 0
        while True:
            await asyncio.sleep(INTERVAL_S)
            now, bound, cpu = time.monotonic(), len(self._bound), time.process_time()
            self._memory.append(resident_mib())
            self._throughput.sample(now, bound)
            places = self.stage.waiting()
            self._samples.append(
                Sample(
                    at_s=now - self._began_at,
                    bound=bound,
                    pods_per_s=(bound - counted) / (now - sampled_at),
                    cpu_s=cpu - cpu_at,
                    resident_mib=self._memory[-1],
                    active=places["active"],
                    backoff=places["backoff"] + places["error backoff"],
                    unschedulable=places["unschedulable"],
                    gated=places["gated"],
                )
            )
            sampled_at, cpu_at, counted = now, cpu, bound
