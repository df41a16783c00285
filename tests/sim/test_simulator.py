"""The simulator itself: what breaks is told at once, what never rests is found, and users can bring programs of their own."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from korch.api.errors import Conflict
from korch.api.gvk import CONFIG_MAPS
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.projections import split_key
from korch.client.protocol import Client
from korch.testing.cluster import NotSettled, SimCluster, SimConfig
from korch.testing.loop import NotSimulated
from korch.testing.network import Faults


async def test_a_component_that_crashes_ends_the_wait_of_the_story(cluster: SimCluster) -> None:
    async def buggy(_client: Client) -> None:
        await asyncio.sleep(5)
        raise ZeroDivisionError("a bug")

    cluster.host("buggy", buggy)
    before = cluster.time
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await cluster.run_for("1h")
    assert cluster.time - before == 5
    cluster.forgive()


async def test_a_component_that_returns_is_a_bug_too(cluster: SimCluster) -> None:
    async def short(_client: Client) -> None:
        await asyncio.sleep(1)

    cluster.host("short", short)
    with pytest.raises(AssertionError, match="short/0 returned"):
        await cluster.run_for("1h")
    cluster.forgive()


async def test_who_writes_for_ever_is_found(cluster: SimCluster) -> None:
    await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}})

    async def restless(client: Client) -> None:
        for number in range(1_000_000):
            await client.patch(CONFIG_MAPS, "c", {"data": {"n": str(number)}}, namespace="default")
            await asyncio.sleep(30)

    cluster.host("restless", restless)
    with pytest.raises(NotSettled, match=r"restless +patch +configmaps default/c"):
        await cluster.settle(within="10m")


async def test_threads_and_sockets_are_refused(cluster: SimCluster) -> None:
    with pytest.raises(NotSimulated):
        await asyncio.to_thread(print)
    with pytest.raises(NotSimulated):
        await asyncio.open_connection("127.0.0.1", 1)
    await cluster.run_for("1s")


class Shouting(Controller):
    """An operator as users write them: `data.shout` is `data.say` in capitals."""

    name = "shouting"
    watches = (Watch(CONFIG_MAPS, namespace="default"),)

    async def reconcile(self, key: str) -> Requeue | None:
        raw = self.informer(CONFIG_MAPS).raw(key)
        if raw is None:
            return None
        data = orjson.loads(raw).get("data") or {}
        if "say" in data and data.get("shout") != data["say"].upper():
            namespace, name = split_key(key)
            patch = {"data": {"shout": data["say"].upper()}}
            self.wrote(key, CONFIG_MAPS, await self.client.patch(CONFIG_MAPS, name, patch, namespace=namespace))
        return None


@pytest.mark.sim(faults=Faults(lose_request=0.1, lose_response=0.2, duplicate=0.1, cut_watch_s_mean=5), seeds=10)
async def test_an_operator_of_the_users_own_holds_over_a_bad_network(cluster: SimCluster) -> None:
    async def operator(client: Client) -> None:
        runtime = cluster.runtime()
        await Shouting(client, Informers(client, runtime), runtime).run()

    cluster.host("operator", operator)
    for number in range(10):
        await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}"}, "data": {"say": f"a{number}"}})
        await cluster.run_for("3s")
        if number % 4 == 0:
            cluster.restart("operator")
    for number in range(5):
        await cluster.client.patch(CONFIG_MAPS, f"c{number}", {"data": {"say": "b"}}, namespace="default")
    cluster.heal_all()
    await cluster.settle(within="5m")
    shouts = [(await cluster.get(CONFIG_MAPS, f"c{number}"))["data"]["shout"] for number in range(10)]
    assert shouts == ["B"] * 5 + ["A5", "A6", "A7", "A8", "A9"]


async def test_the_rules_of_the_api_hold_in_simulations_too(cluster: SimCluster) -> None:
    await cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}})
    stale = await cluster.get(CONFIG_MAPS, "c")
    await cluster.client.patch(CONFIG_MAPS, "c", {"data": {"a": "1"}}, namespace="default")
    with pytest.raises(Conflict):
        await cluster.client.update(CONFIG_MAPS, stale, name="c", namespace="default")


def test_the_swarm_of_a_seed_is_always_the_same_and_seeds_differ() -> None:
    faults = [SimCluster(seed, SimConfig(faults=None)).network.faults for seed in (1, 1, *range(2, 30))]
    assert faults[0] == faults[1]
    assert len(set(faults)) > 20
