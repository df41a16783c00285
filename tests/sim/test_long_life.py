"""A day in the life of a small cluster: the store forgets every five minutes, the server dies now and then, and work goes on.

A day costs more than a minute of processor time; so eight hours of one seed run always, and KORCH_LONG_LIVES=N runs N seeds of a day.
"""

from __future__ import annotations

import os

import pytest

from korch.api.gvk import CONFIG_MAPS, DEPLOYMENTS, EVENTS
from korch.testing.cluster import SimCluster
from korch.testing.objects import deployment

STEP_S = 300.0
LIVES = int(os.environ.get("KORCH_LONG_LIVES", "0"))
STEPS = (24 if LIVES else 8) * 12
# The store keeps what was written since the compaction before the last, and in a small cluster that is heartbeats.
HISTORY_MAX = 2_000


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(LIVES or 1))
def test_a_day_of_compactions_and_crashes_leaves_the_cluster_as_it_was_asked_for_and_no_larger(seed: int) -> None:
    cluster = SimCluster(seed)
    cluster.run(live_a_day)


async def live_a_day(cluster: SimCluster) -> None:
    chance = cluster.rng.stream("day")
    cluster.nodes(2)
    await cluster.apply(deployment("web", replicas=3))
    await cluster.settle()
    asked, notes, crashes, floor = 3, {}, 0, 0
    sizes: list[dict[str, int]] = []
    for step in range(STEPS):
        if chance.random() < 0.06:
            crashes += 1
            await cluster.run_for(STEP_S * chance.random())
            cluster.crash_server()
            await cluster.run_for(30 * chance.random())
            cluster.start_server()
        if chance.random() < 0.1:
            asked = 1 + int(5 * chance.random())
            await cluster.scale(DEPLOYMENTS, "web", asked)
        notes[f"c{step % 10}"] = str(step)
        await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{step % 10}"}, "data": {"step": str(step)}})
        await cluster.run_for(STEP_S)
        before, floor = floor, await cluster.compact()
        assert floor > before, "a day without news"
        sizes.append(cluster.stored())
    assert crashes >= STEPS // 60
    await cluster.settle()
    assert cluster.running("web") == len(cluster.pods("web")) == asked
    assert {name: (await cluster.get(CONFIG_MAPS, name))["data"]["step"] for name in notes} == notes
    last = sizes[-1]
    assert max(one["events"] for one in sizes[1:]) < HISTORY_MAX, "history grows"
    assert last["keys"] < 2 * max(one["keys"] for one in sizes[:12]), "objects pile up"
    assert len(await cluster.list(EVENTS)) < 100, "events do not go"
