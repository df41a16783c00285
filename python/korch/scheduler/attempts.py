"""How long scheduling attempts took, by how they ended: the raw durations, for whoever wants percentiles of a run.

A log is only kept where somebody asked for one. Upstream's metrics of the same names: scheduler_scheduling_attempt_duration_seconds and
scheduler_scheduling_algorithm_duration_seconds.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


def _durations() -> array[float]:
    return array("d")


@dataclass(slots=True)
class AttemptLog:
    """Durations in seconds. `attempts` are from the pod's leaving the queue to its binding's answer (or to the refusal), by result:
    scheduled, unschedulable, error. `algorithm` is the share of one decision in its batch."""

    attempts: dict[str, array[float]] = field(default_factory=dict)
    algorithm: array[float] = field(default_factory=_durations)

    def decided(self, count: int, seconds: float) -> None:
        """Note a batch of `count` decisions."""
        self.algorithm.extend([seconds / count] * count)

    def ended(self, result: str, seconds: float) -> None:
        """Note the end of an attempt."""
        self.attempts.setdefault(result, _durations()).append(seconds)

    def clear(self) -> None:
        """Forget everything noted so far."""
        self.attempts.clear()
        self.algorithm = _durations()
