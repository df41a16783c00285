"""A controller keeps objects as they should be, whatever happens to its calls and watches."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from korch.api.gvk import CONFIG_MAPS, PODS, ResourceRef
from korch.client.controller import Controller, Requeue, Watch, controller_uids, owner_of
from korch.client.informer import Informers
from korch.client.projections import split_key
from korch.runtime.context import Runtime
from korch.runtime.rng import Rng
from korch.testing.bare import BareClient


class Copies(Controller):
    """For every ConfigMap there shall be `data.copies` pods that it owns."""

    name = "copies"
    watches = (Watch(CONFIG_MAPS), Watch(PODS, keys=owner_of("ConfigMap"), indexes={"owner": controller_uids}))
    reconciles = 0

    async def reconcile(self, key: str) -> Requeue | None:
        self.reconciles += 1
        namespace, name = split_key(key)
        owner = self.informer(CONFIG_MAPS).get(namespace, name)
        if owner is None:
            return None
        raw = self.informer(CONFIG_MAPS).raw(key)
        assert raw is not None
        wanted = int(orjson.loads(raw)["data"]["copies"])
        have = self.informer(PODS).by_index("owner", owner.uid)
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": owner.uid, "controller": True}
        for _ in range(wanted - len(have)):
            pod = {"metadata": {"generateName": f"{name}-", "ownerReferences": [reference]}}
            self.wrote(key, PODS, await self.client.create(PODS, pod, namespace=namespace))
        return None


async def has_pods(client: BareClient, count: int) -> None:
    async with asyncio.timeout(5):
        while len((await client.list(PODS)).items) != count:
            await asyncio.sleep(0.001)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(rng=Rng(7))


async def running(controller: Controller, group: asyncio.TaskGroup) -> asyncio.Task[None]:
    task = group.create_task(controller.run())
    while not controller.is_synced:
        await asyncio.sleep(0)
    return task


async def test_objects_that_exist_and_objects_that_come_later_are_both_reconciled(runtime: Runtime) -> None:
    client = BareClient(runtime)
    await client.create(CONFIG_MAPS, {"metadata": {"name": "before"}, "data": {"copies": "2"}}, namespace="d")
    async with asyncio.TaskGroup() as group:
        task = await running(Copies(client, Informers(client, runtime), runtime), group)
        await has_pods(client, 2)
        await client.create(CONFIG_MAPS, {"metadata": {"name": "after"}, "data": {"copies": "3"}}, namespace="d")
        await has_pods(client, 5)
        task.cancel()


async def test_a_key_is_not_reconciled_before_its_own_writes_are_seen(runtime: Runtime) -> None:
    client = BareClient(runtime)
    await client.create(CONFIG_MAPS, {"metadata": {"name": "web"}, "data": {"copies": "5"}}, namespace="d")
    async with asyncio.TaskGroup() as group:
        controller = Copies(client, Informers(client, runtime), runtime)
        task = await running(controller, group)
        # More events of the owner arrive while the pods' watch is broken: a controller that acts on the stale cache would make five more.
        await has_pods(client, 5)
        for number in range(3):
            await client.patch(CONFIG_MAPS, "web", {"data": {"n": str(number)}}, namespace="d")
            client.cut_watches()
            await asyncio.sleep(0.01)
        await has_pods(client, 5)
        task.cancel()


async def test_a_failed_reconcile_is_retried_until_it_succeeds(runtime: Runtime) -> None:
    client = BareClient(runtime)
    failures = 6

    def fault(verb: str, resource: ResourceRef) -> None:
        nonlocal failures
        if verb == "create" and resource == PODS and failures:
            failures -= 1
            raise ConnectionError("the network is away")

    await client.create(CONFIG_MAPS, {"metadata": {"name": "web"}, "data": {"copies": "1"}}, namespace="d")
    client.fault = fault
    async with asyncio.TaskGroup() as group:
        controller = Copies(client, Informers(client, runtime), runtime)
        task = await running(controller, group)
        await has_pods(client, 1)
        assert controller.reconciles >= 7
        task.cancel()
