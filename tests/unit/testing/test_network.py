"""The simulated wire: what it may do to a call, and what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import orjson
import pytest

from korch.api.errors import AlreadyExists
from korch.api.gvk import CONFIG_MAPS
from korch.client.protocol import ListOptions
from korch.runtime.context import simulated
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop
from korch.testing.network import Faults, SimClient, SimNetwork

T = TypeVar("T")


def simulate(seed: int, faults: Faults, story: Callable[[SimNetwork, SimClient, BareClient], Awaitable[T]]) -> tuple[T, SimNetwork]:
    runtime = simulated(seed)
    network = SimNetwork(runtime.rng, faults)

    async def main() -> T:
        server = BareClient(runtime)
        return await story(network, network.client(server, "n1"), server)

    return SimLoop().run(main()), network


def named(name: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "d"}}


async def _create_many(client: SimClient) -> int:
    failed = 0
    for number in range(200):
        try:
            await client.create(CONFIG_MAPS, named(f"c{number}"), namespace="d")
        except (ConnectionError, TimeoutError):
            failed += 1
        except AlreadyExists:
            pass
    return failed


def test_a_lost_request_was_not_executed_and_a_lost_answer_was() -> None:
    async def story(_network: SimNetwork, client: SimClient, server: BareClient) -> tuple[int, int]:
        failed = await _create_many(client)
        return failed, len((await server.list(CONFIG_MAPS)).items)

    (failed, stored), _ = simulate(1, Faults(lose_request=0.3), story)
    assert 0 < failed < 200
    assert stored == 200 - failed
    (failed, stored), _ = simulate(1, Faults(lose_response=0.3), story)
    assert 0 < failed < 200
    assert stored == 200


def test_a_duplicated_request_is_executed_twice_and_answered_once() -> None:
    async def story(_network: SimNetwork, client: SimClient, server: BareClient) -> int:
        await _create_many(client)
        return sum(verb == "create" for verb, _, _ in server.calls)

    executed, network = simulate(1, Faults(duplicate=0.5), story)
    assert executed > 250
    assert network.trace.calls == executed


def test_a_partitioned_host_reaches_nothing_until_it_heals() -> None:
    async def story(network: SimNetwork, client: SimClient, server: BareClient) -> float:
        network.partition("n1")
        with pytest.raises(TimeoutError):
            await client.create(CONFIG_MAPS, named("a"), namespace="d")
        assert (await server.list(CONFIG_MAPS)).items == []
        network.heal_all()
        await client.create(CONFIG_MAPS, named("a"), namespace="d")
        return asyncio.get_running_loop().time()

    took, _ = simulate(1, Faults(), story)
    assert 10 < took < 11


def test_a_watch_over_a_short_partition_loses_nothing_and_keeps_order() -> None:
    async def story(network: SimNetwork, client: SimClient, server: BareClient) -> list[str]:
        names: list[str] = []

        async def read() -> None:
            async with aclosing(client.watch(CONFIG_MAPS, ListOptions(resource_version="1"))) as events:  # type: ignore[type-var]
                async for event in events:
                    names.append(orjson.loads(event.object)["metadata"]["name"])
                    if len(names) == 20:
                        return

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for number in range(20):
                await asyncio.sleep(0.5)
                if number == 5:
                    network.partition("n1")
                if number == 15:
                    network.heal("n1")
                await server.create(CONFIG_MAPS, named(f"c{number:02}"), namespace="d")
        return names

    names, _ = simulate(3, Faults(delay_s_mean=0.3), story)
    assert names == [f"c{number:02}" for number in range(20)]


def test_a_watch_over_a_long_partition_ends_as_a_dead_connection() -> None:
    async def story(network: SimNetwork, client: SimClient, _server: BareClient) -> float:
        network.partition("n2")
        stream = client.watch(CONFIG_MAPS)
        started = asyncio.get_running_loop().create_task(anext(stream))
        await asyncio.sleep(1)
        network.partition("n1")
        with pytest.raises(ConnectionError, match="dead"):
            await started
        return asyncio.get_running_loop().time()

    took, _ = simulate(1, Faults(), story)
    assert 16 <= took <= 31


def test_equal_seeds_give_equal_traces_and_other_seeds_others() -> None:
    async def story(_network: SimNetwork, client: SimClient, _server: BareClient) -> int:
        return await _create_many(client)

    faults = Faults(lose_request=0.1, lose_response=0.1, duplicate=0.1, slow=0.1)
    digests = [simulate(seed, faults, story)[1].trace.digest() for seed in (5, 5, 6)]
    assert digests[0] == digests[1] != digests[2]
