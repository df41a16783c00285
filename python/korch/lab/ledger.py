"""What is on each node, counted by the simulation itself, so that the engine's decisions are checked by somebody else.

Each resource that nodes have and tasks ask for is a column over the nodes. `place` refuses what does not fit: a simulation in which a
node is over-committed ends with `OverCommitted` instead of figures. What a policy says not to look at (`ignoredResources`, or a
profile without NodeResourcesFit) is found out by asking its engine, and not checked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress

import orjson

from korch._core import native
from korch.api.meta import Object, at, name_of
from korch.api.pods import amounts, requests

PODS = "pods"
CORE = ("cpu", "memory", PODS)
FRAGMENTATION_NODES = 1000


class OverCommitted(AssertionError):
    """A node was given more than it has: a bug of the engine or of the simulation."""


class Ledger:
    """Columns over nodes by number. A node that is down has no capacity for totals, but keeps its place."""

    def __init__(self, nodes: Sequence[Object], templates: Sequence[Object]) -> None:
        wanted = [requests(one) for one in templates]
        named = {name for one in wanted for name, amount in one.items() if amount > 0} - set(CORE)
        self.resources = (*CORE, *sorted(named))
        self._index = {name: index for index, name in enumerate(self.resources)}
        # What a task of each template takes: (resource, amount) of what is not zero.
        self.takes: list[tuple[tuple[int, int], ...]] = []
        self.capacity: list[list[int]] = [[] for _ in self.resources]
        self.used: list[list[int]] = [[] for _ in self.resources]
        self.total_capacity = [0] * len(self.resources)
        self.total_used = [0] * len(self.resources)
        self.names: list[str] = []
        self.number: dict[str, int] = {}
        self.is_up: list[bool] = []
        self.up_count = 0
        self._checked = [True] * len(self.resources)
        # What is used by tasks of each priority, lowest first; not kept when all have the same.
        priorities = [at(one, "spec", "priority") or 0 for one in templates]
        known = sorted(set(priorities))
        self._level = [known.index(one) for one in priorities]
        self._by_level: list[list[list[int]]] = [[[] for _ in self.resources] for _ in known] if len(known) > 1 else []
        for one in wanted:
            self.takes.append(self._vector(one))
        for node in nodes:
            self.add_node(node)

    def unchecked(self, engine: native.Scheduler, profiles: Iterable[str]) -> list[str]:
        """Find out which resources the policy of `engine`, which must be empty, does not look at; return them, and do not check them."""
        found: list[str] = []
        for index, name in enumerate(self.resources):
            if name != PODS and any(_is_ignored(engine, profile, name) for profile in profiles):
                self._checked[index] = False
                found.append(name)
        engine.remove("Node", [_PROBE])
        if "cpu" in found:
            # Without NodeResourcesFit nobody counts pods either.
            self._checked[self._index[PODS]] = False
        return found

    def add_node(self, node: Object) -> int:
        """Take in a node that is up; return its number."""
        has = amounts(at(node, "status", "allocatable"))
        number = len(self.names)
        self.names.append(name_of(node))
        self.number[name_of(node)] = number
        self.is_up.append(True)
        self.up_count += 1
        for index, name in enumerate(self.resources):
            self.capacity[index].append(has.get(name, 0))
            self.used[index].append(0)
            for level in self._by_level:
                level[index].append(0)
            self.total_capacity[index] += has.get(name, 0)
        return number

    def set_up(self, node: int, is_up: bool) -> None:
        """Count the node's capacity, or do so no longer."""
        if self.is_up[node] == is_up:
            return
        self.is_up[node] = is_up
        sign = 1 if is_up else -1
        self.up_count += sign
        for index, capacity in enumerate(self.capacity):
            self.total_capacity[index] += sign * capacity[node]

    def place(self, template: int, node: int) -> None:
        """Count a task on a node. Raises OverCommitted when it has not that much, or is down."""
        self.seat(template, node)
        for index, _ in self.takes[template]:
            if self.used[index][node] > self.capacity[index][node] and self._checked[index]:
                raise OverCommitted(
                    f"node {self.names[node]} has {self.capacity[index][node]} of {self.resources[index]} "
                    f"and was given {self.used[index][node]}"
                )
        if not self.is_up[node]:
            raise OverCommitted(f"node {self.names[node]} is down and was given a pod")

    def seat(self, template: int, node: int) -> None:
        """Count a task on a node where it already is, whether or not it fits."""
        self._count(template, node, 1)

    def free(self, template: int, node: int) -> None:
        """Count a task on a node no longer."""
        self._count(template, node, -1)

    def _count(self, template: int, node: int, sign: int) -> None:
        for index, amount in self.takes[template]:
            self.used[index][node] += sign * amount
            self.total_used[index] += sign * amount
        if self._by_level:
            level = self._by_level[self._level[template]]
            for index, amount in self.takes[template]:
                level[index][node] += sign * amount

    def may_have_room_on(self, template: int, nodes: Iterable[int]) -> bool:
        """Return whether a task of the template would fit on any of the nodes if all tasks of lower priority were gone."""
        stays = self._by_level[self._level[template] :] if self._by_level else (self.used,)
        columns = [(self.capacity[index], amount, [used[index] for used in stays]) for index, amount in self.takes[template]]
        for node in nodes:
            for capacity, amount, used in columns:
                if sum([one[node] for one in used], amount) > capacity[node]:
                    break
            else:
                return True
        return False

    def is_empty(self, node: int) -> bool:
        """Return whether no pod is on the node."""
        return self.used[self._index[PODS]][node] == 0

    def shares(self, resource: str) -> list[float]:
        """Return how much of a resource each node that is up and has any of it uses, 0 to 1."""
        index = self._index[resource]
        rows = zip(self.used[index], self.capacity[index], self.is_up, strict=True)
        return [used / capacity for used, capacity, is_up in rows if is_up and capacity]

    def fragmentation(self, weights: Sequence[tuple[int, float]]) -> list[float]:
        """Return which share of what is free cannot be used, by resource (NaN where nothing is free).

        `weights` are (template, weight) with a sum of 1. What is free on a node counts as unusable for a template that asks for the
        resource and does not fit there by its requests; that is averaged over the templates which ask for the resource. Of more nodes
        than `FRAGMENTATION_NODES` that many are looked at, evenly spread over their numbers.
        """
        free = [0] * len(self.resources)
        lost = [0.0] * len(self.resources)
        asked = [
            sum(weight for template, weight in weights if any(i == index for i, _ in self.takes[template])) for index in range(len(free))
        ]
        for left, nodes in self._left().items():
            for index, amount in enumerate(left):
                free[index] += nodes * amount
            for template, weight in weights:
                takes = self.takes[template]
                if any(left[index] < amount for index, amount in takes):
                    for index, _ in takes:
                        lost[index] += weight * (nodes * left[index])
        return [one / (total * part) if total and part else math.nan for one, total, part in zip(lost, free, asked, strict=True)]

    def _left(self) -> Counter[tuple[int, ...]]:
        """Return how many of the nodes that fragmentation looks at have so much left, by resource: many are alike."""
        step = slice(None, None, -(-len(self.is_up) // FRAGMENTATION_NODES) or 1)
        rows = zip(
            zip(*(one[step] for one in self.capacity), strict=True), zip(*(one[step] for one in self.used), strict=True), strict=True
        )
        up = compress(rows, self.is_up[step])
        return Counter(tuple(max(0, has - used) for has, used in zip(*row, strict=True)) for row in up)

    def _vector(self, wanted: dict[str, int]) -> tuple[tuple[int, int], ...]:
        return tuple((self._index[name], amount) for name, amount in ({PODS: 1} | wanted).items() if amount > 0 and name in self._index)


_PROBE = "korch.dev-probe"


def _is_ignored(engine: native.Scheduler, profile: str, resource: str) -> bool:
    node = {"metadata": {"name": _PROBE}, "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "9"}}}
    engine.upsert([orjson.dumps(node)], [])
    wanted = {"cpu": "2", "memory": "2Gi"}.get(resource, "1")
    container = {"name": "probe", "resources": {"requests": {resource: wanted}}}
    metadata = {"name": "probe", "namespace": "default", "uid": "probe"}
    pod = {"metadata": metadata, "spec": {"schedulerName": profile, "containers": [container]}}
    decision = engine.schedule([orjson.dumps(pod)], now_ms=0, seed=0)[0]
    engine.remove("Pod", [decision.key])
    return bool(decision.node)
