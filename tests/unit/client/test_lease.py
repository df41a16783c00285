"""Leader election: at most one leads at any moment, and somebody leads soon after the leader is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
import pytest

from korch.api.gvk import LEASES
from korch.client.lease import LeaderElector, Timing
from korch.runtime.context import Runtime, simulated
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop
from korch.testing.network import Faults, SimNetwork

T = TypeVar("T")


class Contest:
    """Candidates a, b and c over a network, and who led when."""

    def __init__(self, runtime: Runtime, faults: Faults = Faults()) -> None:
        self.server = BareClient(runtime)
        self.network = SimNetwork(runtime.rng, faults)
        self.leading: set[str] = set()
        self.history: list[tuple[float, str]] = []
        self.runtime = runtime
        self.tasks: dict[str, asyncio.Task[None]] = {}
        for name in "abc":
            self.start(name)

    def start(self, name: str) -> None:
        elector = LeaderElector(self.network.client(self.server, name), "controllers", name, self.runtime)
        self.tasks[name] = asyncio.get_running_loop().create_task(elector.run(lambda: self._lead(name)))

    async def _lead(self, name: str) -> None:
        assert not self.leading, f"{name} leads beside {self.leading}"
        self.leading.add(name)
        self.history.append((asyncio.get_running_loop().time(), name))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.leading.discard(name)

    @property
    def leader(self) -> str:
        (name,) = self.leading
        return name


def simulate(story: Callable[[Runtime], Awaitable[T]], seed: int = 1) -> T:
    runtime = simulated(seed)

    async def main() -> T:
        return await story(runtime)

    return SimLoop().run(main())


def test_one_of_three_leads_and_keeps_leading() -> None:
    async def story(runtime: Runtime) -> None:
        contest = Contest(runtime)
        await asyncio.sleep(600)
        assert len(contest.history) == 1
        lease = orjson.loads(await contest.server.get(LEASES, "controllers", namespace="kube-system"))
        assert lease["spec"]["holderIdentity"] == contest.leader
        assert lease["spec"]["leaseTransitions"] == 0

    simulate(story)


def test_a_leader_that_ends_hands_over_at_once() -> None:
    async def story(runtime: Runtime) -> float:
        contest = Contest(runtime)
        await asyncio.sleep(60)
        first = contest.leader
        contest.tasks[first].cancel()
        await asyncio.sleep(60)
        assert contest.leader != first
        return contest.history[1][0] - 60

    assert simulate(story) < 6


def test_a_leader_that_is_cut_off_stops_before_the_next_one_starts() -> None:
    async def story(runtime: Runtime) -> float:
        contest = Contest(runtime)
        await asyncio.sleep(60)
        first = contest.leader
        contest.network.partition(first)
        await asyncio.sleep(60)
        assert contest.leader != first
        contest.network.heal_all()
        await asyncio.sleep(120)
        assert len(contest.history) == 2
        return contest.history[1][0] - 60

    assert 13 <= simulate(story) <= 25


@pytest.mark.parametrize("seed", range(25))
def test_never_two_leaders_and_always_one_again(seed: int) -> None:
    async def story(runtime: Runtime) -> None:
        faults = Faults(delay_s_mean=0.05, slow=0.2, slow_s=8.0, lose_request=0.1, lose_response=0.1)
        contest = Contest(runtime, faults)
        random = runtime.rng.stream("story")
        for _ in range(60):
            await asyncio.sleep(20 * random.random())
            name = random.choice("abc")
            if random.random() < 0.3:
                contest.network.partition(name)
            elif random.random() < 0.3:
                contest.tasks[name].cancel()
                await asyncio.gather(contest.tasks[name], return_exceptions=True)
                contest.start(name)
            else:
                contest.network.heal_all()
        contest.network.heal_all()
        contest.network.calm()
        await asyncio.sleep(40)
        assert contest.leader
        assert len(contest.history) > 3
        for task in contest.tasks.values():
            assert not task.done(), task

    simulate(story, seed)


@pytest.mark.parametrize(("duration", "deadline", "retry"), [(10, 10, 2), (15, 2, 2)])
def test_timings_that_would_let_two_lead_are_refused(duration: float, deadline: float, retry: float) -> None:
    with pytest.raises(ValueError, match="leaseDuration > renewDeadline"):
        Timing(lease_duration_s=duration, renew_deadline_s=deadline, retry_period_s=retry)
