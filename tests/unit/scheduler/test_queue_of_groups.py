"""Pods of a group wait as one: complete or not at all, with one rank and one backoff."""

from __future__ import annotations

import pytest

from korch.client.projections import ObjectMeta
from korch.scheduler.pods import PodSpec, PodView, SchedulingGate, SchedulingGroup
from korch.scheduler.queue import Place, SchedulingQueue


class World:
    """A clock that is moved by hand, and groups that need so many pods: (how many, priority)."""

    def __init__(self) -> None:
        self.now = 100.0
        self.needs: dict[str, tuple[int, int]] = {}
        self.pods: set[str] = set()
        self.queue = SchedulingQueue(lambda: self.now, self)

    def is_complete(self, key: str) -> bool:
        return key in self.needs and sum(one.startswith(key) for one in self.pods) >= self.needs[key][0]

    def priority(self, key: str) -> int:
        return self.needs.get(key, (0, 0))[1]

    def add(self, name: str, group: str = "", *, gated: bool = False, priority: int = 0) -> None:
        if group:
            self.pods.add(f"d/{group}-{name}")
        self.queue.add(pod(name, group, gated=gated, priority=priority))

    def pop(self, limit: int = 10) -> list[str]:
        return [one.pod.name for one in self.queue.pop_ready(limit)]

    def finish(self, group: str, *, is_placed: bool = False) -> None:
        found = self.queue.group(f"d/{group}")
        assert found is not None
        self.queue.finish(found, is_placed=is_placed)

    def leave(self, *names: str) -> None:
        for name in names:
            queued = self.queue.get(f"d/{name}")
            assert queued is not None
            self.queue.leave_group(queued)


def pod(name: str, group: str = "", *, gated: bool = False, priority: int = 0) -> PodView:
    spec = PodSpec(
        priority=priority,
        schedulingGates=[SchedulingGate("wait")] if gated else [],
        schedulingGroup=SchedulingGroup(group) if group else None,
    )
    return PodView(metadata=ObjectMeta(name=name, namespace="d", uid=name), spec=spec)


@pytest.fixture
def world() -> World:
    return World()


def test_a_group_is_held_back_until_it_exists_and_has_its_pods(world: World) -> None:
    world.add("a", "g")
    assert world.queue.place("d/a") is Place.GATED
    world.needs["d/g"] = (2, 0)
    world.queue.regate("d/g")
    assert world.pop() == []
    world.add("b", "g")
    assert world.queue.place("d/a") is world.queue.place("d/b") is Place.ACTIVE
    assert world.pop(1) == ["a", "b"]
    assert world.queue.counts()["in flight"] == 2


def test_one_gated_pod_holds_back_its_whole_group(world: World) -> None:
    world.needs["d/g"] = (1, 0)
    world.add("a", "g")
    world.add("b", "g", gated=True)
    assert world.pop() == []
    world.queue.update(pod("b", "g", gated=True), pod("b", "g"))
    assert world.pop() == ["a", "b"]


def test_a_group_ranks_by_its_own_priority_among_single_pods(world: World) -> None:
    world.needs |= {"d/low": (1, 1), "d/high": (1, 9)}
    world.add("l", "low", priority=1)
    world.add("single", priority=5)
    world.add("h", "high", priority=9)
    assert world.pop() == ["h", "single", "l"]


def test_a_group_that_found_too_little_room_backs_off_longer_each_time_and_is_not_taken_early(world: World) -> None:
    world.needs["d/g"] = (2, 0)
    world.add("a", "g")
    world.add("b", "g")
    for seconds in (1, 2, 4, 8, 10, 10):
        assert world.pop() == ["a", "b"]
        world.finish("g")
        world.now += seconds - 0.1
        assert world.pop() == []
        world.now += 0.2


def test_after_success_the_rest_of_the_group_is_tried_at_once_and_pods_that_came_meanwhile_with_it(world: World) -> None:
    world.needs["d/g"] = (2, 0)
    for name in "abc":
        world.add(name, "g")
    assert world.pop() == ["a", "b", "c"]
    world.add("late", "g")
    assert world.pop() == []
    world.leave("a", "b")
    world.finish("g", is_placed=True)
    assert world.pop() == ["c", "late"]


def test_a_pod_whose_binding_failed_comes_back_to_its_group(world: World) -> None:
    world.needs["d/g"] = (2, 0)
    world.add("a", "g")
    world.add("b", "g")
    assert world.pop() == ["a", "b"]
    world.leave("a", "b")
    world.finish("g", is_placed=True)
    failed = world.queue.get("d/b")
    assert failed is not None
    world.queue.requeue_after_error(failed)
    assert world.queue.place("d/b") is not Place.ACTIVE
    assert world.pop() == []
    world.now += 1.1
    assert world.pop() == ["b"]


def test_what_is_deleted_leaves_the_group_and_an_empty_group_is_forgotten(world: World) -> None:
    world.needs["d/g"] = (1, 0)
    world.add("a", "g")
    world.add("b", "g")
    world.queue.delete("d/a")
    assert world.pop() == ["b"]
    world.queue.delete("d/b")
    world.finish("g")
    assert world.queue.group("d/g") is None
    assert len(world.queue) == 0


def test_a_group_that_is_deleted_holds_its_pods_back_again(world: World) -> None:
    world.needs["d/g"] = (1, 0)
    world.add("a", "g")
    del world.needs["d/g"]
    world.queue.regate("d/g")
    assert world.queue.place("d/a") is Place.GATED
    assert world.pop() == []
