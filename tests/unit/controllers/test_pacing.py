"""Objects with many pods are not reconciled at every event of each of them."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.controllers.conftest import World, replica_set, simulate

from korch.api.gvk import PODS, REPLICA_SETS
from korch.controllers.replicaset import ReplicaSetController
from korch.controllers.workload.pacing import Pacer


def test_a_large_object_waits_a_millisecond_a_pod_and_a_small_one_never() -> None:
    async def story(_world: World) -> None:
        pacer = Pacer()
        pacer.worked("large", 500)
        pacer.worked("small", 20)
        assert (pacer.wait_s("large"), pacer.wait_s("small"), pacer.wait_s("new")) == (0.5, 0.0, 0.0)
        await asyncio.sleep(0.2)
        assert pacer.wait_s("large") == pytest.approx(0.3)
        pacer.worked("large", 0)
        assert pacer.wait_s("large") == 0

    simulate(story)


def test_many_changes_of_many_pods_cost_few_turns() -> None:
    async def story(world: World) -> None:
        turns = 0

        class Counting(ReplicaSetController):
            async def claimed(self, *given: object, **more: object) -> list[dict[str, object]]:
                nonlocal turns
                turns += 1
                return await super().claimed(*given, **more)  # type: ignore[arg-type]

        async with world.running(Counting(world.client, world.informers, world.runtime)):
            await world.make(REPLICA_SETS, replica_set("web", 200))
            await asyncio.sleep(1)
            before = turns
            for pod in await world.all(PODS):
                await world.run_pod(pod["metadata"]["name"])
                await asyncio.sleep(0.005)
            await asyncio.sleep(1)
            assert (await world.get(REPLICA_SETS, "web"))["status"]["readyReplicas"] == 200
            assert turns - before <= 10

    simulate(story)
