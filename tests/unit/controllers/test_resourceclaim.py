"""Pods get claims from their templates, and claims that nobody uses any more are freed."""

from __future__ import annotations

from typing import Any

from tests.unit.controllers.conftest import Object, World

from korch.api.errors import NotFound
from korch.api.gvk import PODS
from korch.controllers.resourceclaim import (
    FINALIZER,
    POD_CLAIM_ANNOTATION,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    ResourceClaimController,
)

TEMPLATE: Object = {
    "metadata": {"name": "t"},
    "spec": {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "x"}},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}},
    },
}


def controller(world: World) -> ResourceClaimController:
    return ResourceClaimController(world.client, world.informers, world.runtime)


async def add_pod(world: World, name: str = "p", **claim: str) -> Object:
    wanted = {"name": "gpu", **(claim or {"resourceClaimTemplateName": "t"})}
    return await world.make(PODS, {"metadata": {"name": name}, "spec": {"containers": [{"name": "c"}], "resourceClaims": [wanted]}})


async def allocate(world: World, name: str, *pods: Object) -> None:
    """Do what the scheduler does."""
    await world.change(RESOURCE_CLAIMS, name, {"metadata": {"finalizers": [FINALIZER]}})
    users = [{"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]} for pod in pods]
    status = {"allocation": {"devices": {"results": []}}, "reservedFor": users}
    await world.change(RESOURCE_CLAIMS, name, {"status": status}, subresource="status")


async def named(world: World, name: str = "p") -> list[Any]:
    return (await world.get(PODS, name)).get("status", {}).get("resourceClaimStatuses", [])


async def test_a_pod_gets_a_claim_of_its_own_and_is_told_its_name(world: World) -> None:
    await world.make(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
    pod = await add_pod(world)
    async with world.running(controller(world)):
        [status] = await world.until(lambda: named(world))
        [claim] = await world.all(RESOURCE_CLAIMS)
    meta = claim["metadata"]
    assert status == {"name": "gpu", "resourceClaimName": meta["name"]} and meta["name"].startswith("p-gpu-")
    assert meta["annotations"] == {"note": "x", POD_CLAIM_ANNOTATION: "gpu"} and meta["labels"] == {"team": "a"}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"], "controller": True}
    assert meta["ownerReferences"] == [owner]
    assert claim["spec"] == TEMPLATE["spec"]["spec"]


async def test_a_pod_whose_status_was_lost_is_told_the_claim_that_it_has(world: World) -> None:
    await world.make(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
    await add_pod(world)
    async with world.running(controller(world)):
        before = await world.until(lambda: named(world))
        await world.change(PODS, "p", {"status": {"resourceClaimStatuses": None}}, subresource="status")
        assert await world.until(lambda: named(world)) == before
        assert len(await world.all(RESOURCE_CLAIMS)) == 1


async def test_a_missing_template_is_said_and_waited_for(world: World) -> None:
    await add_pod(world)
    async with world.running(controller(world)):
        [message] = await world.until(lambda: world.messages("FailedResourceClaimCreation"))
        assert message == 'PodResourceClaim gpu: resourceclaimtemplates.resource.k8s.io "t" not found'
        await world.make(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
        await world.until(lambda: named(world))


async def test_a_claim_is_freed_when_its_last_user_is_gone(world: World) -> None:
    await world.make(RESOURCE_CLAIMS, {"metadata": {"name": "shared"}, "spec": {}})
    first, second = [await add_pod(world, name, resourceClaimName="shared") for name in ("p", "q")]
    await allocate(world, "shared", first, second)

    async def users() -> list[str]:
        return [one["name"] for one in (await world.get(RESOURCE_CLAIMS, "shared")).get("status", {}).get("reservedFor", [])]

    async def is_free() -> bool:
        claim = await world.get(RESOURCE_CLAIMS, "shared")
        return not claim.get("status", {}).get("allocation") and not claim["metadata"].get("finalizers")

    async with world.running(controller(world)):
        await world.run_pod("p", phase="Succeeded")
        await world.until(lambda: _equals(users, ["q"]))
        assert not await is_free()
        await world.run_pod("q", phase="Failed")
        await world.until(is_free)


async def test_a_claim_that_was_made_for_a_pod_is_deleted_when_the_pod_has_ended(world: World) -> None:
    await world.make(RESOURCE_CLAIM_TEMPLATES, TEMPLATE)
    pod = await add_pod(world)
    async with world.running(controller(world)):
        [status] = await world.until(lambda: named(world))
        await allocate(world, status["resourceClaimName"], pod)
        await world.run_pod("p", phase="Succeeded", resourceClaimStatuses=[status])
        await world.until(lambda: _is_gone(world, status["resourceClaimName"]))


async def test_a_claim_that_is_deleted_keeps_its_devices_while_it_is_used(world: World) -> None:
    await world.make(RESOURCE_CLAIMS, {"metadata": {"name": "c"}, "spec": {}})
    pod = await add_pod(world, resourceClaimName="c")
    await allocate(world, "c", pod)
    async with world.running(controller(world)):
        await world.delete(RESOURCE_CLAIMS, "c")
        assert (await world.get(RESOURCE_CLAIMS, "c"))["status"]["allocation"]
        await world.run_pod("p", phase="Succeeded")
        await world.until(lambda: _is_gone(world, "c"))


async def test_claims_are_reserved_for_a_pod_that_was_given_its_node_by_hand(world: World) -> None:
    await world.make(RESOURCE_CLAIMS, {"metadata": {"name": "c"}, "spec": {}})
    await allocate(world, "c")
    await add_pod(world, resourceClaimName="c")

    async def users() -> list[Any]:
        return (await world.get(RESOURCE_CLAIMS, "c"))["status"].get("reservedFor", [])

    async with world.running(controller(world)):
        await world.run_pod("p")
        [user] = await world.until(users)
        assert user["name"] == "p"


async def _equals(found: Any, expected: Any) -> bool:
    return await found() == expected


async def _is_gone(world: World, name: str) -> bool:
    try:
        await world.get(RESOURCE_CLAIMS, name)
    except NotFound:
        return True
    return False
