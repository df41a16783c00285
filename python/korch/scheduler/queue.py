"""Where pods wait to be scheduled: active, backing off, or unschedulable until the cluster changes.

A new pod is *active*: by priority, then by age. A pod that fitted nowhere is *unschedulable* and stays so until an event of the
cluster could help it (the engine's hints say so, `wake` does it), at most five minutes; it then passes through *backoff*, 1 s doubling
to 10 s with each attempt. When nothing is active, pods in backoff are taken early, except those whose attempt ended in an error. A pod
with scheduling gates is *gated* and not tried at all. Pods of a group wait as one: the group has a place, a rank and a backoff, and is
popped as a whole; while it is not complete it is gated. Mirrors kube-scheduler's PrioritySort and scheduling queue.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, cast

from sortedcontainers import SortedKeyList

from korch.scheduler.pods import PodView

BACKOFF_S_FIRST = 1.0
BACKOFF_S_MAX = 10.0
UNSCHEDULABLE_S_MAX = 300.0


class Place(enum.Enum):
    """Where a pod of the queue is."""

    ACTIVE = "active"
    BACKOFF = "backoff"
    ERROR_BACKOFF = "error backoff"
    UNSCHEDULABLE = "unschedulable"
    GATED = "gated"
    IN_FLIGHT = "in flight"


@dataclass(slots=True, eq=False)
class QueuedPod:
    """A pod that waits. Times are seconds on the runtime's monotonic clock."""

    pod: PodView
    added_at: float
    sequence: int
    place: Place = Place.ACTIVE
    attempts: int = 0
    backoff_until: float = 0.0
    waiting_since: float = 0.0
    plugins: frozenset[str] = field(default_factory=frozenset)
    # The group that it waits with; its place is the group's.
    group: QueuedGroup | None = None

    @property
    def key(self) -> str:
        return self.pod.key

    def rank(self) -> tuple[int, float, int]:
        """Return the order among active pods: higher priority first, then the one that has waited longer."""
        return (-self.pod.spec.priority, self.added_at, self.sequence)


@dataclass(slots=True, eq=False)
class QueuedGroup:
    """Pods that are tried together. `key` is the group's `namespace/name`; times are as a pod's."""

    key: str
    added_at: float
    sequence: int
    place: Place = Place.GATED
    attempts: int = 0
    backoff_until: float = 0.0
    priority: int = 0
    members: dict[str, QueuedPod] = field(default_factory=dict[str, QueuedPod])

    def rank(self) -> tuple[int, float, int]:
        """Return the order among active pods and groups."""
        return (-self.priority, self.added_at, self.sequence)

    def in_order(self) -> list[QueuedPod]:
        """Return its pods in the order in which they are tried. Mirrors PodGroupMemberPodsOrderingFunc."""
        return sorted(self.members.values(), key=lambda one: (-one.pod.spec.priority, -one.attempts, one.added_at, one.pod.name))


class Grouping(Protocol):
    """Who knows the groups."""

    def is_complete(self, key: str) -> bool:
        """Return whether the group exists and has as many pods as it needs."""
        ...

    def priority(self, key: str) -> int:
        """Return the group's priority, 0 when it does not exist."""
        ...


class SchedulingQueue:
    """Pods by key, each in one place. Use from one event loop only; `monotonic` reads the runtime's clock.

    Without `grouping` pods are tried one by one, whatever group they name."""

    def __init__(self, monotonic: Callable[[], float], grouping: Grouping | None = None) -> None:
        self._monotonic = monotonic
        self._grouping = grouping
        self._groups: dict[str, QueuedGroup] = {}
        self._pods: dict[str, QueuedPod] = {}
        self._active: SortedKeyList = SortedKeyList(key=_rank)
        self._backoff: SortedKeyList = SortedKeyList(key=_expiry)
        self._error_backoff: SortedKeyList = SortedKeyList(key=_expiry)
        # In the order in which they were found unschedulable.
        self._unschedulable: dict[str, QueuedPod] = {}
        self._sequence = 0
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, key: str) -> bool:
        return key in self._pods

    def get(self, key: str) -> QueuedPod | None:
        """Return the pod of this key, or None."""
        return self._pods.get(key)

    def group(self, key: str) -> QueuedGroup | None:
        """Return the group of this key that has pods here, or None."""
        return self._groups.get(key)

    def place(self, key: str) -> Place | None:
        """Return where the pod is, or None."""
        found = self._pods.get(key)
        return found.place if found is not None else None

    def counts(self) -> dict[str, int]:
        """Return how many pods are in each place. Upstream's metric: scheduler_pending_pods."""
        counts = dict.fromkeys((place.value for place in Place), 0)
        for one in self._pods.values():
            counts[one.place.value] += 1
        return counts

    def add(self, pod: PodView) -> None:
        """Take in a pod without a node; one of the same name that is here already is replaced."""
        self.delete(pod.key)
        self._sequence += 1
        queued = QueuedPod(pod, self._monotonic(), self._sequence)
        self._pods[pod.key] = queued
        if self._grouping is not None and pod.group_key:
            self._join(queued)
        else:
            self._put(queued, Place.GATED if pod.is_gated else Place.ACTIVE)

    def update(self, old: PodView, new: PodView) -> None:
        """Take in a pod's new state. A change of what it asks for gives it another try; one of its status does not."""
        queued = self._pods.get(new.key)
        if queued is None or queued.pod.uid != new.uid:
            self.add(new)
            return
        place = queued.place
        if queued.group is not None:
            queued.pod = new
            self.regate(queued.group.key)
            return
        if place is Place.GATED and not new.is_gated:
            place = Place.ACTIVE
        elif place is Place.UNSCHEDULABLE and _asks_differently(old, new):
            place = self._after_backoff(queued)
        elif place is not Place.ACTIVE:
            queued.pod = new
            return
        self._take(queued)
        queued.pod = new
        self._put(queued, place)

    def delete(self, key: str) -> None:
        """Forget a pod that is gone or has a node; unknown keys are no error."""
        queued = self._pods.pop(key, None)
        if queued is not None and queued.group is not None:
            self.leave_group(queued)
        elif queued is not None:
            self._take(queued)

    def requeue(self, queued: QueuedPod, plugins: frozenset[str]) -> None:
        """Put back a pod that was popped and that these plugins rejected. Ignored when it was deleted or replaced meanwhile."""
        if self._pods.get(queued.key) is queued:
            queued.plugins = plugins
            queued.backoff_until = self._monotonic() + self._backoff_s(queued)
            self._put(queued, Place.UNSCHEDULABLE)

    def requeue_after_error(self, queued: QueuedPod) -> None:
        """Put back a pod whose attempt failed for no fault of its own: it is tried again after its backoff, not earlier."""
        if self._pods.get(queued.key) is queued:
            queued.plugins = frozenset()
            if self._grouping is not None and queued.pod.group_key:
                self._join(queued, after_error=True)
                return
            queued.backoff_until = self._monotonic() + self._backoff_s(queued)
            self._put(queued, Place.ERROR_BACKOFF)

    def regate(self, key: str) -> None:
        """Look anew whether a group is complete, because it or its pods changed."""
        group = self._groups.get(key)
        if group is None or group.place is Place.IN_FLIGHT:
            return
        place = group.place
        if place is Place.GATED:
            place = Place.ERROR_BACKOFF if group.backoff_until > self._monotonic() else Place.ACTIVE
        self._move(group, place)

    def leave_group(self, queued: QueuedPod) -> None:
        """The pod is no longer tried with its group: it is gone, or has a node."""
        group, queued.group = queued.group, None
        if group is None:
            return
        del group.members[queued.key]
        if not group.members and group.place is not Place.IN_FLIGHT:
            self._take(group)
            del self._groups[group.key]

    def finish(self, group: QueuedGroup, *, is_placed: bool) -> None:
        """Put a group back that was popped, with the pods that have no node yet: at once when enough of it were placed (the others then
        make room if they can), else after a backoff, as often as that takes: nothing wakes a group."""
        if not group.members:
            del self._groups[group.key]
            return
        if is_placed:
            group.attempts, group.backoff_until = 0, 0.0
            if all(one.attempts == 0 for one in group.members.values()):
                group.added_at = self._monotonic()
            self._move(group, Place.ACTIVE)
        else:
            group.added_at = self._monotonic()
            group.backoff_until = group.added_at + self._backoff_s(group)
            self._move(group, Place.ERROR_BACKOFF)

    def _join(self, queued: QueuedPod, *, after_error: bool = False) -> None:
        key = queued.pod.group_key
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = QueuedGroup(key, queued.added_at, queued.sequence)
            if after_error:
                group.attempts = queued.attempts
                group.backoff_until = self._monotonic() + self._backoff_s(queued)
        group.members[queued.key] = queued
        queued.group, queued.place = group, group.place
        self.regate(key)

    def _move(self, group: QueuedGroup, place: Place) -> None:
        """Take a group to a place, or hold it back while it is not complete or one of its pods is gated."""
        assert self._grouping is not None, "else there are no groups"
        is_ready = self._grouping.is_complete(group.key) and not any(one.pod.is_gated for one in group.members.values())
        if place is Place.ACTIVE and group.place is Place.ACTIVE and is_ready and group.priority == self._grouping.priority(group.key):
            return
        self._take(group)
        group.priority = self._grouping.priority(group.key)
        self._put(group, place if is_ready else Place.GATED)
        for one in group.members.values():
            one.place = group.place

    def move(self, may_help: Callable[[frozenset[str]], bool], keys: Iterable[str] | None = None) -> int:
        """Give another try to unschedulable pods (of these `keys` if given) whose rejecting plugins `may_help` says yes to; return how
        many."""
        among = self._unschedulable if keys is None else [key for key in keys if key in self._unschedulable]
        return self.wake([key for key in among if may_help(self._unschedulable[key].plugins)])

    def wake(self, keys: Iterable[str]) -> int:
        """Give another try to those of the pods that are unschedulable; return how many."""
        chosen = [self._unschedulable[key] for key in keys if key in self._unschedulable]
        for queued in chosen:
            self._take(queued)
            self._put(queued, self._after_backoff(queued))
        return len(chosen)

    def rejected_by(self, plugin: str) -> list[str]:
        """Return the keys of the unschedulable pods that this plugin rejected, perhaps among others."""
        return [key for key, queued in self._unschedulable.items() if plugin in queued.plugins]

    def pop_ready(self, limit: int) -> list[QueuedPod]:
        """Take at most `limit` pods that may be tried now, in order, without waiting; each counts as an attempt. Those of a group come
        together, all of them, even beyond `limit`."""
        self._expire()
        popped: list[QueuedPod] = []
        while len(popped) < limit:
            if self._active:
                queued = self._active.pop(0)
            elif self._backoff and not popped:
                queued = min(self._backoff, key=_rank)
                self._backoff.remove(queued)
            else:
                break
            queued.attempts += 1
            queued.place = Place.IN_FLIGHT
            if isinstance(queued, QueuedPod):
                popped.append(queued)
                continue
            for one in queued.in_order():
                one.attempts += 1
                one.place = Place.IN_FLIGHT
                popped.append(one)
        return popped

    def notice(self) -> None:
        """Let whoever awaits `pop` look anew, because the cluster changed."""
        self._news.set()

    async def pop(self, limit: int, look: Callable[[], None] = lambda: None) -> list[QueuedPod]:
        """Await at least one pod that may be tried; return at most `limit`, in order. `look` is called before each try and may wake
        pods."""
        while True:
            self._news.clear()
            look()
            popped = self.pop_ready(limit)
            if popped:
                return popped
            due = self.next_due()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - self._monotonic())):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _backoff_s(self, queued: QueuedPod | QueuedGroup) -> float:
        return min(BACKOFF_S_FIRST * 2.0 ** min(max(queued.attempts - 1, 0), 10), BACKOFF_S_MAX)

    def _after_backoff(self, queued: QueuedPod) -> Place:
        return Place.BACKOFF if queued.backoff_until > self._monotonic() else Place.ACTIVE

    def _expire(self) -> None:
        now = self._monotonic()
        for waiting in (self._backoff, self._error_backoff):
            while waiting and _first(waiting).backoff_until <= now:
                queued = _first(waiting)
                if isinstance(queued, QueuedGroup):
                    self._move(queued, Place.ACTIVE)
                    continue
                self._take(queued)
                self._put(queued, Place.ACTIVE)
        while self._unschedulable:
            oldest = next(iter(self._unschedulable.values()))
            if oldest.waiting_since + UNSCHEDULABLE_S_MAX > now:
                break
            self._take(oldest)
            self._put(oldest, self._after_backoff(oldest))

    def next_due(self) -> float | None:
        """Return when a pod that waits comes up again by time alone, or None."""
        due = [_first(waiting).backoff_until for waiting in (self._backoff, self._error_backoff) if waiting]
        if self._unschedulable:
            due.append(next(iter(self._unschedulable.values())).waiting_since + UNSCHEDULABLE_S_MAX)
        return min(due, default=None)

    def _put(self, queued: QueuedPod | QueuedGroup, place: Place) -> None:
        queued.place = place
        if place is Place.ACTIVE:
            self._active.add(queued)
        elif place is Place.BACKOFF:
            self._backoff.add(queued)
        elif place is Place.ERROR_BACKOFF:
            self._error_backoff.add(queued)
        elif place is Place.UNSCHEDULABLE and isinstance(queued, QueuedPod):
            queued.waiting_since = self._monotonic()
            self._unschedulable[queued.key] = queued
        self._news.set()

    def _take(self, queued: QueuedPod | QueuedGroup) -> None:
        """Take the pod out of its place, leaving `place` as it was."""
        if queued.place is Place.ACTIVE:
            self._active.remove(queued)
        elif queued.place is Place.BACKOFF:
            self._backoff.remove(queued)
        elif queued.place is Place.ERROR_BACKOFF:
            self._error_backoff.remove(queued)
        elif queued.place is Place.UNSCHEDULABLE:
            del self._unschedulable[queued.key]


def _first(waiting: SortedKeyList) -> QueuedPod | QueuedGroup:
    return cast("QueuedPod | QueuedGroup", waiting[0])


def _rank(queued: QueuedPod | QueuedGroup) -> tuple[int, float, int]:
    return queued.rank()


def _expiry(queued: QueuedPod | QueuedGroup) -> tuple[float, int]:
    return (queued.backoff_until, queued.sequence)


def _asks_differently(old: PodView, new: PodView) -> bool:
    return old.spec != new.spec or old.labels != new.labels or old.metadata.generation != new.metadata.generation
