"""A cluster on virtual time: tasks come, are placed by korch's engine in the order of korch's scheduling queue, run, and end.

Time jumps from one event to the next; a decision takes none. Three streams of events are merged: arrivals by time, ends of tasks that
started when they came, and a heap of everything that only shows as it goes on (ends of tasks that waited, nodes that fail, return, are
added or removed). At one instant ends come first, then nodes, then arrivals; then the queue hands out pods until none may be tried.
A task that is preempted or loses its node comes again and has to run from the start.

Most of the time nothing waits. Then events are not stepped through but handed to the engine in long batches (`Scheduler.play`), which
ends at the first pod without a node; from there it is stepped until the queue is empty again. Both ways give the same result, and
`is_batched=False` keeps to the steps. Every placement is booked in a ledger that knows nothing of the engine and refuses to over-commit.
"""

from __future__ import annotations

import enum
import heapq
import math
from array import array
from dataclasses import dataclass, field

import orjson

from korch._core import native
from korch.api.meta import Object, at, name_of, namespace_of
from korch.client.projections import ObjectMeta
from korch.lab.cluster import Cluster
from korch.lab.cluster_events import ClusterEvent
from korch.lab.events import Autoscaling, Failure, RandomFailures
from korch.lab.growth import Growth
from korch.lab.ledger import Ledger
from korch.lab.policies import DEFAULT, Policy
from korch.lab.results import Records, Run
from korch.lab.sampling import Sampler
from korch.lab.workload import PodBytes, Workload
from korch.scheduler.pods import PodSpec, PodView
from korch.scheduler.queue import BACKOFF_S_MAX, Place, QueuedPod, SchedulingQueue

BATCH_EVENTS = 8192
# A task runs at least so long, so that its end comes after its begin.
DURATION_S_MIN = 0.001
# Pods that only these plugins rejected stay rejected while pods are placed and none goes.
_NOT_HELPED_BY_PLACEMENTS = frozenset(
    {"NodeResourcesFit", "NodeAffinity", "NodeName", "NodeUnschedulable", "TaintToleration", "NodePorts", "NodeDeclaredFeatures"}
)
# Kinds of events on the heap, in the order in which they happen at one instant.
_END, _DOWN, _UP, _IDLE, _BOOTED, _SCAN, _AGAIN = range(7)


@dataclass(frozen=True)
class Options:
    """How a simulation goes, besides what it is given. Times are seconds."""

    seed: int = 0
    until_s: float = math.inf
    samples: int = 200
    failures: tuple[Failure, ...] = ()
    random_failures: RandomFailures | None = None
    autoscaling: Autoscaling | None = None
    restart_delay_s: float = 0.0
    is_batched: bool = True


def simulate(cluster: Cluster, workload: Workload, policy: Policy = DEFAULT, options: Options | None = None) -> Run:
    """Run a workload on a cluster to its end, or to `until_s`, and return what came of it. Blocks.

    Raises OverCommitted when the engine gave a node more than it has."""
    return Simulation(cluster, workload, policy, options or Options()).run()


class Fate(enum.Enum):
    """What becomes of a pod that was there from the begin when it is stopped."""

    COMES_AGAIN = "its owner makes it again, wherever there is room"
    RETURNS_WITH_NODE = "it belongs to the node"
    IS_GONE = "nobody owns it"


def combined(cluster: Cluster, workload: Workload) -> tuple[Workload, list[tuple[str, Fate]]]:
    """Return one workload of the cluster's pods and the workload's tasks, pods with a node first, and node and fate of these."""
    bound = [pod for pod in cluster.pods if at(pod, "spec", "nodeName")]
    waiting = [pod for pod in cluster.pods if not at(pod, "spec", "nodeName")]
    whole = Workload()
    for pod in bound + waiting:
        whole.add(name_of(pod), whole.template(template_of(pod)))
    whole.extend(workload)
    return whole, [(pod["spec"]["nodeName"], fate_of(pod)) for pod in bound]


def fate_of(pod: Object) -> Fate:
    """Return what becomes of a pod that has a node when it is stopped."""
    owners = [one.get("kind") for one in at(pod, "metadata", "ownerReferences") or () if one.get("controller")]
    if not owners:
        return Fate.IS_GONE
    return Fate.RETURNS_WITH_NODE if owners[0] in ("DaemonSet", "Node") else Fate.COMES_AGAIN


def template_of(pod: Object) -> Object:
    """Return a pod as it was before it had a name and a node: what a controller would make again."""
    metadata = {key: value for key, value in (pod.get("metadata") or {}).items() if key in ("namespace", "labels", "ownerReferences")}
    metadata["namespace"] = namespace_of(pod) or "default"
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    return {"metadata": metadata, "spec": spec}


@dataclass(slots=True)
class _Static:
    """Events that are known from the begin: a list of tasks in order, and how far it has been gone through."""

    order: list[int]
    at: int = 0


@dataclass(slots=True)
class _Batch:
    """Events for `Scheduler.play`: templates (-1: the pod goes), names, tasks, and how far departures had been gone through."""

    templates: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)


class Simulation:
    """One run. Use `simulate`."""

    def __init__(self, cluster: Cluster, workload: Workload, policy: Policy, options: Options) -> None:
        self.options = options
        self.tasks, self._residents = combined(cluster, workload)
        self.now = self._lively_until = 0.0
        self._policy = policy
        self._engine = policy.engine()
        self.ledger = Ledger(cluster.nodes, self.tasks.templates)
        count = len(self.tasks)
        self.records = Records.of(count)
        self.outcome = Run(
            policy.name, options.seed, self.tasks, self.records, self.ledger, Sampler.empty(self.ledger), len(self._residents)
        )
        self.outcome.unchecked = self.ledger.unchecked(self._engine, self._engine.profiles())
        self._node_bytes = {name_of(node): orjson.dumps(node) for node in cluster.nodes}
        self._engine.upsert(list(self._node_bytes.values()), [], cluster.engine_others())
        self._bytes = [PodBytes(one) for one in self.tasks.templates]
        self._engine.add_templates([one.of("template") for one in self._bytes])
        self._priorities = [self.tasks.priority(kind) for kind in range(len(self.tasks.templates))]
        self._spaces = [self.tasks.namespace(kind) for kind in range(len(self.tasks.templates))]
        self._durations = array("d", (max(one, DURATION_S_MIN) for one in self.tasks.durations_s))
        self.queue = SchedulingQueue(lambda: self.now)
        self._heap: list[tuple[float, int, int, int, int]] = []
        self._pushed = 0
        # 1: the task runs since it came, so that its end is in `_ends`.
        self._is_nominal = bytearray(count)
        self._incarnations = array("i", [0]) * count
        self._since = array("d", [math.nan]) * count
        self._running_s = [0.0] * len(self.tasks.templates)
        self._on_node: dict[int, set[int]] | None = None
        self._numbers: dict[str, int] | None = None
        # What the scheduler said last about templates that it would refuse again as long as nothing goes or comes.
        self._refusals: dict[int, tuple[frozenset[str], str]] = {}
        # What was forgotten of that at this instant, because pods went from these nodes: nowhere else there is more room than before.
        self._hopes: dict[int, tuple[tuple[frozenset[str], str], set[int]]] = {}
        self._nominated: set[int] = set()
        # Pods that wait for such a reason, by template; and the keys of those that wait for other reasons.
        self._parked: dict[int, dict[str, QueuedPod]] = {}
        self._unsettled: dict[str, None] = {}
        # When pods went last, and when they did before that.
        self._gone_at = self._woken_at = -math.inf
        self.enqueued = 0
        self._must_step = False
        self._running = 0
        self._capacity_since = 0.0
        self._capacity_area = [0.0] * len(self.ledger.resources)
        self._growth = Growth(options.autoscaling, cluster, policy, self) if options.autoscaling is not None else None
        # A claim that a pod's volume makes is named after the pod, which a template cannot know.
        makes_claims = any("ephemeral" in volume for one in self.tasks.templates for volume in at(one, "spec", "volumes") or ())
        self._may_play = options.is_batched and self._growth is None and not makes_claims
        self._arrivals, self._ends = self._streams()
        self._sampler = Sampler(self.outcome, self._nominal_end(), options.samples)

    # ---- the course of a run ----

    def run(self) -> Run:
        """Go from one event to the next until there is none. Blocks."""
        self._seat_residents()
        self._plan_failures()
        is_stuck = False
        while True:
            due = self._next_event()
            wakes = self.queue.next_due() if not is_stuck else None
            time = min(due, math.inf if wakes is None else wakes)
            if time > self.options.until_s or time == math.inf:
                break
            if self._may_play and due < math.inf and not len(self.queue) and not self._must_step:
                self._play()
                self._lively_until = self.now
                continue
            placed = self._step(time)
            # When nothing else will ever happen, pods that waited in vain once more would do so for ever.
            is_stuck = due == math.inf and not placed
            if not is_stuck:
                self._lively_until = self.now
        return self._finish()

    def _next_event(self) -> float:
        arrivals, ends = self._arrivals, self._ends
        time = self._heap[0][0] if self._heap else math.inf
        if arrivals.at < len(arrivals.order):
            time = min(time, self.tasks.arrivals_s[arrivals.order[arrivals.at]])
        while ends.at < len(ends.order) and not self._is_due(ends.order[ends.at]):
            ends.at += 1
        return min(time, self._end_of(ends.order[ends.at])) if ends.at < len(ends.order) else time

    def _is_due(self, task: int) -> bool:
        """Return whether the end of a task may still come as it was planned: it runs since it came, or is yet to come."""
        return bool(self._is_nominal[task]) or (
            self.records.started_s[task] != self.records.started_s[task] and not self._incarnations[task]
        )

    def _end_of(self, task: int) -> float:
        return self.tasks.arrivals_s[task] + self._durations[task]

    def _streams(self) -> tuple[_Static, _Static]:
        arrivals, kinds, priorities = self.tasks.arrivals_s, self.tasks.kinds, self._priorities
        coming = range(len(self._residents), len(self.tasks))
        by_arrival = sorted(coming, key=lambda task: (arrivals[task], -priorities[kinds[task]]))
        finite = [task for task in coming if self._durations[task] < math.inf]
        return _Static(by_arrival), _Static(sorted(finite, key=self._end_of))

    def _nominal_end(self) -> float:
        last = self.tasks.arrivals_s[self._arrivals.order[-1]] if self._arrivals.order else 0.0
        if self._ends.order:
            last = max(last, self._end_of(self._ends.order[-1]))
        return min(last, self.options.until_s)

    def _finish(self) -> Run:
        run = self.outcome
        # Without a given end it is the last event; what waited in vain after that is not one.
        end = self.options.until_s if self.options.until_s < math.inf else self._lively_until
        self._sampler.cut(end)
        self._sampler.reach(end, self._running, len(self.queue), is_last=True)
        run.horizon_s = end
        self._count_capacity(end)
        for task, since in enumerate(self._since):
            if since == since:
                self._running_s[self.tasks.kinds[task]] += end - since
        area = [0.0] * len(self.ledger.resources)
        for kind, seconds in enumerate(self._running_s):
            for index, amount in self.ledger.takes[kind]:
                area[index] += amount * seconds
        run.used_area = dict(zip(self.ledger.resources, area, strict=True))
        run.capacity_area = dict(zip(self.ledger.resources, self._capacity_area, strict=True))
        return run

    # ---- many events at once ----

    def _play(self) -> None:
        batch = self._gather()
        if not batch.templates:
            due = self._next_event()
            # Either a sample is due before the next event, or that one is on the heap.
            self._must_step = due <= self._sampler.next_s
            if not self._must_step:
                self._sampler.reach(due, self._running, 0)
            return
        nodes = iter(self._engine.play(batch.templates, batch.names, seed=0))
        number, arrivals = self.ledger.number, self.tasks.arrivals_s
        for template, task in zip(batch.templates, batch.tasks, strict=True):
            if template < 0:
                self.now = self._end_of(task)
                self._ends.at += 1
                self._release(task)
                self.records.ended_s[task] = self.now
                continue
            node = next(nodes, None)
            if node is None:
                self._must_step = True
                return
            self.now = arrivals[task]
            self._arrivals.at += 1
            self._is_nominal[task] = 1
            self._book(task, number[node])

    def _gather(self) -> _Batch:
        """Collect the next events, none later than the next sample, as they will be if every pod finds a node when it comes."""
        batch = _Batch()
        bound = min(self._sampler.next_s, self.options.until_s)
        before = self._heap[0][0] if self._heap else math.inf
        arrivals, ends = self._arrivals.order, self._ends.order
        times, kinds, names, spaces = self.tasks.arrivals_s, self.tasks.kinds, self.tasks.names, self._spaces
        coming, going = self._arrivals.at, self._ends.at
        while len(batch.templates) < BATCH_EVENTS:
            arrival = times[arrivals[coming]] if coming < len(arrivals) else math.inf
            end = self._end_of(ends[going]) if going < len(ends) else math.inf
            if min(arrival, end) > bound or min(arrival, end) >= before:
                break
            if end <= arrival:
                task = ends[going]
                if not self._is_due(task):
                    # Passed over by `_next_event` when the batch has come so far.
                    if batch.templates:
                        break
                    self._ends.at += 1
                    going += 1
                    continue
                going += 1
                batch.templates.append(-1)
                batch.names.append(f"{spaces[kinds[task]]}/{names[task]}")
            else:
                task = arrivals[coming]
                coming += 1
                batch.templates.append(kinds[task])
                batch.names.append(names[task])
            batch.tasks.append(task)
        return batch

    # ---- one instant ----

    def _step(self, time: float) -> bool:
        """Do everything that happens at `time`; return whether a pod was placed."""
        self._sampler.reach(time, self._running, len(self.queue))
        self._must_step = False
        self._hopes.clear()
        self.now = time
        self._end_tasks(time)
        while self._heap and self._heap[0][0] <= time:
            _, kind, _, subject, incarnation = heapq.heappop(self._heap)
            self._happen(kind, subject, incarnation)
        arrivals = self._arrivals
        while arrivals.at < len(arrivals.order) and self.tasks.arrivals_s[arrivals.order[arrivals.at]] <= time:
            self._enqueue(arrivals.order[arrivals.at])
            arrivals.at += 1
        placed = self._decide()
        if self._growth is not None and len(self.queue):
            self._growth.look(time)
        return placed

    def _end_tasks(self, time: float) -> None:
        ends = self._ends
        gone: list[int] = []
        while ends.at < len(ends.order) and self._end_of(ends.order[ends.at]) <= time:
            task = ends.order[ends.at]
            ends.at += 1
            if self._is_nominal[task]:
                gone.append(task)
        while self._heap and self._heap[0][0] <= time and self._heap[0][1] == _END:
            _, _, _, task, incarnation = heapq.heappop(self._heap)
            if incarnation == self._incarnations[task] and self._since[task] == self._since[task]:
                gone.append(task)
        for task in gone:
            self._release(task)
            self.records.ended_s[task] = time
        self._remove(gone)

    def _remove(self, tasks: list[int]) -> None:
        """Take the pods of these tasks from the engine and give those another try that this may help."""
        if not tasks:
            return
        self._engine.remove("Pod", [self.tasks.key(task) for task in tasks])
        if not len(self.queue):
            self._refusals.clear()
            return
        nodes = {self.records.nodes[task] for task in tasks}
        self._gone_at, self._woken_at = self.now, self._gone_at if self._gone_at < self.now else self._woken_at
        for _, among in self._hopes.values():
            among |= nodes
        helped = [kind for kind in self._parked if self._may_help(kind, nodes)]
        for kind in helped:
            if kind in self._refusals:
                self._hopes[kind] = (self._refusals[kind], set(nodes))
        self._wake(ClusterEvent.POD_GONE, helped)

    def _may_help(self, kind: int, nodes: set[int]) -> bool:
        """Return whether a template that was refused may be taken now that pods are gone from these nodes, preemption included."""
        refusal = self._refusals.get(kind)
        if refusal is None:
            return True
        return ClusterEvent.POD_GONE.may_help(refusal[0]) and self.ledger.may_have_room_on(kind, nodes)

    def _wake(self, event: ClusterEvent, kinds: list[int]) -> None:
        """Give another try to one pod of each of these templates (the next follows when it gets a node) and to all that wait for
        other reasons."""
        for kind in kinds:
            self._refusals.pop(kind, None)
            parked = self._parked[kind]
            first = min(parked.values(), key=QueuedPod.rank)
            if first.place is not Place.UNSCHEDULABLE:
                continue
            # Asked at the event before, it would have been refused again and be in backoff since.
            first.backoff_until = max(first.backoff_until, self._woken_at + BACKOFF_S_MAX)
            self.queue.move(event.may_help, (first.key,))
        if self._unsettled:
            self.queue.move(event.may_help, tuple(self._unsettled))

    def _happen(self, kind: int, subject: int, incarnation: int) -> None:
        if kind == _DOWN:
            self._fail(subject, incarnation)
        elif kind == _UP:
            self.node_up(subject)
        elif kind == _AGAIN:
            self._enqueue(subject)
        elif self._growth is not None:
            if kind == _BOOTED:
                self._growth.booted()
            elif kind == _IDLE:
                self._growth.remove_if_idle(subject, incarnation)
            else:
                self._growth.scan()

    def _enqueue(self, task: int) -> None:
        self.enqueued += 1
        kind, name = self.tasks.kinds[task], self.tasks.names[task]
        metadata = ObjectMeta(name=name, namespace=self._spaces[kind], uid=name)
        spec = PodSpec(priority=self._priorities[kind])
        queued = _Waiting(metadata=metadata, spec=spec, task=task)
        self.queue.add(queued)

    def _decide(self) -> bool:
        """Try pods until the queue has none that may be tried; return whether one was placed."""
        placed = False
        while popped := self.queue.pop_ready(1):
            queued = popped[0]
            task = _task_of(queued)
            kind = self.tasks.kinds[task]
            self._unpark(kind, queued.key)
            refusal = self._refusals.get(kind)
            if refusal is not None and task not in self._nominated:
                self._park(queued, task, refusal)
                continue
            decision = self._engine.schedule([self._bytes[kind].of(self.tasks.names[task])], now_ms=int(self.now * 1000), seed=0)[0]
            if decision.node:
                placed = True
                self.queue.delete(queued.key)
                self._start(task, self.ledger.number[decision.node])
                self._follow(kind)
            else:
                self._refuse(queued, task, decision)
        return placed

    def _follow(self, kind: int) -> None:
        """Give another try to the next pod that waits of a template of which one was placed, unless the room that there was is gone."""
        if kind not in self._parked or kind in self._refusals:
            return
        hope = self._hopes.get(kind)
        if hope is not None and not self.ledger.may_have_room_on(kind, hope[1]):
            self._refusals[kind] = hope[0]
        else:
            self._wake(ClusterEvent.NODE_ADD, [kind])

    def _unpark(self, kind: int, key: str) -> None:
        self._unsettled.pop(key, None)
        parked = self._parked.get(kind)
        if parked is not None and parked.pop(key, None) is not None and not parked:
            del self._parked[kind]

    def _park(self, queued: QueuedPod, task: int, refusal: tuple[frozenset[str], str]) -> None:
        """Let a pod wait until something comes or goes that may help pods of its template."""
        self.records.attempts[task] += 1
        self.outcome.waiting[task] = refusal[1]
        self.queue.requeue(queued, refusal[0])
        self._parked.setdefault(self.tasks.kinds[task], {})[queued.key] = queued

    def _refuse(self, queued: QueuedPod, task: int, decision: native.Decision) -> None:
        plugins = frozenset(decision.plugins)
        was_nominated = task in self._nominated
        if decision.nominated:
            self._nominated.add(task)
        elif decision.clears_nomination:
            self._nominated.discard(task)
        # Every pod that nobody makes room for is told that what it was nominated for is void, most were for nothing.
        is_void = decision.clears_nomination and was_nominated
        if decision.nominated or decision.displaced or is_void:
            self._refusals.clear()
            self._hopes.clear()
        if plugins and plugins <= _NOT_HELPED_BY_PLACEMENTS and not decision.nominated:
            refusal = self._refusals[self.tasks.kinds[task]] = (plugins, decision.message)
            self._park(queued, task, refusal)
        else:
            self.records.attempts[task] += 1
            self.outcome.waiting[task] = decision.message
            self.queue.requeue(queued, plugins)
            self._unsettled[queued.key] = None
        if decision.victims:
            self._preempt([key for key, _ in decision.victims])

    def _start(self, task: int, node: int) -> None:
        duration = self._durations[task]
        is_on_time = self.now == self.tasks.arrivals_s[task] and not self._incarnations[task]
        self._is_nominal[task] = is_on_time and duration < math.inf
        if not is_on_time and duration < math.inf:
            self.push(self.now + duration, _END, task, self._incarnations[task])
        self._nominated.discard(task)
        self.outcome.waiting.pop(task, None)
        self._book(task, node)
        if self._unsettled:
            self.queue.move(ClusterEvent.POD_BOUND.may_help, tuple(self._unsettled))

    # ---- what is where ----

    def _book(self, task: int, node: int) -> None:
        """Count a task as started on a node now."""
        kind = self.tasks.kinds[task]
        self.ledger.place(kind, node)
        self._note_start(task, node)

    def _note_start(self, task: int, node: int) -> None:
        self.records.nodes[task] = node
        started = self.records.started_s
        if started[task] != started[task]:
            started[task] = self.now
        self._since[task] = self.now
        self._running += 1
        if self._on_node is not None:
            self._on_node.setdefault(node, set()).add(task)

    def _release(self, task: int) -> None:
        """Count a task as no longer running."""
        node, kind = self.records.nodes[task], self.tasks.kinds[task]
        self.ledger.free(kind, node)
        self._running_s[kind] += self.now - self._since[task]
        self._since[task] = math.nan
        self._is_nominal[task] = 0
        self._running -= 1
        if self._on_node is not None:
            self._on_node[node].discard(task)
        if self._growth is not None and self.ledger.is_empty(node):
            self._growth.became_empty(node)

    def _seat_residents(self) -> None:
        if self.options.failures or self.options.random_failures:
            self._on_node = {}
        homes = [(task, self.ledger.number.get(home)) for task, (home, _) in enumerate(self._residents)]
        self._seat([(task, node) for task, node in homes if node is not None])

    def _seat(self, places: list[tuple[int, int]]) -> None:
        """Put tasks on nodes without asking anybody, as (task, node)."""
        pods: list[bytes] = []
        for task, node in places:
            kind = self.tasks.kinds[task]
            pod = orjson.loads(self._bytes[kind].of(self.tasks.names[task]))
            pod["spec"]["nodeName"] = self.ledger.names[node]
            pods.append(orjson.dumps(pod))
            self.ledger.seat(kind, node)
            self._note_start(task, node)
        self._engine.upsert([], pods)

    # ---- disruption ----

    def _preempt(self, keys: list[str]) -> None:
        if self._numbers is None:
            self._numbers = {self.tasks.key(task): task for task in range(len(self.tasks))}
        victims = [self._numbers[key] for key in keys]
        self.outcome.preemptions += len(victims)
        self._stop(victims, "preempted by a pod of higher priority")

    def _stop(self, tasks: list[int], why: str) -> None:
        """Stop tasks before their end; those that somebody would make again come back to the queue."""
        for task in tasks:
            self.outcome.lost_work_s += self.now - self._since[task]
            self._release(task)
            self._incarnations[task] += 1
            self.records.restarts[task] += 1
            self.outcome.waiting[task] = why
        self._remove(tasks)
        for task in tasks:
            self.records.nodes[task] = -1
            if task >= len(self._residents) or self._residents[task][1] is Fate.COMES_AGAIN:
                if self.options.restart_delay_s:
                    self.push(self.now + self.options.restart_delay_s, _AGAIN, task)
                else:
                    self._enqueue(task)

    def _plan_failures(self) -> None:
        failures = list(self.options.failures)
        if self.options.random_failures is not None:
            failures += self.options.random_failures.draw(self.ledger.names, self._nominal_end(), self.options.seed)
        self._failures = failures
        self._daemons: dict[str, list[int]] = {}
        for task, (home, fate) in enumerate(self._residents):
            if fate is Fate.RETURNS_WITH_NODE:
                self._daemons.setdefault(home, []).append(task)
        for index, one in enumerate(failures):
            self.push(one.at_s, _DOWN, self.ledger.number[one.node], index)

    def _fail(self, node: int, index: int) -> None:
        if not self.ledger.is_up[node]:
            return
        self.outcome.node_failures += 1
        lost = sorted((self._on_node or {}).get(node, ()))
        self.outcome.killed_by_failures += len(lost)
        self._stop(lost, f"node {self.ledger.names[node]} failed")
        self.node_down(node)
        repair = self._failures[index].repair_s
        if repair is not None:
            self.push(self.now + repair, _UP, node)

    # ---- nodes that come and go ----

    def push(self, time: float, kind: int, subject: int = 0, incarnation: int = 0) -> None:
        """Let something happen at a later time."""
        self._pushed += 1
        heapq.heappush(self._heap, (time, kind, self._pushed, subject, incarnation))

    def node_down(self, node: int) -> None:
        """Take a node away that no task is on."""
        self._count_capacity(self.now)
        self.ledger.set_up(node, False)
        self._engine.remove("Node", [self.ledger.names[node]])

    def node_up(self, node: int) -> None:
        """Bring a node back; the pods of DaemonSets that were on it return with it."""
        name = self.ledger.names[node]
        self._count_capacity(self.now)
        self.ledger.set_up(node, True)
        self._engine.upsert([self._node_bytes[name]], [])
        daemons = self._daemons.get(name, [])
        self._seat([(task, node) for task in daemons])
        for task in daemons:
            self.outcome.waiting.pop(task, None)
        self._refusals.clear()
        self._hopes.clear()
        self._wake(ClusterEvent.NODE_ADD, list(self._parked))

    def node_added(self, node: Object) -> int:
        """Add a node that was not there before; return its number."""
        self._node_bytes[name_of(node)] = orjson.dumps(node)
        self._count_capacity(self.now)
        number = self.ledger.add_node(node)
        self._engine.upsert([self._node_bytes[name_of(node)]], [])
        self._refusals.clear()
        self._hopes.clear()
        self._wake(ClusterEvent.NODE_ADD, list(self._parked))
        return number

    def waiting_tasks(self) -> list[int]:
        """Return the tasks that the scheduler refused last, in the order of their numbers."""
        return sorted(task for task in self.outcome.waiting if self.tasks.key(task) in self.queue)

    def _count_capacity(self, now: float) -> None:
        for index, total in enumerate(self.ledger.total_capacity):
            self._capacity_area[index] += total * (now - self._capacity_since)
        self._capacity_since = now


class _Waiting(PodView, frozen=True):
    """A pod in the queue that knows its task."""

    task: int = -1


def _task_of(queued: QueuedPod) -> int:
    pod = queued.pod
    assert isinstance(pod, _Waiting)
    return pod.task
