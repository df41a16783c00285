"""What happens to nodes in a simulation: some fail and come back, some are added while pods wait and removed when they stay empty.

Failures are given one by one, or drawn from a seed: each node fails after times that are exponentially distributed around
`mean_s_between` and comes back after `repair_s`. Adding nodes mirrors the Cluster Autoscaler in outline: while pods are unschedulable it
looks every `scan_s`, packs those that would fit on an empty node of the shape first-fit into as few new ones as it takes, and these are
there `boot_s` later; a node of its own that was empty for `idle_s` goes. Nodes that were there from the begin are never removed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from korch.lab.machines import Shape


@dataclass(frozen=True, slots=True)
class Failure:
    """A node that goes at a time and is back `repair_s` later, or never when that is None."""

    node: str
    at_s: float
    repair_s: float | None = None


@dataclass(frozen=True, slots=True)
class RandomFailures:
    """Every node fails again and again: on average `mean_s_between` after it came or came back, for `repair_s`."""

    mean_s_between: float
    repair_s: float

    def draw(self, nodes: Sequence[str], until_s: float, seed: int) -> list[Failure]:
        """Return the failures before `until_s`, in order. The same seed gives the same ones, whatever else is simulated."""
        found: list[Failure] = []
        for node in nodes:
            draws = random.Random(f"{seed}/{node}")
            now = draws.expovariate(1 / self.mean_s_between)
            while now < until_s:
                found.append(Failure(node, now, self.repair_s))
                now += self.repair_s + draws.expovariate(1 / self.mean_s_between)
        return sorted(found, key=lambda one: (one.at_s, one.node))


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Up to `most` nodes of a shape are added beside those of the begin."""

    shape: Shape
    most: int
    boot_s: float = 120.0
    idle_s: float = 600.0
    scan_s: float = 10.0


def nodes_wanted(waiting: Sequence[Sequence[tuple[int, int]]], capacity: Sequence[int], booting: int) -> int:
    """Return how many further nodes the waiting pods need beyond `booting` empty ones.

    `waiting` are what the pods take, as (resource, amount); all of them fit on an empty node, which has `capacity` by resource. First
    fit, largest first by the share of its scarcest resource."""
    share = lambda takes: max((amount / capacity[index] for index, amount in takes), default=0.0)  # noqa: E731
    free = [list(capacity) for _ in range(booting)]
    open_from = 0
    for takes in sorted(waiting, key=share, reverse=True):
        for left in free[open_from:]:
            if all(left[index] >= amount for index, amount in takes):
                break
        else:
            left = list(capacity)
            free.append(left)
        for index, amount in takes:
            left[index] -= amount
        while open_from < len(free) and min(free[open_from]) <= 0:
            open_from += 1
    return len(free) - booting
