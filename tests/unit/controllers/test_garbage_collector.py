"""Dependents go with their owners, wait for them, or outlive them, as the deletion said."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.conftest import World

from korch.api.errors import NotFound
from korch.api.gvk import CONFIG_MAPS, PODS, REPLICA_SETS, ResourceRef
from korch.client.projections import Meta, ObjectMeta, OwnerReference
from korch.controllers.collecting.graph import Graph, Node
from korch.controllers.garbage_collector import GarbageCollector


def reference(owner: dict[str, Any], blocks: bool = False) -> dict[str, Any]:
    meta = owner["metadata"]
    found = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return found | ({"blockOwnerDeletion": True} if blocks else {})


def owned(name: str, *owners: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "ownerReferences": list(owners), **meta}, "spec": {}}


async def names(world: World, resource: ResourceRef) -> set[str]:
    return {one["metadata"]["name"] for one in await world.all(resource)}


def collector(world: World) -> GarbageCollector:
    return GarbageCollector(world.client, world.informers, world.runtime)


def test_the_graph_finds_dependents_of_owners_it_does_not_know() -> None:
    graph = Graph()
    owner = OwnerReference(apiVersion="v1", kind="ConfigMap", name="o", uid="1")
    dependent = Node(PODS, Meta(metadata=ObjectMeta(name="p", namespace="d", uid="2", ownerReferences=[owner])))
    graph.put(dependent)
    assert graph.dependents("1") == [dependent] and graph.get("1") is None
    freed = Node(PODS, Meta(metadata=ObjectMeta(name="p", namespace="d", uid="2")))
    assert graph.put(freed) == dependent
    assert graph.dependents("1") == []
    assert graph.remove("2") == freed and len(graph) == 0


@pytest.mark.parametrize(
    ("owner", "namespace", "expected"),
    [
        (OwnerReference(apiVersion="apps/v1", kind="ReplicaSet", name="o", uid="1"), "d", True),
        (OwnerReference(apiVersion="apps/v1beta1", kind="ReplicaSet", name="o", uid="1"), "d", True),
        (OwnerReference(apiVersion="apps/v1", kind="ReplicaSet", name="o", uid="1"), "other", False),
        (OwnerReference(apiVersion="apps/v1", kind="ReplicaSet", name="other", uid="1"), "d", False),
        (OwnerReference(apiVersion="v1", kind="ReplicaSet", name="o", uid="1"), "d", False),
    ],
)
def test_a_reference_must_fit_in_more_than_the_uid(owner: OwnerReference, namespace: str, expected: bool) -> None:
    node = Node(REPLICA_SETS, Meta(metadata=ObjectMeta(name="o", namespace="d", uid="1")))
    assert node.is_named_by(owner, namespace) is expected


async def test_background_deletion_takes_the_whole_tree(world: World) -> None:
    root = await world.make(CONFIG_MAPS, {"metadata": {"name": "root"}})
    middle = await world.make(REPLICA_SETS, owned("middle", reference(root)))
    async with world.running(collector(world)):
        await world.make(PODS, owned("leaf", reference(middle)))
        await world.make(PODS, owned("free"))
        await world.delete(CONFIG_MAPS, "root")
        await world.count(REPLICA_SETS, 0)
        await world.count(PODS, 1)
        assert await names(world, PODS) == {"free"}


async def test_an_owner_that_never_existed_is_verified_and_its_dependent_collected(world: World) -> None:
    async with world.running(collector(world)):
        gone = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gone", "uid": "0"}}
        await world.make(PODS, owned("leaf", reference(gone)))
        await world.count(PODS, 0)


async def test_an_owner_of_the_same_name_but_another_uid_is_no_owner(world: World) -> None:
    other = await world.make(CONFIG_MAPS, {"metadata": {"name": "root"}})
    async with world.running(collector(world)):
        await world.make(PODS, owned("leaf", reference(other) | {"uid": "0"}))
        await world.make(PODS, owned("kept", reference(other)))
        await world.count(PODS, 1)
        assert await names(world, PODS) == {"kept"}


async def test_with_one_owner_left_only_the_reference_goes(world: World) -> None:
    first = await world.make(CONFIG_MAPS, {"metadata": {"name": "first"}})
    second = await world.make(CONFIG_MAPS, {"metadata": {"name": "second"}})
    await world.make(PODS, owned("leaf", reference(first), reference(second)))
    async with world.running(collector(world)):
        await world.delete(CONFIG_MAPS, "first")

        async def is_cut() -> bool:
            return (await world.get(PODS, "leaf"))["metadata"]["ownerReferences"] == [reference(second)]

        await world.until(is_cut)


async def test_in_the_foreground_the_owner_goes_last(world: World) -> None:
    root = await world.make(CONFIG_MAPS, {"metadata": {"name": "root", "finalizers": ["foregroundDeletion"]}})
    await world.make(PODS, owned("leaf", reference(root, blocks=True), finalizers=["example.com/wait"]))
    await world.make(PODS, owned("quick", reference(root)))
    async with world.running(collector(world)):
        await world.delete(CONFIG_MAPS, "root")

        async def leaf_is_deleted() -> bool:
            return "deletionTimestamp" in (await world.get(PODS, "leaf"))["metadata"] and await names(world, PODS) == {"leaf"}

        await world.until(leaf_is_deleted)
        assert "deletionTimestamp" in (await world.get(CONFIG_MAPS, "root"))["metadata"]
        await world.change(PODS, "leaf", {"metadata": {"finalizers": None}})
        await world.client.delete(PODS, "leaf", namespace="d")
        await world.count(PODS, 0)

        async def root_is_gone() -> bool:
            return await names(world, CONFIG_MAPS) == set()

        await world.until(root_is_gone)


async def test_orphaned_dependents_lose_their_reference_and_stay(world: World) -> None:
    root = await world.make(CONFIG_MAPS, {"metadata": {"name": "root", "finalizers": ["orphan"]}})
    await world.make(PODS, owned("leaf", reference(root)))
    async with world.running(collector(world)):
        await world.delete(CONFIG_MAPS, "root")

        async def root_is_gone() -> bool:
            return await names(world, CONFIG_MAPS) == set()

        await world.until(root_is_gone)
        assert "ownerReferences" not in (await world.get(PODS, "leaf"))["metadata"]


async def test_a_circle_of_owners_does_not_block_its_own_deletion(world: World) -> None:
    first = await world.make(CONFIG_MAPS, owned("first", finalizers=["foregroundDeletion"]))
    second = await world.make(CONFIG_MAPS, owned("second", reference(first, blocks=True)))
    await world.change(CONFIG_MAPS, "first", {"metadata": {"ownerReferences": [reference(second, blocks=True)]}})
    async with world.running(collector(world)):
        await world.delete(CONFIG_MAPS, "first")

        async def both_are_gone() -> bool:
            return await names(world, CONFIG_MAPS) == set()

        await world.until(both_are_gone)


async def test_a_lost_answer_to_a_delete_is_repaired(world: World) -> None:
    lost: list[str] = []

    def fault(verb: str, resource: ResourceRef) -> None:
        if verb == "delete" and resource == PODS and len(lost) < 3:
            lost.append(verb)
            raise ConnectionError("the answer was lost")

    root = await world.make(CONFIG_MAPS, {"metadata": {"name": "root"}})
    await world.make(PODS, owned("leaf", reference(root)))
    async with world.running(collector(world)):
        world.client.fault = fault
        await world.delete(CONFIG_MAPS, "root")
        await world.count(PODS, 0)
    with pytest.raises(NotFound):
        await world.get(PODS, "leaf")
