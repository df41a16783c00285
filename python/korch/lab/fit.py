"""Do these pods fit, and how many nodes does it take? Both are asked of the engine itself, pod by pod, with nothing preempted.

`place_all` gives each pod to the engine in the order of the scheduling queue (priority, then the order of the workload) and notes where
it goes or why it goes nowhere. `fewest_nodes` looks for the smallest number of nodes of a shape, added to the cluster, with which all
find a place. More nodes can be worse for a scheduler that takes one pod after the other, so a bisection would not do alone: where that
many trials are affordable, every number from the least that the sums of the requests allow is tried, and the answer says so.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import orjson

from korch._core import native
from korch.api.meta import Object, at, name_of
from korch.api.pods import amounts
from korch.lab.cluster import Cluster
from korch.lab.daemons import with_daemons
from korch.lab.ledger import Ledger
from korch.lab.machines import Shape
from korch.lab.policies import DEFAULT, Policy
from korch.lab.simulation import combined
from korch.lab.source import BadInput, Place
from korch.lab.workload import PodBytes, Workload

# How many pods may be placed below a bisection's answer to be sure that no smaller number would do, in how many trials.
PROOF_PODS = 150_000
TRIALS_MIN, TRIALS_MAX = 4, 64
NODES_MAX = 100_000
_BY_NODE_ALONE = frozenset({"NodeResourcesFit", "NodeAffinity", "NodeName", "NodeUnschedulable", "TaintToleration", "NodeDeclaredFeatures"})


@dataclass(slots=True)
class Fit:
    """Where pods go: `placed` node by pod, and `refused` the scheduler's words by pod, both in the order in which they were tried."""

    policy: str
    placed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Return whether every pod has a node."""
        return not self.refused

    def reasons(self) -> list[tuple[str, int]]:
        """Return the scheduler's words with the number of pods that they were said about, the most frequent first."""
        return sorted(Counter(self.refused.values()).items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True, slots=True)
class NodesNeeded:
    """`count` nodes of the shape are enough, and no smaller number is.

    `is_proved` tells whether every smaller number was tried or cannot do by the sums of the requests; otherwise those closest below
    were tried. `tried` is the number of trials."""

    shape: str
    count: int
    is_proved: bool
    tried: int


def place_all(cluster: Cluster, workload: Workload, policy: Policy = DEFAULT) -> Fit:
    """Return where the cluster's waiting pods and the workload's tasks go. Blocks. Raises OverCommitted."""
    trial = _Trial(cluster, workload, policy)
    found = Fit(policy.name)
    for task in trial.order:
        pod = trial.bytes[trial.tasks.kinds[task]].of(trial.tasks.names[task])
        decision = trial.engine.schedule([pod], now_ms=0, seed=0)[0]
        if decision.node:
            trial.ledger.place(trial.tasks.kinds[task], trial.ledger.number[decision.node])
            found.placed[trial.tasks.key(task)] = decision.node
        else:
            found.refused[trial.tasks.key(task)] = decision.message
    return found


def fewest_nodes(cluster: Cluster, workload: Workload, shape: Shape, policy: Policy = DEFAULT) -> NodesNeeded:
    """Return how many nodes of a shape, beside those of the cluster, let every waiting pod and task find a node. Blocks.

    Raises BadInput when no number would do: a pod does not fit on an empty node of the shape, or more than 100,000 are needed.
    Raises OverCommitted when the engine gave a node more than it has."""
    search = _Search(cluster, workload, shape, policy)
    least = search.least()
    search.refuse_hopeless(least)
    high, step = least, max(1, least // 64)
    while not search.fits(high):
        if high >= NODES_MAX:
            raise BadInput(Place(f"node shape {shape.text!r}"), f"not even {NODES_MAX:,} nodes are enough: {search.why_not(high)}")
        high, step = min(NODES_MAX, high + step), step * 2
    low = max([one for one in search.tried if not search.tried[one]], default=least - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if search.fits(middle) else (middle, high)
    from_ = max(least, high - search.affordable())
    count = next((one for one in range(from_, high) if search.fits(one)), high)
    search.check(count)
    return NodesNeeded(shape.text, count, from_ == least, len(search.tried))


class _Trial:
    """An engine with a cluster in it, a ledger, and what is to be tried."""

    def __init__(self, cluster: Cluster, workload: Workload, policy: Policy) -> None:
        self.tasks, residents = combined(cluster, workload)
        self.engine: native.Scheduler = policy.engine()
        self.ledger = Ledger(cluster.nodes, self.tasks.templates)
        self.ledger.unchecked(self.engine, self.engine.profiles())
        bound = [orjson.dumps(pod) for pod in cluster.pods if at(pod, "spec", "nodeName")]
        self.engine.upsert([orjson.dumps(one) for one in cluster.nodes], bound, cluster.engine_others())
        for task, (home, _) in enumerate(residents):
            if home in self.ledger.number:
                self.ledger.seat(self.tasks.kinds[task], self.ledger.number[home])
        self.bytes = [PodBytes(one) for one in self.tasks.templates]
        priorities = [self.tasks.priority(kind) for kind in range(len(self.tasks.templates))]
        waiting = range(len(residents), len(self.tasks))
        self.order = sorted(waiting, key=lambda task: -priorities[self.tasks.kinds[task]])


class _Search:
    """Trials with different numbers of nodes; each number is tried once."""

    def __init__(self, cluster: Cluster, workload: Workload, shape: Shape, policy: Policy) -> None:
        self._cluster, self._workload, self._shape, self._policy = cluster, workload, shape, policy
        self._base = _Trial(cluster, workload, policy)
        tasks, order = self._base.tasks, self._base.order
        self._kinds = [tasks.kinds[task] for task in order]
        self._names = [tasks.names[task] for task in order]
        self._templates = [one.of("template") for one in self._base.bytes]
        self._nodes = [orjson.dumps(one) for one in cluster.nodes]
        self._pods = [orjson.dumps(pod) for pod in cluster.pods if at(pod, "spec", "nodeName")]
        self._others = cluster.engine_others()
        self._daemon_sets = cluster.of_kind("DaemonSet")
        taken = {name_of(one) for one in cluster.nodes}
        self._prefix = next(name for name in ("added", "added-too", "korch-added") if not any(one.startswith(f"{name}-") for one in taken))
        self._added: list[bytes] = []
        # Where everything went in the trial with the fewest nodes of those that did.
        self._placed: list[str] = []
        self._placed_on = NODES_MAX + 1
        self.tried: dict[int, bool] = {}

    def fits(self, count: int) -> bool:
        """Return whether all find a place with so many more nodes."""
        if count not in self.tried:
            while len(self._added) < count:
                self._added.append(orjson.dumps(self._node(len(self._added))))
            engine = self._policy.engine()
            engine.upsert(self._nodes + self._added[:count], self._pods, self._others)
            engine.add_templates(self._templates)
            nodes = engine.play(self._kinds, self._names, seed=0)
            self.tried[count] = len(nodes) == len(self._kinds)
            if self.tried[count] and count < self._placed_on:
                self._placed_on, self._placed = count, nodes
        return self.tried[count]

    def check(self, count: int) -> None:
        """Book all placements of the smallest number that did. Raises OverCommitted when a node was given more than it has."""
        assert count == self._placed_on, "the answer is a number that was tried"
        ledger = _Trial(self._with(count), self._workload, self._policy).ledger
        for kind, node in zip(self._kinds, self._placed, strict=True):
            ledger.place(kind, ledger.number[node])

    def least(self) -> int:
        """Return the least number that the sums of the requests allow."""
        ledger = self._base.ledger
        capacity = amounts(at(self._node(0), "status", "allocatable"))
        wanted = [0] * len(ledger.resources)
        for kind in self._kinds:
            for index, amount in ledger.takes[kind]:
                wanted[index] += amount
        needed = 0
        for index, name in enumerate(ledger.resources):
            free = sum(max(0, has - used) for has, used in zip(ledger.capacity[index], ledger.used[index], strict=True))
            missing = wanted[index] - free
            if missing > 0 and capacity.get(name, 0) > 0 and name not in self._ignored():
                needed = max(needed, math.ceil(missing / capacity[name]))
        return needed

    def affordable(self) -> int:
        """Return how many trials may be made to prove an answer."""
        return min(TRIALS_MAX, max(TRIALS_MIN, PROOF_PODS // max(1, len(self._kinds))))

    def why_not(self, count: int) -> str:
        """Return the scheduler's words about a pod that finds no place with so many more nodes."""
        found = place_all(self._with(count), self._workload, self._policy)
        return f"{next(iter(found.refused))}: {next(iter(found.refused.values()))}" if found.refused else ""

    def refuse_hopeless(self, count: int) -> None:
        """Raise BadInput when a pod that fits on no node of the shape finds no place with `count` of them either."""
        misfits = self._misfits()
        if not misfits:
            return
        found = place_all(self._with(count), self._workload, self._policy)
        tasks = self._base.tasks
        for task in self._base.order:
            key = tasks.key(task)
            if key in found.refused and tasks.kinds[task] in misfits:
                raise BadInput(Place(f"node shape {self._shape.text!r}"), f"{key} fits on no node of it: {misfits[tasks.kinds[task]]}")

    def _misfits(self) -> dict[int, str]:
        """Return the templates that an empty node of the shape cannot take, with the scheduler's words.

        What needs other pods nearby is not judged alone."""
        engine = self._policy.engine()
        engine.upsert([orjson.dumps(self._node(0))], [], self._others)
        found: dict[int, str] = {}
        for kind in dict.fromkeys(self._kinds):
            decision = engine.schedule([self._base.bytes[kind].of("alone")], now_ms=0, seed=0)[0]
            engine.remove("Pod", [decision.key])
            if not decision.node and _BY_NODE_ALONE.issuperset(decision.plugins):
                found[kind] = decision.message
        return found

    def _with(self, count: int) -> Cluster:
        added = [self._node(number) for number in range(count)]
        return Cluster(self._cluster.nodes + added, self._cluster.pods, self._cluster.others)

    def _node(self, number: int) -> Object:
        return with_daemons(self._shape.node(f"{self._prefix}-{number}"), self._daemon_sets)

    def _ignored(self) -> list[str]:
        engine = self._policy.engine()
        return self._base.ledger.unchecked(engine, engine.profiles())
