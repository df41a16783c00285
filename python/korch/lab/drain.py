"""What happens when nodes are drained: which pods move where, which stay pending, which a disruption budget or nobody's care holds back.

The nodes are cordoned, then their pods are evicted in the order of their names, as far as disruption budgets allow; every evicted pod
that somebody owns is made again and scheduled. One that found a node is taken to become healthy and gives its budgets the disruption
back, so eviction goes on in rounds until a round moves nothing. As with `kubectl drain`, pods of DaemonSets and static pods stay;
pods that nobody owns would be lost, which is reported and needs `--force` there. A budget whose status says nothing (one from a
workload file) gets its allowance from its spec and the pods that run. Mirrors kubectl's drain and the eviction API in outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import orjson

from korch.api.meta import Object, at, key_of, labels_of, name_of, namespace_of
from korch.api.selectors import from_label_selector, matches
from korch.lab.cluster import Cluster
from korch.lab.ledger import Ledger
from korch.lab.policies import DEFAULT, Policy
from korch.lab.simulation import Fate, fate_of, template_of
from korch.lab.source import BadInput, Place


class Outcome(Enum):
    """What becomes of a pod on a drained node."""

    MOVED = "moved"
    PENDING = "pending"
    BLOCKED = "blocked"
    STAYS = "stays"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Move:
    """One pod: where it was, what becomes of it, the node that it goes to (or an empty one), and why where that is not plain."""

    pod: str
    from_node: str
    outcome: Outcome
    to_node: str = ""
    why: str = ""


@dataclass(slots=True)
class Drained:
    """The moves in the order in which they happened, how many rounds of evictions they took, and pods elsewhere that were preempted."""

    policy: str
    nodes: list[str]
    moves: list[Move] = field(default_factory=list)
    rounds: int = 0
    preempted: list[str] = field(default_factory=list)

    def count(self, outcome: Outcome) -> int:
        """Return how many pods had this outcome."""
        return sum(1 for one in self.moves if one.outcome is outcome)


def drain(cluster: Cluster, nodes: Sequence[str], policy: Policy = DEFAULT) -> Drained:
    """Return what happens when all of these nodes are drained together. Blocks. Raises BadInput for a node that is not there."""
    known = {name_of(one) for one in cluster.nodes}
    for node in nodes:
        if node not in known:
            raise BadInput(Place("--drain"), f'nodes "{node}" not found')
    return _Drain(cluster, list(dict.fromkeys(nodes)), policy).run()


class _Budget:
    def __init__(self, budget: Object, pods: Sequence[Object]) -> None:
        self.key = key_of(budget)
        self._namespace = namespace_of(budget)
        selector = at(budget, "spec", "selector")
        self._requirements = None if selector is None else from_label_selector(selector)
        # Before a controller has seen the budget its status says 0.
        allowed = at(budget, "status", "disruptionsAllowed") if at(budget, "status", "observedGeneration") else None
        self.allowed: int = _allowed(budget, sum(1 for pod in pods if self.covers(pod))) if allowed is None else allowed

    def covers(self, pod: Object) -> bool:
        is_here = namespace_of(pod) == self._namespace
        return is_here and self._requirements is not None and matches(self._requirements, labels_of(pod))


def _allowed(budget: Object, count: int) -> int:
    """Return how many of `count` running pods may be disrupted. Mirrors the disruption controller, all pods being wanted and healthy."""
    least, most = at(budget, "spec", "minAvailable"), at(budget, "spec", "maxUnavailable")
    if most is not None:
        return max(0, _scaled(most, count))
    return max(0, count - _scaled(least, count)) if least is not None else 0


def _scaled(value: str | int, count: int) -> int:
    return math.ceil(int(value.removesuffix("%")) * count / 100) if isinstance(value, str) else value


def _cordoned(node: Object) -> Object:
    return {**node, "spec": {**(node.get("spec") or {}), "unschedulable": True}}


class _Drain:
    def __init__(self, cluster: Cluster, nodes: list[str], policy: Policy) -> None:
        self._drained = Drained(policy.name, nodes)
        self._leaving = set(nodes)
        self._pods = sorted((pod for pod in cluster.pods if at(pod, "spec", "nodeName") in self._leaving), key=key_of)
        bound = [pod for pod in cluster.pods if at(pod, "spec", "nodeName")]
        self._budgets = [_Budget(one, bound) for one in cluster.of_kind("PodDisruptionBudget")]
        self._engine = policy.engine()
        # The account of what is where, to check the engine by.
        self._kinds = {key_of(pod): kind for kind, pod in enumerate(bound)}
        self._at = {key_of(pod): pod["spec"]["nodeName"] for pod in bound}
        self._ledger = Ledger(cluster.nodes, [template_of(pod) for pod in bound])
        self._ledger.unchecked(self._engine, self._engine.profiles())
        for pod in bound:
            if self._at[key_of(pod)] in self._ledger.number:
                self._ledger.seat(self._kinds[key_of(pod)], self._ledger.number[self._at[key_of(pod)]])
        state = [_cordoned(one) if name_of(one) in self._leaving else one for one in cluster.nodes]
        self._engine.upsert([orjson.dumps(one) for one in state], [orjson.dumps(one) for one in bound], cluster.engine_others())

    def run(self) -> Drained:
        left: list[Object] = []
        for pod in self._pods:
            fate = fate_of(pod)
            if fate is Fate.COMES_AGAIN:
                left.append(pod)
            elif fate is Fate.RETURNS_WITH_NODE:
                self._note(pod, Outcome.STAYS, why="it belongs to the node")
            else:
                self._note(pod, Outcome.LOST, why="nobody owns it and would make it again")
        while left:
            blocked = [pod for pod in left if not self._evict(pod)]
            self._drained.rounds += 1
            if len(blocked) == len(left):
                break
            left = blocked
        for pod in left:
            names = ", ".join(one.key for one in self._budgets if one.covers(pod) and one.allowed < 1)
            self._note(pod, Outcome.BLOCKED, why=f"Cannot evict pod as it would violate the pod's disruption budget {names}.")
        return self._drained

    def _evict(self, pod: Object) -> bool:
        """Evict a pod and schedule the one that takes its place; return whether it could be evicted."""
        budgets = [one for one in self._budgets if one.covers(pod)]
        if any(one.allowed < 1 for one in budgets):
            return False
        for one in budgets:
            one.allowed -= 1
        key = key_of(pod)
        self._take_away(key)
        again = template_of(pod)
        again["metadata"] |= {"name": name_of(pod), "uid": f"{key}, again"}
        decision = self._engine.schedule([orjson.dumps(again)], now_ms=0, seed=0)[0]
        if decision.victims:
            for victim, _ in decision.victims:
                self._drained.preempted.append(victim)
                self._take_away(victim)
            decision = self._engine.schedule([orjson.dumps(again)], now_ms=0, seed=0)[0]
        if not decision.node:
            self._note(pod, Outcome.PENDING, why=decision.message)
            return True
        self._ledger.place(self._kinds[key], self._ledger.number[decision.node])
        for one in budgets:
            one.allowed += 1
        self._note(pod, Outcome.MOVED, to_node=decision.node)
        self._at[key] = decision.node
        return True

    def _take_away(self, key: str) -> None:
        self._engine.remove("Pod", [key])
        if self._at[key] in self._ledger.number:
            self._ledger.free(self._kinds[key], self._ledger.number[self._at[key]])

    def _note(self, pod: Object, outcome: Outcome, *, to_node: str = "", why: str = "") -> None:
        self._drained.moves.append(Move(key_of(pod), pod["spec"]["nodeName"], outcome, to_node, why))
