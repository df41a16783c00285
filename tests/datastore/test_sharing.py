"""Two API servers on one cluster of etcd, in one process: whatever one has answered, the other takes into account."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest

from korch.api.errors import AlreadyExists, ApiError, Conflict, Expired, Invalid, NotFound
from korch.api.gvk import CONFIG_MAPS, NAMESPACES, PODS, SERVICE_ACCOUNTS, SERVICES
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.protocol import Binder, Client, ListOptions, PodBinding
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.storage import EtcdStorage, parse_datastore
from tests.datastore.members import EtcdCluster

NAMESPACE = "d"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
async def pair(etcd: EtcdCluster) -> AsyncIterator[tuple[Client, Client]]:
    """Give a client of each server; node ports are few, so that they collide."""
    options = parse_datastore(etcd.datastore, prefix=f"/sharing-{next(_numbers)}")
    storages = [EtcdStorage.connect(options, Runtime()) for _ in range(2)]
    config = ServerConfig(service_cidr="10.96.0.0/27", node_port_range=(30000, 30019))
    first, second = (ApiServer(Runtime(), storage, catalogue(), config).client() for storage in storages)
    await first.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    await second.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, namespace=NAMESPACE)
    yield first, second
    for storage in storages:
        await storage.close()


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


async def test_each_server_reads_changes_and_deletes_what_the_other_has_just_answered(pair: tuple[Client, Client]) -> None:
    for round_number in range(30):
        writer, other = pair if round_number % 2 else reversed(pair)
        name = f"m{round_number}"
        made = orjson.loads(await writer.create(CONFIG_MAPS, config_map(name, a="1"), namespace=NAMESPACE))
        changed = orjson.loads(await other.patch(CONFIG_MAPS, name, {"data": {"a": "2"}}, namespace=NAMESPACE))
        assert changed["metadata"]["uid"] == made["metadata"]["uid"]
        # Made from the older state, and refused on the newest, whoever is asked.
        with pytest.raises(Conflict):
            await writer.update(CONFIG_MAPS, made, name=name, namespace=NAMESPACE)
        # Made from the newest state, and believed, though this server may not have seen it yet.
        changed["data"]["a"] = "3"
        await writer.update(CONFIG_MAPS, changed, name=name, namespace=NAMESPACE)
        # What would be no change on an older state is one on the newest.
        await other.update(CONFIG_MAPS, config_map(name, a="2"), name=name, namespace=NAMESPACE)
        assert orjson.loads(await writer.get(CONFIG_MAPS, name, namespace=NAMESPACE))["data"] == {"a": "2"}
        listed = await other.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE))
        assert [orjson.loads(item)["metadata"]["name"] for item in listed.items] == [name]
        with pytest.raises(AlreadyExists):
            await other.create(CONFIG_MAPS, config_map(name), namespace=NAMESPACE)
        await other.delete(CONFIG_MAPS, name, namespace=NAMESPACE)
        with pytest.raises(NotFound):
            await writer.get(CONFIG_MAPS, name, namespace=NAMESPACE)
        with pytest.raises(NotFound):
            await writer.patch(CONFIG_MAPS, name, {"data": {"a": "2"}}, namespace=NAMESPACE)


async def test_an_object_may_go_into_a_namespace_that_the_other_server_has_just_made(pair: tuple[Client, Client]) -> None:
    first, second = pair
    for number in range(20):
        name = f"space-{number}"
        await first.create(NAMESPACES, {"metadata": {"name": name}})
        await second.create(CONFIG_MAPS, {"metadata": {"name": "m"}}, namespace=name)


async def test_increments_through_both_servers_are_all_counted(pair: tuple[Client, Client]) -> None:
    await pair[0].create(CONFIG_MAPS, config_map("counter", n="0"), namespace=NAMESPACE)

    async def add(client: Client, times: int) -> None:
        while times:
            counter = orjson.loads(await client.get(CONFIG_MAPS, "counter", namespace=NAMESPACE))
            counter["data"]["n"] = str(int(counter["data"]["n"]) + 1)
            try:
                await client.update(CONFIG_MAPS, counter, name="counter", namespace=NAMESPACE)
                times -= 1
            except Conflict:
                continue

    await asyncio.gather(*(add(client, 10) for client in pair for _ in range(2)))
    assert orjson.loads(await pair[1].get(CONFIG_MAPS, "counter", namespace=NAMESPACE))["data"] == {"n": "40"}


async def test_pods_that_both_servers_bind_at_once_are_bound_once(pair: tuple[Client, Client]) -> None:
    first, second = pair
    bindings: list[PodBinding] = []
    for number in range(20):
        body = {"metadata": {"name": f"p{number}"}, "spec": {"containers": [{"name": "c", "image": "app"}]}}
        made = orjson.loads(await first.create(PODS, body, namespace=NAMESPACE))
        bindings.append(PodBinding(NAMESPACE, f"p{number}", made["metadata"]["uid"], "n1"))
    there = [PodBinding(one.namespace, one.name, one.uid, "n2") for one in bindings]
    assert isinstance(first, Binder) and isinstance(second, Binder)
    answers = await asyncio.gather(first.bind_pods(bindings), second.bind_pods(there))
    for binding, mine, theirs in zip(bindings, *answers, strict=True):
        assert (mine is None) != (theirs is None), "one of the two is told that it was too late"
        assert isinstance(mine or theirs, Conflict)
        bound = orjson.loads(await first.get(PODS, binding.name, namespace=NAMESPACE))
        assert bound["spec"]["nodeName"] == ("n1" if mine is None else "n2")


async def test_a_list_and_a_watch_of_one_server_go_on_at_the_other(pair: tuple[Client, Client]) -> None:
    first, second = pair
    for number in range(7):
        await first.create(CONFIG_MAPS, config_map(f"m{number}"), namespace=NAMESPACE)
    page = await first.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, limit=4))
    rest = await second.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, limit=4, continue_token=page.continue_token))
    assert [orjson.loads(item)["metadata"]["name"] for item in page.items + rest.items] == [f"m{number}" for number in range(7)]
    assert page.resource_version == rest.resource_version
    await first.create(CONFIG_MAPS, config_map("new"), namespace=NAMESPACE)
    at = (await first.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE))).resource_version
    stream = second.watch(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, resource_version=at))
    await first.patch(CONFIG_MAPS, "new", {"data": {"a": "1"}}, namespace=NAMESPACE)
    async for event in stream:
        assert event.type == "MODIFIED" and orjson.loads(event.object)["data"] == {"a": "1"}
        break
    with pytest.raises(ApiError, match="Too large resource version"):
        await second.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, resource_version=str(int(at) + 1_000_000)))
    with pytest.raises(Expired):
        async for _ in second.watch(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, resource_version="2")):
            pass


async def test_addresses_and_ports_are_given_once_until_none_is_left_and_come_back(pair: tuple[Client, Client]) -> None:
    def service(name: str, **port: int) -> dict[str, object]:
        spec = {"type": "NodePort", "ports": [{"port": 80, **port}]}
        return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}

    made = await asyncio.gather(
        *(
            client.create(SERVICES, service(f"s{number}-{index}"), namespace=NAMESPACE)
            for number in range(10)
            for index, client in enumerate(pair)
        )
    )
    specs = [orjson.loads(one)["spec"] for one in made]
    assert len({spec["clusterIP"] for spec in specs}) == 20
    assert sorted(spec["ports"][0]["nodePort"] for spec in specs) == list(range(30000, 30020))
    for client in pair:
        with pytest.raises(ApiError, match="range is full"):
            await client.create(SERVICES, service("one-more"), namespace=NAMESPACE)
        with pytest.raises(Invalid, match="provided port is already allocated"):
            await client.create(SERVICES, service("one-more", nodePort=30003), namespace=NAMESPACE)
    await pair[0].delete(SERVICES, "s3-1", namespace=NAMESPACE)
    freed = orjson.loads(made[7])["spec"]["ports"][0]["nodePort"]
    again = orjson.loads(await pair[1].create(SERVICES, service("again"), namespace=NAMESPACE))
    assert again["spec"]["ports"][0]["nodePort"] == freed
    # A Service that no longer needs its node port gives it back for the other server to take.
    again["spec"]["type"] = "ClusterIP"
    del again["spec"]["ports"][0]["nodePort"]
    await pair[1].update(SERVICES, again, name="again", namespace=NAMESPACE)
    taken = orjson.loads(await pair[0].create(SERVICES, service("taken", nodePort=freed), namespace=NAMESPACE))
    assert taken["spec"]["ports"][0]["nodePort"] == freed
