"""Exponential backoff with jitter for anything that tries again: informers, leases, node registration.

Mirrors apimachinery's wait.Backoff: each delay is the step times a random factor in [1, 1 + jitter), and the step doubles up to a cap.
"""

from __future__ import annotations

from random import Random


class Backoff:
    """Successive delays in seconds. `random` is a stream of `Rng`, so that simulations replay."""

    def __init__(self, random: Random, *, initial_s: float, cap_s: float, factor: float = 2.0, jitter: float = 1.0) -> None:
        self._random = random
        self._initial_s = initial_s
        self._cap_s = cap_s
        self._factor = factor
        self._jitter = jitter
        self._step_s = initial_s

    def next_s(self) -> float:
        """Return how long to wait before the next try."""
        delay = self._step_s * (1 + self._jitter * self._random.random())
        self._step_s = min(self._cap_s, self._step_s * self._factor)
        return min(delay, self._cap_s * (1 + self._jitter))

    def reset(self) -> None:
        """Start over, after a success."""
        self._step_s = self._initial_s
