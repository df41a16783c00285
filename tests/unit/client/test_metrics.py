"""Controllers show their work queues under the names that dashboards for Kubernetes know."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, generate_latest

from korch.api.gvk import CONFIG_MAPS
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.metrics import ControllerMetrics
from korch.runtime.context import simulated
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop


class Slow(Controller):
    """Takes two seconds a key and fails at the first try."""

    name = "slow"
    workers = 1
    watches = (Watch(CONFIG_MAPS),)

    async def reconcile(self, key: str) -> Requeue | None:
        await asyncio.sleep(2)
        if not self.queue.failures(key):
            raise ConnectionError("try again")
        return None


def test_depth_adds_retries_and_durations_are_shown() -> None:
    runtime = simulated(1)

    async def main() -> str:
        client = BareClient(runtime)
        controller = Slow(client, Informers(client, runtime), runtime)
        registry = CollectorRegistry()
        registry.register(ControllerMetrics([controller]))
        task = asyncio.get_running_loop().create_task(controller.run())
        for name in "abc":
            await client.create(CONFIG_MAPS, {"metadata": {"name": name}}, namespace="d")
        await asyncio.sleep(5)
        busy = generate_latest(registry).decode()
        assert 'workqueue_depth{name="slow"} 2.0' in busy
        await asyncio.sleep(20)
        task.cancel()
        return generate_latest(registry).decode()

    shown = SimLoop().run(main())
    for line in (
        'workqueue_depth{name="slow"} 0.0',
        'workqueue_adds_total{name="slow"} 6.0',
        'workqueue_retries_total{name="slow"} 3.0',
        'workqueue_work_duration_seconds_count{name="slow"} 6.0',
        'workqueue_work_duration_seconds_sum{name="slow"} 12.0',
        'korch_controller_synced{name="slow"} 1.0',
    ):
        assert line in shown.splitlines()
