"""The heartbeat of a node: often enough, and in step with others where many nodes share a process."""

from __future__ import annotations

import asyncio
import itertools

import orjson
import pytest

from korch.api.gvk import LEASES, NODES
from korch.client.lease import NODE_LEASE_NAMESPACE, NodeLease
from korch.runtime.clock import parse_rfc3339
from korch.runtime.context import simulated
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop

NAMES = ("a", "b", "c")


async def renewals(tick_s: float) -> dict[str, list[float]]:
    """Run three leases that begin at odd times for two minutes; return when each was renewed after its begin."""
    runtime = simulated(7)
    client = BareClient(runtime)
    tasks: list[asyncio.Task[None]] = []
    for name in NAMES:
        await client.create(NODES, {"metadata": {"name": name}})
        tasks.append(asyncio.create_task(NodeLease(client, name, runtime, renew_s=20.0, tick_s=tick_s).run()))
        await asyncio.sleep(0.37)
    found: dict[str, list[float]] = {name: [] for name in NAMES}
    seen: dict[str, str] = {}
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() < began + 120:
        for name in NAMES:
            lease = orjson.loads(await client.get(LEASES, name, namespace=NODE_LEASE_NAMESPACE))
            renewed = lease["spec"]["renewTime"]
            if name in seen and seen[name] != renewed:
                found[name].append(parse_rfc3339(renewed))
            seen[name] = renewed
        await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    return found


@pytest.mark.parametrize("tick_s", [0.0, 5.0])
def test_renewals_of_many_nodes_fall_on_common_ticks_and_are_never_much_later(tick_s: float) -> None:
    found = SimLoop().run(renewals(tick_s))
    times = [time for each in found.values() for time in each]
    assert all(len(each) >= 4 for each in found.values())
    for each in found.values():
        gaps = [later - earlier for earlier, later in itertools.pairwise(each)]
        assert all(20.0 <= gap <= 20.8 + tick_s for gap in gaps)
    phases = {round(time % 5.0, 3) for time in times}
    assert len(phases) == 1 if tick_s else len(phases) > 3
