"""Devices are given as the stable allocator gives them, held to a search that tries everything; claims say what they got."""

from __future__ import annotations

import itertools
import random
from typing import Any

import orjson
import pytest
from scheduler_world import Object, add_node, add_pod, bare, condition, configuration, placed, pod, scheduling, told

from korch.api.gvk import PODS
from korch.client.protocol import DeleteOptions
from korch.scheduler.devices.allocator import AllocationError, Allocator
from korch.scheduler.devices.plugin import DEVICE_CLASSES, FINALIZER, RESOURCE_CLAIMS, RESOURCE_SLICES
from korch.scheduler.devices.pools import DeviceId, gather, matches_node
from korch.scheduler.devices.selectors import Selectors
from korch.testing.bare import BareClient

DRIVER = "gpu.example.com"
NODE: Object = {"metadata": {"name": "n1", "labels": {"zone": "a"}}}
CLASS: Object = {"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]}}


def device(name: str, *, memory: str = "8Gi", **more: Any) -> Object:
    attributes = {name: {"string" if isinstance(value, str) else "int": value} for name, value in more.pop("attributes", {}).items()}
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": memory}}, **more}


def slice_of(
    *devices: Object, name: str = "s1", pool: str = "p1", generation: int = 1, count: int = 1, driver: str = DRIVER, **where: Any
) -> Object:
    spec = {"driver": driver, "pool": {"name": pool, "generation": generation, "resourceSliceCount": count}, "devices": list(devices)}
    return {"metadata": {"name": name}, "spec": spec | (where or {"nodeName": "n1"})}


def exactly(name: str = "r", **more: Any) -> Object:
    return {"name": name, "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, **more}}


def claim(*requests: Object, name: str = "c", **more: Any) -> Object:
    return {"metadata": {"name": name, "namespace": "d", "uid": f"uid-{name}"}, "spec": {"devices": {"requests": list(requests), **more}}}


def allocate(slices: list[Object], claims: list[Object], taken: set[DeviceId] | None = None) -> list[Object] | None:
    allocator = Allocator(NODE, gather(slices), frozenset(taken or ()), {"gpu": CLASS}, Selectors())
    return allocator.allocate(claims)


def names(allocations: list[Object] | None) -> list[list[str]] | None:
    """Return request=device for each result of each claim."""
    if allocations is None:
        return None
    return [[f"{one['request']}={one['device']}" for one in allocation["devices"]["results"]] for allocation in allocations]


def cel(expression: str) -> list[Object]:
    return [{"cel": {"expression": expression}}]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('device.attributes["gpu.example.com"].model == "a100"', ["a"]),
        ('device.capacity["gpu.example.com"].memory.compareTo(quantity("10Gi")) >= 0', ["b"]),
        ('device.attributes["gpu.example.com"].index > 0', ["b"]),
        ('device.attributes["other.example.com"].numa == 1', ["b"]),
        ('device.attributes["gpu.example.com"].driver.isGreaterThan(semver("1.9.0"))', ["b"]),
        ('"numa" in device.attributes["nobody.example.com"]', []),
    ],
)
def test_selectors_see_attributes_and_capacity(expression: str, expected: list[str]) -> None:
    first = device("a", attributes={"model": "a100", "index": 0, "other.example.com/numa": 0})
    second = device("b", memory="16Gi", attributes={"model": "h100", "index": 1, "other.example.com/numa": 1})
    first["attributes"]["driver"], second["attributes"]["driver"] = {"version": "1.2.3"}, {"version": "2.0.0"}
    found = names(allocate([slice_of(first, second)], [claim(exactly(selectors=cel(expression)))]))
    assert found == ([[f"r={name}" for name in expected]] if expected else None)


def test_a_selector_that_fails_is_named() -> None:
    slices = [slice_of(device("a"))]
    with pytest.raises(
        AllocationError, match=r"claim d/c: selector #0 on device gpu.example.com/p1/a: CEL runtime error: no such key: nope"
    ):
        allocate(slices, [claim(exactly(selectors=cel('device.attributes["gpu.example.com"].nope == 1')))])
    with pytest.raises(AllocationError, match=r"claim d/c: selector #0: CEL compile error: "):
        allocate(slices, [claim(exactly(selectors=cel("nope(")))])


def test_constraints_hold_over_the_requests_that_they_name() -> None:
    def on(numa: int, name: str) -> Object:
        return device(name, attributes={"numa": numa})

    slices = [slice_of(on(0, "a"), on(1, "b"), on(1, "c"), on(0, "d"))]
    same = {"matchAttribute": f"{DRIVER}/numa", "requests": ["x", "y"]}
    requests = (exactly("x"), exactly("y"), exactly("z"))
    assert names(allocate(slices, [claim(*requests, constraints=[same])])) == [["x=a", "y=d", "z=b"]]
    other = {"distinctAttribute": f"{DRIVER}/numa"}
    assert names(allocate(slices, [claim(exactly(count=2), constraints=[other])])) == [["r=a", "r=b"]]
    assert allocate(slices, [claim(exactly(count=3), constraints=[other])]) is None


def test_alternatives_are_tried_in_their_order() -> None:
    slices = [slice_of(device("small"), device("big", memory="80Gi"))]
    big = cel('device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("40Gi"))')
    wish = {"name": "r", "firstAvailable": [
        {"name": "two-big", "deviceClassName": "gpu", "selectors": big, "count": 2},
        {"name": "big", "deviceClassName": "gpu", "selectors": big},
        {"name": "any", "deviceClassName": "gpu"},
    ]}  # fmt: skip
    assert names(allocate(slices, [claim(wish)])) == [["r/big=big"]]
    assert names(allocate(slices, [claim(wish)], {(DRIVER, "p1", "big")})) == [["r/any=small"]]


def test_all_devices_are_all_of_the_node_and_none_of_them_taken() -> None:
    slices = [slice_of(device("a"), device("b")), slice_of(device("x"), name="s2", pool="p2", nodeName="n2")]
    every = claim(exactly(allocationMode="All"))
    assert names(allocate(slices, [every])) == [["r=a", "r=b"]]
    assert allocate(slices, [every], {(DRIVER, "p1", "b")}) is None
    updating = [slice_of(device("a"), count=2)]
    with pytest.raises(AllocationError) as caught:
        allocate(updating, [every])
    words = "claim d/c, request r: asks for all devices, but resource pool gpu.example.com/p1 is currently being updated"
    assert str(caught.value) == words
    assert allocate(updating, [claim(exactly())]) is None


def test_an_administrator_takes_nothing_and_sees_devices_in_use() -> None:
    slices = [slice_of(device("a"))]
    watching = claim(exactly(adminAccess=True), name="admin")
    found = allocate(slices, [claim(exactly()), watching])
    assert names(found) == [["r=a"], ["r=a"]]
    assert found is not None and found[1]["devices"]["results"][0]["adminAccess"] is True
    assert names(allocate(slices, [watching], {(DRIVER, "p1", "a")})) == [["r=a"]]


def test_taints_keep_away_who_does_not_tolerate_them() -> None:
    tainted = device("a", taints=[{"key": "sick", "value": "yes", "effect": "NoSchedule"}])
    slices = [slice_of(tainted, device("b", taints=[{"key": "old", "effect": "None"}]))]
    assert names(allocate(slices, [claim(exactly())])) == [["r=b"]]
    tolerant = exactly(tolerations=[{"key": "sick", "operator": "Equal", "value": "yes"}])
    [found] = allocate(slices, [claim(tolerant)]) or []
    assert found["devices"]["results"][0]["device"] == "a" and found["devices"]["results"][0]["tolerations"]


def test_partitions_share_the_counters_of_their_pool() -> None:
    def part(name: str, amount: str) -> Object:
        return device(name, consumesCounters=[{"counterSet": "card", "counters": {"memory": {"value": amount}}}])

    counters = slice_of(name="counters", count=2)
    counters["spec"]["sharedCounters"] = [{"name": "card", "counters": {"memory": {"value": "40Gi"}}}]
    slices = [counters, slice_of(part("whole", "40Gi"), part("half-1", "20Gi"), part("half-2", "20Gi"), count=2)]
    assert names(allocate(slices, [claim(exactly())])) == [["r=whole"]]
    # The whole card is tried first and given back: two only fit as halves.
    assert names(allocate(slices, [claim(exactly(count=2))])) == [["r=half-1", "r=half-2"]]
    assert names(allocate(slices, [claim(exactly())], {(DRIVER, "p1", "half-1")})) == [["r=half-2"]]


def test_only_the_newest_generation_counts_and_invalid_pools_are_told() -> None:
    old, new = slice_of(device("old"), name="s1"), slice_of(device("new"), name="s2", generation=2)
    assert names(allocate([old, new], [claim(exactly())])) == [["r=new"]]
    with pytest.raises(AllocationError, match="invalid resource pools were encountered"):
        allocate([slice_of(device("a"), device("a"))], [claim(exactly())])


def test_the_allocation_says_where_it_can_be_used_and_how_devices_are_configured() -> None:
    in_zone = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}
    opaque = {"opaque": {"driver": DRIVER, "parameters": {"mode": "fast"}}}
    wish = claim(exactly("x"), exactly("y"), config=[{"requests": ["x"], **opaque}])
    [found] = allocate([slice_of(device("a"), device("b"), nodeSelector=in_zone)], [wish]) or []
    assert found["nodeSelector"] == in_zone
    assert found["devices"]["config"] == [{"source": "FromClaim", "requests": ["x"], **opaque}]
    [found] = allocate([slice_of(device("a"))], [claim(exactly())]) or []
    assert found["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["n1"]
    [found] = allocate([slice_of(device("a"), allNodes=True)], [claim(exactly())]) or []
    assert "nodeSelector" not in found


def test_more_devices_than_a_claim_may_get_are_refused() -> None:
    with pytest.raises(AllocationError) as caught:
        allocate([slice_of(device("a"))], [claim(exactly("x", count=30), exactly("y", count=3))])
    words = "adding 3 devices exceeds the claim limit of 32, with 30 already accounted for"
    assert str(caught.value) == f"claim d/c, request y: {words}"


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, True),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, False),
        ({"key": "rack", "operator": "NotIn", "values": ["a"]}, True),
        ({"key": "rack", "operator": "Exists"}, False),
        ({"key": "rack", "operator": "DoesNotExist"}, True),
        ({"key": "zone", "operator": "Gt", "values": ["1"]}, False),
    ],
)
def test_node_selectors_select(requirement: Object, expected: bool) -> None:
    assert matches_node({"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}, NODE) is expected


def first_of_all(devices: list[Object], wishes: list[tuple[str, int, int | None]], same: list[set[str]]) -> list[str] | None:
    """Try every choice of devices in order; a wish is (request, least memory, index). `same`: requests whose devices share their numa."""
    for chosen in itertools.permutations(devices, len(wishes)):
        fits = all(
            int(one["capacity"]["memory"]["value"][:-2]) >= least and (index is None or one["attributes"]["index"]["int"] == index)
            for one, (_, least, index) in zip(chosen, wishes, strict=True)
        )
        numa = [{one["attributes"]["numa"]["int"] for one, wish in zip(chosen, wishes, strict=True) if wish[0] in group} for group in same]
        if fits and all(len(group) <= 1 for group in numa):
            return [f"{wish[0]}={one['name']}" for one, wish in zip(chosen, wishes, strict=True)]
    return None


@pytest.mark.parametrize("seed", range(150))
def test_the_search_finds_the_first_of_all_solutions(seed: int) -> None:
    draw = random.Random(seed)
    devices = [
        device(f"d{at}", memory=f"{draw.choice((4, 8, 16))}Gi", attributes={"numa": draw.randrange(3), "index": draw.randrange(2)})
        for at in range(draw.randint(2, 6))
    ]
    wishes: list[tuple[str, int, int | None]] = []
    requests: list[Object] = []
    for at in range(draw.randint(1, 3)):
        name, least, index, count = f"r{at}", draw.choice((4, 8, 16)), draw.choice((None, None, 0, 1)), draw.choice((1, 1, 2))
        expressions = [f'device.capacity["{DRIVER}"].memory.compareTo(quantity("{least}Gi")) >= 0']
        if index is not None:
            expressions.append(f'device.attributes["{DRIVER}"].index == {index}')
        requests.append(exactly(name, count=count, selectors=[one for expression in expressions for one in cel(expression)]))
        wishes += [(name, least, index)] * count
    every = {name for name, _, _ in wishes}
    groups = [every] if draw.random() < 0.3 else [set(draw.sample(sorted(every), min(2, len(every))))] if draw.random() < 0.5 else []
    constraints = [{"matchAttribute": f"{DRIVER}/numa", "requests": sorted(group)} for group in groups]
    slices = [slice_of(*devices[:2], name="s1", count=2), slice_of(*devices[2:], name="s2", count=2)]
    found = names(allocate(slices, [claim(*requests, constraints=constraints)]))
    expected = first_of_all(devices, wishes, groups)
    assert found == ([expected] if expected else None)


@pytest.fixture
async def client() -> BareClient:
    made = bare()
    for name in ("n1", "n2"):
        await add_node(made, name)
    await made.create(DEVICE_CLASSES, CLASS)
    await made.create(RESOURCE_SLICES, slice_of(device("a"), nodeName="n2"))
    return made


async def add_claim(client: BareClient, name: str, *requests: Object) -> None:
    wish = claim(*(requests or (exactly(),)), name=name)
    del wish["metadata"]["uid"]
    await client.create(RESOURCE_CLAIMS, wish, namespace="d")


async def get_claim(client: BareClient, name: str) -> Object:
    return orjson.loads(await client.get(RESOURCE_CLAIMS, name, namespace="d"))


USES = [{"name": "gpu", "resourceClaimName": "c"}]
NOT_HELPFUL = "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."


async def test_a_claim_is_allocated_where_the_device_is_and_reserved_before_the_pod_is_bound(client: BareClient) -> None:
    await add_claim(client, "c")
    await add_pod(client, "p", resourceClaims=USES)
    async with scheduling(client):
        assert await placed(client, "p") == "n2"
    found = await get_claim(client, "c")
    results = found["status"]["allocation"]["devices"]["results"]
    assert results == [{"request": "r", "driver": DRIVER, "pool": "p1", "device": "a"}]
    uid = (await pod(client, "p"))["metadata"]["uid"]
    assert found["status"]["reservedFor"] == [{"resource": "pods", "name": "p", "uid": uid}]
    assert found["metadata"]["finalizers"] == [FINALIZER] and found["status"]["allocation"]["allocationTimestamp"]


async def test_the_next_pod_waits_until_a_device_is_free(client: BareClient) -> None:
    for name in ("c", "e"):
        await add_claim(client, name)
    await add_pod(client, "p", resourceClaims=USES)
    async with scheduling(client) as scheduler:
        assert await placed(client, "p") == "n2"
        await add_pod(client, "q", resourceClaims=[{"name": "gpu", "resourceClaimName": "e"}])
        assert await told(client, "q") == ("Unschedulable", f"0/2 nodes are available: 2 cannot allocate all claims. {NOT_HELPFUL}")
        assert scheduler.queue.rejected_by("DynamicResources") == ["d/q"]
        # What the resource claim controller does when the pod has ended.
        freed = await get_claim(client, "c")
        del freed["status"]["allocation"], freed["status"]["reservedFor"]
        await client.update(RESOURCE_CLAIMS, freed, name="c", namespace="d", subresource="status")
        assert await placed(client, "q") == "n2"


async def test_a_new_slice_wakes_pods_that_wait_for_devices(client: BareClient) -> None:
    await add_claim(client, "c", exactly(count=2))
    await add_pod(client, "p", resourceClaims=USES)
    async with scheduling(client):
        await told(client, "p")
        await client.create(RESOURCE_SLICES, slice_of(device("x"), device("y"), name="s2", pool="p2", nodeName="n1"))
        assert await placed(client, "p") == "n1"


async def test_two_pods_share_an_allocated_claim_on_its_node(client: BareClient) -> None:
    await add_claim(client, "c")
    for name in ("p", "q"):
        await add_pod(client, name, resourceClaims=USES)
    async with scheduling(client):
        assert [await placed(client, name) for name in ("p", "q")] == ["n2", "n2"]
    assert {one["name"] for one in (await get_claim(client, "c"))["status"]["reservedFor"]} == {"p", "q"}


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ([{"name": "gpu", "resourceClaimName": "nope"}], 'resourceclaim.resource.k8s.io "nope" not found'),
        ([{"name": "gpu", "resourceClaimTemplateName": "t"}], 'pod "d/p": ResourceClaim not created yet'),
        ([{"name": "gpu", "resourceClaimName": "classless"}], "request r: device class gold does not exist"),
    ],
)
async def test_a_pod_whose_claim_cannot_be_used_says_why(client: BareClient, claims: list[Object], words: str) -> None:
    await add_claim(client, "classless", exactly(deviceClassName="gold"))
    await add_pod(client, "p", resourceClaims=claims)
    async with scheduling(client):
        assert await told(client, "p") == ("Unschedulable", f"0/2 nodes are available: {words}. {NOT_HELPFUL}")


async def test_a_claim_that_is_made_later_lets_the_pod_in(client: BareClient) -> None:
    await add_pod(client, "p", resourceClaims=USES)
    async with scheduling(client):
        await told(client, "p")
        await add_claim(client, "c")
        assert await placed(client, "p") == "n2"


async def test_earlier_alternatives_attract_the_pod(client: BareClient) -> None:
    await client.create(RESOURCE_SLICES, slice_of(device("big", memory="80Gi"), name="s2", pool="p2", nodeName="n1"))
    big = cel(f'device.capacity["{DRIVER}"].memory.isGreaterThan(quantity("40Gi"))')
    wish = [{"name": "big", "deviceClassName": "gpu", "selectors": big}, {"name": "any", "deviceClassName": "gpu"}]
    await add_claim(client, "c", {"name": "r", "firstAvailable": wish})
    await add_pod(client, "busy", requests={"cpu": "1"}, nodeName="n1")
    await add_pod(client, "p", resourceClaims=USES)
    async with scheduling(client):
        assert await placed(client, "p") == "n1", "though the other node is emptier"


async def test_a_profile_may_leave_devices_out(client: BareClient) -> None:
    plugins = {"multiPoint": {"disabled": [{"name": "DynamicResources"}]}}
    await add_pod(client, "p", resourceClaims=[{"name": "gpu", "resourceClaimName": "nope"}])
    async with scheduling(client, configuration(profiles=[{"plugins": plugins}])):
        assert await placed(client, "p")


async def test_devices_of_a_pod_that_could_not_be_bound_are_free_again(client: BareClient) -> None:
    for name in ("c", "e"):
        await add_claim(client, name)
    update = client.update

    async def refuse(resource: Any, obj: Any, **where: Any) -> bytes:
        if resource == RESOURCE_CLAIMS and where.get("name") == "c":
            raise OSError("the network is down")
        return await update(resource, obj, **where)

    client.update = refuse  # type: ignore[method-assign]
    await add_pod(client, "p", resourceClaims=USES)
    async with scheduling(client):
        assert (await told(client, "p"))[0] == "SchedulerError"
        await client.delete(PODS, "p", namespace="d", options=DeleteOptions(grace_period_s=0))
        await add_pod(client, "q", resourceClaims=[{"name": "gpu", "resourceClaimName": "e"}])
        assert await placed(client, "q") == "n2"
        assert (await condition(client, "q"))[0] in ("", "Unschedulable")
