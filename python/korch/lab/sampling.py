"""The state of a simulation at regular times: it holds from one event to the next, so a sample is taken when time passes it."""

from __future__ import annotations

import math
from collections import Counter
from operator import mul

from korch.lab.ledger import CORE, Ledger
from korch.lab.results import Run, Samples

# How many templates, the most frequent ones, say what counts as fragmented.
TYPICAL = 8
# Fragmentation looks at every node for every typical template, so only every so many samples have it.
FRAGMENTATION_EVERY = 4


class Sampler:
    """Takes about `count` samples of a run until the time at which it should end; ever fewer when it takes much longer."""

    def __init__(self, run: Run, end_s: float, count: int) -> None:
        self.next_s = 0.0
        self._run = run
        self._interval_s = end_s / count if 0 < end_s < math.inf and count else math.inf
        self._most = 2 * max(count, 1)
        kinds = Counter(run.workload.kinds)
        typical = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:TYPICAL]
        total = sum(count for _, count in typical)
        self._weights = [(kind, count / total) for kind, count in typical]

    @staticmethod
    def empty(ledger: Ledger) -> Samples:
        """Return samples with a column for each resource and no entry."""
        samples = Samples()
        for name in ledger.resources:
            samples.used[name], samples.capacity[name] = [], []
            if name != CORE[2]:
                samples.fragmentation[name] = []
        return samples

    def reach(self, time_s: float, running: int, pending: int, *, is_last: bool = False) -> None:
        """Take the samples that are due before `time_s`, and one at it if it is the last."""
        while self.next_s < time_s:
            self._take(self.next_s, running, pending)
            if len(self._run.samples.time_s) % self._most == 0:
                self._interval_s *= 2
            self.next_s += self._interval_s
        if is_last:
            self._take(time_s, running, pending)

    def cut(self, end_s: float) -> None:
        """Take back the samples after `end_s`."""
        samples = self._run.samples
        columns = [samples.time_s, samples.running, samples.pending, samples.nodes, samples.imbalance]
        columns += [*samples.used.values(), *samples.capacity.values(), *samples.fragmentation.values()]
        while samples.time_s and samples.time_s[-1] > end_s:
            for column in columns:
                column.pop()

    def _take(self, time_s: float, running: int, pending: int) -> None:
        samples, ledger = self._run.samples, self._run.ledger
        is_full = len(samples.time_s) % FRAGMENTATION_EVERY == 0
        fragmentation = ledger.fragmentation(self._weights) if is_full else [math.nan] * len(ledger.resources)
        samples.time_s.append(time_s)
        samples.running.append(running)
        samples.pending.append(pending)
        samples.nodes.append(ledger.up_count)
        samples.imbalance.append(_deviation(ledger.shares("cpu")))
        for index, name in enumerate(ledger.resources):
            samples.used[name].append(ledger.total_used[index])
            samples.capacity[name].append(ledger.total_capacity[index])
            if name in samples.fragmentation:
                samples.fragmentation[name].append(fragmentation[index])


def _deviation(values: list[float]) -> float:
    if not values:
        return math.nan
    mean = sum(values) / len(values)
    return math.sqrt(max(0.0, sum(map(mul, values, values)) / len(values) - mean * mean))
