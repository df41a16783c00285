"""Every namespace has its default ServiceAccount and the cluster's certificate authority."""

from __future__ import annotations

import asyncio

from tests.unit.controllers.conftest import World

from korch.api.gvk import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from korch.controllers.config import ControllerConfig
from korch.controllers.root_ca import RootCaController
from korch.controllers.serviceaccount import ServiceAccountController


async def test_a_new_namespace_gets_its_service_account_and_gets_it_back(world: World) -> None:
    async with world.running(ServiceAccountController(world.client, world.informers, world.runtime)):
        await world.make(NAMESPACES, {"metadata": {"name": "d"}})
        (account,) = await world.count(SERVICE_ACCOUNTS, 1)
        assert account["metadata"]["name"] == "default"
        await world.delete(SERVICE_ACCOUNTS, "default")
        (again,) = await world.count(SERVICE_ACCOUNTS, 1)
        assert again["metadata"]["uid"] != account["metadata"]["uid"]


async def test_the_root_certificate_is_published_and_repaired(world: World) -> None:
    config = ControllerConfig(root_ca_pem="PEM")
    async with world.running(RootCaController(world.client, world.informers, world.runtime, config)):
        await world.make(NAMESPACES, {"metadata": {"name": "d"}})
        (published,) = await world.count(CONFIG_MAPS, 1)
        assert (published["metadata"]["name"], published["data"]) == ("kube-root-ca.crt", {"ca.crt": "PEM"})
        await world.change(CONFIG_MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "forged", "more": "x"}})

        async def is_repaired() -> bool:
            return (await world.get(CONFIG_MAPS, "kube-root-ca.crt"))["data"] == {"ca.crt": "PEM"}

        await world.until(is_repaired)


async def test_a_terminating_namespace_is_left_alone(world: World) -> None:
    await world.make(NAMESPACES, {"metadata": {"name": "gone"}, "status": {"phase": "Terminating"}})
    async with world.running(ServiceAccountController(world.client, world.informers, world.runtime)):
        await world.make(NAMESPACES, {"metadata": {"name": "d"}})
        await world.count(SERVICE_ACCOUNTS, 1)
        await asyncio.sleep(0)
        assert [one["metadata"]["namespace"] for one in await world.all(SERVICE_ACCOUNTS)] == ["d"]
