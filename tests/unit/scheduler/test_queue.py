"""Pods wait where they should: by priority, backing off, or until the cluster changes in a way that could help them."""

from __future__ import annotations

import asyncio

import pytest

from korch.client.projections import ObjectMeta
from korch.scheduler.pods import PodSpec, PodStatus, PodView, SchedulingGate
from korch.scheduler.queue import Place, SchedulingQueue


class Hand:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def queue(clock: Hand) -> SchedulingQueue:
    return SchedulingQueue(clock)


def pod(name: str, *, priority: int = 0, uid: str = "1", gated: bool = False, labels: dict[str, str] | None = None) -> PodView:
    gates = [SchedulingGate("wait")] if gated else []
    meta = ObjectMeta(name=name, namespace="d", uid=uid, labels=labels or {})
    return PodView(metadata=meta, spec=PodSpec(priority=priority, schedulingGates=gates))


def names(queue: SchedulingQueue, limit: int = 10) -> list[str]:
    return [one.pod.name for one in queue.pop_ready(limit)]


def test_higher_priority_goes_first_and_equals_in_order_of_arrival(queue: SchedulingQueue) -> None:
    for name, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        queue.add(pod(name, priority=priority))
    assert names(queue, 3) == ["b", "d", "a"]
    assert names(queue) == ["c"]


def test_a_gated_pod_is_not_tried_until_its_gates_are_gone(queue: SchedulingQueue) -> None:
    queue.add(pod("a", gated=True))
    assert names(queue) == []
    queue.update(pod("a", gated=True), pod("a"))
    assert names(queue) == ["a"]


def test_only_pods_that_are_unschedulable_are_woken(queue: SchedulingQueue) -> None:
    for name, plugin in (("a", "NodePorts"), ("b", "NodeName"), ("c", "NodeName")):
        queue.add(pod(name))
        queue.requeue(queue.pop_ready(1)[0], frozenset({plugin}))
    queue.add(pod("d"))
    assert queue.wake(["d/a", "d/d", "d/unknown"]) == 1
    assert queue.move(lambda plugins: "NodeName" in plugins, ["d/c"]) == 1
    assert queue.rejected_by("NodeName") == ["d/b"]
    assert sorted(names(queue) + names(queue) + names(queue)) == ["a", "c", "d"]


def test_backoff_doubles_from_one_second_to_ten_and_errors_are_never_tried_early(queue: SchedulingQueue, clock: Hand) -> None:
    queue.add(pod("a"))
    for expected in (1, 2, 4, 8, 10, 10):
        [queued] = queue.pop_ready(1)
        queue.requeue_after_error(queued)
        assert queued.backoff_until - clock.at == expected
        clock.at += expected - 0.01
        assert names(queue) == []
        clock.at += 0.01


def test_pods_in_backoff_are_taken_early_when_nothing_is_active(queue: SchedulingQueue) -> None:
    queue.add(pod("a"))
    queue.requeue(queue.pop_ready(1)[0], frozenset())
    queue.wake(["d/a"])
    queue.add(pod("b"))
    assert queue.place("d/a") is Place.BACKOFF
    assert names(queue) == ["b"]
    assert names(queue) == ["a"]


def test_an_unschedulable_pod_is_tried_again_after_five_minutes_whatever_happens(queue: SchedulingQueue, clock: Hand) -> None:
    queue.add(pod("a"))
    queue.requeue(queue.pop_ready(1)[0], frozenset({"NodeName"}))
    clock.at += 299
    # News of its status neither wakes it nor lets it wait longer.
    queue.update(pod("a"), PodView(metadata=pod("a").metadata, status=PodStatus(phase="Pending")))
    assert names(queue) == []
    clock.at += 1
    assert names(queue) == ["a"]


def test_a_change_of_the_pod_itself_gives_it_another_try(queue: SchedulingQueue) -> None:
    queue.add(pod("a"))
    queue.requeue(queue.pop_ready(1)[0], frozenset({"NodeAffinity"}))
    queue.update(pod("a"), pod("a", labels={"x": "y"}))
    assert names(queue) == ["a"]


def test_a_pod_deleted_or_replaced_while_in_flight_is_not_put_back(queue: SchedulingQueue) -> None:
    queue.add(pod("a"))
    queue.add(pod("b"))
    first, second = queue.pop_ready(2)
    queue.delete("d/a")
    queue.add(pod("b", uid="2"))
    queue.requeue(first, frozenset())
    queue.requeue_after_error(second)
    assert [one.pod.uid for one in queue.pop_ready(5)] == ["2"]
    assert "d/a" not in queue


async def test_pop_waits_until_something_may_be_tried(queue: SchedulingQueue, clock: Hand) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(queue.pop(5))
        await asyncio.sleep(0)
        assert not waiting.done()
        queue.add(pod("a"))
    [queued] = waiting.result()
    queue.requeue_after_error(queued)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(queue.pop(5))
        await asyncio.sleep(0)
        assert not waiting.done()
        clock.at += 1
        queue.add(pod("b"))
    assert [one.key for one in waiting.result()] == ["d/a", "d/b"]


async def test_whoever_waits_looks_at_the_cluster_when_it_changed(queue: SchedulingQueue) -> None:
    queue.add(pod("a"))
    queue.requeue(queue.pop_ready(1)[0], frozenset({"NodeName"}))
    may_fit: list[str] = []
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(queue.pop(5, lambda: void(queue.wake(may_fit))))
        await asyncio.sleep(0)
        queue.notice()
        await asyncio.sleep(0)
        assert not waiting.done()
        may_fit.append("d/a")
        queue.notice()
    assert [one.key for one in waiting.result()] == ["d/a"]


def void(_: object) -> None:
    """Return nothing."""


def test_counts_say_how_many_pods_wait_where(queue: SchedulingQueue) -> None:
    queue.add(pod("a"))
    queue.add(pod("b", gated=True))
    assert {place: count for place, count in queue.counts().items() if count} == {"active": 1, "gated": 1}
